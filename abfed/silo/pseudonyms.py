"""Pseudonyms and the order of sends: what the store keeps instead of a person (S1, S2).

1. An identifier (an e-mail address, a customer number) becomes a keyed hash before it reaches the
   store. Without the silo's key nobody can compute it, so a list of addresses can't be matched.
2. The same identifier gives the same pseudonym in one silo, and another one in each other silo.
3. One person must not become several because of how an identifier was typed or exported, so what
   is hashed is its normal form (`normalised`): compatibility forms are unified (NFKC: full-width
   letters, ligatures, composed and decomposed accents), characters that can't be seen are left out
   (zero-width, soft hyphens, direction marks, variation selectors), space around each part too,
   and for `casefold` so is case. What stays apart: tags (`ann+news@`), dots, and a domain's
   Unicode and `xn--` forms, which only some providers treat as one.
4. Which sends of a recipient are dropped where there are too many is decided by a second keyed
   hash: not by time, value or place in the file.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
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

HOW: tuple[Normalise, ...] = ("casefold", "trim")
"""All of them: whoever looks for people in a list tries each."""

SEPARATOR = "\x1f"
"""Stands between the parts of an identifier of several columns (ASCII unit separator)."""

# Unicode's default-ignorable characters, and the byte-order mark
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)


def normalised(identifier: str, how: Normalise) -> str:
    """An identifier's normal form; empty where it, or a part of it, holds nothing to be seen.

    >>> normalised(" Ann\u200b@Example.com ", "casefold")
    'ann@example.com'
    """
    text = identifier
    if not text.isascii():
        text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    if how == "casefold":
        text = text.casefold()
        if not text.isascii():  # folding may leave forms that fold, or join, once more
            text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).casefold()
            text = unicodedata.normalize("NFKC", text)
    elif not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    parts = [part.strip() for part in text.split(SEPARATOR)]
    return SEPARATOR.join(parts) if all(parts) else ""


class Pseudonyms:
    """Turns identifiers into pseudonyms with one silo's key."""

    __slots__ = ("_hash",)

    def __init__(self, keys: SiteKeys) -> None:
        # BLAKE2b's keyed mode is a MAC (RFC 7693, 2.9); the key is derived for this purpose only.
        self._hash = hashlib.blake2b(key=keys.derive("pseudonym"), digest_size=PSEUDONYM_BYTES)

    def of(self, identifier: str, *, normalise: Normalise = "casefold") -> bytes:
        """The pseudonym (16 bytes) of one identifier. Sensitive in, pseudonymous out."""
        return self._digest(normalised(identifier, normalise))

    def _digest(self, text: str) -> bytes:
        hashed = self._hash.copy()
        hashed.update(text.encode())
        return hashed.digest()

    def column(
        self, identifiers: pa.Array, *, normalise: Normalise = "casefold"
    ) -> pa.FixedSizeBinaryArray:
        """Pseudonyms of a string column without nulls; each distinct value is hashed once.

        Null where there is nothing to be seen in an identifier: that is nobody.
        """
        encoded = identifiers.dictionary_encode()
        texts: Iterable[str] = encoded.dictionary.to_pylist()
        plain = (normalised(text, normalise) for text in texts)
        hashed = pa.array([self._digest(text) if text else None for text in plain], RECIPIENT)
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
