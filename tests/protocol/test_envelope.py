"""Envelopes: only what a trusted key signed, as that kind, byte for byte."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.envelope import (
    MAGIC,
    MAX_HEAD,
    enclose,
    key_id,
    open_envelope,
    sign_bytes,
    verify_bytes,
)
from abfed.protocol.errors import IntegrityError

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()
TRUSTED = {key_id(PUBLIC): PUBLIC}
CONTENT = b"a small content"


def _with_head(head: object, content: bytes = CONTENT) -> bytes:
    data = canonical_bytes(head)
    return MAGIC + struct.pack(">I", len(data)) + data + content


def _head(**changes: object) -> dict[str, object]:
    signature = sign_bytes(PRIVATE, "release", CONTENT).hex()
    return {"kind": "release", "key": key_id(PUBLIC), "signature": signature} | changes


def test_what_was_enclosed_comes_out() -> None:
    opened = open_envelope(enclose(PRIVATE, "release", CONTENT), TRUSTED, where="x")
    assert opened == ("release", key_id(PUBLIC), CONTENT)
    assert open_envelope(enclose(PRIVATE, "audit", b""), TRUSTED, where="x").content == b""
    assert _with_head(_head()) == enclose(PRIVATE, "release", CONTENT)


def test_every_single_bit_flip_is_refused() -> None:
    envelope = enclose(PRIVATE, "release", CONTENT)
    for place in range(8 * len(envelope)):
        flipped = bytearray(envelope)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError):
            open_envelope(bytes(flipped), TRUSTED, where="x")


def test_every_truncation_and_extension_is_refused() -> None:
    envelope = enclose(PRIVATE, "release", CONTENT)
    for size in range(len(envelope)):
        with pytest.raises(IntegrityError):
            open_envelope(envelope[:size], TRUSTED, where="x")
    for more in (b"\0", b" ", CONTENT):
        with pytest.raises(IntegrityError):
            open_envelope(envelope + more, TRUSTED, where="x")


def test_another_key_is_not_trusted() -> None:
    envelope = enclose(Ed25519PrivateKey.generate(), "release", CONTENT)
    with pytest.raises(IntegrityError, match="not trusted"):
        open_envelope(envelope, TRUSTED, where="x")
    with pytest.raises(IntegrityError, match="not trusted"):
        open_envelope(enclose(PRIVATE, "release", CONTENT), {}, where="x")


def test_a_stranger_under_a_trusted_name_is_refused() -> None:
    signature = sign_bytes(Ed25519PrivateKey.generate(), "release", CONTENT).hex()
    with pytest.raises(IntegrityError, match="does not hold"):
        open_envelope(_with_head(_head(signature=signature)), TRUSTED, where="x")


def test_a_signature_covers_the_kind() -> None:
    with pytest.raises(IntegrityError, match="does not hold"):
        open_envelope(_with_head(_head(kind="manifest")), TRUSTED, where="x")
    with pytest.raises(IntegrityError, match="does not hold a request"):
        open_envelope(_with_head(_head()), TRUSTED, kind="request", where="x")


def test_kind_and_content_cannot_change_places() -> None:
    signature = sign_bytes(PRIVATE, "audit", b"x")
    assert verify_bytes(PUBLIC, "audit", b"x", signature)
    for kind, content in (("request", b"x"), ("audit", b"x "), ("audit", b"")):
        assert not verify_bytes(PUBLIC, kind, content, signature)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head",
    [
        [],
        "release",
        None,
        {},
        _head(more=1),
        {key: value for key, value in _head().items() if key != "key"},
        _head(kind="rows"),
        _head(kind=["release"]),
        _head(key=["x"]),
        _head(key=None),
        _head(signature=5),
        _head(signature=None),
        _head(signature=""),
        _head(signature="zz"),
        _head(signature="00" * 64),
        _head(signature="00" * 63),
        _head(signature=str(_head()["signature"]).upper()),
        _head(signature=" " + str(_head()["signature"])),
        _head(pad="x" * MAX_HEAD),
    ],
)
def test_a_malformed_head_is_refused(head: object) -> None:
    with pytest.raises(IntegrityError):
        open_envelope(_with_head(head), TRUSTED, where="x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + b"\0\0\0\0",
        MAGIC + b"\xff\xff\xff\xff",
        b"ABFED2" + bytes(400),
        MAGIC + struct.pack(">I", 4000) + b"[" * 4000,
        MAGIC + struct.pack(">I", 4000) + b"9" * 4000,
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        open_envelope(data, TRUSTED, where="x")


def test_no_unverified_byte_stands_in_an_error() -> None:
    spoiled = _with_head(_head(), b"jane.doe@example.com")
    with pytest.raises(IntegrityError) as caught:
        open_envelope(spoiled, TRUSTED, where="x")
    assert "jane" not in str(caught.value)
