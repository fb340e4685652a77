"""Service accounts: a key, bound to plans and hours (S11)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from abfed.lab.session import sign_in_with_key
from abfed.protocol.errors import InputError, IntegrityError, Refused
from abfed.protocol.identity import ROLES
from abfed.site.access import Place, judge_asker
from abfed.site.accounts import add_account, keep_key, parse_hours, prove, sign_in_account
from abfed.site.clock import stamp
from abfed.site.keys import SiteKeys
from abfed.site.people import People
from abfed.site.rights import AccessPolicy, Identity, default_rules
from tests.examples import make_plan
from tests.signing import make_people
from tests.silo.asking import SetClock

PLAN = make_plan()
NIGHT = datetime(2026, 3, 3, 3, tzinfo=UTC)  # a Tuesday


class Batch:
    """A site with one account that may ask one plan at night, Monday to Friday."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock(NIGHT)
        self.keys = SiteKeys.create(folder / "keys", site="hub")
        self.people: People = make_people(folder / "hub", self.keys, self.clock)
        hours = parse_hours("2-5", "01234")
        self.key = add_account(self.people, "nightly", [PLAN.digest], hours=hours, by="test")
        self.people.grant(
            "nightly", "service-account", owner="test", reason="batch", lasts=timedelta(days=9)
        )
        self.file = folder / "nightly.key"
        keep_key(self.file, "nightly", self.key)

    def place(self) -> Place:
        heard = (Identity(site="hub", public_key=self.keys.public_key.hex(), roles=ROLES),)
        policy = AccessPolicy(identities=heard, rights=default_rules())
        return Place("hub", policy, self.clock())

    def ask(self, plan=PLAN):
        session = sign_in_with_key(self.people, self.file, audience=("hub",))
        return judge_asker(session.present(plan), plan.digest, self.place())


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def test_it_asks_its_plan_in_its_hours(batch: Batch) -> None:
    asker = batch.ask()
    assert (asker.who, asker.token.factors) == ("nightly@hub", ("swk",))


@pytest.mark.parametrize(
    ("hours", "allowed"), [(-1.1, False), (-1, True), (1.9, True), (2, False), (96, False)]
)
def test_other_hours_and_days_are_refused(batch: Batch, hours: float, allowed: bool) -> None:
    """96 hours later it is Saturday."""
    batch.clock.forward(hours=hours)
    if allowed:
        assert batch.ask()
    else:
        with pytest.raises(Refused, match="other hours"):
            batch.ask()


@pytest.mark.parametrize("hours", ["22-4", "5-5"])
def test_hours_in_which_it_could_never_ask_are_refused(hours: str) -> None:
    with pytest.raises(InputError, match="end before they begin"):
        parse_hours(hours, "0123456")


@pytest.mark.parametrize(
    ("hours", "days"),
    [("\uff12-5", "0"), ("2-\u0665", "0"), ("\u00b2-5", "0"), (" 2-5", "0"), ("+2-5", "0"),
     ("1_0-12", "0"), ("2-5", "\u0966"), ("2-5", "0 1"), ("2-5", ""), ("2", "0"),
     ("2-5-6", "0"), ("-", "0")],
)  # fmt: skip
def test_hours_are_written_with_plain_digits(hours: str, days: str) -> None:
    with pytest.raises(InputError, match="not hours such as"):
        parse_hours(hours, days)


def test_another_plan_is_refused(batch: Batch) -> None:
    with pytest.raises(Refused, match="other plans") as caught:
        batch.ask(make_plan(name="summer"))
    assert "people service" in caught.value.do  # signing in again would not help


def test_another_key_is_refused(batch: Batch) -> None:
    stranger, holder = Ed25519PrivateKey.generate(), bytes(32)
    for name in ("nightly", "nobody"):
        proof = prove(name, stranger, batch.people, holder)
        with pytest.raises(Refused, match="not signed in"):
            sign_in_account(batch.people, name, proof, audience=("hub",))


def test_a_proof_is_for_one_session_and_one_minute(batch: Batch) -> None:
    proof = prove("nightly", batch.key, batch.people, b"\1" * 32)
    token = sign_in_account(batch.people, "nightly", proof, audience=("hub",))
    assert token
    batch.clock.forward(seconds=61)
    with pytest.raises(Refused):
        sign_in_account(batch.people, "nightly", proof, audience=("hub",))


def test_a_stopped_account_and_one_whose_grant_ran_out_are_refused(batch: Batch) -> None:
    batch.people.stop("nightly", by="test")
    with pytest.raises(Refused, match="not signed in"):
        batch.ask()
    batch.people.resume("nightly", by="test")
    batch.clock.forward(days=9)
    with pytest.raises(Refused, match="do not suffice"):
        batch.ask()


def test_a_sign_in_uses_its_grant(batch: Batch) -> None:
    """Else the next review would mark a job that runs every night as unused."""
    assert batch.people.person("nightly").grants[0].used_at == ""
    batch.ask(make_plan())
    assert batch.people.person("nightly").grants[0].used_at == stamp(batch.people.clock())


def test_it_takes_no_other_role_and_needs_a_plan(batch: Batch) -> None:
    day = timedelta(days=1)
    with pytest.raises(InputError):
        batch.people.grant("nightly", "analyst", owner="test", reason="why", lasts=day)
    with pytest.raises(InputError, match="bound to plans"):
        add_account(batch.people, "free", [], hours=None, by="test")


def test_its_key_lies_in_its_file_only_and_open_files_are_refused(batch: Batch) -> None:
    raw = batch.key.private_bytes_raw()
    for path in batch.file.parent.rglob("*"):
        if path.is_file() and path != batch.file:
            assert raw.hex().encode() not in path.read_bytes()
            assert raw not in path.read_bytes()
    batch.file.chmod(0o644)
    with pytest.raises(IntegrityError, match="others may have read"):
        batch.ask()
