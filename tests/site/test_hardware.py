"""Hardware keys: each of the five checks, and what enrolment and sign-in make of them (S11).

The keys here are software, signing what WebAuthn signs; `tests/lab/test_touching.py` has a browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.lab.session import sign_in
from abfed.protocol.errors import AbfedError, InputError, Refused
from abfed.site.clock import stamp
from abfed.site.hardware import (
    HardwareKey,
    Touch,
    check_touch,
    new_challenge,
    new_key,
    parse_signed,
)
from abfed.site.people import People
from abfed.site.selfservice import add_key, key_ids, remove_key
from abfed.site.signin import SignIn
from tests.signing import PASSWORD
from tests.site.test_signin import START, Desk

ORIGIN = "http://localhost:41000"
Signer = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Key:
    """An authenticator, in software; every field is something that an attacker may choose."""

    private: Signer = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: str = "a-key"
    counter: int = 0
    flags: int = 1
    name: str = "localhost"
    said: dict[str, Any] = field(default_factory=dict)

    def made(self) -> dict[str, str]:
        public = self.private.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {"id": self.id, "public_key": b64(der)}

    def enrolled(self, label: str = "yubi") -> HardwareKey:
        return new_key(self.made(), label, stamp(START))

    def touch(self, challenge: bytes | None = None) -> Touch:
        challenge = challenge or new_challenge()
        client = {"type": "webauthn.get", "challenge": b64(challenge), "origin": ORIGIN}
        raw = json.dumps(client | self.said).encode()
        data = hashlib.sha256(self.name.encode()).digest()
        data += struct.pack(">BI", self.flags, self.counter)
        signed = data + hashlib.sha256(raw).digest()
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            signature = self.private.sign(signed, ec.ECDSA(SHA256()))
        else:
            assert isinstance(self.private, ed25519.Ed25519PrivateKey)
            signature = self.private.sign(signed)
        values = {"client_data": b64(raw), "key_data": b64(data), "signature": b64(signature)}
        return Touch(challenge, ORIGIN, parse_signed(values | {"id": self.id}))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def _enrol(desk: Desk, key: Key, label: str = "yubi", steps: int = 0) -> None:
    key.counter += 1 if key.counter else 0
    enrolled, touch = key.enrolled(label), key.touch()
    add_key(desk.people, "ada", PASSWORD, desk.code(steps), key=enrolled, touch=touch)


def _sign_in(people: People, touch: Touch, password: str = PASSWORD) -> Any:
    return sign_in(people, "ada", password, touch, audience=("hub",))


@pytest.mark.parametrize("private", [None, ed25519.Ed25519PrivateKey.generate()])
def test_a_touch_signs_in_and_refreshes(desk: Desk, private: Signer | None) -> None:
    key = Key(private) if private else Key()
    _enrol(desk, key)
    assert desk.people.person("ada").factors() == "password, code, key yubi"
    assert key_ids(desk.people, "ada") == (key.id,)
    session = _sign_in(desk.people, key.touch())
    assert session.facts.factors == ("pwd", "hwk")
    desk.clock.forward(seconds=600)
    with pytest.raises(Refused, match="begun with a hardware key"):
        session.fresh(desk.code())  # a code is not in the place of a key
    session.fresh(key.touch())
    assert session.facts.factor_at == stamp(desk.clock())
    with pytest.raises(Refused, match="not signed in"):
        _sign_in(desk.people, key.touch(), "wrong password 1")
    old = desk.try_it()
    old.fresh(key.touch())
    assert old.facts.factors == ("pwd", "otp")
    for event in ("people.key-added", "sign-in.fresh-factor"):
        assert event in desk.events()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"said": {"type": "webauthn.create"}}, "something else"),
        ({"said": {"challenge": b64(bytes(32))}}, "another challenge"),
        ({"said": {"challenge": 7}}, "another challenge"),
        ({"said": {"origin": "http://localhost:41001"}}, "another page"),
        ({"said": {"origin": "https://localhost.evil.example"}}, "another page"),
        ({"said": {"crossOrigin": True}}, "another page"),
        ({"name": "evil.example"}, "another name"),
        ({"flags": 4}, "nobody touched"),
        ({"id": "another"}, "no key of this person"),
        ({"private": ec.generate_private_key(ec.SECP256R1())}, "signature"),
        ({"private": ed25519.Ed25519PrivateKey.generate()}, "signature"),
        ({"counter": 5}, "two of it"),
        ({"counter": 0}, "two of it"),
    ],
)
def test_each_check_refuses(changes: dict[str, Any], why: str) -> None:
    key = Key()
    known = key.enrolled().model_copy(update={"counter": 5})
    key.counter = 6
    assert check_touch(key.touch(), [known]).counter == 6
    for name, value in changes.items():
        setattr(key, name, value)
    with pytest.raises(Refused) as caught:
        check_touch(key.touch(), [known])
    assert why in caught.value.why


def test_a_touch_counts_once_and_never_without_its_password(desk: Desk) -> None:
    key = Key(counter=1)
    _enrol(desk, key)
    key.counter = 3
    touch = key.touch()
    _sign_in(desk.people, touch)
    with pytest.raises(Refused, match="not signed in"):
        _sign_in(desk.people, touch)
    refused = [e["body"]["facts"] for e in desk.people.audit.entries()
               if e["body"]["event"] == "sign-in.key-refused"]  # fmt: skip
    assert ["two of it" in one["why"] for one in refused] == [True]
    for _ in range(5):
        with pytest.raises(Refused):
            _sign_in(desk.people, key.touch(), "wrong password 1")
    key.counter = 9
    with pytest.raises(Refused, match="not signed in"):  # locked out
        _sign_in(desk.people, key.touch())


def test_what_ends_a_key(desk: Desk) -> None:
    """It is taken away; its person recovers, or leaves. Nobody else's key is theirs."""
    key, other = Key(), Key(id="other")
    _enrol(desk, key)
    with pytest.raises(InputError, match="yubi"):
        _enrol(desk, other, steps=1)
    desk.clock.forward(seconds=60)
    with pytest.raises(Refused, match="not signed in"):
        _sign_in(desk.people, other.touch())
    remove_key(desk.people, "ada", PASSWORD, desk.code(), "yubi")
    with pytest.raises(Refused, match="not signed in"):
        _sign_in(desk.people, key.touch())
    assert key_ids(desk.people, "ada") == key_ids(desk.people, "ada") != (key.id,)
    desk.clock.forward(seconds=60)
    _enrol(desk, key)
    SignIn(desk.people).recover("ada", PASSWORD, desk.enrolled.recovery_codes[0])
    with pytest.raises(Refused, match="not signed in"):
        _sign_in(desk.people, key.touch())
    assert desk.people.leave("ada", by="test").hardware == ()


