"""Who asks, judged: tokens and submissions that are not good enough, each for its reason (S11)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.envelope import enclose
from abfed.protocol.errors import Refused
from abfed.protocol.identity import (
    ROLES,
    Presented,
    Submission,
    Token,
    as_envelope,
    as_text,
    content_of,
)
from abfed.site.access import Barred, Place, judge_asker
from abfed.site.clock import stamp
from abfed.site.keys import SiteKeys
from abfed.site.rights import AccessPolicy, Identity, default_rules
from abfed.site.stops import Stops
from tests.examples import make_plan
from tests.signing import make_people, make_session
from tests.silo.asking import SetClock

PLAN = make_plan()


class Hub:
    """A hub with an analyst, a silo that hears it, and tokens that can be made otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SetClock()
        self.keys = SiteKeys.create(folder / "keys", site="hub")
        self.people = make_people(folder / "hub", self.keys, self.clock)
        self.session = make_session(self.people, audience=("hub", "aurora"))

    def place(self, site: str = "aurora", barred: Barred | None = None, **changes: Any) -> Place:
        heard = (Identity(site="hub", public_key=self.keys.public_key.hex(), roles=ROLES),)
        policy = AccessPolicy(identities=heard, rights=default_rules(), **changes)
        return Place(site, policy, self.clock(), barred or Barred())

    def token(self, **changes: Any) -> str:
        facts = self.session.facts.model_copy(update=changes)
        return as_text(self.keys.sign("token", content_of(facts)))

    def submission(self, **changes: Any) -> str:
        now = self.clock()
        values: dict[str, Any] = {
            "plan": PLAN.digest,
            "sites": ("hub", "aurora"),
            "issued_at": stamp(now),
            "expires_at": stamp(now + timedelta(hours=1)),
        }
        made = Submission(**(values | changes))
        return as_text(enclose(self.session._key, "submission", content_of(made)))

    def judge(self, token: str = "", submission: str = "", place: Place | None = None) -> Any:
        shown = Presented(token=token or self.token(), submission=submission or self.submission())
        return judge_asker(shown, PLAN.digest, place or self.place())


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def test_a_good_token_and_submission_pass(hub: Hub) -> None:
    assert hub.judge().who == "ada@hub"
    assert hub.judge(place=hub.place("hub")).who == "ada@hub"


BAD_TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "another site's name": ({"site": "aurora"}, "another site's"),
    "another audience": ({"audience": ("hub",)}, "not meant for this site"),
    "run out": ({"expires_at": "2026-03-01T11:58:59.000000Z"}, "not in date"),
    "not yet": ({"issued_at": "2026-03-01T12:01:01.000000Z"}, "not in date"),
    "lives too long": ({"expires_at": "2026-03-01T13:00:00.000001Z"}, "lives too long"),
    "an old session": ({"signed_in_at": "2026-03-01T03:58:00.000000Z"}, "session is too old"),
    "a future session": ({"signed_in_at": "2026-03-01T12:02:00.000000Z"}, "in the future"),
    "a future factor": ({"factor_at": "2026-03-01T12:02:00.000000Z"}, "in the future"),
    "no such month": ({"issued_at": "2026-13-01T12:00:00.000000Z"}, "does not exist"),
    "password only": ({"factors": ("pwd",)}, "do not suffice"),
    "code only": ({"factors": ("otp",)}, "do not suffice"),
    "a key of a person": ({"factors": ("swk",)}, "do not suffice"),
    "an unbound account": (
        {"factors": ("swk",), "roles": ("service-account",)},
        "do not suffice",
    ),
    "an account by password": (
        {"factors": ("pwd", "otp"), "roles": ("service-account",)},
        "do not suffice",
    ),
    "another plan's": ({"plans": ("a" * 64,)}, "other plans"),
    "made up for development": ({"development": True}, "made up"),
    "another holder": ({"holder": "ab" * 32}, "not trusted"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_token_that_is_not_good_enough(hub: Hub, name: str) -> None:
    changes, why = BAD_TOKENS[name]
    with pytest.raises(Refused) as caught:
        hub.judge(token=hub.token(**changes))
    assert why in caught.value.what
    assert caught.value.code == "sign-in"


BAD_SUBMISSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "another plan": ({"plan": "b" * 64}, "another plan"),
    "other sites": ({"sites": ("hub",)}, "not submitted to this site"),
    "run out": (
        {
            "issued_at": "2026-03-01T10:00:00.000000Z",
            "expires_at": "2026-03-01T11:58:00.000000Z",
        },
        "not in date",
    ),
    "not yet": ({"issued_at": "2026-03-01T12:02:00.000000Z"}, "not in date"),
}


@pytest.mark.parametrize("name", BAD_SUBMISSIONS)
def test_a_submission_that_is_not_good_enough(hub: Hub, name: str) -> None:
    changes, why = BAD_SUBMISSIONS[name]
    with pytest.raises(Refused, match=why):
        hub.judge(submission=hub.submission(**changes))


def test_a_stolen_token_asks_nothing_else(hub: Hub) -> None:
    """A hostile coordinator holds token and submission; another plan needs the session's key."""
    shown = hub.session.present(PLAN)
    other = make_plan(name="differencing")
    with pytest.raises(Refused, match="another plan"):
        judge_asker(shown, other.digest, hub.place())


