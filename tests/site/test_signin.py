"""Signing in: both factors, each code once, lock-out, and what is never told (S11)."""

from __future__ import annotations

import copy
import hmac
import pickle
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest
from argon2 import extract_parameters
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from abfed.lab.session import Session, load_session, sign_in
from abfed.protocol.errors import InputError, IntegrityError, Refused
from abfed.protocol.identity import Presented
from abfed.site import factors
from abfed.site.factors import otp_code, otp_step, password_fits
from abfed.site.keys import SiteKeys
from abfed.site.signin import SESSION, SignIn
from abfed.site.stops import Stops
from tests.examples import make_plan
from tests.signing import PASSWORD, make_people
from tests.silo.asking import SetClock

START = datetime(2026, 3, 2, 9, 0, 10, tzinfo=UTC)


class Desk:
    """A site with one analyst, and what that analyst knows and has."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock(START)
        self.keys = SiteKeys.create(folder / "keys", site="hub")
        self.people = make_people(folder / "hub", self.keys, self.clock)
        self.enrolled = self.people.enrol("ada", PASSWORD, by="test")
        self.people.grant("ada", "analyst", owner="test", reason="a test", lasts=timedelta(days=30))

    def code(self, steps: int = 0) -> str:
        return otp_code(self.enrolled.otp_secret, self.clock() + timedelta(seconds=30 * steps))

    def try_it(self, name: str = "ada", password: str = PASSWORD, code: str = "") -> Session:
        return sign_in(self.people, name, password, code or self.code(), audience=("hub", "aurora"))

    def events(self) -> list[str]:
        return [entry["body"]["event"] for entry in self.people.audit.entries()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_both_factors_make_a_short_token(desk: Desk) -> None:
    facts = desk.try_it().facts
    assert (facts.who, facts.roles, facts.factors) == ("ada@hub", ("analyst",), ("pwd", "otp"))
    assert facts.audience == ("hub", "aurora")
    assert facts.issued_at == "2026-03-02T09:00:10.000000Z"
    assert facts.expires_at == "2026-03-02T09:10:10.000000Z"


def test_codes_are_those_of_rfc_6238() -> None:
    """Appendix B of the RFC, SHA-1; its eight digits end in the six that are used."""
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    for seconds, code in ((59, "287082"), (1111111109, "081804"), (20000000000, "353130")):
        assert otp_code(secret, datetime.fromtimestamp(seconds, UTC)) == code


@pytest.mark.parametrize(
    ("steps", "counts"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_one_step_of_tolerance_either_way(desk: Desk, steps: int, counts: bool) -> None:
    if counts:
        assert desk.try_it(code=desk.code(steps)).who == "ada@hub"
    else:
        with pytest.raises(Refused):
            desk.try_it(code=desk.code(steps))


def test_each_code_counts_once_and_older_ones_no_more(desk: Desk) -> None:
    code = desk.code()
    desk.try_it(code=code)
    for again in (code, desk.code(-1)):
        with pytest.raises(Refused, match="not signed in"):
            desk.try_it(code=again)
    desk.clock.forward(seconds=30)
    desk.try_it()


def test_a_code_used_twice_at_the_same_time_counts_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other sign-in finishes between our comparison and our record."""
    real = factors.otp_step
    code = desk.code()

    def slow(*arguments, **options):
        found = real(*arguments, **options)
        monkeypatch.setattr("abfed.site.proofs.otp_step", real)
        desk.try_it(code=code)
        return found

    monkeypatch.setattr("abfed.site.proofs.otp_step", slow)
    with pytest.raises(Refused):
        desk.try_it(code=code)


def test_a_recovery_code_used_twice_at_the_same_time_counts_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    signin, code, real = SignIn(desk.people), desk.enrolled.recovery_codes[0], password_fits
    won = []

    def slow(password: str, hashed: str) -> bool:
        monkeypatch.setattr("abfed.site.signin.password_fits", real)
        won.append(signin.recover("ada", PASSWORD, code).otp_secret)
        return real(password, hashed)

    monkeypatch.setattr("abfed.site.signin.password_fits", slow)
    with pytest.raises(Refused):
        signin.recover("ada", PASSWORD, code)
    assert desk.people.person("ada").otp_secret == won[0]
    assert desk.events().count("people.recovered") == 1


@pytest.mark.parametrize("act", ["stop", "recover"])
def test_a_stop_or_a_recovery_amid_a_sign_in_counts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    real, code = factors.otp_step, desk.code()

    def slow(*arguments, **options):
        monkeypatch.setattr("abfed.site.proofs.otp_step", real)
        if act == "stop":
            desk.people.stop("ada", by="test")
        else:
            SignIn(desk.people).recover("ada", PASSWORD, desk.enrolled.recovery_codes[0])
        return real(*arguments, **options)

    monkeypatch.setattr("abfed.site.proofs.otp_step", slow)
    with pytest.raises(Refused):
        desk.try_it(code=code)


