"""What noised totals say of one arm in one brand: a value, and how sure of it we are.

Two sources of uncertainty are kept apart: *sampling* (other recipients would have behaved
differently) and *privacy* (the release was noised). Point estimates are never clipped; only
variances are (arXiv 2603.02010 gives the Wald form with the noise term).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from abfed.protocol.metrics import Mean, Metric, Proportion, Ratio
from abfed.stats.totals import Floats, SiloTotals

SUPPRESS_BELOW = 5.0
"""An arm is suppressed where its noised size is below this many standard deviations of noise."""

MOMENTS_USABLE = 0.25
"""A noised variance is used while its noise is below this share of it; else a bound is."""

FEW_EVENTS = 10.0
"""Below this many events the variance of a proportion takes one pseudo-count of either outcome."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric in one arm of one brand.

    Attributes:
        value: in the metric's own unit.
        sampling, privacy: the two parts of its variance.
        size: noised number of recipients.
        suppressed: why there is no usable value; empty where there is one.
    """

    value: float
    sampling: float
    privacy: float
    size: float
    suppressed: str = ""

    @property
    def variance(self) -> float:
        """Both parts together."""
        return self.sampling + self.privacy


def estimate(metric: Metric, totals: SiloTotals, arm: str) -> Estimate:
    """Read a metric off the noised totals of an arm."""
    counts, sd = totals.counts()
    size = float(counts[totals.layout.arms.index(arm)])
    if size < SUPPRESS_BELOW * sd:
        reason = f"arm {arm!r} is too small to tell from noise at this ε"
        return Estimate(math.nan, math.nan, math.nan, size, reason)
    if isinstance(metric, Ratio):
        return _ratio(metric, totals, arm, size)
    sums, noise = totals.arm(arm, metric.name)
    own_size = float(sums.sum())
    if own_size < SUPPRESS_BELOW * noise * math.sqrt(2.0):
        reason = f"arm {arm!r} is too small to tell from noise at this ε"
        return Estimate(math.nan, math.nan, math.nan, size, reason)
    share = float(sums[0]) / own_size
    privacy = noise**2 * ((1 - share) ** 2 + share**2) / own_size**2
    if isinstance(metric, Proportion):
        spread = _binary_variance(sums, share)
        return Estimate(share, spread / own_size, privacy, size)
    spread = _bounded_variance(metric, totals, arm, share, privacy)
    width = metric.high - metric.low
    return Estimate(
        metric.low + share * width, width**2 * spread / own_size, width**2 * privacy, size
    )


def _binary_variance(sums: Floats, share: float) -> float:
    """p(1−p), with pseudo-counts where events are few (either kind)."""
    inside = min(1.0, max(0.0, share))
    if min(sums) < FEW_EVENTS:
        events = max(0.0, float(sums[0]))
        others = max(0.0, float(sums[1]))
        inside = (events + 1.0) / (events + others + 2.0)
    return inside * (1.0 - inside)


def _bounded_variance(
    metric: Mean, totals: SiloTotals, arm: str, share: float, privacy: float
) -> float:
    """Variance of u in [0, 1] from its noised second moment, or the Bhatia–Davis bound m(1−m)."""
    inside = min(1.0, max(0.0, share))
    bound = inside * (1.0 - inside)
    sums, _ = totals.arm(arm, metric.name)
    squares, noise = totals.arm(arm, metric.name, moments=True)
    size = float(sums.sum())
    spread = float(squares[0]) / size - share**2 + privacy
    if spread <= 0 or noise / size > MOMENTS_USABLE * spread:
        return bound
    return min(spread, bound)


def _ratio(metric: Ratio, totals: SiloTotals, arm: str, size: float) -> Estimate:
    """Σa/Σb over recipients with the delta method at the level of recipients."""
    sums, noise = totals.arm(arm, metric.name)
    a, rest = float(sums[0]), float(sums[1])
    denominator = a + rest
    if denominator < SUPPRESS_BELOW * noise * math.sqrt(2.0):
        reason = f"arm {arm!r} has too few {metric.denominator!r} to tell from noise at this ε"
        return Estimate(math.nan, math.nan, math.nan, size, reason)
    ratio = a / denominator
    inside = min(1.0, max(0.0, ratio))
    moments, moments_noise = totals.arm(arm, metric.name, moments=True)
    squares, cross, others = (float(value) for value in moments)
    spread = (
        (1 - inside) ** 2 * squares
        - math.sqrt(2.0) * inside * (1 - inside) * cross
        + inside**2 * others
    )
    weights = np.array([(1 - inside) ** 2, math.sqrt(2.0) * inside * (1 - inside), inside**2])
    spread_noise = moments_noise * float(np.linalg.norm(weights))
    bound = inside * (1 - inside) * denominator  # a in [0, b] and b ≤ 1: the extremes are worst
    if spread <= 0 or spread_noise > MOMENTS_USABLE * spread:
        spread = bound
    privacy = noise**2 * ((1 - ratio) ** 2 + ratio**2) / denominator**2
    return Estimate(ratio, min(spread, bound) / denominator**2, privacy, size)
