"""Quantiles of noised histograms: where they can be read, and how sure of them we are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abfed.stats.estimates import estimate
from abfed.stats.quantiles import WOODRUFF_Z, read_quantile
from abfed.stats.totals import Layout, SiloTotals
from tests.stats.simulated import CLICKED, plan_of

SOON = {
    "name": "soon",
    "kind": "quantile",
    "column": "hours_to_open",
    "quantile": 0.5,
    "edges": [0, 1, 2, 4, 8, 16],
}
PLAN = plan_of(SOON)
METRIC = PLAN.metrics[0]
SHARES = np.array([0.0, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1])
"""Below the first edge, between each two, and behind the last."""


@pytest.mark.parametrize(("times", "read"), [(0.98, False), (1.02, True)])
def test_an_arm_that_stands_out_less_than_twelve_times_is_suppressed(
    times: float, *, read: bool
) -> None:
    sigma = 4.0
    size = times * 12.0 * sigma * math.sqrt(len(SHARES))
    totals = SiloTotals(Layout.of(PLAN), np.stack([SHARES * size, SHARES * 10 * size]), sigma)
    small, large = (estimate(METRIC, totals, arm) for arm in ("control", "arm-1"))
    assert not large.suppressed
    assert bool(small.suppressed) != read
    if read:
        assert small.value == pytest.approx(3.0)  # half of them: halfway from 2 to 4
    else:
        assert "too small to tell from noise" in small.suppressed
    with_clicks = plan_of(CLICKED)
    wide = np.array([[0.2 * size, 0.8 * size]] * 2)
    clicks = SiloTotals(Layout.of(with_clicks), wide, sigma)
    assert not estimate(with_clicks.metrics[0], clicks, "control").suppressed


def test_the_standard_error_is_that_of_both_sides() -> None:
    """Where bins widen, the upper side of the same probability is twice as long as the lower."""
    metric = plan_of(SOON | {"quantile": 0.4}).metrics[0]
    size = 400.0
    value, sampling, privacy, inside = read_quantile(metric, SHARES * size, 0.0)
    reach = WOODRUFF_Z * math.sqrt(0.4 * 0.6 / size)
    lower, upper = reach / 0.2 * 1.0, reach / 0.2 * 2.0
    assert bool(inside)
    assert float(value) == pytest.approx(2.0)
    assert float(privacy) == 0.0
    expected = math.sqrt((lower**2 + upper**2) / 2) / WOODRUFF_Z
    assert math.sqrt(float(sampling)) == pytest.approx(expected)
