"""Before the release: sample size, ε and split. After it: posterior and the next allocation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import NormalIndPower

from abfed.privacy.accounting import gaussian_multiplier
from abfed.protocol.errors import InputError, PlanError
from abfed.stats import bayes
from abfed.stats.adjusting import chosen, forecast
from abfed.stats.design import Outlook, design, epsilon_at, least_width, outlooks
from tests.stats.simulated import CLICKED, CONVERTED, SIGMA, SPEND, plan_of

EXPECTED = [
    {"metric": "clicked", "mean": 0.15, "lift": 0.05},
    {"metric": "spend", "mean": 1.0, "sd": 12.0, "lift": 0.1},
]


def planned(**analysis: Any) -> Any:
    return plan_of(CLICKED, SPEND, analysis={"recipients": 30_000, "expected": EXPECTED} | analysis)


def one(rate: float) -> Outlook:
    return Outlook("m", rate, 0.1, rate * (1 - rate), (1 - rate) ** 2 + rate**2, 1.0, (0.5, 0.5), 1)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.15, (7701, 379, 104, 14)), (0.009, (145_000, 7150, 1965, 262))],
)
def test_break_even_sizes_are_the_published_ones(rate: float, expected: tuple[int, ...]) -> None:
    for epsilon, size in zip(SIGMA, expected, strict=True):
        sigma = gaussian_multiplier(epsilon, 1e-6)
        assert one(rate).break_even(sigma) == pytest.approx(size, rel=0.02)


def test_without_noise_it_is_statsmodels_sample_size() -> None:
    mine = one(0.15).sample_size(0.0, alpha=0.05, power=0.8) / 2
    size = 0.015 / math.sqrt(0.15 * 0.85)
    theirs = NormalIndPower().solve_power(size, alpha=0.05, power=0.8)
    assert mine == pytest.approx(theirs, rel=1e-3)


def test_sample_size_epsilon_and_power_agree_with_one_another() -> None:
    view = one(0.15)
    sigma = SIGMA[0.1]
    n = view.sample_size(sigma, alpha=0.05, power=0.8)
    assert view.power(n, sigma, alpha=0.05) == pytest.approx(0.8, abs=1e-3)
    assert view.detectable(n, sigma, alpha=0.05, power=0.8) == pytest.approx(0.015, rel=1e-3)
    assert epsilon_at(SIGMA[0.1], 1e-6) == pytest.approx(0.1, rel=0.01)


def test_a_power_that_no_effect_at_all_has_takes_nobody() -> None:
    view = one(0.15)
    assert view.detectable(1000, 1.0, alpha=0.05, power=0.05) == 0.0
    assert view.sample_size(1.0, alpha=0.05, power=0.04) == 1.0


def test_an_effect_that_one_recipient_shows_takes_one() -> None:
    sure = Outlook("m", 100.0, 0.5, 1e-6, 1e-6, 1.0, (0.5, 0.5), 1)
    assert sure.sample_size(0.5, alpha=0.05, power=0.8) == 1.0


@pytest.mark.parametrize(
    ("metric", "mean"), [("clicked", 2.0), ("clicked", 0.0), ("spend", 500.0), ("opens", -1.0)]
)
def test_what_is_expected_can_be(metric: str, mean: float) -> None:
    """Also the silo chooses covariates by it: a rate in per cent has no standard deviation."""
    opens = {"name": "opens", "kind": "count", "column": "opened", "most": 3}
    expected = [{"metric": metric, "mean": mean, "sd": 1.0}]
    with pytest.raises(PlanError, match=f"analysis.expected: the mean of '{metric}'"):
        plan_of(CLICKED, SPEND, opens, analysis={"expected": expected})


def test_a_split_of_least_width_is_one() -> None:
    views = outlooks(planned())
    sigma = 4.22
    best = least_width(views, [1.0, 1.0], 30_000, sigma)

    def total(shares: list[float]) -> float:
        whole = sum(view.share for view in views)
        return sum(
            Outlook(**(view.__dict__ | {"share": whole * s})).widening(30_000, sigma)
            for view, s in zip(views, shares, strict=True)
        )

    assert sum(best) == pytest.approx(1)
    for move in (-0.02, 0.02):
        assert total(best) <= total([best[0] + move, best[1] - move]) + 1e-9
    assert best[1] > best[0]  # spend drowns first
    keen = least_width(views, [20.0, 1.0], 30_000, sigma)
    assert keen[0] > best[0]


def test_a_design_says_what_is_out_of_reach() -> None:
    found = design(planned()).table.set_index("metric")
    assert found.loc["clicked", "power"] > found.loc["spend", "power"]
    assert math.isinf(found.loc["spend", "needs_epsilon"])  # more people, not more ε
    assert found.loc["spend", "needs_recipients"] > 30_000
    with pytest.raises(InputError, match="says nothing of what is expected"):
        design(plan_of(CLICKED))


KEEN = {"name": "keen", "kind": "numeric", "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("mean", "recipients", "pays"), [(0.15, 200_000, True), (0.009, 20_000, False)]
)
def test_a_covariate_is_chosen_before_the_release(mean: float, recipients: int, pays: bool) -> None:
    metric = CLICKED if mean > 0.1 else CONVERTED
    analysis = {
        "recipients": recipients,
        "expected": [{"metric": metric["name"], "mean": mean, "r_squared": 0.22}],
        "adjust": [{"metric": metric["name"], "covariate": "keen"}],
    }
    plan = plan_of(metric, features=[KEEN], analysis=analysis)
    told = forecast(plan, plan.analysis.adjust[0])
    assert told.pays == pays
    assert (chosen(plan, metric["name"]) is not None) == pays
    assert f"{abs(1 - told.ratio):.1%} {'narrower' if pays else 'wider'}" in told.why


def effects_frame(effect: list[float], se: float, shared: float) -> pd.DataFrame:
    arms = [f"arm-{n + 1}" for n in range(len(effect))]
    return pd.DataFrame(
        {
            "metric": "clicked", "scope": "these brands", "arm": arms, "estimate": effect,
            "se": se, "var_control": shared, "note": "",
        }
    )  # fmt: skip


def test_a_posterior_is_the_textbooks() -> None:
    """One arm: precision-weighted; two: simulated from the same model."""
    whole = bayes.posterior(np.array([0.02]), np.array([6e-5]), 4e-5, (0.0, 0.01))
    assert whole.mean[0] == pytest.approx(0.02 * 1e-4 / (1e-4 + 1e-4))
    assert whole.covariance[0, 0] == pytest.approx(0.5e-4)


def test_arms_that_rest_on_different_brands_have_a_posterior_too() -> None:
    """One arm over all brands, the other without some: the control's variances aren't alike."""
    priors = [{"metric": "clicked", "sd": 0.02}]
    plan = plan_of(CLICKED, shares=(0.4, 0.3, 0.3), analysis={"priors": priors})
    frame = effects_frame([0.01, 0.012], 0.005, 1e-5)
    frame.loc[1, ["se", "var_control"]] = [0.002, 2e-6]
    for order in ([0, 1], [1, 0]):
        read = bayes.readout(plan, frame.iloc[order], "clicked").set_index("arm")
        assert read.loc["arm-2", "sd"] == pytest.approx(0.002, rel=0.03)
        assert read.loc["arm-1", "sd"] == pytest.approx(0.005, rel=0.1)
    none = frame.assign(scope="brands like these", var_control=np.nan)
    with pytest.raises(InputError, match="no posterior"):
        bayes.readout(plan, none, "clicked", scope="brands like these")


def test_the_best_arm_gets_most_and_none_falls_below_the_floor() -> None:
    priors = [{"metric": "clicked", "sd": 0.02}]
    plan = plan_of(CLICKED, shares=(0.4, 0.3, 0.3), analysis={"priors": priors})
    read = bayes.readout(plan, effects_frame([0.02, 0.0], 0.005, 1e-5), "clicked")
    assert read["best"].sum() == pytest.approx(1)
    assert read.set_index("arm")["best"].idxmax() == "arm-1"
    assert read.set_index("arm")["loss"].idxmin() == "arm-1"
    shares = bayes.rounded(bayes.allocation(plan, read, floor=0.1))
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0.1 - 1e-4
    again = bayes.readout(plan, effects_frame([0.02, 0.0], 0.005, 1e-5), "clicked")
    pd.testing.assert_frame_equal(read, again)  # bit for bit
    with pytest.raises(InputError, match="more than the whole"):
        bayes.allocation(plan, read, floor=0.5)
    with pytest.raises(InputError, match="no prior"):
        bayes.readout(plan_of(CLICKED), effects_frame([0.0], 1.0, 0.5), "clicked")
