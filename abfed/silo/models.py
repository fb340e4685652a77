"""Models that a silo evaluated, kept sealed inside it (S8) for its own people to score with (S9).

A model comes to a silo with the last request of its plan; what is kept is that, the plan, who
submitted it, and how its scores are best corrected here (from this silo's own noised release). A
file is named by the model's digest; its seal is bound to that name, and every load checks digest
and shapes (S10).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from abfed.learning.shapes import model_shapes, names_of
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.errors import AbfedError, InputError, IntegrityError
from abfed.protocol.plan import Plan
from abfed.protocol.sealing import seal, unseal
from abfed.protocol.tensors import pack, unpack
from abfed.site.files import make_own_folder, read_private, write_private
from abfed.site.keys import SiteKeys

_LENGTH = struct.Struct(">I")
SHORTEST = 6
"""Digits of a digest that name a model."""


@dataclass(frozen=True, slots=True)
class KeptModel:
    """A model with its plan.

    Attributes:
        plan: what it was trained for.
        arrays: the model as it came, by name on the wire. Released, still worth stealing.
        submitter: who asked the plan.
        correction: slope and shift of the logit that fit this silo best.
    """

    plan: Plan
    arrays: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    submitter: str
    correction: tuple[float, float] = (1.0, 0.0)

    @property
    def digest(self) -> str:
        """What names it: the SHA-256 of its packed arrays, as in requests."""
        return sha256_hex(pack(self.arrays))

    @property
    def names(self) -> tuple[str, str]:
        """What may be frozen: its digest in a registry, and this one."""
        return names_of(self.arrays)


class Models:
    """The kept models of a silo.

    Args:
        folder: where they lie; made with mode 0700 when the first is kept.
        keys: the silo's keys.
    """

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        self._folder = folder
        self._key = keys.derive("models")

    def keep(self, model: KeptModel) -> str:
        """Seal a model on disk; returns its digest."""
        make_own_folder(self._folder)
        head = canonical_bytes(
            {
                "plan": model.plan.canonical_bytes().decode(),
                "submitter": model.submitter,
                "correction": list(model.correction),
            }
        )
        digest = model.digest
        plain = _LENGTH.pack(len(head)) + head + pack(model.arrays)
        write_private(self._path(digest), seal(self._key, plain, name=f"model:{digest}"))
        return digest

    def digests(self) -> tuple[str, ...]:
        """What is kept."""
        return tuple(sorted(path.stem for path in self._folder.glob("*.sealed")))

    def load(self, digest: str) -> KeptModel:
        """Open a model by its digest.

        Raises:
            IntegrityError: it was changed.
        """
        where = f"model {digest[:16]}"
        plain = unseal(self._key, read_private(self._path(digest)), name=f"model:{digest}")
        (length,) = _LENGTH.unpack(plain[: _LENGTH.size])
        end = _LENGTH.size + length
        head = parse_canonical(plain[_LENGTH.size : end], where=where)
        plan = Plan.from_canonical(head["plan"].encode(), where=where)
        slope, shift = head["correction"]
        arrays = unpack(plain[end:], model_shapes(plan), where=where)
        found = KeptModel(plan, arrays, head["submitter"], (slope, shift))
        if found.digest != digest:
            raise IntegrityError("it is another model than its name says", where=where)
        return found

    def in_registry(self, digest: str) -> str:
        """How a registry names a model that is kept here: by the digest of its parameters.

        One that is damaged is named as it is here, by its own digest. That it is damaged, the
        watch tells; who is erased is answered all the same.
        """
        try:
            return self.load(digest).names[0]
        except AbfedError:
            return digest

    def damaged(self) -> dict[str, str]:
        """What doesn't hold, by digest: each model opened as if it were to be used."""
        found: dict[str, str] = {}
        for digest in self.digests():
            try:
                self.load(digest)
            except AbfedError as error:
                found[digest[:16]] = str(error)
        return found

    def called(self, name: str) -> dict[str, KeptModel]:
        """Models of a plan of this name, or whose own digest begins so, by digest."""
        loaded = {digest: self.load(digest) for digest in self.digests()}
        return {
            digest: model
            for digest, model in loaded.items()
            if name == model.plan.name or (len(name) >= SHORTEST and digest.startswith(name))
        }

    def find(self, name: str) -> KeptModel:
        """The one model that is called so.

        Raises:
            InputError: there is none, or more than one.
        """
        found = self.called(name)
        if len(found) == 1:
            return next(iter(found.values()))
        shown = found or {digest: self.load(digest) for digest in self.digests()}
        kept = ", ".join(f"{model.plan.name} ({d[:12]})" for d, model in shown.items())
        raise InputError(
            f"{len(found) or 'no'} models here are called {name!r:.60}",
            why=f"kept here: {kept}" if kept else "no model was evaluated here yet",
            do="name one by the first digits of its digest" if found else "run a plan with a model",
        )

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.sealed"