def test_a_stranger_signs_for_nobody(hub: Hub, tmp_path: Path) -> None:
    stranger = SiteKeys.create(tmp_path / "stranger", site="hub")
    token = as_text(stranger.sign("token", content_of(hub.session.facts)))
    with pytest.raises(Refused, match="not trusted"):
        hub.judge(token=token)
    for kind in ("submission", "approval", "request", "manifest"):
        other = as_text(hub.keys.sign(kind, content_of(hub.session.facts)))
        with pytest.raises(Refused):
            hub.judge(token=other)


def test_an_empty_policy_hears_nobody(hub: Hub) -> None:
    with pytest.raises(Refused):
        hub.judge(place=Place("aurora", AccessPolicy(), hub.clock()))


def test_a_stop_is_sealed_dated_and_undone(hub: Hub) -> None:
    stops = Stops(hub.folder, hub.keys, hub.clock)
    stop = stops.stop("ada@hub", hub.people.audit, by="sam@hub", reason="left")
    assert stop.durable_ms > 0
    assert b"ada@hub" not in (hub.folder / "stops.sealed").read_bytes()
    with pytest.raises(Refused) as caught:
        hub.judge(place=hub.place(barred=stops.barred()))
    assert caught.value.code == "revoked"
    hub.clock.forward(seconds=2)
    stops.refused("ada@hub")
    hub.clock.forward(seconds=2)
    stops.refused("ada@hub")  # the first counts
    assert stops.list()["ada@hub"].refused_after_ms == 2000
    stops.lift("ada@hub", hub.people.audit, by="sam@hub")
    with pytest.raises(Refused, match="before this person was let back"):
        hub.judge(place=hub.place(barred=stops.barred()))
    hub.clock.forward(seconds=60)
    again = stamp(hub.clock())
    fresh = hub.token(signed_in_at=again, factor_at=again, issued_at=again)
    assert hub.judge(token=fresh, place=hub.place(barred=stops.barred()))


@pytest.mark.parametrize("ahead", [0, 30, 60])
def test_no_session_of_before_a_stop_counts_after_it_whatever_its_site_clock_says(
    hub: Hub, ahead: int
) -> None:
    """The hub's clock may be a minute ahead of ours: a sign-in just before the stop isn't later."""
    stops = Stops(hub.folder, SiteKeys.create(hub.folder / "aurora", site="aurora"), hub.clock)
    said = stamp(hub.clock() + timedelta(seconds=ahead))
    kept = hub.token(signed_in_at=said, factor_at=said, issued_at=said)
    hub.clock.forward(seconds=1)
    stops.stop("ada@hub", hub.people.audit, by="sam@aurora", reason="left")
    hub.clock.forward(seconds=1)
    stops.lift("ada@hub", hub.people.audit, by="sam@aurora")
    for _ in range(2):  # also once both clocks have gone on, as long as the token is in date
        with pytest.raises(Refused, match="before this person was let back"):
            hub.judge(token=kept, place=hub.place(barred=stops.barred()))
        hub.clock.forward(seconds=60)


def test_who_is_let_back_while_their_message_is_refused_stays_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops, others = (Stops(hub.folder, hub.keys, hub.clock) for _ in range(2))
    stops.stop("ada@hub", hub.people.audit, by="sam@hub", reason="left")
    alone = stops._file.alone

    @contextmanager
    def once_they_were_let_back() -> Iterator[None]:
        others.lift("ada@hub", hub.people.audit, by="sam@hub")
        with alone():
            yield

    monkeypatch.setattr(stops._file, "alone", once_they_were_let_back)
    stops.refused("ada@hub")
    assert not stops.list()


def test_a_second_stop_and_restore_counts_from_the_second(hub: Hub) -> None:
    stops = Stops(hub.folder, hub.keys, hub.clock)
    for _ in range(2):
        stops.stop("ada@hub", hub.people.audit, by="sam@hub", reason="left")
        stops.stop("eve@hub", hub.people.audit, by="sam@hub", reason="left too")
        hub.clock.forward(seconds=5)
        stops.lift("ada@hub", hub.people.audit, by="sam@hub")
    assert stops.barred().since == {"ada@hub": stamp(hub.clock())}
    assert stops.barred().stopped == {"eve@hub"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7), which=st.booleans())
def test_one_changed_bit_is_refused(hub: Hub, place: int, bit: int, which: bool) -> None:
    """Anywhere in the token or the submission."""
    good = (hub.token(), hub.submission())
    data = bytearray(as_envelope(good[which], where="test"))
    data[place % len(data)] ^= 1 << bit
    shown = list(good)
    shown[which] = as_text(bytes(data))
    with pytest.raises(Refused):
        hub.judge(*shown)


@given(text=st.text(max_size=200))
def test_any_text_is_refused_by_our_own_error(text: str) -> None:
    shown = Presented(token=text, submission=text)
    clock = SetClock()
    with pytest.raises(Refused):
        judge_asker(shown, PLAN.digest, Place("aurora", AccessPolicy(), clock()))


def test_a_token_of_another_form_is_refused(hub: Hub) -> None:
    values = hub.session.facts.model_dump(mode="json")
    for changes in ({"roles": ["king"]}, {"extra": 1}, {"version": 2}, {"person": "../x"}):
        text = as_text(hub.keys.sign("token", canonical_bytes(values | changes)))
        with pytest.raises(Refused, match="not a token"):
            hub.judge(token=text)
    assert Token.model_validate_json(canonical_bytes(values)) == hub.session.facts
