"""Which rows of a bucket a permit may see (S1). Pure functions; rows in, fewer rows out.

In this order, on all of a recipient's rows:

1. Nobody who opted out on any send, of whatever experiment (`portions.opted_out`).
2. Only the plan's experiment; there, nobody with a send whose lawful basis the silo's policy does
   not accept for the plan's purpose.
3. Nobody who stands in two arms of the experiment, in the plan or not.
4. Only the plan's arms, the wave that it asks for, and its population; a missing value passes no
   condition.
5. At most `sends_per_recipient` sends each, the first by the keyed send order.

An unknown opt-out counts as an opt-out, an unknown basis as none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.plan import Condition, Plan
from abfed.silo.rows import SEND_ORDER, changes, codes, flat, stored_words

Flags = npt.NDArray[np.bool_]

ALWAYS = ("recipient", "arm", "sent_at")
"""Columns that every selected table has."""

JUDGED = ("experiment", "basis", SEND_ORDER)
"""Columns that are read to select rows, and not handed out."""


CODED = ("experiment", "arm", "basis")
"""Text columns in which few texts stand for many rows: judged by their codes."""


def coded_schema(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """These columns of a schema, with those of `CODED` as codes and a list of texts."""
    kept = (schema.field(name) for name in columns)
    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([one.with_type(kind) if one.name in CODED else one for one in kept])


def columns_to_read(plan: Plan, columns: Sequence[str]) -> tuple[str, ...]:
    """All columns that selecting needs, with the requested ones behind."""
    conditions = tuple(condition.column for condition in plan.population)
    return tuple(dict.fromkeys((*ALWAYS, *JUDGED, *conditions, *columns)))


def select(
    rows: pa.Table,
    plan: Plan,
    lawful_bases: Sequence[str],
    columns: Sequence[str],
    opted_out: pa.Array,
) -> pa.Table:
    """The rows of one bucket that a plan may see, sorted by recipient.

    Args:
        rows: some of a bucket, sorted by experiment, recipient, sent_at, with all rows that its
            recipients have in an experiment; columns of `CODED` may be text or codes. Sensitive.
        plan: the permit's plan.
        lawful_bases: what the silo's policy accepts for the plan's purpose.
        columns: requested columns.
        opted_out: who in the bucket opted out on any send.

    Returns:
        A table of `recipient`, `arm`, `sent_at` and the requested columns. Sensitive.
    """
    rows = _experiment(rows, plan.experiment)
    wanted = list(dict.fromkeys((*ALWAYS, *columns)))
    if not rows.num_rows:
        return _plain(rows.select(wanted))
    starts = changes(stored_words(flat(rows["recipient"])))
    group = np.cumsum(starts) - 1
    barred = np.zeros(rows.num_rows, dtype=np.bool_)
    if len(opted_out):
        barred |= _flags(pc.is_in(rows["recipient"], value_set=opted_out))
    barred |= ~_among(rows["basis"], lawful_bases)
    arms = codes(flat(rows["arm"]))
    barred[1:] |= ~starts[1:] & (arms[1:] != arms[:-1])
    if barred.any():
        barred_groups = np.zeros(group[-1] + 1, dtype=np.bool_)
        barred_groups[group[barred]] = True
        barred = barred_groups[group]
    keep = ~barred & _among(rows["arm"], [arm.name for arm in plan.arms])
    if plan.analysis.sequential is not None:
        keep &= _in_wave(rows["sent_at"], starts, plan)[group]
    for condition in plan.population:
        keep &= _passes(rows, condition)
    if keep.all() and _most_sends(starts) <= plan.sends_per_recipient:
        return _plain(rows.select(wanted))
    kept = np.flatnonzero(keep)
    kept = kept[_first_sends(rows, kept, group[kept], plan.sends_per_recipient)]
    return _plain(rows.select(wanted).take(pa.array(kept)))


def _most_sends(starts: Flags) -> int:
    """The most sends that a recipient has, from where each recipient's begin."""
    return int(np.diff(np.append(np.flatnonzero(starts), len(starts))).max())


def _plain(rows: pa.Table) -> pa.Table:
    """The same rows with every text written out."""
    for place, name in enumerate(rows.column_names):
        field = rows.schema.field(name)
        if pa.types.is_dictionary(field.type):
            texts = rows[name].cast(pa.string())
            rows = rows.set_column(place, field.with_type(pa.string()), texts)
    return rows


def _among(column: pa.ChunkedArray, texts: Sequence[str]) -> Flags:
    """Which rows have one of these texts; a missing text is none of them."""
    encoded = flat(column).dictionary_encode()
    known = np.array([one in texts for one in encoded.dictionary.to_pylist()] + [False])
    places = encoded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(known[places], dtype=np.bool_)


def _flags(column: pa.ChunkedArray) -> Flags:
    """A boolean column without nulls as a numpy array of our own."""
    return np.array(flat(column).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _in_wave(sent_at: pa.ChunkedArray, starts: Flags, plan: Plan) -> Flags:
    """Which recipients are in the wave that is asked for: by their first send, so in one only."""
    first = flat(sent_at).cast(pa.int64()).to_numpy(zero_copy_only=False)[starts]
    inside = np.ones(len(first), dtype=np.bool_)
    design, wave = plan.analysis.sequential, plan.analysis.wave
    if design is None:
        return inside
    ends = [_microseconds(one.until) for one in design.waves]
    if wave > 1:
        inside &= first >= ends[wave - 2]
    return np.asarray(inside & (first < ends[max(wave, 1) - 1]), dtype=np.bool_)


def _microseconds(day: date) -> int:
    """Of the day's start in UTC, since 1970."""
    return (day - date(1970, 1, 1)).days * 86_400_000_000


def _experiment(rows: pa.Table, experiment: str) -> pa.Table:
    """The rows of one experiment: they stand together, so this is a view."""
    match = np.flatnonzero(_among(rows["experiment"], (experiment,)))
    return rows.slice(match[0], len(match)) if len(match) else rows.slice(0, 0)


def _passes(rows: pa.Table, condition: Condition) -> Flags:
    """Which rows meet a condition of the plan's population."""
    column = rows[condition.column]
    if condition.one_of is not None:
        return _flags(pc.is_in(column, value_set=pa.array(condition.one_of, pa.string())))
    passes = _flags(column.is_valid())
    if condition.at_least is not None:
        passes &= _flags(pc.greater_equal(column, condition.at_least).fill_null(False))  # noqa: FBT003
    if condition.at_most is not None:
        passes &= _flags(pc.less_equal(column, condition.at_most).fill_null(False))  # noqa: FBT003
    return passes


def _first_sends(
    rows: pa.Table, kept: npt.NDArray[np.int64], group: npt.NDArray[np.int64], limit: int
) -> Flags:
    """Which of the kept rows are among their recipient's first `limit` by send order."""
    starts = changes(group)
    places = np.flatnonzero(starts)
    if not len(kept) or np.diff(np.append(places, len(kept))).max() <= limit:
        return np.ones(len(kept), dtype=np.bool_)
    order = flat(rows[SEND_ORDER]).to_numpy()[kept]
    ranked = np.lexsort((order, group))
    # `group` is sorted, so that each recipient's rows stay in their own stretch
    rank = np.arange(len(kept)) - places[np.cumsum(starts) - 1]
    within = np.empty(len(kept), dtype=np.bool_)
    within[ranked] = rank < limit
    return within
