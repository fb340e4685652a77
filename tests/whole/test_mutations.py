"""Single mutations of whatever is signed, sealed or chained: each is found, by an error of ours.

A mutation flips a bit, drops, doubles or swaps a stretch, or cuts the end. The objects are real
files and texts; each check is what production runs when it reads them. 400 mutations in
`make test`, 10,000 in CI.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from abfed.coordinator.vault import Vault
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import AbfedError
from abfed.protocol.tensors import shapes_of
from abfed.silo.store import Store
from abfed.site.access import judge_token
from abfed.site.anchors import Anchor, verify_against
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile
from tests.silo.made import founded, put, send
from tests.site.test_access import Hub

FULL = 10_000


class Subject(NamedTuple):
    """Something that is mutated, and what reads it."""

    good: bytes
    read: Callable[[bytes], object]


def _file(path: Path, read: Callable[[], object]) -> Subject:
    good = path.read_bytes()

    def check(data: bytes) -> object:
        try:
            path.write_bytes(data)
            return read()
        finally:
            path.write_bytes(good)

    return Subject(good, check)


def _subjects(folder: Path) -> dict[str, Subject]:
    hub = Hub(folder / "hub-home")
    keys = hub.keys
    trusted = {keys.key_id: keys.public_key}
    log = AuditLog(folder / "audit.jsonl", keys)
    for number in range(5):
        head = log.append("step.done", number=number, plan="ab" * 32)
    last = next(iter(list(log.entries())[-1:]))["body"]["at"]
    anchor = Anchor("hub", head, last, "aurora", "a request")
    model = {"output.weight": np.linspace(-1, 1, 40, dtype=np.float32).reshape(1, 40)}
    vault = Vault(keys)
    register = SealedFile(folder / "register.sealed", keys, "register")
    register.write({"ada": ["analyst"]})
    store, silo_keys = founded(folder / "silo")
    put(store, [send(person, day) for person in range(20) for day in (0, 7)])
    home = folder / "silo" / "store"
    bucket = min(home.glob("bucket-*"))
    (manifest,) = [one for one in home.iterdir() if "manifest" in one.name]
    (kek,) = (folder / "hub-home" / "keys").glob("kek-*")
    token = hub.token().encode()
    release = keys.sign("release", b"noised figures" * 20)
    return {
        "log": _file(
            folder / "audit.jsonl", lambda: verify_against(log, [anchor], where="the log")
        ),
        "envelope": Subject(release, lambda data: open_envelope(data, trusted, where="envelope")),
        "token": Subject(token, lambda data: judge_token(data.decode("latin-1"), hub.place())),
        "model": Subject(
            vault.seal(model, name="m", version="1"),
            lambda data: vault.open(data, shapes_of(model), name="m", version="1"),
        ),
        "register": _file(folder / "register.sealed", register.read),
        "key": _file(kek, lambda: SiteKeys.open(folder / "hub-home" / "keys")),
        "bucket": _file(bucket, lambda: Store.open(home, silo_keys).verify()),
        "manifest": _file(manifest, lambda: Store.open(home, silo_keys).verify()),
    }


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    return _subjects(tmp_path_factory.mktemp("mutations"))


def mutate(good: bytes, draw: random.Random) -> bytes:
    """One single mutation, never the same bytes again."""
    while True:
        place = draw.randrange(len(good))
        length = draw.choice((1, 2, 7, 32, 200))
        kind = draw.choice(("flip", "drop", "double", "swap", "cut"))
        if kind == "flip":
            changed = bytearray(good)
            changed[place] ^= 1 << draw.randrange(8)
            return bytes(changed)
        if kind == "drop":
            mutated = good[:place] + good[place + length :]
        elif kind == "double":
            mutated = good[: place + length] + good[place:]
        elif kind == "swap":
            first, second = good[place : place + length], good[place + length : place + 2 * length]
            mutated = good[:place] + second + first + good[place + 2 * length :]
        else:
            mutated = good[:place]
        if mutated != good:
            return mutated


def _try(subjects: dict[str, Subject], count: int) -> None:
    draw = random.Random(f"{count} mutations")
    for number in range(count):
        name = list(subjects)[number % len(subjects)]
        bad = mutate(subjects[name].good, draw)
        try:
            subjects[name].read(bad)
        except AbfedError:
            continue
        pytest.fail(f"{name}: mutation {number} was not found")
    for one in subjects.values():
        one.read(one.good)


def test_every_mutation_is_found(subjects: dict[str, Subject]) -> None:
    _try(subjects, 400)


@pytest.mark.slow
@pytest.mark.privacy
def test_ten_thousand_mutations_are_found(subjects: dict[str, Subject]) -> None:
    _try(subjects, FULL)
