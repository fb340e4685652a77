"""Which arms stand out from noise: decided by what the error of their effect doesn't touch.

An arm is suppressed where its noised size ñ is small beside the noise. But ñ and the arm's value
are read from the same noised numbers: of a rare outcome (u, 1−u) the noise that makes Σu large
makes ñ large as well. Among arms that are really too small, those that come through are then those
that luck pushed up, and their intervals held the truth in .91 to .93 of cases instead of .95.

So ñ is read without the part of its noise that it shares with the effect. Let θ̄ be the value of all
arms together and T = Σ(u − θ̄) over an arm, by which the arm differs from it. All differences
between arms follow from their T; ñ − βT with β = cov(ñ, T)/var(T) is independent of T, expects the
same as ñ where arms are alike, and has less noise. Who stands out by it has an interval that holds
the truth as often as anybody's (decision 0152).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.protocol.metrics import Metric, Quantile, Ratio
from abfed.stats.encoding import Floats
from abfed.stats.totals import SiloTotals

SUPPRESS_BELOW = 5.0
"""An arm is suppressed where its noised size is below this many standard deviations of noise."""

HISTOGRAM_BELOW = 12.0
"""The same for quantiles: below it the inverse of a noised distribution function is off to one side
by more than its standard error tells (decision 0118)."""


class _Split(NamedTuple):
    """An arm's numbers in two: how many of them count as "first", of how many.

    Attributes:
        first: their sum in the arm.
        whole: the sum of all.
        share: first over whole, of all arms together.
        below, width: how many numbers either sum has, each with noise of its own.
    """

    first: Floats
    whole: Floats
    share: Floats
    below: npt.NDArray[np.int64]
    width: int


def stands_out(metric: Metric, totals: SiloTotals, arm: str) -> npt.NDArray[np.bool_]:
    """Whether an arm, and what its metric is a share of, can be told from noise."""
    sums, noise = totals.arm(arm, metric.name)
    apart = _shared(_split(metric, totals, arm), noise)
    least = HISTOGRAM_BELOW if isinstance(metric, Quantile) else SUPPRESS_BELOW
    out = _clear(sums, apart, least * noise)
    if isinstance(metric, Ratio):
        out &= _clear(sums[..., :2], apart, least * noise)
    if totals.counted is not None:  # by themselves: their noise is no other figure's
        counts, sd = totals.counts()
        size = counts[..., totals.layout.arms.index(arm)]
        out &= (size >= SUPPRESS_BELOW * sd) & (size > 0)
    return out


def _clear(sums: Floats, apart: Floats, least: float) -> npt.NDArray[np.bool_]:
    """Whether the sum over some numbers is far enough above their noise."""
    own = sums.sum(axis=-1)
    return np.asarray((own > 0) & (own - apart >= least * math.sqrt(sums.shape[-1])))


def _shared(split: _Split, noise: float) -> Floats:
    """βT: what an arm's noised size shares with the error of its effect."""
    first, whole, share, below, width = split
    above = width - below
    of_noise = noise**2 * (below * (1 - share) ** 2 + above * share**2)
    variance = of_noise + np.maximum(whole, 0.0) * share * (1 - share)
    covariance = noise**2 * (below * (1 - share) - above * share)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = np.where(variance > 0, covariance / variance, 0.0)
    return np.asarray(beta * (first - share * whole))


def _split(metric: Metric, totals: SiloTotals, arm: str) -> _Split:
    """Outcomes among all; of a ratio among its denominator; of a quantile: who lies below it.

    Arms count by the square of their size, so that θ̄ is as sure as it can be where noise is most of
    the error: then what an arm differs by tells nothing of θ̄.
    """
    names = totals.layout.arms
    numbers = np.stack([totals.arm(name, metric.name)[0] for name in names])
    if isinstance(metric, Ratio):
        numbers = numbers[..., :2]
    sizes = np.maximum(numbers.sum(axis=-1, keepdims=True), 0.0)
    together = np.cumsum((sizes * numbers).sum(axis=0), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.nan_to_num(np.clip(together / together[..., -1:], 0.0, 1.0))
    width = numbers.shape[-1]
    last = np.zeros(shares.shape[:-1], dtype=np.int64)
    if isinstance(metric, Quantile):
        last = np.minimum((shares < metric.quantile).sum(axis=-1), width - 2)
    own = np.cumsum(numbers[names.index(arm)], axis=-1)
    first, share = (
        np.take_along_axis(one, last[..., None], axis=-1)[..., 0] for one in (own, shares)
    )
    return _Split(first, own[..., -1], share, last + 1, width)
