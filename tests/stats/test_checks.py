"""The sample-ratio test: exact where there is no noise, nominal where there is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from abfed.stats.checks import sample_ratio, sample_ratios
from abfed.stats.totals import Layout, SiloTotals
from tests.stats.simulated import BRANDS, CLICKED, SPEND, World, plan_of


def test_two_equal_arms_have_a_closed_form() -> None:
    counts = np.array([1040.0, 960.0])
    found = sample_ratio(counts, np.array([0.5, 0.5]), noise_sd=7.0)
    assert found.chi_squared == pytest.approx((1040 - 960) ** 2 / (2000 + 2 * 49))
    assert found.p_value == pytest.approx(stats.chi2.sf(found.chi_squared, 1))


def test_without_noise_it_is_pearsons() -> None:
    counts, shares = np.array([530.0, 310.0, 160.0]), np.array([0.5, 0.3, 0.2])
    oracle = stats.chisquare(counts, shares * 1000)
    found = sample_ratio(counts, shares, noise_sd=0.0)
    assert found.chi_squared == pytest.approx(oracle.statistic)
    assert found.p_value == pytest.approx(oracle.pvalue)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5)])
@pytest.mark.parametrize("size", [2000, 100])
def test_false_alarms_are_nominal(shares: tuple[float, ...], size: int) -> None:
    """At ε = .1 and n = 2,000, where the naive χ² raises 31 % false alarms."""
    rng = np.random.default_rng(7)
    planned, times, noise_sd = np.array(shares), 2000, 36.3 * np.sqrt(2)
    counts = rng.multinomial(size, planned, times) + rng.normal(0, noise_sd, (times, len(shares)))
    p = np.array([sample_ratio(one, planned, noise_sd).p_value for one in counts])
    naive = np.array([sample_ratio(one, planned, 0.0).p_value for one in counts])
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / times))
    assert (p < 0.001).mean() < 0.005
    assert (naive < 0.05).mean() > 0.2


def test_each_brand_and_all_together() -> None:
    plan = plan_of(CLICKED, SPEND, shares=(0.6, 0.4))
    world = World(plan, {"clicked": 0.1, "spend": 0.01}, {}, 5000, 4.22)
    frame = sample_ratios(plan, world.draw(np.random.default_rng(1)))
    assert list(frame["scope"]) == [*BRANDS, "these brands"]
    assert not frame["alarm"].any()
    each, together = frame.iloc[:-1], frame.iloc[-1]
    assert together["control"] == pytest.approx(each["control"].sum())
    assert together["noise_sd"] == pytest.approx(np.sqrt((each["noise_sd"] ** 2).sum()))


def test_a_wrong_split_is_found() -> None:
    plan = plan_of(CLICKED)
    layout = Layout.of(plan)
    values = np.array([[500.0, 5000.0], [450.0, 4450.0]])
    frame = sample_ratios(plan, {"aurora": SiloTotals(layout, values, 4.22)})
    assert frame["alarm"].tolist() == [True]
    even = sample_ratios(plan, {"aurora": SiloTotals(layout, values[[0, 0]], 4.22)})
    assert even["alarm"].tolist() == [False]
