"""People in a store: erased for good, barred and let in again, purged; wholly or not at all."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from abfed.protocol.errors import IntegrityError
from abfed.silo.rewriting import Rewriting
from abfed.silo.store import Store
from abfed.silo.tombstones import NOBODY, STATES, with_state, without_state
from abfed.site.keys import SiteKeys
from tests.silo.made import contents, founded, people, pseudonym, put, seen, send

MANY = 60
WHO = frozenset({pseudonym(3), pseudonym(17)})


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, SiteKeys, Path]:
    """A store of 60 people with two sends each."""
    store, keys = founded(tmp_path)
    put(store, [send(person, day) for person in range(MANY) for day in (0, 7)])
    return store, keys, tmp_path / "store"


def read(store: Store) -> set[bytes]:
    store.refresh()
    return people(seen(store))


def test_erased_people_are_gone_from_every_file_and_stay_so(made):
    store, keys, folder = made
    before = store.epoch
    changed = Rewriting(folder, keys).erase([*WHO, pseudonym(999)])
    assert changed.held == WHO
    assert read(store) == {pseudonym(one) for one in range(MANY)} - WHO
    assert store.epoch == changed.epoch != before
    assert store.describe().erasures == 1
    rewriting = Rewriting(folder, keys)
    assert rewriting.holds(WHO) == frozenset()
    assert rewriting.export(pseudonym(3)) is None
    assert rewriting.states_of(pseudonym(3)) == ("erased",)
    put(store, [send(person, day) for person in range(MANY) for day in (0, 7)])
    assert read(store) == {pseudonym(one) for one in range(MANY)} - WHO, (
        "an export brought them back"
    )
    put(store, [send(999)])
    assert pseudonym(999) not in read(store), "nothing was held of them, and they stay out"
    assert rewriting.holds([*WHO, pseudonym(999)]) == frozenset(), "no file holds a row of theirs"
    Rewriting(folder, keys).erase([pseudonym(998)])
    store.refresh()
    assert store.describe().erasures == 1, "it changed nothing, so no plan is to be run again"


def test_one_person_takes_one_bucket(made):
    _, keys, folder = made
    before = {name: data for name, data in contents(folder).items() if name.startswith("bucket-")}
    changed = Rewriting(folder, keys).erase([pseudonym(5)])
    after = {name: data for name, data in contents(folder).items() if name.startswith("bucket-")}
    assert changed.buckets == 1
    assert len(set(before) - set(after)) == 1
    assert all(after[name] == data for name, data in before.items() if name in after)


def test_a_bucket_that_is_empty_now_has_no_file(tmp_path: Path):
    store, keys = founded(tmp_path, buckets=4)
    put(store, [send(1)])
    Rewriting(tmp_path / "store", keys).erase([pseudonym(1)])
    assert not list((tmp_path / "store").glob("bucket-*"))
    assert read(store) == set()
    put(store, [send(2)])
    assert read(store) == {pseudonym(2)}


@pytest.mark.parametrize("state", ["opted-out", "restricted"])
def test_barred_people_are_held_and_not_read(made, state):
    store, keys, folder = made
    rewriting = Rewriting(folder, keys)
    assert rewriting.bar(WHO, state).held == WHO
    assert read(store) == {pseudonym(one) for one in range(MANY)} - WHO
    exported = rewriting.export(pseudonym(3))
    assert exported is not None
    assert exported.num_rows == 2
    put(store, [send(3, 14, opted_out=False)])
    assert pseudonym(3) not in read(store), "an export lifted it"
    epoch = store.epoch
    rewriting.bar(WHO, state, lift=True)
    assert read(store) >= WHO
    assert store.epoch != epoch


def test_erasing_ends_every_other_state():
    barred = with_state(with_state(NOBODY, WHO, "restricted"), WHO, "opted-out")
    erased = with_state(barred, {pseudonym(3)}, "erased")
    assert erased["erased"] == {pseudonym(3)}
    assert erased["restricted"] == erased["opted-out"] == WHO - {pseudonym(3)}
    assert without_state(erased, WHO, "opted-out")["opted-out"] == frozenset()
    assert set(NOBODY) == set(STATES)


def test_a_tombstone_that_is_missing_or_older_is_found_out(made):
    store, keys, folder = made
    rewriting = Rewriting(folder, keys)
    rewriting.erase([pseudonym(3)])
    (first,) = folder.glob("subjects-*")
    kept = first.read_bytes()
    rewriting.erase([pseudonym(17)])
    (second,) = folder.glob("subjects-*")
    assert first != second
    second.write_bytes(kept)
    for touch in (lambda: read(store), store.verify, lambda: put(store, [send(3)])):
        with pytest.raises(IntegrityError, match="was changed"):
            touch()
    second.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        store.verify()


def test_purged_sends_are_gone_and_do_not_come_back(made):
    store, keys, folder = made
    moment = send(0, 7)["sent_at"]
    changed = Rewriting(folder, keys).purge(moment)
    assert changed.buckets == 4
    rows = seen_after(store)
    assert len(rows) == MANY
    assert min(row["sent_at"] for row in rows) == moment
    put(store, [send(person, day) for person in range(MANY) for day in (0, 7)])
    assert len(seen_after(store)) == MANY
    epoch = store.epoch
    assert Rewriting(folder, keys).purge(moment).buckets == 0
    store.refresh()
    assert store.epoch == epoch, "nothing changed, so it is the same state of the data"


def test_a_purge_lets_nobody_be_read_again_who_opted_out_on_a_send_that_goes(tmp_path: Path):
    store, keys = founded(tmp_path, buckets=1)
    put(store, [send(1, 0, opted_out=True), send(1, 7), send(2, 0), send(2, 7)])
    assert read(store) == {pseudonym(2)}
    moment = send(0, 7)["sent_at"]
    Rewriting(tmp_path / "store", keys).purge(moment)
    assert read(store) == {pseudonym(2)}
    put(store, [send(3, 7), send(3, 0, opted_out=True)])
    assert read(store) == {pseudonym(2)}, "a row that is too old to be kept said it"
    put(store, [send(2, 0, opted_out=True)])
    assert read(store) == set(), "also where no row is taken in"


def seen_after(store: Store) -> list[dict[str, Any]]:
    store.refresh()
    return seen(store)


def test_nobody_is_found_by_their_pseudonym_in_any_file(made):
    _, keys, folder = made
    Rewriting(folder, keys).erase(WHO)
    for name, data in contents(folder).items():
        for one in WHO:
            assert one not in data, name
            assert one.hex().encode() not in data, name


def killed_at(number: int, folder: Path) -> bool:
    """Erase in a child that dies of SIGKILL at its `number`th act on a file; whether it did."""
    child = os.fork()
    if child == 0:
        keys = SiteKeys.open(folder / "keys")
        rewriting = Rewriting(folder / "store", keys)
        acts = 0

        def hook(event: str, _: Any) -> None:
            nonlocal acts
            if event in ("open", "os.rename", "os.remove"):
                acts += 1
                if acts == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        rewriting.erase(WHO)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.privacy
def test_killed_at_any_act_on_the_disk_it_was_done_wholly_or_not_at_all(tmp_path: Path):
    store, keys = founded(tmp_path / "start")
    put(store, [send(person) for person in range(12)])
    everybody = {pseudonym(person) for person in range(12)}
    wanted = WHO & everybody
    states: list[str] = []
    for number in range(1, 200):
        folder = tmp_path / f"at-{number}"
        _copy(tmp_path / "start", folder)
        killed = killed_at(number, folder)
        opened = Store.open(folder / "store", keys)
        opened.verify()
        left = people(seen(opened))
        assert left in (everybody, everybody - wanted), f"half done after act {number}"
        gone = left == everybody - wanted
        states.append("new" if gone else "old")
        put(opened, [send(person) for person in range(12)])
        assert read(opened) == (everybody - wanted if gone else everybody)
        if not killed:
            break
    assert len(states) > 15, "it was not killed often enough"
    assert states == sorted(states, reverse=True), "it went back"
    assert states[-1] == "new"
    sys.stdout.write(f"killed at {len(states) - 1} acts: {states.count('old')} before the commit\n")


def _copy(start: Path, folder: Path) -> None:
    for name, data in contents(start).items():
        path = folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)


def test_the_moment_of_a_purge_is_a_whole_day():
    from abfed.silo.retention import cutoff_of

    now = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
    assert cutoff_of(7, now) == datetime(2026, 3, 3, tzinfo=UTC)
    assert cutoff_of(7, now + timedelta(hours=8, minutes=29)) == datetime(2026, 3, 3, tzinfo=UTC)
    assert pa.types.is_timestamp(pa.timestamp("us", tz="UTC"))
