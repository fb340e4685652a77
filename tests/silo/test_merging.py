"""Merging and selecting, each against a slow model that says the same in a few lines."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.silo.merging import merge
from abfed.silo.portions import rising, whole_recipients
from abfed.silo.rows import SEND_ORDER
from abfed.silo.selection import coded_schema, select
from tests.silo.made import EXPERIMENTS, send, spring_plan, table

Rows = list[dict[str, Any]]

maybe = st.sampled_from([None, True, False])
amounts = st.sampled_from([None, 0.0, 1.5])
row = st.builds(
    lambda person, day, experiment, **values: send(person, day, experiment=experiment, **values),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from(sorted(EXPERIMENTS)),
    opened=maybe,
    clicked=maybe,
    revenue=amounts,
    tier=st.sampled_from([None, "gold", "basic"]),
    opted_out=st.sampled_from([False, False, False, True]),
    basis=st.sampled_from(["consent", "consent", "contract"]),
    age=st.sampled_from([None, 20.0, 60.0]),
)
rows_of_a_file = st.lists(row, max_size=25)


def stored(rows: Rows) -> pa.Table:
    """A bucket with these rows in it and a send order that is easy to follow."""
    merged = merge(table([]), table(rows), refuse_two_arms=True).table
    return table([]) if merged is None else merged


def name_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["experiment"], row["recipient"], row["sent_at"]


def folded(rows: Rows) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The model: the last known value of each column."""
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in rows:
        held = known.setdefault(name_of(one), dict(one))
        held |= {column: value for column, value in one.items() if value is not None}
    return dict(sorted(known.items()))


@settings(max_examples=40)
@given(rows_of_a_file, rows_of_a_file)
def test_merging_keeps_the_last_known_value_and_counts_rightly(first, second):
    merged = merge(stored(first), table(second), refuse_two_arms=True)
    before, after = folded(first), folded(first + second)
    touched = set(folded(second))
    new = touched - set(before)
    updated = {name for name in touched - new if after[name] != before[name]}
    assert (merged.new, merged.updated) == (len(new), len(updated))
    assert merged.unchanged == len(touched) - len(new) - len(updated)
    if merged.table is None:
        assert after == before
    else:
        columns = merged.table.column_names
        assert merged.table.to_pylist() == [
            {column: held[column] for column in columns} for held in after.values()
        ]


@settings(max_examples=40)
@given(rows_of_a_file, rows_of_a_file)
def test_two_files_one_after_the_other_are_as_one(first, second):
    whole = stored(first + second)
    apart = merge(stored(first), table(second), refuse_two_arms=True).table
    assert (stored(first) if apart is None else apart).equals(whole)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(row, st.sampled_from(["control", "warm", "urgent"])), max_size=30),
    st.integers(1, 3),
    st.sampled_from([(), ("consent",), ("consent", "contract")]),
    st.sampled_from([None, 30.0]),
    st.integers(1, 12),
)
def test_selecting_is_what_its_rules_say(drawn, limit, lawful, youngest, group):
    sends = list({name_of(one): one | {"arm": arm} for one, arm in drawn}.values())
    bucket = merge(table([]), table(sends), refuse_two_arms=False).table or table([])
    order = [(place * 7919) % 1009 for place in range(bucket.num_rows)]
    bucket = bucket.append_column(SEND_ORDER, pa.array(order, pa.uint64()))
    population = [] if youngest is None else [{"column": "age", "at_least": youngest}]
    plan = spring_plan(
        arms=[
            {"name": "control", "share": 0.5, "control": True},
            {"name": "warm", "share": 0.5},
        ],
        population=population,
        sends_per_recipient=limit,
    )
    out = bucket.filter(pc.fill_null(bucket["opted_out"], True))["recipient"].combine_chunks()
    chosen = select(bucket, plan, lawful, ["opened", "age"], out)
    assert chosen.to_pylist() == modelled(bucket.to_pylist(), limit, lawful, youngest)
    coded = bucket.cast(coded_schema(bucket.schema, bucket.column_names))  # as a store reads them
    again = select(coded, plan, lawful, ["opened", "age"], out)
    assert again.equals(chosen)
    assert again.schema.field("arm").type == pa.string()
    groups = [coded.slice(at, group) for at in range(0, coded.num_rows, group)]
    parts = [select(one, plan, lawful, ["opened", "age"], out) for one in whole_recipients(groups)]
    together = list(rising(parts))
    assert not together or pa.concat_tables(together).combine_chunks().equals(chosen)
    assert bool(together) == bool(chosen.num_rows)


def modelled(rows: Rows, limit: int, lawful: tuple[str, ...], youngest: float | None) -> Rows:
    """The rules of `abfed.silo.selection`, one after the other."""
    out = {row["recipient"] for row in rows if row["opted_out"]}
    rows = [row for row in rows if row["experiment"] == "spring"]
    out |= {row["recipient"] for row in rows if row["basis"] not in lawful}
    arms: dict[bytes, set[str]] = {}
    for row in rows:
        arms.setdefault(row["recipient"], set()).add(row["arm"])
    out |= {recipient for recipient, held in arms.items() if len(held) > 1}
    rows = [row for row in rows if row["recipient"] not in out and row["arm"] != "urgent"]
    if youngest is not None:
        rows = [row for row in rows if row["age"] is not None and row["age"] >= youngest]
    kept = []
    for recipient in {row["recipient"] for row in rows}:
        mine = [row for row in rows if row["recipient"] == recipient]
        kept += sorted(mine, key=lambda row: row[SEND_ORDER])[:limit]
    columns = ("recipient", "arm", "sent_at", "opened", "age")
    ordered = sorted(kept, key=lambda row: (row["recipient"], row["sent_at"]))
    return [{column: row[column] for column in columns} for row in ordered]