def test_what_was_wrong_is_not_told(desk: Desk) -> None:
    told = set()
    for name, password, code in (
        ("ada", "not the password 1", desk.code()),
        ("ada", PASSWORD, "000000"),
        ("eve", PASSWORD, desk.code()),
        ("", "", ""),
        ("ada", "", "x" * 10_000),
    ):
        with pytest.raises(Refused) as caught:
            desk.try_it(name, password, code or "1")
        told.add((caught.value.what, caught.value.why, caught.value.do, caught.value.code))
    assert len(told) == 1


def test_an_unknown_name_is_hashed_too_and_never_logged(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def counting(password: str, kept: str) -> bool:
        hashed.append(kept)
        return password_fits(password, kept)

    monkeypatch.setattr("abfed.site.signin.password_fits", counting)
    with pytest.raises(Refused):
        desk.try_it("correct horse typed as a name")
    assert hashed == [desk.people.register().decoy]
    parameters = extract_parameters(hashed[0])
    assert parameters == extract_parameters(desk.people.person("ada").password)
    assert "correct horse" not in desk.people.audit._path.read_text()


def test_secrets_are_compared_in_constant_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate is compared through hmac.compare_digest, also after one was found."""
    compared, real = [], hmac.compare_digest

    def counting(first: bytes, second: bytes) -> bool:
        compared.append(first)
        return real(first, second)

    monkeypatch.setattr(factors.hmac, "compare_digest", counting)
    step = otp_step(desk.enrolled.otp_secret, desk.code(-1), desk.clock(), after=0)
    assert step is not None
    assert len(compared) == 3


def test_a_session_renews_until_its_end(desk: Desk) -> None:
    session = desk.try_it()
    desk.clock.forward(hours=7, minutes=59)
    session.present(make_plan())
    assert session.facts.expires_at == "2026-03-02T17:00:10.000000Z"  # not past the session's end
    desk.clock.forward(minutes=1)
    with pytest.raises(Refused, match="ended"):
        session.present(make_plan())
    assert timedelta(hours=8) == SESSION


def test_a_young_token_is_its_own_successor_while_it_says_what_counts(desk: Desk) -> None:
    session = desk.try_it()
    told = session.token
    desk.clock.forward(seconds=59)
    assert session.token == told
    desk.clock.forward(seconds=1)
    later = session.token
    assert later != told

    def changed() -> bool:
        nonlocal later
        before, later = later, session.token
        return later != before

    assert not changed()
    desk.people.reviewed(desk.clock())
    assert changed()
    assert not changed()
    desk.people.grant("ada", "auditor", owner="test", reason="more", lasts=timedelta(seconds=20))
    assert changed()
    assert session.facts.roles == ("analyst", "auditor")
    assert not changed()
    desk.clock.forward(seconds=21)  # within the minute: the grant has run out
    assert changed()
    assert session.facts.roles == ("analyst",)
    assert not changed()
    assert SignIn(desk.people).renew(later, ("hub",)) != later
    desk.clock.forward(seconds=-25)  # a clock that was set back: issued later than now
    assert changed()


def test_a_stop_and_a_grant_taken_back_count_at_the_next_message(desk: Desk) -> None:
    session = desk.try_it()
    desk.people.take_back("ada", "analyst", by="test")
    session.present(make_plan())
    assert session.facts.roles == ()
    desk.people.stop("ada", by="test")
    with pytest.raises(Refused) as caught:
        session.present(make_plan())
    assert caught.value.code == "revoked"
    desk.clock.forward(seconds=30)
    with pytest.raises(Refused):
        desk.try_it()


@pytest.mark.parametrize("asks", ["sign-in", "session"])
def test_the_time_to_a_stops_first_effect_is_measured_at_home_too(desk: Desk, asks: str) -> None:
    """By what is refused for the stop alone: not by a wrong password that names the person."""
    session, stops = desk.try_it(), Stops(desk.people.folder, desk.keys, desk.clock)
    stops.stop("ada@hub", desk.people.audit, by="test", reason="inc-1")
    desk.people.stop("ada", by="test")
    desk.clock.forward(seconds=30)
    with pytest.raises(Refused):
        desk.try_it(password="a wrong passphrase 7")
    assert stops.list()["ada@hub"].refused_after_ms is None
    desk.clock.forward(seconds=30)
    with pytest.raises(Refused):
        desk.try_it() if asks == "sign-in" else session.present(make_plan())
    assert stops.list()["ada@hub"].refused_after_ms == 60_000


def test_a_fresh_factor_is_a_new_code(desk: Desk) -> None:
    session = desk.try_it()
    desk.clock.forward(minutes=20)
    with pytest.raises(Refused):
        session.fresh("000000")
    session.fresh(desk.code())
    assert session.facts.factor_at == "2026-03-02T09:20:10.000000Z"
    assert session.facts.signed_in_at == "2026-03-02T09:00:10.000000Z"


def test_recovery_enrols_a_new_factor_and_ends_the_old(desk: Desk) -> None:
    signin, codes = SignIn(desk.people), desk.enrolled.recovery_codes
    assert len(set(codes)) == 10
    for password, code in (("wrong password 1", codes[0]), (PASSWORD, "aaaa-bbbb-cccc-dddd")):
        with pytest.raises(Refused):
            signin.recover("ada", password, code)
    new = signin.recover("ada", PASSWORD, codes[3].upper())
    with pytest.raises(Refused):
        desk.try_it()  # the old authenticator
    desk.clock.forward(seconds=60)
    code = otp_code(new.otp_secret, desk.clock())
    assert desk.try_it(code=code).who == "ada@hub"
    for used in codes:
        desk.clock.forward(days=2)
        with pytest.raises(Refused):
            signin.recover("ada", PASSWORD, used)


def test_a_grant_has_an_owner_a_reason_and_an_end(desk: Desk) -> None:
    month = timedelta(days=30)
    for owner, reason, lasts in (
        ("", "why", month),
        ("ann", " ", month),
        ("ann", "why", month * 13),
    ):
        with pytest.raises(InputError):
            desk.people.grant("ada", "auditor", owner=owner, reason=reason, lasts=lasts)
    desk.clock.forward(days=31)
    assert desk.try_it().facts.roles == ()


def test_secrets_stand_in_no_file_log_repr_or_traceback(desk: Desk, tmp_path: Path) -> None:
    """Every secret of a person, in every spelling, against every byte that is written or shown."""
    session = desk.try_it()
    session.keep(tmp_path / "lab")
    secret, key = desk.enrolled.otp_secret, session._key.private_bytes_raw()
    canaries = [
        PASSWORD,
        secret,
        *desk.enrolled.recovery_codes,
        pyotp.TOTP(secret).byte_secret().hex(),
    ]
    shown = [repr(desk.enrolled), repr(session), repr(desk.people), repr(desk.people.register())]
    shown += [repr(desk.people.person("ada")), repr(session.present(make_plan())), repr(SignIn)]
    shown.append(str(session.present(make_plan())))
    try:
        desk.try_it(code="000000")
    except Refused:
        shown.append(traceback.format_exc())
    tokens = [session.token, session.present(make_plan()).submission, key.hex()]
    for text in shown:
        for canary in [*canaries, *tokens]:
            assert canary not in text
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            assert not [canary for canary in canaries if canary.encode() in data], path
            if path.name != "session-hub.json":  # the person's own, mode 0600
                assert key not in data
                assert key.hex().encode() not in data
    assert (tmp_path / "lab" / "session-hub.json").stat().st_mode & 0o077 == 0
    again = load_session(tmp_path / "lab", desk.people, audience=("hub",))
    assert again.who == "ada@hub"


def test_a_session_does_not_travel(desk: Desk) -> None:
    session = desk.try_it()
    for travel in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            travel(session)


def test_the_register_is_sealed_and_a_changed_byte_is_found(desk: Desk) -> None:
    path = desk.people._file.path
    whole = path.read_bytes()
    assert b'"ada"' not in whole  # three letters alone stand there once in 10,000 runs
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError):
            desk.people.register()
    path.write_bytes(whole)
    desk.people.register()


def test_a_session_with_a_strange_key_is_no_session(desk: Desk) -> None:
    """The token names the session's key: with another, nothing is signed that counts."""
    session = desk.try_it()
    stranger = Session(desk.people, session.token, Ed25519PrivateKey.generate(), ("hub",))
    shown = stranger.present(make_plan())
    assert isinstance(shown, Presented)
    assert shown.submission != session.present(make_plan()).submission


@pytest.mark.parametrize("gone", ["max", "nobody"])
def test_who_has_no_password_is_checked_against_a_hash_like_everybody(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = make_people(tmp_path / "s", SiteKeys.create(tmp_path / "k", site="s"), SetClock())
    people.enrol("max", PASSWORD, by="test")
    people.leave("max", by="test")
    hashes: list[str] = []

    def fits(password: str, hashed: str) -> bool:
        hashes.append(hashed)
        return password_fits(password, hashed)

    monkeypatch.setattr("abfed.site.signin.password_fits", fits)
    with pytest.raises(Refused):
        SignIn(people).sign_in(gone, PASSWORD, "000000", holder=bytes(32), audience=("s",))
    assert [one[:9] for one in hashes] == ["$argon2id"]  # so a name's absence is not timed
