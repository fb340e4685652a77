"""A damaged silo: found part by part by its own people, and before anything is charged for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import Refusal, decode
from abfed.silo.checking import check_silo
from abfed.silo.rewriting import Rewriting
from abfed.silo.service import SiloService
from abfed.site.keys import SiteKeys
from tests.examples import make_plan
from tests.silo.asking import SILO, Asker, policy_values, rows

PARTS = ("files", "policy", "store", "ledger", "releases", "models", "audit log")


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silo that answered once, beside the keys of who asked."""
    folder = tmp_path_factory.mktemp("founded")
    hub = SiteKeys.create(folder / "hub", site="hub")
    policy = yaml.safe_dump(policy_values(hub.public_key))
    SiloService.create(folder / "silo", policy, site=SILO).close()
    asker = Asker(hub)
    with closing(SiloService(folder / "silo", asker.clock)) as service:
        service.store.upsert(iter([rows()]), experiments={"spring-2026": ("a", "b", "c")})
        assert _code(service, asker, 4.0) == ""
    return folder


@pytest.fixture
def silo(founded: Path, tmp_path: Path) -> Path:
    shutil.copytree(founded / "silo", tmp_path / "silo")
    return tmp_path / "silo"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _bucket(silo: Path) -> Path:
    return max((silo / "store").glob("bucket-*"), key=lambda one: one.stat().st_size)


def _change_log(silo: Path) -> None:
    log = silo / "audit.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[1])
    entry["body"]["facts"]["plan"] = "0" * 64
    lines[1] = json.dumps(entry, separators=(",", ":"), sort_keys=True).encode() + b"\n"
    log.write_bytes(b"".join(lines))


def _lose_tombstones(silo: Path) -> None:
    Rewriting(silo / "store", SiteKeys.open(silo / "keys")).erase([b"somebody who was"])
    (path,) = (silo / "store").glob("subjects-*")
    path.unlink()


def _change_tombstones(silo: Path) -> None:
    Rewriting(silo / "store", SiteKeys.open(silo / "keys")).erase([b"somebody who was"])
    (path,) = (silo / "store").glob("subjects-*")
    _flip(path)


def _lose_ledger(silo: Path) -> None:
    for path in silo.glob("ledger.db*"):
        path.unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "a flipped byte of the rows": (lambda silo: _flip(_bucket(silo)), {"store"}),
    "rows that were cut": (lambda silo: _bucket(silo).write_bytes(b"x"), {"store"}),
    "rows that are gone": (lambda silo: _bucket(silo).unlink(), {"store"}),
    "another manifest": (lambda silo: _flip(silo / "store" / "manifest.sealed"), {"store"}),
    "rows open to others": (lambda silo: _bucket(silo).chmod(0o644), {"store"}),
    "people who must not come back, lost": (_lose_tombstones, {"store"}),
    "other people who must not come back": (_change_tombstones, {"store"}),
    "a policy open to others": (
        lambda silo: (silo / "policy.yaml").chmod(0o644),
        {"files", "policy"},
    ),
    "a changed release": (
        lambda silo: _flip(next((silo / "releases").iterdir())),
        {"releases"},
    ),
    "a lost release": (lambda silo: next((silo / "releases").iterdir()).unlink(), {"releases"}),
    "a changed log": (_change_log, {"audit log", "ledger"}),
    "a lost log": (lambda silo: (silo / "audit.jsonl").unlink(), {"files", "ledger"}),
    "a lost ledger": (_lose_ledger, {"files", "ledger"}),
}


def test_a_whole_silo_holds_and_nothing_is_written(silo: Path) -> None:
    before = {path: path.read_bytes() for path in silo.rglob("*") if path.is_file()}
    found = check_silo(silo)
    assert tuple(one.part for one in found) == PARTS
    assert all(one.holds for one in found)
    after = {path: path.read_bytes() for path in silo.rglob("*") if path.is_file()}
    kept = {
        path for path in after if "ledger.db" not in path.name
    }  # SQLite's own files come and go
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_in_its_part_and_hides_no_other(silo: Path, kind: str) -> None:
    damage, parts = DAMAGE[kind]
    damage(silo)
    found = check_silo(silo)
    assert {one.part for one in found if not one.holds} >= parts & {"store", "files", "releases"}
    assert {one.part for one in found if not one.holds} & parts
    assert len(found) == len(PARTS)


@pytest.fixture
def asker(founded: Path) -> Asker:
    return Asker(SiteKeys.open(founded / "hub"))


def _code(service: SiloService, asker: Asker, epsilon: float) -> str:
    split = {"epsilon": epsilon, "delta": 1e-6, "split": {"statistics": epsilon}}
    answer = service.answer(asker.request(make_plan(privacy=split)))
    trusted = {service.keys.key_id: service.keys.public_key}
    opened = open_envelope(answer, trusted, where="answer")
    if opened.kind == "release":
        return ""
    header = decode(opened.kind, opened.content, where="answer").header
    assert isinstance(header, Refusal)
    return header.code


def test_damaged_rows_are_found_before_anything_is_charged(silo: Path, asker: Asker) -> None:
    """By a service that was open when they were changed, as by one that is opened afterwards."""
    with closing(SiloService(silo, asker.clock)) as service:
        entries = service.ledger.entries
        _flip(_bucket(silo))
        assert _code(service, asker, 1.0) == "damaged"
        assert service.ledger.entries == entries
    with closing(SiloService(silo, asker.clock)) as service:
        assert _code(service, asker, 1.0) == "damaged"
        assert service.ledger.entries == entries
        assert _code(service, asker, 4.0) == ""  # what was released before is given again
        service.audit.verify()


def test_rows_of_another_length_are_seen_by_whoever_opens_the_silo(silo: Path) -> None:
    _bucket(silo).write_bytes(_bucket(silo).read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="length"):
        SiloService(silo)
