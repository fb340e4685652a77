"""Who left and is let back: nothing of before counts, and the way back is walked (S11, S13)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from abfed.lab.session import Session, sign_in
from abfed.protocol.errors import InputError, Refused, WorkspaceError
from abfed.protocol.identity import Countersigned
from abfed.site.factors import otp_code
from abfed.site.people import People, Person
from abfed.site.stops import Stops
from tests.signing import PASSWORD
from tests.silo.asking import SILO
from tests.site.test_foureyes import Silo

WAYS: dict[str, Callable[[People], Person]] = {
    "stopped": lambda people: people.stop("olga", by="sam@aurora"),
    "left": lambda people: people.leave("olga", by="sam@aurora"),
}


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path)


def _grant(people: People) -> None:
    lasts = timedelta(days=9)
    people.grant("olga", "privacy-officer", owner="sam@aurora", reason="is back", lasts=lasts)


@pytest.mark.parametrize("way", WAYS)
def test_no_session_of_before_is_renewed(silo: Silo, way: str) -> None:
    """Not in its last minutes, not by a fresh factor, not for what is granted anew."""
    people, session = silo.own_people, silo.officer
    code = otp_code(people.person("olga").otp_secret, silo.clock() + timedelta(seconds=60))
    WAYS[way](people)
    silo.clock.forward(seconds=60)
    people.resume("olga", by="sam@aurora")
    _grant(people)
    with pytest.raises(Refused, match="ended"):
        _ = session.token
    with pytest.raises(Refused):
        session.fresh(code)
    silo.clock.forward(seconds=30)
    with pytest.raises(Refused, match="ended"):
        _ = session.token


def test_an_approval_of_before_counts_no_more(silo: Silo) -> None:
    given = silo.approval()
    assert silo.ask(silo.approval(runs=9)).approvers == ("olga@aurora",)
    stops = Stops(silo.folder, silo.keys, silo.clock)
    stops.stop("olga@aurora", silo.own_people.audit, by="sam@aurora", reason="left")
    silo.own_people.leave("olga", by="sam@aurora")
    silo.clock.forward(seconds=60)
    stops.lift("olga@aurora", silo.own_people.audit, by="sam@aurora")
    silo.own_people.resume("olga", by="sam@aurora")
    assert "before this person was let back" in silo.refusal(given).why
    assert "before this person was let back" in silo.refusal(_made_now(silo, silo.officer)).why
    assert silo.ask(silo.approval(_back(silo))).approvers == ("olga@aurora",)


def _made_now(silo: Silo, session: Session) -> Countersigned:
    """An approval that the old session signs after the person was let back."""
    return silo.approval(session)


def _back(silo: Silo) -> Session:
    """The way back: new factors in the old record, a role, and a sign-in."""
    people = silo.own_people
    enrolled = people.enrol("olga", PASSWORD, by="sam@aurora", again=True)
    _grant(people)
    silo.clock.forward(seconds=30)
    code = otp_code(enrolled.otp_secret, silo.clock())
    return sign_in(people, "olga", PASSWORD, code, audience=(SILO,))


def test_nobody_comes_back_unless_they_left_and_were_let_back(silo: Silo) -> None:
    people = silo.own_people
    with pytest.raises(InputError, match="nobody who left"):  # is here: their factors stay
        people.enrol("olga", PASSWORD, by="sam@aurora", again=True)
    people.leave("olga", by="sam@aurora")
    with pytest.raises(InputError, match="nobody who left"):  # not let back yet
        people.enrol("olga", PASSWORD, by="sam@aurora", again=True)
    with pytest.raises(WorkspaceError, match="nobody called"):
        people.enrol("eve", PASSWORD, by="sam@aurora", again=True)
    people.resume("olga", by="sam@aurora")
    with pytest.raises(InputError, match="already"):  # a newcomer doesn't get the name
        people.enrol("olga", PASSWORD, by="sam@aurora")
    before = people.person("olga")
    _back(silo)
    after = people.person("olga")
    assert after.heard_from == before.heard_from != ""
    assert after.password
    events = [entry["body"]["event"] for entry in people.audit.entries()]
    assert "people.enrolled-again" in events
