from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from abfed.protocol.errors import DataError, IntegrityError, Refused
from abfed.silo import encryption
from abfed.silo.portions import rising
from abfed.silo.store import Store
from abfed.site.keys import SiteKeys
from tests.silo.made import (
    EXPERIMENTS,
    FEATURES,
    contents,
    founded,
    people,
    permit,
    pseudonym,
    put,
    seen,
    send,
    spring_plan,
    table,
)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, SiteKeys, Path]:
    """A store of 60 people with two sends each."""
    store, keys = founded(tmp_path)
    put(store, [send(person, day) for person in range(60) for day in (0, 7)])
    return store, keys, tmp_path / "store"


# ------------------------------------------------------------------ what comes back


def test_rows_come_back_as_they_went_in(made):
    store, _, _ = made
    rows = seen(store)
    assert len(rows) == 120
    assert people(rows) == {pseudonym(person) for person in range(60)}
    wanted = {
        (pseudonym(person), send(person, day)["sent_at"]): send(person, day)
        for person in range(60)
        for day in (0, 7)
    }
    for row in rows:
        expected = wanted[row["recipient"], row["sent_at"]]
        assert row == {name: expected[name] for name in row}


def test_a_recipient_stands_in_one_table_and_together(made):
    store, _, _ = made
    found: list[bytes] = []
    for part in store.read(permit(store), ["opened"]):
        here = part["recipient"].to_pylist()
        assert here == sorted(here)
        found += sorted(set(here))
    assert len(found) == len(set(found)) == 60


@pytest.mark.privacy
def test_a_bucket_is_read_in_portions_of_whole_recipients(tmp_path, monkeypatch):
    """Memory is bounded by a row group, and nobody is cut in two by one or comes twice."""
    monkeypatch.setattr(encryption, "ROW_GROUP", 7)
    store, _ = founded(tmp_path, buckets=1)
    sends = [send(person, day) for person in range(60) for day in (0, 3, 7)]
    elsewhere = [send(person, 1, experiment="autumn", opted_out=True) for person in (4, 50)]
    put(store, sends + elsewhere)
    parts = list(store.read(permit(store), ["opened"]))
    assert len(parts) > 10
    assert max(part.num_rows for part in parts) <= 7 + 2
    whole = pa.concat_tables(parts)["recipient"].to_pylist()
    assert whole == sorted(pseudonym(person) for person in range(60) if person not in (4, 50)
                           for _ in range(3))  # fmt: skip
    assert all(len(part["recipient"].unique()) * 3 == part.num_rows for part in parts)
    with pytest.raises(IntegrityError, match="not sorted by recipient"):
        list(rising([parts[0], parts[0].slice(0, 3)]))


def test_only_asked_columns_are_handed_out(made):
    store, _, _ = made
    part = next(store.read(permit(store), ["clicked", "age"]))
    assert part.column_names == ["recipient", "arm", "sent_at", "clicked", "age"]
    assert part.schema.field("recipient").type == pa.binary(16)


def test_an_undeclared_column_is_refused_although_it_is_held(made):
    store, _, _ = made
    narrow = spring_plan(features=[])
    with pytest.raises(Refused, match="doesn't declare column 'age'") as refused:
        next(store.read(permit(store, narrow), ["age"]))
    assert refused.value.code == "columns"


def test_a_declared_column_that_is_not_held_is_refused(made):
    store, _, _ = made
    metrics = [{"name": "v", "kind": "proportion", "column": "visited"}]
    with pytest.raises(Refused, match="'visited' is not held"):
        next(store.read(permit(store, spring_plan(metrics=metrics, primary="v")), ["visited"]))


def test_a_permit_for_an_earlier_state_of_the_data_is_refused(made):
    store, _, _ = made
    old = permit(store)
    put(store, [send(99)])
    with pytest.raises(Refused, match="changed after the permit"):
        next(store.read(old, ["opened"]))


def test_an_empty_store_yields_nothing(tmp_path):
    store, _ = founded(tmp_path)
    assert seen_nothing(store)


def seen_nothing(store: Store) -> bool:
    held = spring_plan(
        metrics=[{"name": "o", "kind": "proportion", "column": "opened"}], primary="o"
    )
    return not list(store.read(permit(store, held), []))


# ------------------------------------------------------------------ who may be read


@pytest.mark.privacy
def test_an_opt_out_on_any_send_of_any_experiment_hides_the_person(tmp_path):
    store, _ = founded(tmp_path)
    put(
        store,
        [
            send(1),
            send(1, 7),
            send(2, opted_out=True),
            send(2, 7),
            send(3),
            send(3, 7, experiment="autumn", opted_out=True),
        ],
    )
    assert people(seen(store)) == {pseudonym(1)}


