"""A spool: believed releases of one step, on disk until the step is closed.

The file has no name: it is gone with the process, however that ends. So what the coordinator holds
in memory is one release at a time, however many silos there are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import IO, Any

import numpy.typing as npt

from abfed.coordinator.inbox import Accepted
from abfed.protocol import tensors
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import content_of_verified
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import decode
from abfed.protocol.tensors import Shape, shapes_of


class Kept(Accepted):
    """A believed release that lies in a spool; read again each time it is looked at."""

    __slots__ = ("_length", "_place", "_shapes", "_spool")

    def __init__(self, accepted: Accepted, spool: Spool, place: int, length: int) -> None:
        super().__init__(accepted.release, {}, b"")
        self.digest = accepted.digest
        self._shapes: Mapping[str, Shape] = shapes_of(accepted.arrays)
        self._spool = spool
        self._place = place
        self._length = length

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Its noised arrays by name. Released."""
        content = decode("release", content_of_verified(self.envelope), where=self.release.silo)
        return tensors.unpack(content.arrays, self._shapes, where=self.release.silo)

    @property
    def envelope(self) -> bytes:
        """The bytes as they came.

        Raises:
            IntegrityError: the disk gave other bytes back.
        """
        found = self._spool.read(self._place, self._length)
        if sha256_hex(found) != self.digest:
            raise IntegrityError("the spool gave other bytes back", where=self.release.silo)
        return found


class Spool:
    """A file without a name."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._size = 0

    def __del__(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()

    def keep(self, accepted: Accepted) -> Kept:
        """Put a release on disk; it is not held in memory any longer."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="abfed-")  # noqa: SIM115 - closed with us
        envelope = accepted.envelope
        done = 0
        while done < len(envelope):
            rest = memoryview(envelope)[done:]
            done += os.pwrite(self._file.fileno(), rest, self._size + done)
        kept = Kept(accepted, self, self._size, len(envelope))
        self._size += len(envelope)
        return kept

    def read(self, place: int, length: int) -> bytes:
        """Bytes of the file; several threads may read at once."""
        if self._file is None:
            return b""
        return os.pread(self._file.fileno(), length, place)
