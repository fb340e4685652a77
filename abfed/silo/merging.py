"""Merging rows into a bucket: what a later export says about known sends. Pure functions.

1. A send is known by (experiment, recipient, sent_at). It stays one row.
2. A later value replaces an earlier one; a missing value replaces nothing. So outcomes that arrive
   days later are added, and an export without them takes nothing away.
3. A send doesn't change its arm: that contradicts the experiment and is refused.
4. A recipient who is new in a second arm of an experiment is refused, unless the mapping says
   `two_arms: exclude`: then the rows are kept, and no computation reads them.
5. A row that isn't taken in counts in one thing: where it says that its recipient opted out, so do
   all that are held of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.errors import DataError
from abfed.silo.rows import changes, codes, flat, recipient_words, value_columns

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Merged:
    """A bucket after a merge. Rows: sensitive.

    Attributes:
        table: the bucket's rows, sorted; None where nothing changed.
        new: sends that weren't known.
        updated: known sends with a new value.
        unchanged: known sends without one.
    """

    table: pa.Table | None
    new: int
    updated: int
    unchanged: int


def merge(
    existing: pa.Table,
    incoming: pa.Table,
    *,
    refuse_two_arms: bool,
    opted_out: pa.Array | None = None,
) -> Merged:
    """Merge rows of one bucket; both tables have the same schema.

    Args:
        existing: what is held. Sensitive.
        incoming: what is new. Sensitive.
        refuse_two_arms: whether a recipient in two arms of an experiment is an error.
        opted_out: people who did by rows that aren't taken in.

    Raises:
        DataError: a send with two arms, or a recipient in two arms where that is refused.
    """
    rows = pa.concat_tables([existing, opt_out(incoming, opted_out)]).combine_chunks()
    if not rows.num_rows:
        return Merged(None, 0, 0, 0)
    order, experiments, people, moments = _sorted(rows)
    rows = rows.take(pa.array(order))
    old = order < existing.num_rows
    arms = codes(flat(rows["arm"]))
    send_starts = changes(experiments, people, moments)
    recipient_starts = changes(experiments, people)
    _check_sends(rows, arms, send_starts)
    if refuse_two_arms:
        _check_recipients(rows, arms, recipient_starts, ~old)
    return _collapse(rows, old, np.flatnonzero(send_starts), opted_out)


def opt_out(rows: pa.Table, who: pa.Array | None) -> pa.Table:
    """The same rows, where those of these people say that they opted out.

    The very same table where they say so already.
    """
    if who is None or not len(who) or not rows.num_rows:
        return rows
    theirs = pc.is_in(rows["recipient"], value_set=who)
    said = rows["opted_out"]
    if not pc.any(pc.and_not(theirs, said)).as_py():
        return rows
    place = rows.schema.get_field_index("opted_out")
    return rows.set_column(place, rows.schema.field(place), pc.or_(said, theirs))


def check_declared(table: pa.Table, experiments: Mapping[str, Collection[str]]) -> None:
    """Refuse rows of an experiment or arm that no mapping declared."""
    for pair in (
        table.select(["experiment", "arm"])
        .group_by(["experiment", "arm"])
        .aggregate([])
        .to_pylist()
    ):
        if pair["arm"] not in experiments.get(pair["experiment"], ()):
            raise DataError("rows are of an experiment or arm that isn't declared")


def _sorted(rows: pa.Table) -> tuple[Indices, Indices, npt.NDArray[np.uint64], Indices]:
    """The order by send, earlier rows first, and the sorted key columns."""
    experiments = codes(flat(rows["experiment"]))
    people = recipient_words(flat(rows["recipient"]))
    moments = flat(rows["sent_at"]).cast(pa.int64()).to_numpy()
    order = np.lexsort((moments, people[:, 1], people[:, 0], experiments)).astype(np.int64)
    return order, experiments[order], people[order], moments[order]


def _check_sends(rows: pa.Table, arms: Indices, starts: Flags) -> None:
    """Refuse a send that stands in two arms."""
    contradicts = ~starts[1:] & (arms[1:] != arms[:-1])
    if contradicts.any():
        place = int(np.argmax(contradicts)) + 1
        raise DataError(
            "a send stands with two different arms",
            where=f"experiment {rows['experiment'][place].as_py()}",
            why="the same recipient, experiment and moment can have one arm only",
            do="correct the export, or its mapping of arms; nothing was stored",
        )


def _check_recipients(rows: pa.Table, arms: Indices, starts: Flags, incoming: Flags) -> None:
    """Refuse a recipient of the incoming rows who stands in two arms of an experiment."""
    group = np.cumsum(starts) - 1
    switches = np.flatnonzero(~starts[1:] & (arms[1:] != arms[:-1])) + 1
    mixed = np.zeros(group[-1] + 1, dtype=np.bool_)
    mixed[group[switches]] = True
    hit = mixed[group] & incoming
    if hit.any():
        _refuse_two_arms(rows["experiment"][int(np.argmax(hit))].as_py())


def _refuse_two_arms(experiment: str) -> NoReturn:
    raise DataError(
        "at least one recipient stands in two arms",
        where=f"experiment {experiment}",
        why="an effect can't be told apart for somebody who got both versions",
        do="correct the export, or write `two_arms: exclude` in the mapping to keep such "
        "recipients out of every computation; nothing was stored",
    )


def _collapse(rows: pa.Table, old: Flags, starts: Indices, opted_out: pa.Array | None) -> Merged:
    """One row for each send, with the last known value of each column."""
    sizes = np.diff(np.append(starts, len(old)))
    known = old[starts]
    new = int((~known).sum())
    met = known & (sizes > 1)
    updated = np.zeros(len(starts), dtype=np.bool_)
    if len(starts) < len(old):
        rows, updated = _last_known(rows, starts, met)
    unchanged = int(met.sum()) - int(updated.sum())
    after = opt_out(rows, opted_out)
    changed = new > 0 or bool(updated.any()) or after is not rows
    return Merged(after if changed else None, new, int(updated.sum()), unchanged)


def _last_known(rows: pa.Table, starts: Indices, met: Flags) -> tuple[pa.Table, Flags]:
    """The last non-null value of each send and column, and which met sends it changes."""
    updated = np.zeros(len(starts), dtype=np.bool_)
    place = np.arange(rows.num_rows, dtype=np.int64)
    news = set(value_columns(rows.schema))
    columns: list[Any] = []
    for name in rows.column_names:
        column = flat(rows[name])
        picks = starts
        if name in news:
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            picks = np.maximum.reduceat(np.where(valid, place, -1), starts)
            updated |= _differs(column, picks, starts, met)
        columns.append(column.take(pa.array(picks, mask=picks < 0)))
    return pa.table(columns, schema=rows.schema), updated


def _differs(column: pa.Array, picks: Indices, starts: Indices, met: Flags) -> Flags:
    """Which met sends get another value than the one stored (which stands first)."""
    differs = np.zeros(len(starts), dtype=np.bool_)
    moved = np.flatnonzero(met & (picks != starts))
    if not len(moved):
        return differs
    later = column.take(pa.array(picks[moved], mask=picks[moved] < 0))
    stored = column.take(pa.array(starts[moved]))
    same = pc.equal(later, stored).fill_null(False)  # noqa: FBT003 - Arrow's signature
    both_null = pc.and_(later.is_null(), stored.is_null())
    differs[moved] = ~pc.or_(same, both_null).to_numpy(zero_copy_only=False)
    return differs
