"""Messages: three kinds, closed records, arrays bound to their header."""

from __future__ import annotations

import struct
from typing import Any, get_args

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.envelope import enclose, key_id, open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.protocol.identity import Presented
from abfed.protocol.messages import (
    MAX_HEADER,
    REFUSAL_TEXT,
    Charge,
    Refusal,
    RefusalCode,
    Release,
    Request,
    decode,
    encode,
)
from abfed.protocol.tensors import pack

HEX = "ab" * 32
ARRAYS = pack({"totals": np.arange(4, dtype=np.int64).reshape(2, 2)})


def request(arrays: bytes = b"", **changes: Any) -> Request:
    values: dict[str, Any] = {
        "plan": "{}",
        "step": "totals",
        "silo": "aurora",
        "incoming_digest": sha256_hex(arrays),
        "nonce": "0" * 32,
        "issued_at": "2026-03-01T12:00:00.000000Z",
        "head": HEX,
        "presented": Presented(token="YQ==", submission="YQ=="),
    }
    return Request(**(values | changes))


def release(arrays: bytes = ARRAYS, **changes: Any) -> Release:
    values: dict[str, Any] = {
        "payload": "totals",
        "silo": "aurora",
        "plan_digest": HEX,
        "step": "totals",
        "incoming_digest": HEX,
        "key": HEX,
        "epoch": HEX,
        "noise": {"noise_multiplier": 1.0},
        "charged": (Charge(event="gaussian", noise_multiplier=1.0),),
        "budget": None,
        "made_at": "2026-03-01T12:00:00Z",
        "head": HEX,
        "arrays_digest": sha256_hex(arrays),
    }
    return Release(**(values | changes))


REFUSAL = Refusal(silo="aurora", plan_digest="", step="", code="budget", head=HEX)


def test_messages_come_back() -> None:
    assert decode("request", encode(request()), where="x") == (request(), b"")
    assert decode("release", encode(release(), ARRAYS), where="x") == (release(), ARRAYS)
    assert decode("refusal", encode(REFUSAL), where="x") == (REFUSAL, b"")


@pytest.mark.parametrize("kind", ["request", "release", "refusal", "manifest", "rows", ""])
def test_a_message_is_not_read_as_another_kind(kind: str) -> None:
    contents = {
        "request": encode(request()),
        "release": encode(release(), ARRAYS),
        "refusal": encode(REFUSAL),
    }
    for own, content in contents.items():
        if own != kind:
            with pytest.raises(IntegrityError):
                decode(kind, content, where="x")


def test_every_single_bit_flip_of_a_signed_message_is_refused() -> None:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    envelope = enclose(private, "refusal", encode(REFUSAL))
    for place in range(8 * len(envelope)):
        flipped = bytearray(envelope)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError):
            open_envelope(bytes(flipped), {key_id(public): public}, where="x")


def test_no_bit_flip_of_arrays_or_lengths_passes_the_header() -> None:
    content = encode(release(), ARRAYS)
    head = len(content) - len(ARRAYS)
    for place in [*range(32), *range(8 * head, 8 * len(content))]:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError):
            decode("release", bytes(flipped), where="x")


def test_a_bit_flip_of_a_header_is_refused_or_is_another_message() -> None:
    content = encode(request())
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        try:
            found = decode("request", bytes(flipped), where="x").header
        except IntegrityError:
            continue
        assert found != request()


def test_every_truncation_is_refused() -> None:
    content = encode(release(), ARRAYS)
    for size in range(len(content)):
        with pytest.raises(IntegrityError):
            decode("release", content[:size], where="x")
    with pytest.raises(IntegrityError):
        decode("release", content + b"\0", where="x")


def test_a_refusal_carries_no_arrays() -> None:
    with pytest.raises(IntegrityError, match="arrays"):
        decode("refusal", encode(REFUSAL, b"x"), where="x")


def _content(values: Any, arrays: bytes = b"") -> bytes:
    head = values if isinstance(values, bytes) else canonical_bytes(values)
    return struct.pack(">I", len(head)) + head + arrays


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"step": "train-1"},
        {"step": "train-00001"},
        {"step": "totals\n"},
        {"step": "rows"},
        {"silo": "../x"},
        {"nonce": "0" * 31},
        {"nonce": "G" * 32},
        {"incoming_digest": HEX.upper()},
        {"issued_at": "2026-03-01"},
        {"issued_at": "2026-03-01T12:00:00+01:00"},
        {"version": "1"},
        {"version": True},
        {"version": None},
        {"plan": {}},
        {"plan": "x" * (MAX_HEADER + 1)},
        {"head": ""},
    ],
)
def test_a_malformed_request_is_refused(changes: dict[str, Any]) -> None:
    values = request().model_dump(mode="json") | changes
    with pytest.raises(IntegrityError):
        decode("request", _content(values), where="x")


@pytest.mark.parametrize(
    "head",
    [b"", b"[]", b"null", b"{}", b'{"a":NaN}', b"[" * 5000, b"[" * 950 + b"]" * 950, b"\xff", b"1"],
)
def test_what_is_no_header_is_refused(head: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode("request", _content(head), where="x")


def test_a_header_has_one_spelling() -> None:
    data = canonical_bytes(request().model_dump(mode="json"))
    for spelled in (data + b" ", data.replace(b'":', b'" :', 1), data.decode().encode("utf-16")):
        with pytest.raises(IntegrityError, match="canonical"):
            decode("request", _content(spelled), where="x")


@given(st.binary(max_size=200), st.sampled_from(["request", "release", "refusal"]))
def test_random_bytes_are_refused(data: bytes, kind: str) -> None:
    with pytest.raises(IntegrityError):
        decode(kind, data, where="x")


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": {"x": float("nan")}},
        {"noise": {"x": float("inf")}},
        {"noise": {"x": "1"}},
        {"unit": {"kind": "send", "within": "one-silo", "adjacency": "add-or-remove-one"}},
        {"unit": {"kind": "recipient", "within": "one-silo", "adjacency": "replace-one"}},
        {"payload": "rows"},
        {"charged": (Charge(event="gaussian", noise_multiplier=1.0), "free")},
        {"key": "x"},
    ],
)
def test_a_malformed_release_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        release(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"event": "laplace"},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("nan")},
        {"noise_multiplier": float("inf")},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.1},
        {"count": 0},
        {"count": 1.5},
    ],
)
def test_a_charge_that_costs_nothing_or_nonsense_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Charge.model_validate({"event": "gaussian", "noise_multiplier": 1.0} | changes)


def test_each_refusal_code_has_one_fixed_text() -> None:
    assert set(REFUSAL_TEXT) == set(get_args(RefusalCode))
    assert len(set(REFUSAL_TEXT.values())) == len(REFUSAL_TEXT)


def test_nothing_can_ride_along_with_a_refusal() -> None:
    fields = {"version", "silo", "plan_digest", "step", "code", "about", "head"}
    assert set(Refusal.model_fields) == fields
    with pytest.raises(ValidationError):
        Refusal.model_validate(REFUSAL.model_dump() | {"code": "because"})
