from __future__ import annotations

import base64
import fcntl
import multiprocessing
import random
import shutil
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.silo.encryption import Cryptor
from abfed.silo.lists import Lists
from abfed.silo.pseudonyms import Pseudonyms
from abfed.silo.releases import Releases
from abfed.silo.store import Store
from abfed.site.audit import AuditLog
from abfed.site.checkups import Checkups
from abfed.site.keys import SiteKeys
from abfed.site.people import People
from tests.silo.made import (
    EXPERIMENTS,
    contents,
    founded,
    people,
    permit,
    put,
    seen,
    send,
    table,
    upsert_in_steps,
)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, SiteKeys, Path]:
    """A store of 60 people with two sends each."""
    store, keys = founded(tmp_path)
    put(store, [send(person, day) for person in range(60) for day in (0, 7)])
    return store, keys, tmp_path / "store"


# ------------------------------------------------------------------ at rest


def test_files_are_encrypted_parquet_and_private(made):
    _, _, folder = made
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    for path in folder.glob("bucket-*"):
        data = path.read_bytes()
        assert data[:4] == data[-4:] == b"PARE"  # encrypted footer; plain Parquet says PAR1
        with pytest.raises(OSError, match="encrypted"):
            pq.ParquetFile(path)


@pytest.mark.privacy
def test_no_marked_value_is_in_any_byte_on_disk(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    store, _ = founded(tmp_path)
    odd = 7331.734212890625
    marked = b"canary-recipient"
    assert len(marked) == 16

    def batches():
        yield table([send(person, day) for person in range(300) for day in range(3)])
        # in the middle of an upsert: what is spilled by now must be unreadable too
        assert_no(tmp_path, marked, b"CanaryTier", b"CanaryLand", pack(odd))
        yield table(
            [
                {
                    **send(1, 90),
                    "recipient": marked,
                    "revenue": odd,
                    "tier": "CanaryTier",
                    "region": "CanaryLand",
                }
            ]
            * 3
        )
        yield table([send(person, 91) for person in range(300)])  # so that those are on disk too
        assert_no(tmp_path, marked, b"CanaryTier", b"CanaryLand", pack(odd))

    store.upsert(batches(), experiments=EXPERIMENTS)
    assert marked in people(seen(store))
    assert_no(tmp_path, marked, b"CanaryTier", b"CanaryLand", pack(odd), b"spring", b"urgent")
    assert list(elsewhere.iterdir()) == []


def pack(number: float) -> bytes:
    return pa.array([number]).buffers()[1].to_pybytes()[:8]


def assert_no(folder: Path, *marks: bytes) -> None:
    spills = [path for path in Path("/proc/self/fd").iterdir() if "(deleted)" in _target(path)]
    for path in [p for p in folder.rglob("*") if p.is_file()] + spills:
        data = path.read_bytes()
        for mark in marks:
            assert mark not in data, f"{mark!r} stands in {path}"


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_a_flipped_byte_anywhere_is_found_and_named(made):
    store, keys, folder = made
    generator = random.Random(1)
    for path in sorted(folder.glob("bucket-*")):
        good = path.read_bytes()
        places = {0, 4, len(good) - 1, *generator.sample(range(len(good)), 5)}
        for place in places:
            bad = bytearray(good)
            bad[place] ^= 1
            path.write_bytes(bad)
            with pytest.raises(IntegrityError, match=path.name):
                seen(Store.open(folder, keys))
            with pytest.raises(IntegrityError, match=path.name):
                store.verify()
        path.write_bytes(good)
    assert len(seen(store)) == 120
    manifest = folder / "manifest.sealed"
    good = manifest.read_bytes()
    for place in {0, len(good) - 1, *generator.sample(range(len(good)), 12)}:
        bad = bytearray(good)
        bad[place] ^= 1
        manifest.write_bytes(bad)
        with pytest.raises(IntegrityError, match=r"manifest\.sealed"):
            Store.open(folder, keys)


def test_a_changed_bucket_stops_an_upsert_too(made):
    store, _, folder = made
    path = next(folder.glob("bucket-*"))
    path.write_bytes(path.read_bytes()[:-1])
    before = contents(folder)
    with pytest.raises(IntegrityError, match=path.name):
        put(store, [send(person, 30) for person in range(60)])
    assert contents(folder) == before


def test_another_key_opens_nothing(made, tmp_path):
    _, _, folder = made
    thief = SiteKeys.create(tmp_path / "thief", site="aurora")
    with pytest.raises(IntegrityError, match="manifest"):
        Store.open(folder, thief)


def test_each_file_has_a_key_of_its_own_that_its_site_alone_unwraps(tmp_path, monkeypatch):
    store, _ = founded(tmp_path)
    wrapped, wrap = [], SiteKeys.wrap

    def seen_to_wrap(self: SiteKeys, key: bytes, *, name: str) -> bytes:
        wrapped.append(bytes(key))
        return wrap(self, key, name=name)

    monkeypatch.setattr(SiteKeys, "wrap", seen_to_wrap)
    put(store, [send(person) for person in range(60)])
    files = [path.read_bytes() for path in (tmp_path / "store").glob("bucket-*")]
    assert len(set(wrapped)) == len(wrapped) == len(files) > 1
    assert {len(key) for key in wrapped} == {32}  # AES-256
    for shown in (*wrapped, *map(base64.b64encode, wrapped)):
        assert not [data for data in files if shown in data]
    thief = Cryptor(SiteKeys.create(tmp_path / "thief", site="aurora"))
    with pytest.raises(IntegrityError, match="can't be decrypted"):
        thief.decrypt(files[0], where="stolen")


def test_an_older_bucket_file_under_a_newer_name_is_found(made):
    store, keys, folder = made
    old = {path.name[:11]: path.read_bytes() for path in folder.glob("bucket-*")}
    put(store, [send(person, 0, revenue=1.0) for person in range(60)])
    newer = next(folder.glob("bucket-*"))
    newer.write_bytes(old[newer.name[:11]])
    with pytest.raises(IntegrityError, match=newer.name):
        seen(Store.open(folder, keys))


def test_an_older_manifest_over_newer_files_is_found(made):
    store, keys, folder = made
    old = (folder / "manifest.sealed").read_bytes()
    put(store, [send(person, 0, revenue=1.0) for person in range(60)])
    (folder / "manifest.sealed").write_bytes(old)
    with pytest.raises(IntegrityError, match="missing"):
        Store.open(folder, keys)


def test_a_missing_or_linked_file_is_found(made, tmp_path):
    _, keys, folder = made
    path = next(folder.glob("bucket-*"))
    away = tmp_path / "away"
    path.rename(away)
    with pytest.raises(IntegrityError, match="missing"):
        Store.open(folder, keys)
    path.symlink_to(away)
    with pytest.raises(IntegrityError, match="link"):
        Store.open(folder, keys)


@pytest.mark.parametrize("name", ["", "manifest.sealed", "lock", "bucket"])
def test_wider_permissions_are_refused(made, name):
    _, keys, folder = made
    path = next(folder.glob("bucket-*")) if name == "bucket" else folder / name
    path.chmod(0o750 if name == "" else 0o640)
    with pytest.raises(IntegrityError, match="others may have read"):
        Store.open(folder, keys)


def test_a_folder_that_was_opened_to_others_is_refused_and_not_narrowed(tmp_path):
    keys = SiteKeys.create(tmp_path / "keys", site="aurora")
    audit = AuditLog(tmp_path / "audit.jsonl", keys)
    uses = {
        "releases": lambda: Releases(tmp_path / "releases", keys),
        "people": lambda: People(tmp_path, keys, audit),
        "lists": lambda: Lists(tmp_path, Pseudonyms(keys)).make_ready(),
        "checkups": lambda: Checkups(tmp_path, keys).keep([], [], audit, datetime.now(UTC)),
    }
    for name, use in uses.items():
        use()
        (tmp_path / name).chmod(0o755)
        with pytest.raises(IntegrityError, match="others may have read"):
            use()
        mode = (tmp_path / name).stat().st_mode & 0o777
        assert mode == 0o755, f"nobody would know that {name} was open"


def test_no_store_and_a_used_folder(tmp_path):
    _, keys = founded(tmp_path)
    with pytest.raises(WorkspaceError, match="not a store"):
        Store.open(tmp_path / "nothing", keys)
    with pytest.raises(WorkspaceError, match="not empty"):
        Store.create(tmp_path / "store", keys)
    with pytest.raises(ValueError, match="buckets"):
        Store.create(tmp_path / "more", keys, buckets=0)


def test_opening_clears_what_a_crash_left(made):
    store, keys, folder = made
    before = contents(folder)
    (folder / "bucket-0001-0123456789abcdef.parquet").write_bytes(b"half")
    (folder / ".aside-0123").write_bytes(b"half")
    for path in folder.iterdir():
        path.chmod(0o600)
    Store.open(folder, keys)
    assert contents(folder) == before
    assert len(seen(store)) == 120


# ------------------------------------------------------------------ at the same time


def test_a_reader_keeps_its_state_while_a_writer_replaces_every_file(made):
    store, keys, folder = made
    reading = store.read(permit(store), ["revenue"])
    first = next(reading)
    writer = Store.open(folder, keys)
    put(writer, [send(person, day, revenue=8.0) for person in range(60) for day in (0, 7)])
    rest = [row for part in reading for row in part.to_pylist()]
    assert first.num_rows + len(rest) == 120
    assert {row["revenue"] for row in rest} == {None}


def test_writers_wait_for_one_another(made):
    store, keys, folder = made
    with (folder / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=put, args=(Store.open(folder, keys), [send(90)]))
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
        assert store.describe().sends == 120
    waiting.join(30)
    store.refresh()
    assert store.describe().sends == 121


def test_many_writers_lose_nothing(made):
    store, keys, folder = made
    stores = [Store.open(folder, keys) for _ in range(4)]
    threads = [
        threading.Thread(target=put, args=(one, [send(200 + 10 * n + i) for i in range(10)]))
        for n, one in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    store.refresh()
    assert store.describe().sends == 160
    assert len(people(seen(store))) == 100


def test_a_killed_upsert_leaves_the_old_state_or_the_new_one(tmp_path):
    start, keys = founded(tmp_path / "start", buckets=8)
    put(start, [send(person, day) for person in range(300) for day in (0, 7)])
    old = {(row["recipient"], row["sent_at"]): row["revenue"] for row in seen(start)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["abfed.silo.store", "pandas"])  # once, not 17 times
    whole = _upsert_elsewhere(context, tmp_path, "timed", kill_after=None)
    generator = random.Random(7)
    states: list[str] = []
    for attempt in range(16):
        delay = whole * (attempt + generator.random()) / 16
        _upsert_elsewhere(context, tmp_path, f"killed-{attempt}", kill_after=delay)
        folder = tmp_path / f"killed-{attempt}"
        store = Store.open(folder / "store", keys)
        store.verify()
        rows = {(row["recipient"], row["sent_at"]): row["revenue"] for row in seen(store)}
        if rows == old:
            assert store.epoch == start.epoch
            states.append("old")
        else:
            assert len(rows) == 800
            assert set(rows.values()) == {1.0}
            states.append("new")
        names = {path.name for path in (folder / "store").iterdir()}
        assert len(names) == 8 + 2, "a file was left behind"
    assert "old" in states


def _upsert_elsewhere(
    context: Any, tmp_path: Path, name: str, *, kill_after: float | None
) -> float:
    """Upsert in another process, killed after some seconds; how long it took."""
    folder = tmp_path / name
    shutil.copytree(tmp_path / "start", folder)
    here, there = context.Pipe()
    process = context.Process(target=upsert_in_steps, args=(folder, there))
    process.start()
    assert here.recv() == "ready"
    began = time.monotonic()
    here.send("go")
    if kill_after is None:
        assert here.recv() == "done"
    else:
        time.sleep(kill_after)
        process.kill()
    took = time.monotonic() - began
    process.join(60)
    process.close()
    here.close()
    there.close()
    return took
