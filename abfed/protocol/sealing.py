"""Sealing: AES-256-GCM with associated data.

A sealed blob says nothing without its key and can't be moved to another place: the associated data
name what it is, and opening it under another name fails.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from abfed.protocol.errors import IntegrityError

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D's recommended nonce length
TAG_BYTES = 16
MAGIC = b"ABFEDSEAL1"


class Unseen(bytes):
    """Bytes that don't show themselves: a traceback with variables, a log or a cell prints none."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} secret bytes>"

    __str__ = __repr__


def new_key() -> Unseen:
    """A fresh 256-bit key from the operating system."""
    return Unseen(secrets.token_bytes(KEY_BYTES))


def derive_key(key: bytes, purpose: str) -> Unseen:
    """A key for one purpose only (HKDF-SHA256, RFC 5869), so that uses can't be mixed up."""
    kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode())
    return Unseen(kdf.derive(key))


def seal(key: bytes, plain: bytes, *, name: str) -> bytes:
    """Encrypt `plain` so that it opens under this key and this name only.

    A random 96-bit nonce is safe for up to 2³² blobs under one key (SP 800-38D, 8.3); abfed uses
    a derived key per purpose and a fresh one per model and file.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    return MAGIC + nonce + AESGCM(key).encrypt(nonce, plain, MAGIC + name.encode())


def unseal(key: bytes, sealed: bytes, *, name: str) -> bytes:
    """Decrypt a sealed blob.

    Raises:
        IntegrityError: wrong key, wrong name, or a byte was changed: they can't be told apart.
    """
    start = len(MAGIC) + NONCE_BYTES
    if len(sealed) < start + TAG_BYTES or not sealed.startswith(MAGIC):
        raise IntegrityError("not a sealed blob, or cut short", where=name)
    nonce, cipher = sealed[len(MAGIC) : start], sealed[start:]
    try:
        return AESGCM(key).decrypt(nonce, cipher, MAGIC + name.encode())
    except InvalidTag as cause:
        raise IntegrityError(
            "the seal is broken",
            where=name,
            why="wrong key, another name, or changed bytes",
            do="restore it from a backup, or find out who changed it",
        ) from cause
