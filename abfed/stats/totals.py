"""Totals: what each metric needs of a recipient, how it is bounded, and where it stands.

The seam between silo and coordinator. A metric declares *blocks*: short vectors of numbers that are
summed over an arm's recipients. A block's vector has L2 norm at most 1 for any recipient whatever,
because it is built that way (the *simplex encoding*):

* proportion, u ∈ {0, 1}: (u, 1−u);
* mean, u = (clip(y, low, high) − low) / (high − low) ∈ [0, 1]: (u, 1−u), as u² + (1−u)² ≤ 1; and
  u² in a block of its own;
* ratio, with b = sends with the denominator over the most that count, a = of those with the
  numerator: (a, b−a, 1−b), as the parts are non-negative and add up to 1; and
  (a², √2·a(b−a), (b−a)²), whose norm is a² + (b−a)² ≤ 1.

All blocks of a plan share one Gaussian release. Block j gets a share s_j of the budget and noise of
standard deviation σ/√s_j: its squared sensitivity over its variance is s_j/σ², and these add up to
1/σ², which is that of one release with noise multiplier σ (Gaussian mechanisms compose in squared
sensitivity over variance; Dong, Roth and Su 2022, Corollary 3.3). A recipient is in one arm only,
so arms need no shares.

Fixed point: values are whole multiples of 1/`SCALE` = 1/S, and the bounds hold exactly for the
integers that the discrete Gaussian is added to, whatever the input was:

* the parts of a simplex are rounded to integers ≥ 0 that add up to S, and Σx² ≤ (Σx)² = S²;
* second moments are computed from these integers and rounded down, so that they stay below the
  exact (a², √2·ab, b²)/S, whose norm is (a² + b²)/S ≤ (a + b)²/S ≤ S.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.protocol.errors import IntegrityError
from abfed.protocol.metrics import Mean, Metric, Proportion
from abfed.protocol.plan import Plan

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SCALE_BITS = 16
SCALE = 1 << SCALE_BITS
"""Units of one: the grid is 1.5e-5, far below the noise."""

_ROOT_TWO_BITS = 30
_ROOT_TWO = math.isqrt(2 << 2 * _ROOT_TWO_BITS)
"""√2 rounded down, in units of 2⁻³⁰: products of two encoded parts times this fit 63 bits."""

MOMENTS_SHARE = 0.1
"""Share of a metric's budget for second moments (privacy is better spent on the first)."""


class Block(NamedTuple):
    """One vector of a metric within the row of an arm.

    Attributes:
        metric: name of the metric.
        moments: whether these are second moments.
        start, width: where it stands.
        sd: noise standard deviation of each coordinate, for a noise multiplier of 1.
    """

    metric: str
    moments: bool
    start: int
    width: int
    sd: float

    @property
    def columns(self) -> slice:
        """Its columns in an arm's row."""
        return slice(self.start, self.start + self.width)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each metric's totals stand; both sides derive it from the plan.

    Attributes:
        arms: names of the arms: one row each.
        blocks: in the order of the metrics.
    """

    arms: tuple[str, ...]
    blocks: tuple[Block, ...]

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(plan: Plan) -> Layout:
        """The layout of a plan's totals."""
        blocks: list[Block] = []
        start = 0
        for metric in plan.metrics:
            for moments, width, share in _widths(metric):
                sd = math.sqrt(len(plan.metrics) / share)
                blocks.append(Block(metric.name, moments, start, width, sd))
                start += width
        return Layout(tuple(arm.name for arm in plan.arms), tuple(blocks))

    @property
    def shape(self) -> tuple[int, int]:
        """(arms, coordinates)."""
        return len(self.arms), sum(block.width for block in self.blocks)

    def block(self, metric: str, *, moments: bool = False) -> Block:
        """A metric's block.

        Raises:
            KeyError: it has none.
        """
        for block in self.blocks:
            if block.metric == metric and block.moments == moments:
                return block
        raise KeyError(metric)

    def counts(self, sums: Floats) -> tuple[Floats, float]:
        """Recipients in each arm, from sums in natural units (arms, width).

        Each metric counts them once more; the counts are averaged by the inverse of their variance.

        Returns:
            The counts, and the noise standard deviation of each for a noise multiplier of 1.
        """
        weights = 0.0
        total = np.zeros(len(self.arms))
        for block in self.blocks:
            if block.moments:
                continue
            weight = 1.0 / (block.width * block.sd**2)
            total += weight * sums[:, block.columns].sum(axis=1)
            weights += weight
        return total / weights, 1.0 / math.sqrt(weights)

    def recipients(self, released: Integers) -> float:
        """The noised number of recipients over all arms, from released integers (arms, width)."""
        return float(self.counts(released / SCALE)[0].sum())


