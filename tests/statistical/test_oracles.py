"""Without noise (`privacy: none`) the read-out is what other implementations say of the same rows.

tea-tasting for means, ratios and CUPED, statsmodels for proportions and meta-analysis, scipy for
χ², on Hillstrom's real test (skipped where it isn't) and on made-up recipients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import tea_tasting as tt
from scipy import stats
from statsmodels.stats import meta_analysis
from statsmodels.stats.proportion import confint_proportions_2indep

from abfed.protocol.plan import Plan
from abfed.silo.totals import compute_totals
from abfed.stats import pooling
from abfed.stats.checks import sample_ratio
from abfed.stats.effects import effects
from abfed.stats.totals import SiloTotals
from tests.statistical.people import permit, table
from tests.statistical.test_hillstrom_exact import FILE, women_and_none
from tests.stats.simulated import plan_of

CLOSE = 2e-3
"""Of a standard error: what fixed point, and Student's t for the normal, may move."""

VISIT = {"name": "visit", "kind": "proportion", "column": "visited"}
SPEND = {"name": "spend", "kind": "mean", "column": "revenue", "high": 500.0}
HISTORY = {"name": "history", "kind": "numeric", "low": 0.0, "high": 3500.0}
RATIO = {"name": "ctor", "kind": "ratio", "numerator": "clicked", "denominator": "opened"}

needs_hillstrom = pytest.mark.skipif(
    not FILE.is_file(), reason="Hillstrom's data set is not here; set ABFED_HILLSTROM"
)


def unprotected(*metrics: dict[str, Any], **changes: Any) -> Plan:
    """A plan that asks for exact totals."""
    return plan_of(*metrics, privacy="none", **changes)


