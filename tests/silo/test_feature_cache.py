"""Rows on disk: sealed, gone with their data, and training on them changes nothing."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import numpy as np
import pytest

from abfed.learning.batches import InMemory
from abfed.learning.design_matrix import Design, RecipientRows
from abfed.protocol.errors import IntegrityError
from abfed.protocol.tensors import pack
from abfed.silo import feature_cache
from abfed.silo.evaluation import compute_evaluation
from abfed.silo.feature_cache import CachedRows, CacheFolder, CacheName
from abfed.silo.prepared import cache_name, prepare, reopen
from abfed.silo.training import compute_training
from tests.examples import make_model_plan
from tests.learning.signal_rows import made_rows
from tests.silo import made
from tests.silo.test_training import EPOCH, learning_plan, permit_for, sends

NAME = CacheName("a" * 64, EPOCH, "training")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(feature_cache, "BLOCK", 1 << 10)


@pytest.fixture
def caches(tmp_path: Path) -> CacheFolder:
    _, keys = made.founded(tmp_path)
    return CacheFolder(tmp_path / "store", keys)


def rows_of(recipients: int, seed: int = 1) -> RecipientRows:
    """Rows as `prepare` makes them: sorted by size, exact in half precision."""
    data = made_rows(learning_plan(), recipients, seed=seed)
    data.features[:] = data.features.astype(np.float16)
    return data.by_size()[0]


def written(caches: CacheFolder, data: RecipientRows) -> CachedRows:
    writer = caches.write(NAME, data.design)
    writer.add(data)
    return writer.finish()


def test_batches_are_those_of_rows_in_memory(caches):
    data = rows_of(300)
    kept = written(caches, data)
    assert (kept.recipients, kept.rows) == (300, len(data.labels))
    generator = np.random.default_rng(2)
    drawn = [np.flatnonzero(generator.random(300) < share) for share in (0.1, 0.0, 0.5, 1.0)]
    for ours, theirs in zip(kept.batches(drawn), InMemory(data).batches(drawn), strict=True):
        assert ours.groups == theirs.groups
        assert (ours.lines == theirs.lines).all()
        assert (ours.labels == theirs.labels).all()
    assert list(kept.batches([])) == []


def test_several_labels_come_back_as_they_were_and_unknown_ones_unknown(caches):
    data, generator = rows_of(300), np.random.default_rng(4)
    model = {"outcome": "clicked", "learner": "x", "also": ["opened"], "revenue": {"high": 80.0}}
    design = Design.of(make_model_plan(model=model))
    labels = generator.random((len(data.labels), design.heads.labels)).astype(np.float16)
    labels[generator.random(labels.shape) < 0.1] = np.nan
    data = dataclasses.replace(data, design=design, labels=labels.astype(np.float32))
    kept = written(caches, data)
    drawn = [np.flatnonzero(generator.random(300) < share) for share in (0.0, 0.1, 0.5, 1.0)]
    for ours, theirs in zip(kept.batches(drawn), InMemory(data).batches(drawn), strict=True):
        assert ours.groups == theirs.groups
        np.testing.assert_array_equal(ours.lines, theirs.lines)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_parts_come_in_as_they_like_and_blocks_hold_everybody(caches):
    data = rows_of(200)
    one = CacheName("b" * 64, EPOCH, "training")
    writer = caches.write(one, data.design)
    half = int(data.offsets[100])
    writer.add(
        dataclasses.replace(
            data,
            features=data.features[:half],
            arms=data.arms[:half],
            labels=data.labels[:half],
            offsets=data.offsets[:101],
        )
    )
    writer.add(
        dataclasses.replace(
            data,
            features=data.features[half:],
            arms=data.arms[half:],
            labels=data.labels[half:],
            offsets=data.offsets[100:] - half,
        )
    )
    kept = writer.finish()
    found = np.concatenate([lines for lines, _ in kept.blocks(7)])
    expected = np.concatenate([lines for lines, _ in data.blocks(1000)])
    assert (found == expected).all()
    assert max(len(lines) for lines, _ in kept.blocks(7)) <= 7


@pytest.mark.privacy
def test_no_row_can_be_read_on_disk(caches, tmp_path):
    data = rows_of(400)
    data.features[:] = np.float16(0.7354)
    written(caches, data).close()
    marks = [np.full(4, 0.7354, kind).tobytes() for kind in (np.float16, np.float32)]
    for path, content in made.contents(tmp_path / "store").items():
        assert not any(mark in content for mark in marks), path
        assert stat.S_IMODE((tmp_path / "store" / path).stat().st_mode) == 0o600


@pytest.mark.privacy
@pytest.mark.parametrize("suffix", [".rows", ".index"])
def test_a_changed_byte_anywhere_is_found(caches, tmp_path, suffix):
    data = rows_of(60)
    written(caches, data).close()
    (path,) = (tmp_path / "store").glob(f"cache-*{suffix}")
    sealed = path.read_bytes()
    for place in range(0, len(sealed), 97):
        path.write_bytes(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        with pytest.raises(IntegrityError):
            list(caches.open(NAME, data.design).blocks(10**6))
    path.write_bytes(sealed[:-1])
    with pytest.raises(IntegrityError):
        caches.open(NAME, data.design)


@pytest.mark.privacy
def test_blocks_cannot_change_places(caches, tmp_path):
    data = rows_of(400)
    kept = written(caches, data)
    one, two = next(
        (a, b)
        for a, b in zip(kept._blocks, kept._blocks[1:], strict=False)
        if (a.rows, a.recipients) == (b.rows, b.recipients)
    )
    kept.close()
    (path,) = (tmp_path / "store").glob("cache-*.rows")
    sealed = bytearray(path.read_bytes())
    size = two.offset - one.offset
    first, second = sealed[one.offset : one.offset + size], sealed[two.offset : two.offset + size]
    sealed[one.offset : one.offset + size], sealed[two.offset : two.offset + size] = second, first
    path.write_bytes(sealed)
    with pytest.raises(IntegrityError, match="was changed"):
        list(caches.open(NAME, data.design).blocks(10**6))


@pytest.mark.privacy
def test_another_sites_keys_open_nothing(caches, tmp_path):
    data = rows_of(20)
    written(caches, data).close()
    _, others = made.founded(tmp_path / "other", site="borealis")
    with pytest.raises(IntegrityError):
        CacheFolder(tmp_path / "store", others).open(NAME, data.design)


@pytest.mark.privacy
def test_it_goes_with_its_state_of_the_data(tmp_path):
    store, keys = made.founded(tmp_path)
    made.put(store, [made.send(person, clicked=True) for person in range(50)])
    caches, plan = CacheFolder(tmp_path / "store", keys), learning_plan()
    permit = permit_for(plan, epoch=store.epoch, lawful_bases=made.LAWFUL)
    prepare(permit, store.read(permit, ("clicked", "age", "tier")), caches, in_memory=0).close()
    assert len(list((tmp_path / "store").glob("cache-*"))) == 4
    made.put(store, [made.send(51, clicked=False)])
    assert list((tmp_path / "store").glob("cache-*")) == []


def test_an_unfinished_one_is_nothing(caches, tmp_path):
    data = rows_of(30)
    writer = caches.write(NAME, data.design)
    writer.add(data)
    assert caches.open(NAME, data.design) is None
    writer._file.close()  # as a process that dies leaves it
    assert written(caches, data).recipients == 30
    again = caches.write(NAME, data.design)
    again.abandon()
    assert list((tmp_path / "store").glob("cache-*")) == []


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_a_simulation_on_disk_gives_the_bits_that_it_gives_in_memory(caches, hidden):
    plan = learning_plan(*hidden)
    permit = permit_for(plan)
    rows = sends()
    people = sorted({row["recipient"] for row in rows})
    tables = [
        made.table([row for row in rows if row["recipient"] in set(people[part::3])])
        for part in range(3)
    ]
    in_memory = prepare(permit, tables)
    on_disk = prepare(permit, tables, caches, in_memory=0)
    assert isinstance(on_disk.training, CachedRows)
    assert isinstance(on_disk.held_out, CachedRows)
    on_disk.close()
    final = permit_for(plan, "evaluate")
    results = []
    for kept in (in_memory, reopen(permit, caches)):
        again = dataclasses.replace(permit, noise=permit_for(plan).noise)
        results.append(pack(compute_training(again, kept).arrays))
        last = dataclasses.replace(final, noise=permit_for(plan).noise)
        results.append(pack(compute_evaluation(last, kept).arrays))
    assert results[:2] == results[2:]


@pytest.mark.privacy
def test_rows_that_became_lawful_or_unlawful_are_another_question(caches):
    permit = permit_for(learning_plan())
    prepare(permit, [made.table(sends(40))], caches, in_memory=0).close()
    fewer = dataclasses.replace(permit, lawful_bases=("consent",))
    assert reopen(fewer, caches) is None
    assert cache_name(fewer, "training") != cache_name(permit, "training")
