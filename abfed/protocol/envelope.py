"""Envelopes: who says this, and that nobody changed it (Ed25519, RFC 8032).

A signature covers the kind of content as well as its bytes, so a signed release can't be passed off
as a manifest. Content is not looked at before its signature holds.

Layout: `MAGIC`, a 4-byte big-endian length, a canonical JSON head {kind, key, signature}, content.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.errors import InputError, IntegrityError

Kind = Literal[
    "request",
    "release",
    "refusal",
    "manifest",
    "model",
    "registration",
    "journal",
    "audit",
    "token",
    "submission",
    "approval",
    "sign-in",
    "report",
    "shown",
    "evidence",
    "drill",
    "checkup",
    "record",
    "posture",
]
"""Everything that is ever signed. Nothing else has an encoding."""

MAGIC = b"ABFED1"
MAX_HEAD = 4096  # bytes; a signature head is about 250
KEY_BYTES = 32  # Ed25519, RFC 8032; X25519's, RFC 7748, have as many
_LENGTH = struct.Struct(">I")


class Opened(NamedTuple):
    """Content whose signature held, and the id of the key that made it."""

    kind: Kind
    key_id: str
    content: bytes


def key_id(public_key: bytes) -> str:
    """The name of a public key: the first 32 hex digits of the SHA-256 of its 32 raw bytes."""
    return sha256_hex(public_key)[:32]


def parse_public_key(text: str, *, do: str = "") -> bytes:
    """A public key that somebody typed in hex.

    Args:
        text: what was typed.
        do: where a key is to be had.

    Raises:
        InputError: it is none.
    """
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InputError(
            "that isn't a public key", why=f"one has {2 * KEY_BYTES} hex digits", do=do
        )
    return key


def _signed_bytes(kind: str, content: bytes) -> bytes:
    """What is signed: kind and content with their lengths (pre-authentication encoding of DSSE)."""
    return b"%s %d %s %d %s" % (MAGIC, len(kind), kind.encode(), len(content), content)


def sign_bytes(private_key: Ed25519PrivateKey, kind: Kind, content: bytes) -> bytes:
    """A detached signature (64 bytes) over content of a kind."""
    return private_key.sign(_signed_bytes(kind, content))


def verify_bytes(public_key: bytes, kind: Kind, content: bytes, signature: bytes) -> bool:
    """Whether a detached signature holds."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            signature, _signed_bytes(kind, content)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def signature_bytes(text: Any, *, where: str) -> bytes:
    """A signature from its one spelling in hex: lower case, no blanks.

    Raises:
        IntegrityError: any other spelling. Two spellings would be two envelopes for one content.
    """
    try:
        raw = bytes.fromhex(text)
    except (TypeError, ValueError) as cause:
        raise IntegrityError("the signature is malformed", where=where) from cause
    if raw.hex() != text:
        raise IntegrityError("the signature is malformed", where=where)
    return raw


def enclose(private_key: Ed25519PrivateKey, kind: Kind, content: bytes) -> bytes:
    """Sign content and put it into an envelope."""
    public = private_key.public_key().public_bytes_raw()
    head = canonical_bytes(
        {
            "kind": kind,
            "key": key_id(public),
            "signature": sign_bytes(private_key, kind, content).hex(),
        }
    )
    return MAGIC + _LENGTH.pack(len(head)) + head + content


PIN = "compare fingerprints with the other site and pin its key"


def open_envelope(
    data: bytes,
    trusted: Mapping[str, bytes],
    *,
    kind: Kind | None = None,
    where: str,
    stranger: str = PIN,
) -> Opened:
    """Verify an envelope against pinned keys and return its content.

    Args:
        data: the envelope.
        trusted: public keys (32 raw bytes) by their `key_id`; an empty mapping trusts nobody.
        kind: the kind it must be, where only one will do.
        where: what to call it in an error.
        stranger: what to do where another key signed it.

    Raises:
        IntegrityError: malformed, signed by a key that isn't trusted, or changed.
    """
    start = len(MAGIC) + _LENGTH.size
    if len(data) < start or not data.startswith(MAGIC):
        raise IntegrityError("not an envelope", where=where)
    (length,) = _LENGTH.unpack(data[len(MAGIC) : start])
    if length > MAX_HEAD or len(data) < start + length:
        raise IntegrityError("the envelope is cut short", where=where)
    head = parse_canonical(data[start : start + length], where=where)
    if not isinstance(head, dict) or set(head) != {"kind", "key", "signature"}:
        raise IntegrityError("the envelope's head is malformed", where=where)
    found, name, signature = head["kind"], head["key"], head["signature"]
    if found not in get_args(Kind) or (kind is not None and found != kind):
        raise IntegrityError(f"the envelope does not hold a {kind or 'known kind'}", where=where)
    public_key = trusted.get(name) if isinstance(name, str) else None
    if public_key is None:
        raise IntegrityError("signed by a key that is not trusted here", where=where, do=stranger)
    content = data[start + length :]
    raw = signature_bytes(signature, where=where)
    if not verify_bytes(public_key, found, content, raw):
        raise IntegrityError("the signature does not hold", where=where, why="bytes were changed")
    return Opened(found, name, content)


def content_of_verified(data: bytes) -> bytes:
    """The content of an envelope whose signature held before; nothing is checked again."""
    start = len(MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack(data[len(MAGIC) : start])
    return data[start + length :]
