"""Boxes: what passes between coordinator and silo, so that nobody between them can read it (S5).

A request is sealed to the silo's exchange key (HPKE, RFC 9180: X25519, HKDF-SHA256, AES-256-GCM)
and brings a fresh key for the answer. So:

1. Only the silo reads a request, and only whoever made this request reads its answer.
2. An answer opens under the key of its own request alone: it can't be passed off as the answer to
   another one, nor be played again.
3. Who speaks is said inside, by the signed envelopes; a box alone proves nothing.

A relay sees sizes and times. It can drop a box; anything else it does breaks the seal.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from abfed.protocol.errors import IntegrityError
from abfed.protocol.sealing import KEY_BYTES, new_key, seal, unseal

MAGIC = b"ABFEDBOX1"
_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class Boxed(NamedTuple):
    """A request on its way: the box, and the secret that opens the answer to it."""

    box: bytes
    reply_key: bytes


class Unboxed(NamedTuple):
    """A request that was opened: the envelope, and the secret to seal the answer with."""

    envelope: bytes
    reply_key: bytes


def box_request(exchange_key: bytes, envelope: bytes, *, silo: str) -> Boxed:
    """Seal a request to a silo.

    Args:
        exchange_key: the silo's pinned X25519 public key, 32 raw bytes.
        envelope: the signed request.
        silo: whom it is for; the box opens under this name only.
    """
    reply_key = new_key()
    public = X25519PublicKey.from_public_bytes(exchange_key)
    sealed = _SUITE.encrypt(reply_key + envelope, public, info=_info(silo))
    return Boxed(MAGIC + sealed, reply_key)


def unbox_request(private_key: X25519PrivateKey, box: bytes, *, silo: str) -> Unboxed:
    """Open a request.

    Raises:
        IntegrityError: it isn't a box for this silo, or a byte of it was changed.
    """
    if not box.startswith(MAGIC):
        raise IntegrityError("the request is not sealed to this silo", where=silo)
    try:
        plain = _SUITE.decrypt(box[len(MAGIC) :], private_key, info=_info(silo))
    except (InvalidTag, ValueError) as cause:
        raise IntegrityError("the box does not open", where=silo) from cause
    if len(plain) < KEY_BYTES:
        raise IntegrityError("the box holds no request", where=silo)
    return Unboxed(plain[KEY_BYTES:], plain[:KEY_BYTES])


def box_reply(reply_key: bytes, envelope: bytes, *, silo: str) -> bytes:
    """Seal an answer for whoever made the request."""
    return seal(reply_key, envelope, name=f"reply:{silo}")


def unbox_reply(reply_key: bytes, box: bytes, *, silo: str) -> bytes:
    """Open an answer.

    Raises:
        IntegrityError: it answers another request, or a byte of it was changed.
    """
    return unseal(reply_key, box, name=f"reply:{silo}")


def _info(silo: str) -> bytes:
    return b"abfed request box 1 " + silo.encode()
