"""The ledger: charged before, once, for ever; any change of it is found."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abfed.privacy.accounting import Curve
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.messages import Charge
from abfed.silo import snapshots
from abfed.silo.budgets import Budget
from abfed.silo.ledger import Ledger
from abfed.silo.sealed_rows import SealedRows
from abfed.site.keys import SiteKeys
from tests.silo.asking import DELTA, SetClock, budgets, charged, just_enough

CHARGE = Charge(event="gaussian", noise_multiplier=5.0)
STEPS = {"totals": (CHARGE,), "train-0001": (CHARGE, CHARGE)}
EPOCH = "e1" * 32


def _budget(plans: int) -> Budget:
    """A budget that fits so many of the plan above, and not one more."""
    return just_enough(sum(plans * [Curve.of([CHARGE] * 3)], Curve()))


@pytest.fixture
def keys(tmp_path: Path) -> SiteKeys:
    return SiteKeys.create(tmp_path / "keys", site="aurora")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path, keys: SiteKeys) -> Iterator[Ledger]:
    with Ledger(path, keys, SetClock()) as opened:
        yield opened


def _reserve(ledger: Ledger, plan: str = "p1", *, plans: int = 2, **changes: Any) -> bool:
    values: dict[str, Any] = {
        "plan_digest": plan,
        "plan_name": "spring",
        "purpose": "email-optimisation",
        "epoch": EPOCH,
        "steps": STEPS,
        "budgets": budgets(_budget(plans)),
    }
    return ledger.reserve(**(values | changes))


def _begin(ledger: Ledger, key: str, *, plan: str = "p1", step: str = "totals") -> None:
    ledger.begin(plan_digest=plan, epoch=EPOCH, step=step, key=key)


def test_a_reservation_is_charged_whole_and_once(ledger: Ledger) -> None:
    assert ledger.spent_epsilon(DELTA) == 0.0
    assert _reserve(ledger)
    before = charged(ledger)
    assert before[1] == pytest.approx(Curve.of([CHARGE] * 3).epsilon(DELTA))
    assert not _reserve(ledger)
    assert not _reserve(ledger, plan_name="other", purpose="other")
    with pytest.raises(Refused) as caught:  # another version's noise is not what was paid for
        _reserve(ledger, steps={})
    assert caught.value.code == "order"
    assert charged(ledger) == before
    (kept,) = ledger.reservations()
    assert kept.charges == (CHARGE.model_copy(update={"count": 3}),)
    assert kept.at == "2026-03-01T12:00:00.000000Z"


def test_a_new_epoch_is_charged_anew(ledger: Ledger) -> None:
    assert _reserve(ledger)
    assert _reserve(ledger, epoch="e2" * 32)
    assert ledger.spent_epsilon(DELTA) == pytest.approx(Curve.of([CHARGE] * 6).epsilon(DELTA))


def test_a_budget_is_refused_and_leaves_nothing(ledger: Ledger) -> None:
    for plan in ("p1", "p2"):
        assert _reserve(ledger, plan)
    before = charged(ledger)
    with pytest.raises(Refused) as caught:
        _reserve(ledger, "p3")
    assert caught.value.code == "budget"
    assert charged(ledger) == before
    with pytest.raises(Refused, match="nothing is reserved"):
        _begin(ledger, "k", plan="p3")
    assert not _reserve(ledger, "p2")
    assert _reserve(ledger, "p3", plans=3)


@pytest.mark.parametrize("epoch", [EPOCH, "e2" * 32])
def test_nothing_begins_that_was_not_reserved(ledger: Ledger, epoch: str) -> None:
    if epoch != EPOCH:
        _reserve(ledger)
    before = charged(ledger)
    with pytest.raises(Refused) as caught:
        ledger.begin(plan_digest="p1", epoch=epoch, step="totals", key="k1")
    assert caught.value.code == "order"
    assert charged(ledger) == before


def test_a_step_is_answered_once(ledger: Ledger) -> None:
    _reserve(ledger)
    _begin(ledger, "k1")
    assert ledger.released("k1") is None
    assert ledger.settle("k1", "d1") == "d1"
    assert ledger.settle("k1", "d2") == "d1"
    assert ledger.released("k1") == "d1"
    _begin(ledger, "k1")
    with pytest.raises(Refused) as caught:
        _begin(ledger, "k2")
    assert caught.value.code == "step-used"
    _begin(ledger, "k3", step="train-0001")


def test_a_step_that_was_only_begun_may_begin_for_another_model(ledger: Ledger) -> None:
    _reserve(ledger)
    _begin(ledger, "k1")
    _begin(ledger, "k2")
    assert ledger.settle("k2", "d2") == "d2"
    with pytest.raises(Refused):
        _begin(ledger, "k1")


def test_one_charge_never_pays_for_two_models(ledger: Ledger, path: Path, keys: SiteKeys) -> None:
    """Two processes compute the same step for two models: only one of them is released."""
    _reserve(ledger)
    with Ledger(path, keys) as other:
        _begin(ledger, "k1")
        _begin(other, "k2")
        with pytest.raises(Refused) as caught:
            ledger.settle("k1", "d1")
        assert caught.value.code == "step-used"
        assert other.settle("k2", "d2") == "d2"
        with pytest.raises(Refused):
            ledger.settle("k1", "d1")
        assert ledger.released("k1") is None


def test_nothing_is_settled_that_was_not_begun(ledger: Ledger) -> None:
    _reserve(ledger)
    before = ledger.head
    with pytest.raises(Refused):
        ledger.settle("k1", "d1")
    assert ledger.head == before


def test_opened_again_it_is_the_same(ledger: Ledger, path: Path, keys: SiteKeys) -> None:
    _reserve(ledger)
    _begin(ledger, "k1")
    ledger.settle("k1", "d1")
    before = (charged(ledger), ledger.entries, ledger.reservations())
    ledger.close()
    with Ledger(path, keys) as again:
        assert (charged(again), again.entries, again.reservations()) == before
        assert again.released("k1") == "d1"
        assert not _reserve(again)
        with pytest.raises(Refused):
            _begin(again, "k2")


def test_two_open_ledgers_see_one_another(ledger: Ledger, path: Path, keys: SiteKeys) -> None:
    with Ledger(path, keys) as other:
        assert _reserve(ledger, "p1")
        assert not _reserve(other, "p1")
        assert _reserve(other, "p2")
        with pytest.raises(Refused):
            _reserve(ledger, "p3")
        assert charged(ledger) == charged(other)


def test_the_file_and_its_journal_are_private(ledger: Ledger, path: Path, keys: SiteKeys) -> None:
    _reserve(ledger)
    files = list(path.parent.glob("ledger.db*"))
    assert len(files) > 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert not any(b"email-optimisation" in file.read_bytes() for file in files)
    path.chmod(0o640)
    with pytest.raises(IntegrityError, match="mode"):
        Ledger(path, keys)


def _filled(ledger: Ledger) -> None:
    _reserve(ledger)
    _begin(ledger, "k1")
    ledger.settle("k1", "d1")
    _reserve(ledger, "p2")
    ledger.close()


CHANGES = {
    "first deleted": "DELETE FROM entries WHERE sequence = 0",
    "middle deleted": "DELETE FROM entries WHERE sequence = 1",
    "deleted and renumbered": (
        "DELETE FROM entries WHERE sequence = 1;"
        "UPDATE entries SET sequence = sequence - 1 WHERE sequence > 1"
    ),
    "renumbered": "UPDATE entries SET sequence = 9 WHERE sequence = 3",
    "copied": "INSERT INTO entries SELECT 4, sealed FROM entries WHERE sequence = 3",
    "swapped": (
        "UPDATE entries SET sequence = 99 WHERE sequence = 1;"
        "UPDATE entries SET sequence = 1 WHERE sequence = 2;"
        "UPDATE entries SET sequence = 2 WHERE sequence = 99"
    ),
    "cut": "UPDATE entries SET sealed = substr(sealed, 1, 20) WHERE sequence = 2",
    "emptied": "UPDATE entries SET sealed = x'' WHERE sequence = 2",
    "changed": "UPDATE entries SET sealed = zeroblob(length(sealed)) WHERE sequence = 3",
    "invented": "INSERT INTO entries VALUES (4, zeroblob(200))",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_in_the_database_is_found(
    ledger: Ledger, path: Path, keys: SiteKeys, change: str
) -> None:
    _filled(ledger)
    with sqlite3.connect(path) as database:
        database.executescript(change)
    database.close()
    with pytest.raises(IntegrityError):
        Ledger(path, keys)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_found_behind_a_snapshot_too(
    ledger: Ledger, path: Path, keys: SiteKeys, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(ledger)
    monkeypatch.setattr(snapshots, "EVERY", 1)
    with Ledger(path, keys) as read:
        before = charged(read), read.reservations(), read.given("k1")
    with monkeypatch.context() as patch:  # now it begins from the snapshot: nothing is unsealed
        patch.setattr(SealedRows, "after", lambda *_: iter(()))
        with Ledger(path, keys) as again:
            assert (charged(again), again.reservations(), again.given("k1")) == before
    with sqlite3.connect(path) as database:
        database.executescript(change)
    database.close()
    with pytest.raises(IntegrityError):
        Ledger(path, keys)


def test_every_byte_of_an_entry_counts(ledger: Ledger, path: Path, keys: SiteKeys) -> None:
    _filled(ledger)
    database = sqlite3.connect(path)
    (sealed,) = database.execute("SELECT sealed FROM entries WHERE sequence = 0").fetchone()
    for place in range(0, len(sealed), 7):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with database:
            database.execute("UPDATE entries SET sealed = ? WHERE sequence = 0", (changed,))
        with pytest.raises(IntegrityError):
            Ledger(path, keys)
    database.close()


def test_an_entry_of_another_history_is_found(path: Path, keys: SiteKeys, tmp_path: Path) -> None:
    """The second entry of a backup, in place of the second entry of what happened after."""
    for plan in ("p1", "p2", "p3"):
        with Ledger(path, keys) as opened:
            if plan == "p2":
                shutil.copy(path, tmp_path / "backup.db")
            _reserve(opened, plan, plans=3)
    with Ledger(tmp_path / "backup.db", keys) as backup:
        _reserve(backup, "p9")
    database = sqlite3.connect(path)
    database.execute("ATTACH ? AS backup", (str(tmp_path / "backup.db"),))
    with database:
        other = "(SELECT sealed FROM backup.entries WHERE sequence = 1)"
        database.execute(f"UPDATE main.entries SET sealed = {other} WHERE sequence = 1")
    database.close()
    with pytest.raises(IntegrityError, match="does not follow"):
        Ledger(path, keys)


def test_another_silo_cannot_read_it(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    _filled(ledger)
    with pytest.raises(IntegrityError):
        Ledger(path, SiteKeys.create(tmp_path / "other", site="aurora"))


def test_a_file_that_is_no_database_is_an_integrity_error(path: Path, keys: SiteKeys) -> None:
    path.touch(mode=0o600)
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(IntegrityError):
        Ledger(path, keys)


def _race(folder: Path, name: str, budget: Budget, start: int, tell: int) -> None:
    """In a child: wait for the start, charge four plans, tell how each went."""
    os.read(start, 1)
    with Ledger(folder / "ledger.db", SiteKeys.open(folder / "keys")) as mine:
        for number in range(4):
            try:
                _reserve(mine, f"{name}{number}", budgets=budgets(budget))
                os.write(tell, b"charged ")
            except Refused as refused:
                os.write(tell, refused.code.encode() + b" ")


def test_racing_processes_never_overspend(ledger: Ledger, tmp_path: Path) -> None:
    budget = _budget(5)
    (start, go), (told, tell) = os.pipe(), os.pipe()
    children = []
    for name in "abc":
        child = os.fork()
        if child == 0:
            os.close(go)
            try:
                _race(tmp_path, name, budget, start, tell)
            finally:
                os._exit(0)
        children.append(child)
    for end in (start, go, tell):
        os.close(end)  # the children's reads end: all begin at once
    with os.fdopen(told, "rb") as pipe:
        answers = pipe.read().split()
    for child in children:
        os.waitpid(child, 0)
    assert sorted(answers) == [b"budget"] * 7 + [b"charged"] * 5
    assert len(ledger.reservations()) == 5
    assert ledger.spent(budget) <= budget.epsilon