@pytest.mark.privacy
def test_a_send_without_an_accepted_basis_hides_the_person_in_this_experiment(tmp_path):
    store, _ = founded(tmp_path)
    put(
        store,
        [
            send(1),
            send(2),
            send(2, 7, basis="legal-obligation"),
            send(3),
            send(3, 7, experiment="autumn", basis="legal-obligation"),
        ],
    )
    assert people(seen(store)) == {pseudonym(1), pseudonym(3)}
    assert seen(store, lawful_bases=()) == []


def test_only_the_plans_experiment_and_arms_are_read(tmp_path):
    store, _ = founded(tmp_path)
    put(store, [send(0), send(1), send(2), send(3, experiment="autumn")])
    two = [
        {"name": "control", "share": 0.5, "control": True},
        {"name": "warm", "share": 0.5},
    ]
    assert people(seen(store, spring_plan(arms=two))) == {pseudonym(0), pseudonym(1)}
    assert people(seen(store, spring_plan(experiment="autumn"))) == {pseudonym(3)}
    assert seen(store, spring_plan(experiment="winter")) == []


def test_two_arms_exclude_even_where_one_arm_is_not_in_the_plan(tmp_path):
    store, _ = founded(tmp_path)
    rows = [send(0), send(0, 7, arm="urgent"), send(3)]
    put(store, rows, two_arms="exclude")
    two = [
        {"name": "control", "share": 0.5, "control": True},
        {"name": "warm", "share": 0.5},
    ]
    assert people(seen(store, spring_plan(arms=two))) == {pseudonym(3)}


def test_population_filters_rows_and_a_missing_value_passes_nothing(tmp_path):
    store, _ = founded(tmp_path)
    put(
        store,
        [
            send(1, age=30.0),
            send(2, age=50.0),
            send(3, age=None),
            send(4, age=30.0, tier=None),
            send(5, age=30.0, region="US"),
            send(6, age=18.0, tier="basic"),
        ],
    )

    def passing(*conditions: dict[str, object]) -> set[bytes]:
        return people(seen(store, spring_plan(population=list(conditions))))

    assert passing({"column": "age", "at_most": 30.0}) == {pseudonym(i) for i in (1, 4, 5, 6)}
    assert passing({"column": "age", "at_least": 30.0, "at_most": 49.0}) == {
        pseudonym(i) for i in (1, 4, 5)
    }
    assert passing({"column": "tier", "one_of": ["gold"]}) == {pseudonym(i) for i in (1, 2, 3, 5)}
    assert passing({"column": "region", "one_of": ["EU"]}, {"column": "age", "at_most": 30.0}) == {
        pseudonym(i) for i in (1, 4, 6)
    }


def test_surplus_sends_are_dropped_by_keyed_order_alone(tmp_path):
    store, _ = founded(tmp_path)
    days = range(12)
    put(store, [send(person, day) for person in range(40) for day in days])
    three = seen(store, spring_plan(sends_per_recipient=3))
    assert len(three) == 120
    two = {
        (row["recipient"], row["sent_at"])
        for row in seen(store, spring_plan(sends_per_recipient=2))
    }
    assert two < {(row["recipient"], row["sent_at"]) for row in three}
    kept_days = {row["sent_at"] for row in three}
    assert len(kept_days) == 12, "some moments are never kept: not a random order"
    # values play no part: the same sends are chosen after every value changed
    put(store, [send(p, d, opened=True, revenue=9.0, age=1.0) for p in range(40) for d in days])
    again = seen(store, spring_plan(sends_per_recipient=3))
    assert {(r["recipient"], r["sent_at"]) for r in again} == {
        (r["recipient"], r["sent_at"]) for r in three
    }
    # another silo's key gives another choice
    (tmp_path / "other").mkdir()
    other, _ = founded(tmp_path / "other", site="borealis")
    put(other, [send(person, day) for person in range(40) for day in days])
    elsewhere = seen(other, spring_plan(sends_per_recipient=3))
    assert {(r["recipient"], r["sent_at"]) for r in elsewhere} != {
        (r["recipient"], r["sent_at"]) for r in three
    }


def test_the_bound_holds_for_unequal_numbers_of_sends(tmp_path):
    store, _ = founded(tmp_path, buckets=1)
    put(store, [send(person, day) for person in range(9) for day in range(person + 1)])
    rows = seen(store, spring_plan(sends_per_recipient=4))
    for person in range(9):
        mine = [row for row in rows if row["recipient"] == pseudonym(person)]
        assert len(mine) == min(person + 1, 4)


# ------------------------------------------------------------------ upserts


def test_a_later_file_adds_outcomes_and_a_missing_value_erases_nothing(made):
    store, _, _ = made
    counts = put(store, [send(1, 0, opened=True, clicked=True), send(2, 0, opened=None, age=None)])
    assert (counts.new, counts.updated, counts.unchanged) == (0, 1, 1)
    row = next(r for r in seen(store) if (r["recipient"], r["sent_at"]) == key(1, 0))
    assert (row["opened"], row["clicked"], row["age"]) == (True, True, 40.0)
    row = next(r for r in seen(store) if (r["recipient"], r["sent_at"]) == key(2, 0))
    assert (row["opened"], row["age"]) == (False, 40.0)


