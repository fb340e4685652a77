"""Layout: which numbers a release of totals holds, where, and with how much noise.

The seam between silo and coordinator. A metric declares *blocks*: short vectors of numbers that are
summed over an arm's recipients. A block's vector has L2 norm at most 1 for any recipient whatever,
because it is built that way (`abfed.stats.encoding`). Where a segmentation splits a block into
cells side by side, a recipient's vector stands in one of them and is 0 in the others: the norm is
that of one cell.

All blocks of a plan share one Gaussian release. Block j gets a share s_j of the budget and noise of
standard deviation σ/√s_j: its squared sensitivity over its variance is s_j/σ², and as the shares
add up to at most 1 these add up to at most 1/σ², which is that of one release with noise multiplier
σ (Gaussian mechanisms compose in squared sensitivity over variance; Dong, Roth and Su 2022,
Corollary 3.3). A recipient is in one arm only, so arms need no shares.

How the budget is split: segmentations, balance and orphans get the shares that the plan declares,
metrics the rest, by their declared shares. Within a metric a tenth goes to each kind of second
moment (privacy is better spent on the first); to none where the plan expects noise to hide them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from abfed.protocol.analysis import Adjustment, Segment
from abfed.protocol.metrics import Count, Mean, Metric, Quantile, Ratio
from abfed.protocol.plan import Plan
from abfed.protocol.schema import Feature, NumericFeature
from abfed.stats.adjusting import MOMENTS_SHARE, chosen, moments_help
from abfed.stats.encoding import SCALE, Floats, Integers

Role = Literal["simplex", "tensor", "moments", "covariate"]
"""What a block holds: a simplex; that of a metric and its covariate; second moments of the metric
or of the covariate."""

BALANCE = "balance:"
"""What the name of a balance block begins with, before the feature's; no metric is called so."""

ORPHANS = "orphans:"
"""The block that counts recipients with a click without an open."""


class Block(NamedTuple):
    """One vector within the row of an arm.

    Attributes:
        metric: name of the metric, or what else it is about (`BALANCE` + feature, `ORPHANS`).
        role: what it holds.
        start: where it stands.
        size: numbers in one cell.
        sd: noise standard deviation of each coordinate, for a noise multiplier of 1.
        segment: of which segmentation; empty where of none.
        cells: how many cells stand side by side.
    """

    metric: str
    role: Role
    start: int
    size: int
    sd: float
    segment: str = ""
    cells: int = 1

    @property
    def width(self) -> int:
        """Numbers in all cells."""
        return self.size * self.cells

    @property
    def counts(self) -> bool:
        """Whether its numbers add up to the recipients of an arm."""
        return self.role in {"simplex", "tensor"}

    @property
    def moments(self) -> bool:
        """Whether these are second moments, of the metric or of its covariate."""
        return not self.counts

    @property
    def columns(self) -> slice:
        """Its columns in an arm's row."""
        return slice(self.start, self.start + self.width)

    def cell(self, index: int) -> slice:
        """The columns of one of its cells."""
        return slice(self.start + index * self.size, self.start + (index + 1) * self.size)


class Part(NamedTuple):
    """A block to come: what it holds, how many numbers, and its share of a metric's budget."""

    role: Role
    size: int
    share: float


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
        for metric, part, segment, cells in _parts(plan):
            sd = 1.0 / math.sqrt(part.share)
            blocks.append(Block(metric, part.role, start, part.size, sd, segment, cells))
            start += part.size * cells
        return Layout(tuple(arm.name for arm in plan.arms), tuple(blocks))

    @property
    def shape(self) -> tuple[int, int]:
        """(arms, coordinates)."""
        return len(self.arms), sum(block.width for block in self.blocks)

    def find(self, metric: str, role: Role, segment: str = "") -> Block | None:
        """A block, if there is one."""
        for block in self.blocks:
            if (block.metric, block.role, block.segment) == (metric, role, segment):
                return block
        return None

    def block(self, metric: str, *, moments: bool = False) -> Block:
        """A metric's block.

        Raises:
            KeyError: it has none.
        """
        roles: tuple[Role, ...] = ("moments",) if moments else ("simplex", "tensor")
        for role in roles:
            found = self.find(metric, role)
            if found is not None:
                return found
        raise KeyError(metric)

    def cell(self, segment: str, index: int) -> tuple[Layout, list[slice]]:
        """The layout of one cell of a segmentation by itself, and where its blocks come from."""
        blocks: list[Block] = []
        places: list[slice] = []
        start = 0
        for block in self.blocks:
            if block.segment == segment:
                blocks.append(block._replace(start=start, segment="", cells=1))
                places.append(block.cell(index))
                start += block.size
        return Layout(self.arms, tuple(blocks)), places

    def counts(self, sums: Floats) -> tuple[Floats, float]:
        """Recipients in each arm, from sums in natural units (…, arms, width).

        Each simplex counts them once more; the counts are averaged by the inverse of their
        variance.

        Returns:
            The counts (…, arms), and the noise standard deviation of each for a noise multiplier
            of 1.
        """
        weights = 0.0
        total = np.zeros(sums.shape[:-1])
        for block in self.blocks:
            if not block.counts:
                continue
            weight = 1.0 / (block.width * block.sd**2)
            total += weight * sums[..., block.columns].sum(axis=-1)
            weights += weight
        return total / weights, 1.0 / math.sqrt(weights)

    def recipients(self, released: Integers) -> float:
        """The noised number of recipients over all arms, from released integers (arms, width)."""
        return float(self.counts(released / SCALE)[0].sum())


