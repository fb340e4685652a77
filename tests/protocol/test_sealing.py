"""Sealing: opens under its key and its name, unchanged, or not at all."""

from __future__ import annotations

import pytest

from abfed.protocol.errors import IntegrityError
from abfed.protocol.sealing import KEY_BYTES, derive_key, new_key, seal, unseal

KEY = new_key()
PLAIN = b"a small secret"


@pytest.mark.parametrize("plain", [b"", PLAIN, bytes(100_000)])
def test_what_was_sealed_comes_out(plain: bytes) -> None:
    assert unseal(KEY, seal(KEY, plain, name="x"), name="x") == plain


def test_every_single_bit_flip_is_refused() -> None:
    sealed = seal(KEY, PLAIN, name="x")
    for place in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError):
            unseal(KEY, bytes(flipped), name="x")


def test_every_truncation_is_refused() -> None:
    sealed = seal(KEY, PLAIN, name="x")
    for size in range(len(sealed)):
        with pytest.raises(IntegrityError):
            unseal(KEY, sealed[:size], name="x")
    with pytest.raises(IntegrityError):
        unseal(KEY, sealed + b"\0", name="x")


@pytest.mark.parametrize("name", ["", "y", "x ", "X", "release:x"])
def test_another_name_does_not_open_it(name: str) -> None:
    with pytest.raises(IntegrityError, match="seal is broken"):
        unseal(KEY, seal(KEY, PLAIN, name="x"), name=name)


def test_another_key_does_not_open_it() -> None:
    for other in (new_key(), derive_key(KEY, "x"), bytes(KEY_BYTES)):
        with pytest.raises(IntegrityError, match="seal is broken"):
            unseal(other, seal(KEY, PLAIN, name="x"), name="x")


def test_the_same_content_is_never_sealed_alike() -> None:
    blobs = {seal(KEY, PLAIN, name="x") for _ in range(50)}
    assert len(blobs) == 50
    assert all(PLAIN not in blob for blob in blobs)


def test_a_derived_key_serves_one_purpose() -> None:
    keys = [derive_key(key, purpose) for key in (KEY, new_key()) for purpose in ("a", "b", "ab")]
    assert len(set(keys)) == 6
    assert {len(key) for key in keys} == {KEY_BYTES}
    assert derive_key(KEY, "a") == keys[0]
    # RFC 5869 has no vector without salt for this info; this one was made with OpenSSL's HKDF.
    assert derive_key(bytes(32), "a").hex() == HKDF_VECTOR


HKDF_VECTOR = "8113fce76d7e726bfa16669b4e4610d1e7ecddb464d33f1b51a6c58992d9f967"
