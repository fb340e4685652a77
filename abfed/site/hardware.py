"""Hardware keys as second factors: WebAuthn (W3C, level 2), as far as signing in needs it (S11).

A key makes a pair for us once, and from then on signs what a browser was asked: for which page, and
our challenge. What comes back is somebody else's bytes until check 5 held. In this order:

 1. the client's data is a JSON object of type `webauthn.get`, over exactly our challenge, and the
    page that asked is exactly ours, in no frame of another;
 2. the key's data is for our name (`rpIdHash`), and somebody touched the key;
 3. the key is one that the person enrolled, by an algorithm that is accepted;
 4. the signature holds;
 5. its counter went up, if it has one: else there are two of it.

Enrolment asks for no attestation: which maker's key it is, is the person's own affair. A new key
signs a challenge before it is kept, by the same checks, so that no key is kept that doesn't work.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import struct
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, Refused
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen, Name

RP_ID = "localhost"
"""The page is served on this machine, whose name browsers take for a secure origin."""

ALGORITHMS = (-8, -7)
"""EdDSA over Ed25519, and ES256: ECDSA over P-256 with SHA-256 (COSE's numbers, RFC 9053)."""

MOST_KEYS = 8  # of one person
LONGEST_ANSWER = 65_536  # bytes
TOUCHED = 0x01
"""The flag "user present" of authenticator data; its layout is that of WebAuthn, section 6.1."""

_HEAD = struct.Struct(">32sBI")

Base64Url = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=16_384)]


class HardwareKey(Frozen):
    """A key that a person enrolled.

    Attributes:
        label: what they call it.
        id: how the key calls the pair that it made for us.
        public_key: its public half, SubjectPublicKeyInfo (hex).
        counter: how often it signed, as it said last; 0 where it doesn't count.
        added_at: when.
    """

    label: Name
    id: Annotated[Base64Url, Field(max_length=1_400)]
    public_key: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){32,512}$")]
    counter: Annotated[int, Field(ge=0, lt=2**32)] = 0
    added_at: At


class Made(Frozen):
    """What a page says of a pair that was made: base64url."""

    id: Base64Url
    public_key: Base64Url


class Signed(Frozen):
    """What a page says of a challenge that was signed: base64url."""

    id: Base64Url
    client_data: Base64Url
    key_data: Base64Url
    signature: Base64Url


class Touch(NamedTuple):
    """A challenge of ours, to which page it was given, and what came back."""

    challenge: bytes
    origin: str
    signed: Signed


def new_challenge() -> bytes:
    """256 random bits."""
    return secrets.token_bytes(32)


def parse_signed(values: Any) -> Signed:
    """A page's answer.

    Raises:
        Refused: it isn't one.
    """
    try:
        return parse_record(Signed, values, where="hardware key")
    except InputError as cause:
        raise _no("not what a hardware key says") from cause


def new_key(values: Any, label: str, now: str) -> HardwareKey:
    """A key from what a page says of it; whether it works is for `check_touch` to see.

    Raises:
        InputError: it has no name that we can use.
        Refused: it isn't a key of an algorithm that is accepted.
    """
    try:
        made = parse_record(Made, values, where="hardware key")
    except InputError as cause:
        raise _no("not what a hardware key says") from cause
    public = _decoded(made.public_key)
    _load(public)
    key = {"label": label, "id": made.id, "public_key": public.hex(), "added_at": now}
    return parse_record(HardwareKey, key, where="hardware key")


def check_touch(touch: Touch, keys: Iterable[HardwareKey]) -> HardwareKey:
    """Checks 1 to 5: the key that was touched, with its counter as it is now.

    Raises:
        Refused: says which check failed, nothing of the answer.
    """
    client, data = _decoded(touch.signed.client_data), _decoded(touch.signed.key_data)
    _check_client(client, touch)  # 1
    if len(data) < _HEAD.size:
        raise _no("not what a hardware key says")
    name, flags, counter = _HEAD.unpack_from(data)
    if not secrets.compare_digest(name, hashlib.sha256(RP_ID.encode()).digest()):  # 2
        raise _no("it signed for another name than ours")
    if not flags & TOUCHED:
        raise _no("nobody touched it")
    found = [key for key in keys if key.id == touch.signed.id]
    if len(found) != 1:  # 3
        raise _no("it is no key of this person's")
    signed = data + hashlib.sha256(client).digest()
    _verify(bytes.fromhex(found[0].public_key), _decoded(touch.signed.signature), signed)  # 4
    before = found[0].counter
    if (counter or before) and counter <= before:  # 5
        raise _no("its counter did not go up: there may be two of it")
    return found[0].model_copy(update={"counter": counter})


def decoy_id(key: bytes, name: str) -> str:
    """The id that a page is given for somebody who has no key, the same each time."""
    digest = hashlib.blake2b(name.encode(), key=key, digest_size=32).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _check_client(client: bytes, touch: Touch) -> None:
    """Check 1."""
    try:
        said = json.loads(client)
    except (ValueError, RecursionError) as cause:
        raise _no("not what a hardware key says") from cause
    if not isinstance(said, dict) or said.get("type") != "webauthn.get":
        raise _no("it was asked for something else than signing in")
    challenge = said.get("challenge")
    ours = base64.urlsafe_b64encode(touch.challenge).rstrip(b"=").decode()
    if not isinstance(challenge, str) or not secrets.compare_digest(
        challenge.encode(), ours.encode()
    ):
        raise _no("it signed another challenge")
    if said.get("origin") != touch.origin or said.get("crossOrigin", False) is not False:
        raise _no("another page asked it")


def _load(public: bytes) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    try:
        key = load_der_public_key(public)
    except Exception as cause:  # of the library's own kinds, and of its parser's
        raise _no("not a public key") from cause
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise _no("a key of another kind than is accepted")


def _verify(public: bytes, signature: bytes, signed: bytes) -> None:
    """Check 4."""
    key = _load(public)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            key.verify(signature, signed, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError) as cause:
        raise _no("its signature does not hold") from cause


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as cause:
        raise _no("not what a hardware key says") from cause


def _no(what: str) -> Refused:
    return Refused(
        "the hardware key's answer does not count",
        code="sign-in",
        why=what,
        do="try again, on the page that abfed opens",
    )