def key(person: int, day: int) -> tuple[bytes, object]:
    return pseudonym(person), send(person, day)["sent_at"]


def test_within_one_file_the_last_known_value_counts(tmp_path):
    store, _ = founded(tmp_path)
    counts = put(store, [send(1, revenue=5.0), send(1, revenue=7.0), send(1, revenue=None)])
    assert (counts.rows, counts.new, counts.updated, counts.unchanged) == (3, 1, 0, 0)
    assert [row["revenue"] for row in seen(store)] == [7.0]


def test_the_same_rows_again_change_no_byte(made):
    store, _, folder = made
    before, epoch = contents(folder), store.epoch
    counts = put(
        store, [send(person, day) for person in range(60) for day in (0, 7)], source="a" * 64
    )
    assert (counts.new, counts.updated, counts.unchanged) == (0, 0, 120)
    assert contents(folder) == before
    assert store.epoch == epoch


def test_any_real_change_gives_a_new_epoch_and_keeps_other_buckets(made):
    store, _, folder = made
    before, epoch = set(contents(folder)), store.epoch
    put(store, [send(1, 0, revenue=3.0)])
    assert store.epoch != epoch
    after = set(contents(folder))
    assert len(before - after) == len(after - before) == 1
    assert store.describe().generation == 2


def test_a_new_feature_is_null_for_older_rows(tmp_path):
    store, _ = founded(tmp_path, buckets=2)
    plain = [{k: v for k, v in send(person).items() if k != "tier"} for person in range(10)]
    store.upsert([table(plain, {"age": "numeric"})], experiments=EXPERIMENTS)
    assert store.features == {"age": "numeric"}
    put(store, [send(50)])
    assert store.features == FEATURES
    tiers = {row["recipient"]: row["tier"] for row in seen(store)}
    assert tiers[pseudonym(50)] == "gold"
    assert {tiers[pseudonym(person)] for person in range(10)} == {None}


def test_contradicting_arms_change_nothing(made):
    store, _, folder = made
    before = contents(folder)
    for rows in ([send(1, arm="urgent")], [send(70), send(70, arm="urgent")]):
        with pytest.raises(DataError, match="two different arms") as refused:
            put(store, [*rows, send(80)])
        assert "experiment spring" in str(refused.value)
        assert contents(folder) == before


def test_two_arms_are_refused_unless_the_mapping_excludes_them(made):
    store, _, folder = made
    before = contents(folder)
    with pytest.raises(DataError, match="two arms") as refused:
        put(store, [send(1, 20, arm="urgent"), send(80)])
    assert "two_arms: exclude" in str(refused.value)
    assert contents(folder) == before
    put(store, [send(1, 20, arm="urgent"), send(80)], two_arms="exclude")
    assert store.describe().sends == 122
    found = people(seen(store))
    assert pseudonym(1) not in found
    assert pseudonym(80) in found
    put(store, [send(81)])  # somebody else's old case doesn't stop a later file
    assert store.describe().sends == 123


def test_undeclared_arms_and_other_types_are_refused(made):
    store, _, folder = made
    before = contents(folder)
    with pytest.raises(DataError, match="isn't declared"):
        put(store, [send(1, 30, arm="secret")])
    numbers = table([{**send(1), "tier": 1.0}], {"age": "numeric", "tier": "numeric"})
    with pytest.raises(DataError, match="feature 'tier'"):
        store.upsert([numbers], experiments=EXPERIMENTS)
    with pytest.raises(DataError, match="one schema"):
        store.upsert([table([send(1)]), numbers], experiments=EXPERIMENTS)
    assert contents(folder) == before


def test_an_error_of_the_source_halfway_changes_nothing(made):
    store, _, folder = made
    before = contents(folder)

    def breaking():
        yield table([send(500)])
        raise DataError("the export broke off")

    with pytest.raises(DataError, match="broke off"):
        store.upsert(breaking(), experiments=EXPERIMENTS)
    assert contents(folder) == before


def test_a_failing_disk_halfway_changes_nothing(made, monkeypatch):
    store, _, folder = made
    before = contents(folder)
    calls = []
    real = os.fsync

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="No space"):
        put(store, [send(person, 30) for person in range(60)])
    monkeypatch.undo()
    assert contents(folder) == before
    assert len(seen(store)) == 120


def test_describe_tells_declared_names_without_reading_rows(made):
    store, _, folder = made
    for path in folder.glob("bucket-*"):
        path.write_bytes(b"")  # nothing is left to be read
    facts = store.describe()
    assert facts.experiments == EXPERIMENTS
    assert (facts.outcomes, facts.features) == (("opened", "clicked", "revenue"), FEATURES)
    assert (facts.sends, facts.buckets) == (120, 4)
