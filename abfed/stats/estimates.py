"""What noised totals say of one arm in one brand: a value, and how sure of it we are.

Two sources of uncertainty are kept apart: *sampling* (other recipients would have behaved
differently) and *privacy* (the release was noised). Point estimates are never clipped; only
variances are (arXiv 2603.02010 gives the Wald form with the noise term).

All arithmetic is on arrays: totals of one release give numbers, totals with leading axes (many
simulated releases) give arrays of the same axes, by the same code. What can't be told from noise is
NaN in a reading, with a reason beside it; `estimate` turns it into an estimate that says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.protocol.metrics import Count, Mean, Metric, Proportion, Quantile, Ratio
from abfed.stats.adjusting import bounds_of
from abfed.stats.encoding import Floats
from abfed.stats.quantiles import read_quantile
from abfed.stats.suppression import stands_out
from abfed.stats.totals import SiloTotals

Flags = npt.NDArray[np.bool_]

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


class Reading(NamedTuple):
    """The same for many releases at once: arrays of the totals' leading axes.

    Attributes:
        usable: where there is a value.
        reason: why there is none elsewhere.
    """

    value: Floats
    sampling: Floats
    privacy: Floats
    size: Floats
    usable: Flags
    reason: str

    @property
    def variance(self) -> Floats:
        """Both parts together."""
        return self.sampling + self.privacy

    def single(self) -> Estimate:
        """The estimate of one release."""
        if not bool(self.usable):
            return Estimate(math.nan, math.nan, math.nan, float(self.size), self.reason)
        return Estimate(
            float(self.value), float(self.sampling), float(self.privacy), float(self.size)
        )


def estimate(metric: Metric, totals: SiloTotals, arm: str) -> Estimate:
    """Read a metric off the noised totals of an arm."""
    return read(metric, totals, arm).single()


def read(metric: Metric, totals: SiloTotals, arm: str) -> Reading:
    """Read a metric off the noised totals of an arm, in all releases of their leading axes."""
    reading = _read(metric, totals, arm)
    if totals.mixture is None:
        return reading
    place = totals.layout.arms.index(arm)
    return reading._replace(
        sampling=reading.sampling * totals.mixture.sampling[place],
        privacy=reading.privacy + reading.sampling * totals.mixture.doubt[place],
    )


def _read(metric: Metric, totals: SiloTotals, arm: str) -> Reading:
    size = totals.counts()[0][..., totals.layout.arms.index(arm)]
    sums, noise = totals.arm(arm, metric.name)
    reason = f"arm {arm!r} is too small to tell from noise at this ε"
    if not noise:
        reason = f"nobody is in arm {arm!r}"
    own = sums.sum(axis=-1)
    usable = stands_out(metric, totals, arm) & (size > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(metric, Ratio):
            return _ratio(metric, totals, arm, size, usable)
        if isinstance(metric, Quantile):
            value, sampling, privacy, inside = read_quantile(metric, sums, noise)
            outside = f"the quantile lies outside the edges in arm {arm!r}, or noise hides it"
            reason = reason if not np.any(usable) else outside
            return Reading(value, sampling, privacy, size, usable & inside, reason)
        share = sums[..., 0] / own
        privacy = noise**2 * ((1 - share) ** 2 + share**2) / own**2
        if isinstance(metric, Proportion):
            return Reading(share, binary_variance(sums) / own, privacy, size, usable, reason)
        spread = bounded_variance(metric, totals, arm, privacy)
        low, high = bounds_of(metric)
        width = high - low
        return Reading(
            low + share * width,
            width**2 * spread / own,
            width**2 * privacy,
            size,
            usable,
            reason,
        )


def binary_variance(sums: Floats) -> Floats:
    """p(1−p), with pseudo-counts where events are few (either kind)."""
    events, others = np.maximum(sums[..., 0], 0.0), np.maximum(sums[..., 1], 0.0)
    inside = np.clip(sums[..., 0] / sums.sum(axis=-1), 0.0, 1.0)
    few = sums.min(axis=-1) < FEW_EVENTS
    inside = np.where(few, (events + 1.0) / (events + others + 2.0), inside)
    return np.asarray(inside * (1.0 - inside))


def bounded_variance(metric: Mean | Count, totals: SiloTotals, arm: str, privacy: Floats) -> Floats:
    """Variance of u in [0, 1] from its noised second moment (`_settled` where noise hides it)."""
    spreads: list[_Spread] = []
    for name in totals.layout.arms:
        sums, _ = totals.arm(name, metric.name)
        size = sums.sum(axis=-1)
        share = sums[..., 0] / size
        inside = np.clip(share, 0.0, 1.0)
        bound = inside * (1 - inside) * size
        if totals.layout.find(metric.name, "moments") is None:  # left out: noise would hide them
            spreads.append(_Spread(size * 0, bound, size * 0 + np.inf))
            continue
        squares, noise = totals.arm(name, metric.name, moments=True)
        # The other arms' correction differs by little: it is far below their sampling variance.
        spread = squares[..., 0] / size - share**2 + privacy
        spreads.append(_Spread(spread * size, bound, size * 0 + noise))
    place = totals.layout.arms.index(arm)
    sums, _ = totals.arm(arm, metric.name)
    return np.asarray(_settled(spreads, place) / sums.sum(axis=-1))


class _Spread(NamedTuple):
    """Σ of squared deviations in an arm, the most that it can be, and its noise sd."""

    total: Floats
    bound: Floats
    noise: Floats


def _settled(spreads: Sequence[_Spread], place: int) -> Floats:
    """What is used as the sum of squared deviations in one arm: the first that noise doesn't hide.

    Its own; the share of the bound that all arms together have, times its own bound (an experiment
    moves means more than it changes how values spread about them); the bound itself, which is
    Bhatia and Davis's (2000).
    """
    own = spreads[place]
    together = sum((one.total for one in spreads), start=np.zeros(1))
    most = sum((one.bound for one in spreads), start=np.zeros(1))
    noise = np.sqrt(sum((one.noise**2 for one in spreads), start=np.zeros(1)))
    clear = (together > 0) & (noise <= MOMENTS_USABLE * together) & (most > 0)
    second = np.where(clear, own.bound * together / np.where(most > 0, most, 1.0), own.bound)
    usable = (own.total > 0) & (own.noise <= MOMENTS_USABLE * own.total)
    chosen = np.minimum(np.where(usable, own.total, second), own.bound)
    return np.asarray(chosen).reshape(own.total.shape)


def _ratio(metric: Ratio, totals: SiloTotals, arm: str, size: Floats, usable: Flags) -> Reading:
    """Σa/Σb over recipients with the delta method at the level of recipients."""
    sums, noise = totals.arm(arm, metric.name)
    denominator = sums[..., 0] + sums[..., 1]
    reason = f"arm {arm!r} has too few {metric.denominator!r} to tell from noise at this ε"
    if not noise:
        reason = f"arm {arm!r} has no {metric.denominator!r}"
    ratio = sums[..., 0] / denominator
    spreads = [_ratio_spread(metric, totals, name) for name in totals.layout.arms]
    spread = _settled(spreads, totals.layout.arms.index(arm))
    privacy = noise**2 * ((1 - ratio) ** 2 + ratio**2) / denominator**2
    return Reading(ratio, spread / denominator**2, privacy, size, usable, reason)


def _ratio_spread(metric: Ratio, totals: SiloTotals, arm: str) -> _Spread:
    """Σ(a − r·b)² in an arm; a in [0, b] and b ≤ 1, so that the extremes are the most."""
    sums, _ = totals.arm(arm, metric.name)
    denominator = sums[..., 0] + sums[..., 1]
    inside = np.clip(sums[..., 0] / denominator, 0.0, 1.0)
    moments, noise = totals.arm(arm, metric.name, moments=True)
    weights = np.stack(
        [(1 - inside) ** 2, -math.sqrt(2.0) * inside * (1 - inside), inside**2], axis=-1
    )
    spread = (weights * moments).sum(axis=-1)
    bound = inside * (1 - inside) * denominator
    return _Spread(spread, bound, noise * np.linalg.norm(weights, axis=-1))