def test_a_key_that_does_not_work_is_not_kept(desk: Desk) -> None:
    key = Key()
    enrolled = key.enrolled()
    touch = Key().touch()
    with pytest.raises(Refused, match="does not count"):
        add_key(desk.people, "ada", PASSWORD, desk.code(), key=enrolled, touch=touch)
    with pytest.raises(Refused, match="not signed in"):
        add_key(desk.people, "ada", PASSWORD, "000000", key=enrolled, touch=key.touch())
    assert desk.people.person("ada").hardware == ()
    for private in (
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP384R1()),
    ):
        with pytest.raises(Refused):
            Key(private).enrolled()


KNOWN = Key()
GOOD = KNOWN.touch()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_single_change_is_refused_by_our_own_error(data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(["client_data", "key_data", "signature"]))
    raw = bytearray(base64.urlsafe_b64decode(getattr(GOOD.signed, part) + "=="))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = GOOD.signed.model_copy(update={part: b64(bytes(raw))})
    with pytest.raises(Refused):
        check_touch(GOOD._replace(signed=changed), [KNOWN.enrolled()])


NAMES = ["id", "public_key", "client_data", "key_data", "signature"]
JSON = st.recursive(st.text() | st.integers() | st.none(), st.lists)


@settings(max_examples=100, deadline=None)
@given(JSON | st.dictionaries(st.sampled_from(NAMES), st.text()))
def test_whatever_a_page_sends_raises_our_own_error(values: Any) -> None:
    for read in (parse_signed, lambda one: new_key(one, "yubi", stamp(START))):
        with pytest.raises(AbfedError):
            read(values)
