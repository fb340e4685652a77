"""Estimates of one arm, held against the formulas of the module's sources, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abfed.protocol.plan import Plan
from abfed.stats.estimates import Estimate, _settled, _Spread, estimate
from abfed.stats.totals import Layout, SiloTotals
from tests.stats.simulated import CLICKED, RATIO, SPEND, plan_of

SPEND_FROM_10 = {**SPEND, "low": 10.0, "high": 60.0}


def read(plan: Plan, row: list[float], sigma: float) -> Estimate:
    """What the control's totals say of the plan's only metric."""
    values = np.array([row, row])
    return estimate(plan.metrics[0], SiloTotals(Layout.of(plan), values, sigma), "control")


def test_proportion() -> None:
    found = read(plan_of(CLICKED), [150.0, 850.0], sigma=4.22)
    assert found.value == pytest.approx(0.15)
    assert found.size == pytest.approx(1000)
    assert found.sampling == pytest.approx(0.15 * 0.85 / 1000)
    assert found.privacy == pytest.approx(4.22**2 * (0.85**2 + 0.15**2) / 1000**2)
    assert found.variance == pytest.approx(found.sampling + found.privacy)


def test_metrics_share_the_noise() -> None:
    plan = plan_of(CLICKED, {**CLICKED, "name": "again"})
    found = read(plan, [150.0, 850.0, 150.0, 850.0], sigma=4.22)
    assert found.privacy == pytest.approx(2 * 4.22**2 * (0.85**2 + 0.15**2) / 1000**2)


@pytest.mark.parametrize("events", [-3.0, 0.0, 4.0])
def test_few_events_take_pseudo_counts_and_no_estimate_is_clipped(events: float) -> None:
    found = read(plan_of(CLICKED), [events, 1000.0 - events], sigma=1.0)
    kept, others = max(events, 0.0), 1000.0 - events
    p = (kept + 1) / (kept + others + 2)
    assert found.value == pytest.approx(events / 1000)
    assert found.sampling == pytest.approx(p * (1 - p) / 1000)


def test_mean_reads_its_variance_from_second_moments() -> None:
    n, m, q, sigma = 10_000.0, 0.2, 0.07, 20.0
    found = read(plan_of(SPEND_FROM_10), [m * n, (1 - m) * n, q * n], sigma)
    privacy = sigma**2 / 0.9 * ((1 - m) ** 2 + m**2) / n**2
    assert found.value == pytest.approx(10 + 50 * m)
    assert found.privacy == pytest.approx(50**2 * privacy)
    assert found.sampling == pytest.approx(50**2 * (q - m**2 + privacy) / n)


@pytest.mark.parametrize(
    ("second_moment", "sigma"),
    [(0.07, 60.0), (0.01, 1.0), (0.9, 1.0)],
    ids=["noisy", "low", "high"],
)
def test_mean_falls_back_on_the_widest_variance(second_moment: float, sigma: float) -> None:
    """Noise above a quarter of it, a variance below zero, one above the Bhatia–Davis bound."""
    n, m = 10_000.0, 0.2
    found = read(plan_of(SPEND), [m * n, (1 - m) * n, second_moment * n], sigma)
    assert found.sampling == pytest.approx(200**2 * m * (1 - m) / n)


def test_ratio_is_the_delta_method_over_recipients() -> None:
    """Against Σ(a − R b)² of made-up recipients, computed from the rows."""
    rng = np.random.default_rng(1)
    opens = rng.binomial(3, rng.beta(1, 1, 20_000)) / 3
    clicks = opens * rng.beta(2, 6, 20_000)
    rest = opens - clicks
    row = [clicks.sum(), rest.sum(), (1 - opens).sum()]
    row += [(clicks**2).sum(), math.sqrt(2) * (clicks * rest).sum(), (rest**2).sum()]
    found = read(plan_of(RATIO), row, sigma=1.0)
    ratio = clicks.sum() / opens.sum()
    privacy = 1 / 0.9 * ((1 - ratio) ** 2 + ratio**2) / opens.sum() ** 2
    assert found.value == pytest.approx(ratio)
    assert found.sampling == pytest.approx(((clicks - ratio * opens) ** 2).sum() / opens.sum() ** 2)
    assert found.privacy == pytest.approx(privacy)
    # Under heavy noise the bound: a in [0, b], b in [0, 1].
    bounded = read(plan_of(RATIO), row, sigma=300.0)
    assert bounded.sampling == pytest.approx(ratio * (1 - ratio) / opens.sum())
    assert bounded.sampling > found.sampling


def test_an_arm_that_drowns_in_noise_is_suppressed() -> None:
    plan = plan_of(CLICKED)
    sd = 4.0 * math.sqrt(2)
    seen = read(plan, [1.0, 5.05 * sd - 1], sigma=4.0)
    assert not seen.suppressed
    hidden = read(plan, [1.0, 4.95 * sd - 1], sigma=4.0)
    assert "too small" in hidden.suppressed
    assert math.isnan(hidden.value)


def test_a_ratio_over_too_few_sends_is_suppressed() -> None:
    row = [1.0, 4.0, 9995.0, 1.0, 0.0, 4.0]
    found = read(plan_of(RATIO), row, sigma=4.0)
    assert "'opened'" in found.suppressed
    assert found.size == pytest.approx(10_000)


def test_values_that_all_lie_at_an_extreme_have_a_spread_and_it_is_none() -> None:
    """All bounds are 0 while noise leaves something of the moments: 0/0 is no answer."""
    bounds = np.zeros(1)
    spreads = [_Spread(np.array([3.0]), bounds, np.zeros(1)) for _ in range(2)]
    with np.errstate(all="raise"):
        assert _settled(spreads, 0) == 0.0