def exact(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """The read-out of one brand's rows, through the silo's own computation, without noise."""
    computed = compute_totals(permit(plan, 1.0), [table(frame, plan)])
    assert computed.noise["noise_multiplier"] == 0.0
    totals = SiloTotals.of(plan, computed.arrays["totals"], 0.0)
    return effects(plan, {"aurora": totals}).set_index("metric")


def check(mine: Any, estimate: float, low: float, high: float) -> None:
    """Estimate and interval agree, measured in standard errors."""
    se = (high - low) / 3.92
    assert mine["estimate"] == pytest.approx(estimate, abs=CLOSE * se)
    assert mine["ci_low"] == pytest.approx(low, abs=5 * CLOSE * se)
    assert mine["ci_high"] == pytest.approx(high, abs=5 * CLOSE * se)
    assert mine["privacy_share"] == 0.0


def theirs(frame: pd.DataFrame, **metrics: Any) -> Any:
    """tea-tasting's result, treatment against control."""
    named = frame.assign(variant=np.where(frame["arm"] == "control", 0, 1))
    return tt.Experiment(metrics).analyze(named, control=0)


@pytest.mark.real_data
@needs_hillstrom
def test_hillstrom_is_what_tea_tasting_says() -> None:
    frame = women_and_none()
    mine = exact(unprotected(VISIT, SPEND), frame)
    numbers = frame.assign(visited=frame["visited"].astype(float))
    found = theirs(numbers, visit=tt.Mean("visited"), spend=tt.Mean("revenue"))
    for name in ("visit", "spend"):
        one = found[name]
        check(mine.loc[name], one.effect_size, one.effect_size_ci_lower, one.effect_size_ci_upper)
        assert mine.loc[name, "p_value"] == pytest.approx(one.pvalue, rel=0.05)


@pytest.mark.real_data
@needs_hillstrom
def test_hillstrom_with_a_covariate_is_what_tea_tasting_says() -> None:
    raw = pd.read_csv(FILE)
    raw = raw[raw["segment"].isin(["Womens E-Mail", "No E-Mail"])]
    frame = women_and_none().assign(history=raw["history"].to_numpy())
    adjust = [{"metric": "spend", "covariate": "history", "use": "yes"}]
    mine = exact(unprotected(SPEND, features=[HISTORY], analysis={"adjust": adjust}), frame)
    found = theirs(frame, spend=tt.Mean("revenue", "history"))["spend"]
    check(
        mine.loc["spend"],
        found.effect_size, found.effect_size_ci_lower, found.effect_size_ci_upper,
    )  # fmt: skip
    assert "adjusted for history" in mine.loc["spend", "note"]


def many(seed: int = 3, people: int = 20_000) -> pd.DataFrame:
    """Recipients with one to three sends; who opens one tends to open others."""
    rng = np.random.default_rng(seed)
    arm = np.where(rng.random(people) < 0.5, "control", "arm-1")
    keen = rng.beta(1.0, 2.0, people)
    sends = rng.integers(1, 4, people)
    person = np.repeat(np.arange(people), sends)
    opened = rng.random(len(person)) < keen[person]
    clicked = opened & (rng.random(len(person)) < np.where(arm[person] == "control", 0.2, 0.23))
    frame = pd.DataFrame({"recipient": person, "arm": arm[person], "opened": opened})
    return frame.assign(clicked=clicked, keen=np.round(keen[person], 3))


def test_a_ratio_over_several_sends_is_what_tea_tasting_says() -> None:
    """Per recipient, by the delta method: not each send by itself."""
    frame = many()
    mine = exact(unprotected(RATIO), frame)
    each = frame.groupby("recipient").agg(
        arm=("arm", "first"), clicked=("clicked", "sum"), opened=("opened", "sum")
    )
    found = theirs(each, ctor=tt.RatioOfMeans("clicked", "opened"))["ctor"]
    check(
        mine.loc["ctor"],
        found.effect_size, found.effect_size_ci_lower, found.effect_size_ci_upper,
    )  # fmt: skip


def test_counts_are_means_of_counts() -> None:
    frame = many(4)
    opens = {"name": "opens", "kind": "count", "column": "opened", "most": 3}
    mine = exact(unprotected(opens), frame)
    each = frame.groupby("recipient").agg(arm=("arm", "first"), opened=("opened", "sum"))
    found = theirs(each.astype({"opened": float}), opens=tt.Mean("opened"))["opens"]
    check(
        mine.loc["opens"],
        found.effect_size, found.effect_size_ci_lower, found.effect_size_ci_upper,
    )  # fmt: skip


def test_a_proportion_is_what_statsmodels_says() -> None:
    frame = many(5)
    clicked = {"name": "clicked", "kind": "proportion", "column": "clicked"}
    mine = exact(unprotected(clicked), frame).loc["clicked"]
    any_click = frame.groupby("recipient").agg(arm=("arm", "first"), clicked=("clicked", "any"))
    counts = any_click.groupby("arm")["clicked"].agg(["sum", "count"])
    (x1, n1), (x0, n0) = counts.loc["arm-1"], counts.loc["control"]
    low, high = confint_proportions_2indep(x1, n1, x0, n0, method="wald")
    check(mine, x1 / n1 - x0 / n0, low, high)


def test_a_quantile_is_that_of_the_rows() -> None:
    """To within the grid of a fine histogram; its error against the bootstrap's."""
    rng = np.random.default_rng(6)
    people = 8000
    arm = np.where(rng.random(people) < 0.5, "control", "arm-1")
    hours = np.where(rng.random(people) < 0.6, rng.exponential(10.0, people), np.nan)
    frame = pd.DataFrame({"recipient": np.arange(people), "arm": arm, "hours_to_open": hours})
    soon = {
        "name": "soon", "kind": "quantile", "column": "hours_to_open", "quantile": 0.25,
        "edges": [float(one) for one in np.linspace(0, 40, 161)],
    }  # fmt: skip
    mine = exact(unprotected(soon), frame).loc["soon"]
    filled = frame["hours_to_open"].fillna(np.inf)
    parts = [filled[frame["arm"] == one].to_numpy() for one in ("arm-1", "control")]
    true = [np.quantile(one, 0.25, method="inverted_cdf") for one in parts]
    assert mine["mean_arm"] == pytest.approx(true[0], abs=0.15)
    assert mine["estimate"] == pytest.approx(true[0] - true[1], abs=0.2)
    boots = [
        np.subtract(*(np.sort(rng.choice(one, len(one)))[len(one) // 4] for one in parts))
        for _ in range(300)
    ]
    assert mine["se"] == pytest.approx(np.std(boots), rel=0.2)


def test_what_is_said_across_brands_is_statsmodels_and_scipys() -> None:
    effect, variance = np.array([0.02, 0.05, -0.01, 0.03]), np.array([1e-4, 3e-4, 2e-4, 1.5e-4])
    found = meta_analysis.combine_effects(
        effect, variance, method_re="iterated", use_t=True, atol=1e-12
    )
    assert pooling.paule_mandel(effect, variance) == pytest.approx(found.tau2, rel=1e-4)
    mine = pooling.like_these(effect, np.full(4, 1e-4))  # as if they varied alike
    student = stats.ttest_1samp(effect, 0.0)
    assert mine.interval(0.05) == pytest.approx(tuple(student.confidence_interval()), rel=1e-9)
    assert mine.p_value() == pytest.approx(student.pvalue, rel=1e-9)
    spread = pooling.heterogeneity(list(effect), list(variance))
    assert spread.q == pytest.approx(found.q, rel=1e-9)


def test_the_sample_ratio_is_scipys_chi_squared() -> None:
    counts, shares = np.array([5100.0, 3900.0, 1000.0]), np.array([0.5, 0.4, 0.1])
    mine = sample_ratio(counts, shares, 0.0)
    found = stats.chisquare(counts, shares * counts.sum())
    assert mine.chi_squared == pytest.approx(found.statistic)
    assert mine.p_value == pytest.approx(found.pvalue)
