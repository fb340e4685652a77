"""Effects adjusted for a pre-send covariate, from the noised tensor (CUPED; Deng et al. 2013).

An arm's value is ȳ − θ(v̄ − v̄ of all arms); θ is pooled over the arms of a brand, so it is the same
on both sides of a difference and what it is centred on falls out. The tensor (u, 1−u) ⊗ (v, 1−v)
holds Σuv, both means and the count; Σv² has a block of its own. Products of noised figures are
corrected for the noise that they share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.protocol.metrics import Count, Mean, Metric
from abfed.stats.adjusting import bounds_of, tensor_gradient
from abfed.stats.encoding import Floats
from abfed.stats.estimates import (
    MOMENTS_USABLE,
    Reading,
    binary_variance,
    bounded_variance,
    read,
)
from abfed.stats.totals import SiloTotals


class _Slope(NamedTuple):
    """What is shared by the arms of a brand: θ, v̄, what θ takes off the variance of u; usable."""

    theta: Floats
    middle: Floats
    explained: Floats
    usable: npt.NDArray[np.bool_]


def read_adjusted(metric: Metric, totals: SiloTotals) -> dict[str, Reading]:
    """Every arm's reading of a metric that was released together with a covariate.

    Where the covariate's spread can't be told from noise, θ is 0: the reading is unadjusted.
    """
    arms = totals.layout.arms
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = _slope(metric.name, totals)
        return {arm: _adjusted(metric, totals, arm, slope) for arm in arms}


def _adjusted(metric: Metric, totals: SiloTotals, arm: str, slope: _Slope) -> Reading:
    plain = read(metric, totals, arm)
    tensor, noise = _tensor(metric.name, totals, arm)
    size = tensor.sum(axis=-1)
    u, v = _means(tensor, size)
    spread = (
        bounded_variance(metric, totals, arm, _variance(u, size, noise))
        if isinstance(metric, Mean | Count)
        else binary_variance(totals.arm(arm, metric.name)[0])
    )
    left = np.clip(spread - slope.explained, 0.01 * spread, spread)
    gradient = tensor_gradient(u, v, slope.theta)
    privacy = noise**2 * (gradient**2).sum(axis=-1) / size**2
    low, high = bounds_of(metric)
    width = high - low
    return plain._replace(
        value=low + width * (u - slope.theta * (v - slope.middle)),
        sampling=width**2 * left / size,
        privacy=width**2 * privacy,
    )


def _slope(metric: str, totals: SiloTotals) -> _Slope:
    """θ of a brand, from sums over its arms."""
    block = totals.layout.find(metric, "covariate")
    if block is None:
        message = f"{metric!r} was not released with a covariate"
        raise KeyError(message)
    shared, squared, size_all, first, shared_noise, squared_noise = np.zeros(
        (6, *totals.values.shape[:-2])
    )
    for arm in totals.layout.arms:
        tensor, noise = _tensor(metric, totals, arm)
        squares, of_squares = totals.raw(arm, block)
        size = tensor.sum(axis=-1)
        u, v = _means(tensor, size)
        # The products of noised means share noise: σ²Σg_u·g_v and σ²Σg_v², taken out again.
        both = (1 - u) * (1 - v) - (1 - u) * v - u * (1 - v) + u * v
        shared = shared + tensor[..., 0] - size * u * v + noise**2 * both / size
        squared = squared + squares[..., 0] - size * v**2 + 2 * noise**2 * _lever(v) / size
        shared_noise = shared_noise + noise**2 * _lever(u) * _lever(v)
        squared_noise = squared_noise + of_squares**2 + (2 * v * noise) ** 2 * 2 * _lever(v)
        size_all = size_all + size
        first = first + tensor[..., 0] + tensor[..., 2]
    usable = np.asarray((squared > 0) & (np.sqrt(squared_noise) < MOMENTS_USABLE * squared))
    theta = np.where(usable, shared / squared, 0.0)
    explained = theta**2 * squared / size_all - 2 * shared_noise / squared / size_all
    return _Slope(theta, first / size_all, np.where(usable, explained, 0.0), usable)


def _tensor(metric: str, totals: SiloTotals, arm: str) -> tuple[Floats, float]:
    """The tensor of an arm and the noise sd of each of its numbers."""
    return totals.raw(arm, totals.layout.block(metric))


def _means(tensor: Floats, size: Floats) -> tuple[Floats, Floats]:
    """Means of the metric and of the covariate, as shares of their bounds."""
    return (tensor[..., 0] + tensor[..., 1]) / size, (tensor[..., 0] + tensor[..., 2]) / size


def _lever(mean: Floats) -> Floats:
    """(1−m)² + m²."""
    return (1 - mean) ** 2 + mean**2


def _variance(mean: Floats, size: Floats, noise: float) -> Floats:
    """Noise variance of a margin's mean: each of its two numbers is a sum of two noised ones."""
    return 2 * noise**2 * _lever(mean) / size**2