def cells_of(segment: Segment, features: tuple[Feature, ...]) -> tuple[str, ...]:
    """The names of a segmentation's cells, the last for whom no other fits."""
    feature = next(one for one in features if one.name == segment.feature)
    if not isinstance(feature, NumericFeature):
        return (*feature.values, "other")
    edges = segment.edges or ()
    inner = [f"{a:g} to {b:g}" for a, b in pairwise(edges)]
    return (f"below {edges[0]:g}", *inner, f"from {edges[-1]:g}", "unknown")


def parts_of(
    metric: Metric, adjustment: Adjustment | None = None, *, with_moments: bool = True
) -> list[Part]:
    """The blocks of a metric.

    Args:
        metric: which.
        adjustment: where a covariate is used.
        with_moments: whether a mean's or count's second moments are released.
    """
    spare = 1.0 - MOMENTS_SHARE
    moments: list[Part] = []
    if isinstance(metric, Ratio):
        return [Part("simplex", 3, spare), Part("moments", 3, MOMENTS_SHARE)]
    if isinstance(metric, Quantile):
        return [Part("simplex", len(metric.edges) + 1, 1.0)]
    if isinstance(metric, Mean | Count) and with_moments:
        moments = [Part("moments", 1, MOMENTS_SHARE)]
    if adjustment is not None:
        moments.append(Part("covariate", 1, MOMENTS_SHARE))
        return [Part("tensor", 4, 1.0 - MOMENTS_SHARE * len(moments)), *moments]
    return [Part("simplex", 2, 1.0 - MOMENTS_SHARE * len(moments)), *moments]


def _parts(plan: Plan) -> Iterator[tuple[str, Part, str, int]]:
    """All blocks with their share of the whole: metric, part, segmentation, cells."""
    analysis = plan.analysis
    weights = {metric.name: analysis.budget_of(metric.name).share for metric in plan.metrics}
    total = sum(weights.values())
    for metric in plan.metrics:
        share = analysis.metrics_share * weights[metric.name] / total
        helpful = moments_help(plan, metric, share)
        for part in parts_of(metric, chosen(plan, metric.name), with_moments=helpful):
            yield metric.name, part._replace(share=share * part.share), "", 1
    for segment in analysis.segments:
        cells = len(cells_of(segment, plan.features))
        for metric in plan.metrics:
            share = segment.share * weights[metric.name] / total
            helpful = moments_help(plan, metric, share, cells)
            for part in parts_of(metric, with_moments=helpful):
                whole = part._replace(share=share * part.share)
                yield metric.name, whole, segment.name, cells
    yield from _checks(plan)


def _checks(plan: Plan) -> Iterator[tuple[str, Part, str, int]]:
    """Blocks that only serve checks."""
    analysis = plan.analysis
    for name in analysis.balance:
        share = analysis.balance_share / len(analysis.balance)
        feature = next(one for one in plan.features if one.name == name)
        if isinstance(feature, NumericFeature):
            simplex = Part("simplex", 2, share * (1 - MOMENTS_SHARE))
            yield BALANCE + name, simplex, "", 1
            yield BALANCE + name, Part("moments", 1, share * MOMENTS_SHARE), "", 1
        else:
            yield BALANCE + name, Part("simplex", len(feature.values) + 1, share), "", 1
    if analysis.clicks_without_opens:
        yield ORPHANS, Part("simplex", 2, analysis.orphans_share), "", 1
