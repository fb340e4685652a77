"""Whoever can write in a silo's folder, but has no key, gets no budget back.

Each case takes something from the ledger, its journal or the releases after a charge. The silo must
not open, or must refuse by name of what is damaged: never count as if nothing had been charged.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from abfed.protocol.errors import IntegrityError
from abfed.silo.budgets import Budget, Budgets
from abfed.silo.ledger import Ledger
from abfed.silo.service import SiloService
from abfed.site.keys import SiteKeys
from tests.examples import make_plan
from tests.silo.asking import SILO, Asker, policy_values, rows

pytestmark = pytest.mark.privacy
PLAN = make_plan(privacy={"epsilon": 4.0, "delta": 1e-6, "split": {"statistics": 4.0}})
Harm = Callable[[Path], None]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Asker]:
    """A silo that has answered once, with an older copy of its ledger beside it."""
    folder = tmp_path_factory.mktemp("house")
    hub = SiteKeys.create(folder / "hub", site="hub")
    policy = yaml.safe_dump(policy_values(hub.public_key))
    asker = Asker(hub)
    with closing(SiloService.create(folder / "silo", policy, site=SILO)) as service:
        service.store.upsert(iter([rows()]), experiments={"spring-2026": ("a", "b", "c")})
    shutil.copy2(folder / "silo" / "ledger.db", folder / "silo" / "older.db")
    with closing(SiloService(folder / "silo", asker.clock)) as service:
        kind, _ = asker.read(service.answer(asker.request(PLAN)), service.keys)
        assert kind == "release"
        assert len(service.ledger.reservations()) == 1
    return folder / "silo", asker


def _sql(*statements: str) -> Harm:
    def harm(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledger.db")) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return harm


def _empty(folder: Path) -> None:
    (folder / "ledger.db").write_bytes(b"")


def _half(folder: Path) -> None:
    os.truncate(folder / "ledger.db", (folder / "ledger.db").stat().st_size // 2)


def _gone(folder: Path) -> None:
    (folder / "ledger.db").unlink()


def _older(folder: Path) -> None:
    shutil.copy2(folder / "older.db", folder / "ledger.db")


def _anothers(folder: Path) -> None:
    """The ledger of another site of the same name, which never was charged."""
    keys = SiteKeys.create(folder.parent / "other", site=SILO)
    (folder / "ledger.db").unlink()
    Ledger(folder / "ledger.db", keys).close()


def _anothers_filled(folder: Path) -> None:
    keys = SiteKeys.create(folder.parent / "other", site=SILO)
    (folder / "ledger.db").unlink()
    with Ledger(folder / "ledger.db", keys) as other:
        other.reserve(
            plan_digest="p",
            plan_name="p",
            purpose="p",
            epoch="e",
            steps={},
            budgets=Budgets(total=Budget(epsilon=1.0, delta=1e-6)),
        )


def _begun_anew(folder: Path) -> None:
    """By somebody who runs the silo's own code, but without the history."""
    (folder / "ledger.db").unlink()
    Ledger(folder / "ledger.db", SiteKeys.open(folder / "keys")).close()


HARMS: dict[str, Harm] = {
    "it is another site's, empty": _anothers,
    "it is another site's": _anothers_filled,
    "it is begun anew with the silo's keys": _begun_anew,
    "the table is dropped": _sql("DROP TABLE entries"),
    "both tables are dropped": _sql("DROP TABLE entries", "DROP TABLE kept"),
    "all rows are deleted": _sql("DELETE FROM entries"),
    "the last row is deleted": _sql(
        "DELETE FROM entries WHERE sequence = (SELECT max(sequence) FROM entries)"
    ),
    "the first row is deleted": _sql("DELETE FROM entries WHERE sequence = 0"),
    "a row is moved": _sql("UPDATE entries SET sequence = sequence + 1 WHERE sequence = 2"),
    "the file is cut to nothing": _empty,
    "the file is cut in half": _half,
    "the file is gone": _gone,
    "an older copy is put back": _older,
}


@pytest.mark.parametrize("name", list(HARMS))
def test_a_damaged_ledger_never_opens(house: tuple[Path, Asker], tmp_path: Path, name: str) -> None:
    folder, asker = tmp_path / "silo", house[1]
    shutil.copytree(house[0], folder)
    HARMS[name](folder)
    with pytest.raises(IntegrityError) as found:
        SiloService(folder, asker.clock)
    assert found.value.exit_code == 4


@pytest.mark.parametrize("name", ["emptied", "removed", "another's"])
def test_a_release_that_is_lost_is_never_noised_anew(
    house: tuple[Path, Asker], tmp_path: Path, name: str
) -> None:
    folder, asker = tmp_path / "silo", house[1]
    shutil.copytree(house[0], folder)
    (kept,) = (folder / "releases").glob("*.sealed")
    if name == "removed":
        shutil.rmtree(folder / "releases")
    elif name == "emptied":
        kept.unlink()
    else:
        kept.write_bytes(kept.read_bytes()[::-1])
    with closing(SiloService(folder, asker.clock)) as service:
        for _ in range(2):
            kind, answer = asker.read(service.answer(asker.request(PLAN)), service.keys)
            assert kind == "refusal"
            assert answer.header.code == "damaged"
        assert len(service.ledger.reservations()) == 1


@pytest.mark.parametrize("harm", ["removed", "cut", "another's"])
def test_a_journal_that_is_harmed_after_a_crash_is_found(
    house: tuple[Path, Asker], tmp_path: Path, harm: str
) -> None:
    """What SQLite has not moved into the file yet lies in the write-ahead log."""
    folder, asker = tmp_path / "silo", house[1]
    shutil.copytree(house[0], folder)
    other = make_plan(name="another", privacy={"epsilon": 1.0, "split": {"statistics": 1.0}})
    child = os.fork()
    if child == 0:
        try:
            SiloService(folder, asker.clock).answer(asker.request(other))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    journal = folder / "ledger.db-wal"
    assert journal.stat().st_size > 0
    if harm == "removed":
        journal.unlink()
    elif harm == "cut":
        os.truncate(journal, journal.stat().st_size // 2)
    else:
        keys = SiteKeys.create(tmp_path / "other", site=SILO)
        with Ledger(tmp_path / "other.db", keys):
            shutil.copy(tmp_path / "other.db-wal", journal)
        (folder / "ledger.db-shm").unlink(missing_ok=True)
    with pytest.raises(IntegrityError):
        SiloService(folder, asker.clock)
