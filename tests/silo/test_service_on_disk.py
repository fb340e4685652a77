"""The service with rows that don't fit into memory, and with rounds that are interrupted."""

from __future__ import annotations

import errno
import sqlite3
from dataclasses import replace

import pytest

from abfed.learning import dpsgd
from abfed.silo import prepared, totals
from tests.silo.asking import charged, model_arrays
from tests.silo.test_service import MODEL_PLAN, Silo, founded, silo

__all__ = ["founded", "silo"]  # fixtures


def caches(silo: Silo) -> list[str]:
    """What lies in the store's folder beside the store."""
    return sorted(path.suffix for path in silo.service.paths.store.glob("cache-*"))


def ask(silo: Silo, step: str) -> str:
    arrays = {} if step == "totals" else model_arrays(MODEL_PLAN)
    return silo.ask(silo.asker.request(MODEL_PLAN, step, arrays))[0]


def test_rows_on_disk_outlive_a_restart_and_go_with_the_plan(silo, monkeypatch):
    monkeypatch.setattr(prepared, "IN_MEMORY", 0)
    assert ask(silo, "totals") == "release"
    assert ask(silo, "train-0001") == "release"
    assert caches(silo) == [".index", ".index", ".rows", ".rows"]
    silo.service.close()
    silo.reopen()
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "prepare", None)  # rows are not read again
        assert ask(silo, "train-0002") == "release"
        assert ask(silo, "evaluate") == "release"
    assert caches(silo) == []


@pytest.mark.privacy
def test_rows_on_disk_go_with_new_data(silo, monkeypatch):
    monkeypatch.setattr(prepared, "IN_MEMORY", 0)
    assert ask(silo, "totals") == "release"
    assert ask(silo, "train-0001") == "release"
    silo.refill(count=61)
    assert caches(silo) == []


@pytest.mark.privacy
def test_an_interrupted_round_goes_on_at_no_charge(silo, monkeypatch):
    assert ask(silo, "totals") == "release"
    count, epsilon, _ = charged(silo.service.ledger)
    step, taken = dpsgd.Parameters.step, []

    def stop_after_one(self, direction, rate, pull):
        if taken:
            raise KeyboardInterrupt
        taken.append(1)
        step(self, direction, rate, pull)

    with monkeypatch.context() as patch:
        patch.setattr(dpsgd.Parameters, "step", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            ask(silo, "train-0001")
    assert caches(silo) == [""]  # the checkpoint
    silo.service.close()
    silo.reopen()
    assert ask(silo, "train-0001") == "release"
    assert caches(silo) == []
    assert charged(silo.service.ledger)[:2] == (count, epsilon)


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("failed", "kind", "what"),
    [
        (sqlite3.OperationalError("row of zoe"), "StorageError", "the disk is full"),
        (OSError(errno.ENOSPC, "zoe", "zoe"), "StorageError", "the disk is full"),
        (ValueError("zoe"), "ValueError", ""),
    ],
)
def test_the_silos_log_says_that_its_disk_is_full_and_nothing_else(
    silo, monkeypatch, failed, kind, what
):
    failed.sqlite_errorcode = sqlite3.SQLITE_FULL

    def fail(_):
        raise failed

    monkeypatch.setattr(silo.service, "_compute", fail)
    assert ask(silo, "totals") == "refusal"
    (told,) = [
        b["facts"]
        for b in (e["body"] for e in silo.service.audit.entries())
        if b["event"] == "request.failed"
    ]
    assert told == {"kind": kind, "what": what}


def test_a_wrong_result_stays_here_and_is_no_damage_to_what_is_kept(silo, monkeypatch):
    compute = totals.compute_totals
    with monkeypatch.context() as patch:
        patch.setattr(totals, "compute_totals", lambda *a: replace(compute(*a), payload="training"))
        assert silo.code(silo.asker.request(MODEL_PLAN)) == "failed"
    events = {e["body"]["event"]: e["body"]["facts"] for e in silo.service.audit.entries()}
    what = "the result is not of the reserved kind"
    assert events["request.failed"] == {"kind": "WrongResult", "what": what}
    before = charged(silo.service.ledger)[:2]
    assert ask(silo, "totals") == "release"  # the right one, under the charge that was made
    assert charged(silo.service.ledger)[:2] == before
