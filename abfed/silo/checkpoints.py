"""The checkpoint of a round that isn't finished, sealed (S2).

It holds the parameters after some of the round's steps: noised under the permit's charge, but not
released. It opens for the same permit only (plan, state of the data, step, incoming model and
noise), lies in the store's folder and goes with its state of the data. It holds neither a batch nor
noise, so that nothing drawn can meet another sum (`abfed.learning.dpsgd.Checkpoint`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.sealing import seal, unseal
from abfed.silo.manifest import CACHE_PREFIX
from abfed.silo.permit import Permit
from abfed.site.files import read_private, write_private
from abfed.site.keys import SiteKeys

_TAKEN = 4  # bytes for the number of steps


class RoundCheckpoint:
    """Where a permit's round is kept.

    Args:
        folder: the store's.
        keys: the site's keys.
        permit: whose round it is.
    """

    __slots__ = ("_key", "_name", "_path")

    def __init__(self, folder: Path, keys: SiteKeys, permit: Permit) -> None:
        charges = [charge.model_dump(mode="json") for charge in permit.charges]
        digest = sha256_hex(canonical_bytes([permit.key, permit.epoch, permit.step, charges]))
        self._key = keys.derive("round-checkpoint")
        self._name = f"round-checkpoint:{digest}"
        self._path = folder / f"{CACHE_PREFIX}{permit.epoch[:24]}-{digest[:24]}-round"

    def load(self) -> tuple[int, npt.NDArray[np.float32]] | None:
        """See `Checkpoint.load`.

        Raises:
            IntegrityError: it was changed.
        """
        if not self._path.exists():
            return None
        plain = unseal(self._key, read_private(self._path), name=self._name)
        parameters = np.frombuffer(plain, dtype="<f4", offset=_TAKEN).astype(np.float32)
        if not np.isfinite(parameters).all():
            raise IntegrityError("the checkpoint is not finite", where=self._path.name)
        return int.from_bytes(plain[:_TAKEN], "little"), parameters

    def save(self, taken: int, parameters: npt.NDArray[np.float32]) -> None:
        """See `Checkpoint.save`."""
        plain = taken.to_bytes(_TAKEN, "little") + parameters.astype("<f4").tobytes()
        write_private(self._path, seal(self._key, plain, name=self._name))

    def drop(self) -> None:
        """Remove it: the round was released."""
        self._path.unlink(missing_ok=True)
