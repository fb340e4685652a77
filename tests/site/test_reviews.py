"""Reviews: what is marked, what is decided, and what happens when nobody looks (S13)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from abfed.protocol.errors import InputError, Refused
from abfed.site.clock import moment_of
from abfed.site.keys import SiteKeys
from abfed.site.people import People
from abfed.site.reviews import Verdict, decide_all, lines, overdue_days, record
from abfed.site.rights import Reviews
from abfed.site.signin import SignIn
from tests.signing import PASSWORD, make_people, make_session
from tests.silo.asking import SetClock

POLICY = Reviews(every_days=90, grace_days=14)


@pytest.fixture
def people(tmp_path: Path) -> People:
    clock = SetClock()
    made = make_people(tmp_path / "hub", SiteKeys.create(tmp_path / "keys", site="hub"), clock)
    make_session(made, "ada", ("analyst",), audience=("hub",))
    make_session(made, "max", ("analyst", "privacy-officer"), audience=("hub",))
    return made


def marks(people: People) -> dict[tuple[str, str], tuple[str, ...]]:
    found = lines(people.register().people.values(), POLICY, people.clock())
    return {(line.person, line.role): line.marks for line in found}


def forward(people: People, days: float) -> None:
    assert isinstance(people.clock, SetClock)
    people.clock.forward(days=days)


def test_what_is_marked(people: People) -> None:
    assert marks(people) == {
        ("ada", "analyst"): (),
        ("max", "analyst"): ("over-broad",),
        ("max", "privacy-officer"): ("over-broad",),
    }
    people.grant("ada", "analyst", owner="o", reason="r", lasts=timedelta(days=200))
    forward(people, 16)
    assert marks(people)["max", "analyst"] == ("expiring", "over-broad")
    forward(people, 30)
    assert marks(people)["ada", "analyst"] == ("unused",)
    assert marks(people)["max", "analyst"] == ("expired", "unused")
    forward(people, 50)
    assert marks(people)["ada", "analyst"] == ("stale", "unused")
    people.stop("ada", by="test")
    assert "stopped" in marks(people)["ada", "analyst"]


def test_a_review_revokes_is_recorded_and_counts(people: People, tmp_path: Path) -> None:
    forward(people, 20)
    both = [
        Verdict(person="max", role="analyst", decision="revoke", reason="approves now"),
        Verdict(person="max", role="privacy-officer", decision="keep"),
        Verdict(person="ada", role="analyst", decision="keep"),
    ]
    for wrong in (both[:1], [*both, Verdict(person="eve", role="analyst", decision="keep")]):
        with pytest.raises(InputError):
            decide_all(tmp_path, people, wrong, by="sam@hub", reviews=POLICY)
    twice = [*both, both[0].model_copy(update={"decision": "keep"})]
    with pytest.raises(InputError, match="twice"):
        decide_all(tmp_path, people, twice, by="sam@hub", reviews=POLICY)
    with pytest.raises(InputError, match="own"):
        decide_all(tmp_path, people, both, by="ada@hub", reviews=POLICY)
    assert record(tmp_path, people) == ()
    done = decide_all(tmp_path, people, both, by="sam@hub", reviews=POLICY)
    assert [one.role for one in people.person("max").grants] == ["privacy-officer"]
    assert record(tmp_path, people) == (done,)
    assert moment_of(people.register().reviewed_at) == people.clock()
    sealed = (tmp_path / "reviews.sealed").read_bytes()
    assert b'"max"' not in sealed  # three letters alone stand there by chance once in 50,000 runs
    last = [entry["body"] for entry in people.audit.entries()][-1]
    assert (last["event"], last["facts"]["revoked"]) == ("access.reviewed", 1)


def test_a_review_is_due_from_the_first_person_on(people: People) -> None:
    assert overdue_days(people, POLICY, people.clock()) == -90
    forward(people, 91)
    assert overdue_days(people, POLICY, people.clock()) == 1
    people.reviewed(people.clock())
    assert overdue_days(people, POLICY, people.clock()) == -90


def test_who_leaves_has_nothing_left_and_is_not_reviewed_any_more(people: People) -> None:
    people.leave("max", by="test")
    gone = people.person("max")
    assert gone.stopped_at
    assert not any((gone.password, gone.otp_secret, gone.recovery, gone.holder, gone.grants))
    assert ("max", "analyst") not in marks(people)
    people.resume("max", by="test")  # let back in: still nothing to sign in with, and no role
    for password in (PASSWORD, ""):
        with pytest.raises(Refused):
            SignIn(people).sign_in("max", password, "000000", holder=bytes(32), audience=("hub",))
        with pytest.raises(Refused):
            SignIn(people).recover("max", password, "")