def _widths(metric: Metric) -> list[tuple[bool, int, float]]:
    """Blocks of a metric: whether moments, width, share of the metric's budget."""
    if isinstance(metric, Proportion):
        return [(False, 2, 1.0)]
    if isinstance(metric, Mean):
        return [(False, 2, 1.0 - MOMENTS_SHARE), (True, 1, MOMENTS_SHARE)]
    return [(False, 3, 1.0 - MOMENTS_SHARE), (True, 3, MOMENTS_SHARE)]


def encode_share(share: Floats) -> Integers:
    """Simplex encoding of shares u, as units: (recipients, 2), rows add to SCALE.

    Shares outside [0, 1] are clipped; what is not a number counts as 0.
    """
    bounded = np.clip(np.nan_to_num(share, nan=0.0), 0.0, 1.0)
    first = np.rint(bounded * SCALE).astype(np.int64)
    return np.stack([first, SCALE - first], axis=1)


def encode_square(encoded: Integers) -> Integers:
    """u² of encoded shares, rounded down: (recipients, 1)."""
    return (encoded[:, :1] ** 2) // SCALE


def encode_ratio(numerator: Integers, denominator: Integers, most: int) -> Integers:
    """(a, b−a, 1−b) of counts of sends, as units: (recipients, 3), rows adding to SCALE.

    Args:
        numerator: sends with both outcomes; no more than `denominator` of them count.
        denominator: sends with the denominator's outcome; no more than `most` of them count.
        most: sends that count for a recipient.
    """
    counted = np.clip(denominator, 0, most)
    upper = (counted * SCALE) // most
    first = (np.clip(numerator, 0, counted) * SCALE) // most
    return np.stack([first, upper - first, SCALE - upper], axis=1)


def encode_products(encoded: Integers) -> Integers:
    """(a², √2·a(b−a), (b−a)²) of encoded ratios, rounded down: (recipients, 3)."""
    a, rest = encoded[:, 0], encoded[:, 1]
    cross = (a * rest * _ROOT_TWO) >> (_ROOT_TWO_BITS + SCALE_BITS)
    return np.stack([(a * a) // SCALE, cross, (rest * rest) // SCALE], axis=1)


@dataclass(frozen=True, eq=False)
class SiloTotals:
    """Noised totals, in natural units. Released, not sensitive.

    Additive: `a + b` are the totals of both silos' recipients taken together, with the noise of
    both; the order doesn't matter. Means of such a sum are those of the pooled recipients: where
    silos differ in their arms' shares, compare arms silo by silo instead (`stats.effects`).

    Attributes:
        layout: where each metric stands.
        values: (arms, coordinates).
        noise_multiplier: σ, combined over the silos that were added: √(Σσ²).
    """

    layout: Layout
    values: Floats
    noise_multiplier: float

    @classmethod
    def of(cls, plan: Plan, released: Integers, noise_multiplier: float) -> SiloTotals:
        """The totals that a release holds.

        Raises:
            IntegrityError: the array is not of the plan's layout.
        """
        layout = Layout.of(plan)
        if released.shape != layout.shape:
            raise IntegrityError("the totals are not of the plan's layout", where=plan.name)
        return cls(layout, released.astype(np.float64) / SCALE, float(noise_multiplier))

    def __add__(self, other: SiloTotals) -> SiloTotals:
        """Pool two silos."""
        if self.layout != other.layout:
            raise ValueError("totals of different layouts can't be added")
        sigma = math.hypot(self.noise_multiplier, other.noise_multiplier)
        return SiloTotals(self.layout, self.values + other.values, sigma)

    def arm(self, arm: str, metric: str, *, moments: bool = False) -> tuple[Floats, float]:
        """A metric's totals in an arm, and the noise standard deviation of each of them."""
        block = self.layout.block(metric, moments=moments)
        row = self.values[self.layout.arms.index(arm)]
        return row[block.columns], block.sd * self.noise_multiplier

    def counts(self) -> tuple[Floats, float]:
        """Noised recipients in each arm, and the noise standard deviation of each count."""
        return self._counts

    @functools.cached_property
    def _counts(self) -> tuple[Floats, float]:
        counts, sd = self.layout.counts(self.values)
        return counts, sd * self.noise_multiplier
