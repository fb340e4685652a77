"""The vault: models at rest, sealed (S8) and signed (S10).

A model is safetensors, never pickle, sealed under a key of its own that the coordinator's
key-encryption key wraps. Name, version and digest are bound into seal and wrapping: one model can't
be passed off as another, nor an old version as a new one. Around it is an envelope signed by the
coordinator. Every load checks, in this order: signature, name and version, wrapping, seal, digest,
shapes, and that each number is finite.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from abfed.protocol import tensors
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.protocol.sealing import new_key, seal, unseal
from abfed.protocol.tensors import Arrays, Shape
from abfed.site.keys import SiteKeys

_LENGTH = struct.Struct(">I")
MAX_HEAD = 4096  # bytes; a head is about 500


def model_digest(arrays: Arrays) -> str:
    """The digest that names a model: SHA-256 of its packed arrays."""
    return sha256_hex(tensors.pack(arrays))


class Vault:
    """Seals and opens models with a site's keys; it opens and writes no file."""

    def __init__(self, keys: SiteKeys) -> None:
        self._keys = keys

    def seal(self, arrays: Arrays, *, name: str, version: str) -> bytes:
        """A model as bytes that say nothing without the site's key.

        Args:
            arrays: the model's parameters by name. Released, still worth stealing.
            name: what it is a model of, such as a run's id.
            version: which one, such as a step.
        """
        plain = tensors.pack(arrays)
        digest = sha256_hex(plain)
        bound = _bound(name, version, digest)
        key = new_key()
        head = canonical_bytes(
            {
                "name": name,
                "version": version,
                "digest": digest,
                "key": self._keys.wrap(key, name=bound).hex(),
            }
        )
        content = _LENGTH.pack(len(head)) + head + seal(key, plain, name=bound)
        return self._keys.sign("model", content)

    def open(
        self, sealed: bytes, expected: Mapping[str, Shape], *, name: str, version: str
    ) -> dict[str, npt.NDArray[Any]]:
        """Open a model.

        Args:
            sealed: what `seal` gave.
            expected: its parameters' types and shapes.
            name: what it must be a model of.
            version: which one it must be.

        Raises:
            IntegrityError: anything of it was changed, or it is another model.
        """
        where = f"model {name}, {version}"
        trusted = {self._keys.key_id: self._keys.public_key}
        content = open_envelope(sealed, trusted, kind="model", where=where).content
        head, blob = _split(content, where)
        if (head["name"], head["version"]) != (name, version):
            raise IntegrityError("it is another model", where=where)
        bound = _bound(name, version, head["digest"])
        try:
            wrapped = bytes.fromhex(head["key"])
        except ValueError as cause:
            raise IntegrityError("its key is malformed", where=where) from cause
        plain = unseal(self._keys.unwrap(wrapped, name=bound), blob, name=bound)
        if sha256_hex(plain) != head["digest"]:
            raise IntegrityError("its digest is another one", where=where)
        return tensors.unpack(plain, expected, where=where)


def _bound(name: str, version: str, digest: str) -> str:
    """What a model's seal is bound to."""
    return canonical_bytes(["model", name, version, digest]).decode()


def _split(content: bytes, where: str) -> tuple[dict[str, str], bytes]:
    """Head and sealed blob of content whose signature held."""
    if len(content) < _LENGTH.size:
        raise IntegrityError("not a sealed model", where=where)
    (length,) = _LENGTH.unpack(content[: _LENGTH.size])
    end = _LENGTH.size + length
    if length > MAX_HEAD or len(content) < end:
        raise IntegrityError("not a sealed model, or cut short", where=where)
    head = parse_canonical(content[_LENGTH.size : end], where=where)
    names = {"name", "version", "digest", "key"}
    if (
        not isinstance(head, dict)
        or set(head) != names
        or not all(isinstance(value, str) for value in head.values())
    ):
        raise IntegrityError("the head of the sealed model is malformed", where=where)
    return head, content[end:]
