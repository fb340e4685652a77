"""Totals: noised sums of one silo or of several, in natural units.

Values may carry leading axes, such as many simulated releases of one plan: (…, arms, coordinates).
What is read from them carries the same axes.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from abfed.protocol.errors import IntegrityError
from abfed.protocol.plan import Plan
from abfed.stats.encoding import (
    SCALE,
    SCALE_BITS,
    Floats,
    Integers,
    encode_place,
    encode_products,
    encode_ratio,
    encode_share,
    encode_square,
    encode_tensor,
)
from abfed.stats.layout import Block, Layout

__all__ = [
    "SCALE",
    "SCALE_BITS",
    "Block",
    "Floats",
    "Integers",
    "Layout",
    "SiloTotals",
    "encode_place",
    "encode_products",
    "encode_ratio",
    "encode_share",
    "encode_square",
    "encode_tensor",
]


class Mixture(NamedTuple):
    """Of totals that were weighed and added before anybody saw them (noise once), by arm.

    Attributes:
        sampling: the most that any recipient weighs: what the variance of a mean is multiplied by.
        doubt: what is added to that factor because weights rest on noised counts; 0 unless a brand
            is small.
    """

    sampling: Floats
    doubt: Floats


@dataclass(frozen=True, eq=False)
class SiloTotals:
    """Noised totals, in natural units. Released, not sensitive.

    Additive: `a + b` are the totals of both silos' recipients taken together, with the noise of
    both; the order doesn't matter. Means of such a sum are those of the pooled recipients: where
    silos differ in their arms' shares, compare arms silo by silo instead (`stats.effects`).

    Attributes:
        layout: where each metric stands.
        values: (…, arms, coordinates).
        noise_multiplier: σ, combined over the silos that were added: √(Σσ²); 0 for none.
        counted: recipients in each arm and the noise sd of each, where they were released by
            themselves.
        mixture: of totals that were added under one noise; such totals are added to no others.
    """

    layout: Layout
    values: Floats
    noise_multiplier: float
    counted: tuple[Floats, float] | None = None
    mixture: Mixture | None = None

    @classmethod
    def of(cls, plan: Plan, released: Integers, noise_multiplier: float) -> SiloTotals:
        """The totals that a release holds.

        Raises:
            IntegrityError: the array is not of the plan's layout.
        """
        layout = Layout.of(plan)
        if released.shape[-2:] != layout.shape:
            raise IntegrityError("the totals are not of the plan's layout", where=plan.name)
        return cls(layout, released.astype(np.float64) / SCALE, float(noise_multiplier))

    def __add__(self, other: SiloTotals) -> SiloTotals:
        """Pool two silos."""
        if self.layout != other.layout:
            raise ValueError("totals of different layouts can't be added")
        if self.mixture is not None or other.mixture is not None:
            raise ValueError("totals of all brands together can't be added to others")
        sigma = math.hypot(self.noise_multiplier, other.noise_multiplier)
        return SiloTotals(self.layout, self.values + other.values, sigma)

    def cell(self, segment: str, index: int) -> SiloTotals:
        """The totals of one cell of a segmentation by itself."""
        layout, places = self.layout.cell(segment, index)
        values = np.concatenate([self.values[..., place] for place in places], axis=-1)
        return SiloTotals(layout, values, self.noise_multiplier)

    def raw(self, arm: str, block: Block) -> tuple[Floats, float]:
        """A block's totals in an arm as they stand, and the noise sd of each of them."""
        row = self.values[..., self.layout.arms.index(arm), :]
        return row[..., block.columns], block.sd * self.noise_multiplier

    def arm(self, arm: str, metric: str, *, moments: bool = False) -> tuple[Floats, float]:
        """A metric's totals in an arm, and the noise standard deviation of each of them.

        Of a metric that was released together with a covariate: its own margin (u, 1−u).
        """
        block = self.layout.block(metric, moments=moments)
        sums, noise = self.raw(arm, block)
        if block.role != "tensor":
            return sums, noise
        margin = np.stack([sums[..., 0] + sums[..., 1], sums[..., 2] + sums[..., 3]], axis=-1)
        return margin, noise * math.sqrt(2.0)

    def counts(self) -> tuple[Floats, float]:
        """Noised recipients in each arm (…, arms), and the noise sd of each count."""
        return self._counts

    @functools.cached_property
    def _counts(self) -> tuple[Floats, float]:
        if self.counted is not None:
            return self.counted
        counts, sd = self.layout.counts(self.values)
        return counts, sd * self.noise_multiplier
