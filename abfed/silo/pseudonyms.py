"""Pseudonyms and the order of sends: what the store keeps instead of a person (S1, S2).

1. An identifier (an e-mail address, a customer number) becomes a keyed hash before it reaches the
   store. Without the silo's key nobody can compute it, so a list of addresses can't be matched.
2. The same identifier gives the same pseudonym in one silo, and another one in each other silo.
3. Which sends of a recipient are dropped where there are too many is decided by a second keyed
   hash: not by time, value or place in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from abfed.silo.rows import PSEUDONYM_BYTES, RECIPIENT, recipient_bytes
from abfed.site.keys import SiteKeys

Normalise = Literal["casefold", "trim"]
"""`casefold` trims and ignores case (e-mail addresses); `trim` keeps case (case-sensitive ids)."""

SEPARATOR = "\x1f"
"""Stands between the parts of an identifier of several columns (ASCII unit separator)."""


class Pseudonyms:
    """Turns identifiers into pseudonyms with one silo's key."""

    __slots__ = ("_hash",)

    def __init__(self, keys: SiteKeys) -> None:
        # BLAKE2b's keyed mode is a MAC (RFC 7693, 2.9); the key is derived for this purpose only.
        self._hash = hashlib.blake2b(key=keys.derive("pseudonym"), digest_size=PSEUDONYM_BYTES)

    def of(self, identifier: str, *, normalise: Normalise = "casefold") -> bytes:
        """The pseudonym (16 bytes) of one identifier. Sensitive in, pseudonymous out."""
        text = identifier.strip()
        hashed = self._hash.copy()
        hashed.update((text.casefold() if normalise == "casefold" else text).encode())
        return hashed.digest()

    def column(
        self, identifiers: pa.Array, *, normalise: Normalise = "casefold"
    ) -> pa.FixedSizeBinaryArray:
        """Pseudonyms of a string column without nulls; each distinct value is hashed once."""
        encoded = identifiers.dictionary_encode()
        texts: Iterable[str] = encoded.dictionary.to_pylist()
        hashed = pa.array([self.of(text, normalise=normalise) for text in texts], RECIPIENT)
        return hashed.take(encoded.indices)


class SendOrder:
    """A keyed random order of a recipient's sends."""

    __slots__ = ("_key",)

    def __init__(self, keys: SiteKeys) -> None:
        self._key = keys.derive("send-order")

    def of(
        self, recipients: pa.Array, experiments: pa.Array, sent_at: pa.Array
    ) -> npt.NDArray[np.uint64]:
        """One pseudorandom 64-bit number for each send key (recipient, experiment, moment).

        CBC-MAC with AES over exactly two blocks (recipient; experiment and moment): a pseudorandom
        function because all messages have one length (Bellare, Kilian and Rogaway 2000).

        Args:
            recipients: pseudonyms, fixed-size binary of 16 bytes, shape (sends,).
            experiments: names, string, shape (sends,).
            sent_at: microseconds, timestamp, shape (sends,).
        """
        blocks = np.empty((len(recipients), 2), dtype="<u8")
        encoded = experiments.dictionary_encode()
        names = np.array([self._name(text) for text in encoded.dictionary.to_pylist()], dtype="<u8")
        blocks[:, 0] = names[encoded.indices.to_numpy()] if len(names) else 0
        blocks[:, 1] = sent_at.cast(pa.int64()).to_numpy(zero_copy_only=False).view("<u8")
        first = np.frombuffer(self._encrypt(recipient_bytes(recipients)), dtype="<u8")
        second = first.reshape(-1, 2) ^ blocks
        tags = np.frombuffer(self._encrypt(second.tobytes()), dtype="<u8").reshape(-1, 2)
        return tags[:, 0].astype(np.uint64)

    def _name(self, experiment: str) -> int:
        """Eight keyed bytes that stand for an experiment's name."""
        hashed = hashlib.blake2b(experiment.encode(), key=self._key, digest_size=8)
        return int.from_bytes(hashed.digest(), "little")

    def _encrypt(self, blocks: bytes) -> bytes:
        """AES-256 of each 16-byte block: the permutation inside the MAC, not a way to encrypt."""
        cipher = Cipher(algorithms.AES(self._key), modes.ECB())  # noqa: S305 - a PRF's building block
        return cipher.encryptor().update(blocks)
