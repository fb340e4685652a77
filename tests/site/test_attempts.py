"""Attempts to sign in: lock-out, how many a site hears, and that no time tells who is here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from abfed.protocol.errors import Refused, WorkspaceError
from abfed.site.attempts import FIRST_LOCK, FREE_FAILURES, LONGEST_LOCK, MOST_ATTEMPTS
from abfed.site.audit import AuditLog
from abfed.site.clock import stamp
from abfed.site.factors import password_fits
from abfed.site.sealedfile import SealedFile
from abfed.site.signin import SignIn
from tests.signing import PASSWORD
from tests.site.test_signin import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("way", ["sign in", "recover"])
def test_who_is_here_or_locked_out_is_told_by_no_work_that_is_left_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """As many hashes, writes of the register and entries of the log, whoever is named."""
    done: list[str] = []

    def noting(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: done.append(what) or real(*given, **named)

    monkeypatch.setattr("abfed.site.signin.password_fits", noting("hash", password_fits))
    for thing, method in ((SealedFile, "write"), (AuditLog, "append")):
        monkeypatch.setattr(thing, method, noting(method, getattr(thing, method)))
    until = stamp(desk.clock() + timedelta(seconds=5))

    def work(name: str, password: str) -> list[str]:
        done.clear()
        tried = SignIn(desk.people).recover if way == "recover" else desk.try_it
        with pytest.raises(Refused, match="not signed in"):
            tried(name, password, "000000")
        return list(done)

    known, stranger = work("ada", "a wrong passphrase"), work("eve", "a wrong passphrase")
    desk.people.change("ada", lambda p: p.model_copy(update={"locked_until": until}))
    assert known == stranger == work("ada", PASSWORD) == ["write", "hash", "append"]
    assert desk.events()[-3:] == ["sign-in.failed", "sign-in.failed", "sign-in.locked-out"]


def test_lock_out_doubles_and_even_the_right_factors_wait(desk: Desk) -> None:
    waits = []
    for _ in range(FREE_FAILURES + 3):
        with pytest.raises(Refused):
            desk.try_it(code="000000")
        until = desk.people.person("ada").locked_until
        if until:
            wait = datetime.fromisoformat(until) - desk.clock()
            waits.append(wait)
            with pytest.raises(Refused):
                desk.try_it()
            desk.clock.forward(seconds=wait.total_seconds())
    assert waits == [FIRST_LOCK * 2**n for n in range(4)]
    desk.try_it()
    assert desk.people.person("ada").failures == 0
    assert "sign-in.locked-out" in desk.events()


def test_lock_out_has_an_end(desk: Desk) -> None:
    failures = {"failures": 90, "locked_until": ""}
    desk.people.change("ada", lambda p: p.model_copy(update=failures))
    with pytest.raises(Refused):
        desk.try_it(code="000000")
    until = datetime.fromisoformat(desk.people.person("ada").locked_until)
    assert until - desk.clock() == LONGEST_LOCK


def test_a_site_hears_so_many_attempts_a_minute(desk: Desk) -> None:
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(Refused):
            desk.try_it("nobody")
    for _ in range(2):
        with pytest.raises(Refused, match="too many"):
            desk.try_it()
    assert len(desk.people.register().attempts) == MOST_ATTEMPTS
    desk.clock.forward(seconds=61)
    desk.try_it()


def test_somebody_called_as_lists_show_them_is_told_to_leave_the_site_out(desk: Desk) -> None:
    site = desk.people.keys.site
    for name, said in ((f"ada@{site}", f"leave @{site} out"), ("eve", "people list")):
        with pytest.raises(WorkspaceError) as caught:
            desk.people.person(name)
        assert said in caught.value.do
