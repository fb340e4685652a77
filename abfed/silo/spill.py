"""A spill: incoming rows on disk, sealed, until they are merged bucket by bucket.

The key lives in this object alone and the file loses its name as soon as it is made, so that
neither a crash nor a thief of the disk finds anything.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import pyarrow as pa

from abfed.protocol.sealing import new_key, seal, unseal
from abfed.silo.rows import flat, recipient_words
from abfed.site.files import ASIDE, FILE_MODE


class _Part(NamedTuple):
    offset: int
    size: int


def bucket_of(recipients: pa.Array, buckets: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bucket of each pseudonym: it is a keyed hash already, so its last word will do."""
    return (recipient_words(recipients)[:, 1] % np.uint64(buckets)).astype(np.int64)


class Spill:
    """Sealed rows by bucket, in one nameless file in `folder`."""

    __slots__ = ("_buckets", "_file", "_key", "_parts")

    def __init__(self, folder: Path, buckets: int) -> None:
        path = folder / f"{ASIDE}spill-{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        path.unlink()
        self._file: BinaryIO = os.fdopen(descriptor, "w+b")
        self._key = new_key()
        self._buckets = buckets
        self._parts: dict[int, list[_Part]] = {}

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, which is its end."""
        self._file.close()

    def add(self, rows: pa.Table) -> None:
        """Take rows in, sealed, each in its recipient's bucket."""
        buckets = bucket_of(flat(rows["recipient"]), self._buckets)
        order = np.argsort(buckets, kind="stable")
        rows = rows.take(pa.array(order)).combine_chunks()
        ends = np.cumsum(np.bincount(buckets, minlength=self._buckets))
        for bucket in np.unique(buckets).tolist():
            start = int(ends[bucket - 1]) if bucket else 0
            self._append(bucket, rows.slice(start, int(ends[bucket]) - start))

    def buckets(self) -> list[int]:
        """The buckets that got rows."""
        return sorted(self._parts)

    def rows(self, bucket: int) -> list[pa.Table]:
        """A bucket's rows, in the order in which they came. Sensitive."""
        tables = []
        for number, part in enumerate(self._parts.get(bucket, ())):
            self._file.seek(part.offset)
            plain = unseal(self._key, self._file.read(part.size), name=f"spill:{bucket}:{number}")
            with pa.ipc.open_stream(plain) as reader:
                tables.append(reader.read_all())
        return tables

    def _append(self, bucket: int, rows: pa.Table) -> None:
        """Seal one part and write it to the end."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        parts = self._parts.setdefault(bucket, [])
        sealed = seal(self._key, sink.getvalue().to_pybytes(), name=f"spill:{bucket}:{len(parts)}")
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(sealed)
        parts.append(_Part(offset, len(sealed)))
