"""Totals inside a silo: rows in, noised sums out.

Each recipient is bounded first (the store already dropped surplus sends; values are clipped by the
plan's public bounds here), then summed in whole numbers, then noised. Only the noised sums leave
this module.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.errors import IntegrityError
from abfed.protocol.metrics import Mean, Metric, Proportion
from abfed.protocol.plan import Plan
from abfed.protocol.schema import OUTCOMES
from abfed.silo.permit import Computed, Permit
from abfed.silo.rows import changes, flat, recipient_words
from abfed.stats.totals import (
    SCALE,
    Integers,
    Layout,
    encode_products,
    encode_ratio,
    encode_share,
    encode_square,
)

Floats = npt.NDArray[np.float64]

LARGEST_AMOUNT = 1e15
"""Of one send, in currency: keeps sums finite whatever a file held. Plans bound far below."""


def columns_needed(plan: Plan) -> tuple[str, ...]:
    """Outcome columns that the plan's metrics read: nothing else is fetched."""
    needed: set[str] = set()
    for metric in plan.metrics:
        if isinstance(metric, Proportion | Mean):
            needed.add(metric.column)
        else:
            needed |= {metric.numerator, metric.denominator} - {"sends"}
    return tuple(name for name in OUTCOMES if name in needed)


def compute_totals(permit: Permit, tables: Iterable[pa.Table]) -> Computed:
    """Sum over recipients and add noise.

    Args:
        permit: the right to compute; its charge is the noise.
        tables: rows of lawful recipients, sorted by recipient; each recipient's rows are all in one
            table and one arm. Sensitive.

    Returns:
        `totals`: int64 (arms, coordinates), in units of 1/`SCALE`, noised.

    Raises:
        IntegrityError: the permit is not for totals, or a table isn't sorted by recipient.
    """
    layout = Layout.of(permit.plan)
    sums = np.zeros(layout.shape, dtype=np.int64)
    for table in tables:
        if table.num_rows:
            _add_table(sums, permit.plan, layout, table)
    sigma = permit.charge("gaussian").noise_multiplier
    for block in layout.blocks:
        part = np.ascontiguousarray(sums[:, block.columns])
        sums[:, block.columns] = permit.noise.integers(part, sigma * block.sd * SCALE)
    return Computed("totals", {"totals": sums}, {"noise_multiplier": sigma, "scale": float(SCALE)})


def _add_table(sums: Integers, plan: Plan, layout: Layout, table: pa.Table) -> None:
    """Add one table's recipients to the sums, in place."""
    starts = _first_rows(table)
    arms = pc.index_in(table["arm"], pa.array(layout.arms)).to_numpy()[starts]
    for metric in plan.metrics:
        encoded = _encode(metric, plan, table, starts)
        for block, part in zip(
            (one for one in layout.blocks if one.metric == metric.name), encoded, strict=True
        ):
            for arm in range(len(layout.arms)):
                sums[arm, block.columns] += part[arms == arm].sum(axis=0)


def _encode(metric: Metric, plan: Plan, table: pa.Table, starts: Integers) -> list[Integers]:
    """A metric's blocks for each recipient."""
    if isinstance(metric, Proportion):
        any_send = np.add.reduceat(_flags(table, metric.column), starts) > 0
        return [encode_share(any_send.astype(np.float64))]
    if isinstance(metric, Mean):
        total = np.add.reduceat(_amounts(table, metric.column), starts)
        width = metric.high - metric.low
        share = (np.clip(total, metric.low, metric.high) - metric.low) / width
        encoded = encode_share(share)
        return [encoded, encode_square(encoded)]
    counted = np.ones(table.num_rows, dtype=np.int64)
    if metric.denominator != "sends":
        counted = _flags(table, metric.denominator)
    both = counted * _flags(table, metric.numerator)
    encoded = encode_ratio(
        np.add.reduceat(both, starts),
        np.add.reduceat(counted, starts),
        plan.sends_per_recipient,
    )
    return [encoded, encode_products(encoded)]


def _first_rows(table: pa.Table) -> Integers:
    """Index of each recipient's first row.

    Raises:
        IntegrityError: rows are not sorted by recipient, so that one could count twice.
    """
    words = recipient_words(flat(table["recipient"]))
    starts = np.flatnonzero(changes(words)).astype(np.int64)
    first, second = words[starts].T
    rises = (first[1:] > first[:-1]) | ((first[1:] == first[:-1]) & (second[1:] > second[:-1]))
    if not rises.all():
        raise IntegrityError(
            "rows are not sorted by recipient",
            why="a recipient who counts twice isn't covered by the noise",
            do="report it: the store promises this order",
        )
    return starts


def _flags(table: pa.Table, column: str) -> Integers:
    """A binary outcome as 0 and 1; unknown counts as not."""
    filled = pc.fill_null(table[column], fill_value=False)
    flags: Integers = filled.to_numpy().astype(np.int64)
    return flags


def _amounts(table: pa.Table, column: str) -> Floats:
    """An outcome as finite numbers; unknown and not a number count as 0."""
    known: Floats = pc.fill_null(pc.cast(table[column], pa.float64()), 0.0).to_numpy()
    return np.clip(np.nan_to_num(known, nan=0.0), -LARGEST_AMOUNT, LARGEST_AMOUNT)
