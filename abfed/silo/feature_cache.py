"""A plan's encoded rows on disk, sealed, for silos whose rows don't fit into memory (S2).

1. No plain row is ever written. A file is a row of blocks, each sealed by AES-256-GCM under a key
   of the file alone; a block's number is its nonce, so that none is used twice, and is bound to it
   with its shape, so that none can be moved, left out or repeated unnoticed.
2. That key and the list of blocks, which tells how many people own how many rows, lie in an index
   that is sealed under a key derived from the site's. It is written last: without it a file is
   nothing.
3. Both lie in the store's folder and carry plan and state of the data in their names. The store
   removes them as soon as its data change, the service when the plan is done; the index goes first,
   and with it the only copy of the key.
4. Recipients lie sorted by their exact number of rows, one number a block. The rows of many batches
   are picked up in one sweep through the file, a block at a time in plain and only in memory; pages
   that were read are given back.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import Group
from abfed.learning.design_matrix import Design, Floats, Integers, RecipientRows
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.errors import IntegrityError
from abfed.protocol.sealing import TAG_BYTES, new_key, seal, unseal
from abfed.silo.manifest import CACHE_PREFIX
from abfed.site.files import FILE_MODE, check_private, read_private, write_private
from abfed.site.keys import SiteKeys

BLOCK = 1 << 20  # bytes in plain: stays in the processor's cache
MAGIC = b"ABFEDROWS1"

Bytes = npt.NDArray[np.uint8]


class CacheName(NamedTuple):
    """What a cache holds.

    Attributes:
        question, epoch: digest of what the rows were read for, and the state of the data.
        side: whose rows: to train on, or held out.
    """

    question: str
    epoch: str
    side: str

    @property
    def stem(self) -> str:
        """The name of its files: epochs are random and digests public."""
        return f"{CACHE_PREFIX}{self.epoch[:24]}-{self.question[:24]}-{self.side}"


class _Block(NamedTuple):
    """Where a block lies, and whose it is."""

    rows: int  # of each recipient
    recipients: int
    number: int
    offset: int

    def size(self, width: int) -> int:
        return self.rows * self.recipients * width


class CacheFolder:
    """The caches of a silo.

    Args:
        folder: the store's.
        keys: the site's keys.
    """

    __slots__ = ("_folder", "_keys")

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        self._folder = folder
        self._keys = keys

    def write(self, name: CacheName, design: Design) -> CacheWriter:
        """A new cache, in place of one of that name."""
        self.drop(name)
        return CacheWriter(self, name, design)

    def open(self, name: CacheName, design: Design) -> CachedRows | None:
        """A finished cache, or None.

        Raises:
            IntegrityError: it is open to others, or was changed.
        """
        if not self.index(name).exists():
            return None
        where = self.index(name).name
        check_private(self.file(name))
        sealed = read_private(self.index(name))
        facts: Any = parse_canonical(unseal(self._key, sealed, name=_label(name)), where=where)
        blocks = [_Block(*each) for each in facts["blocks"]]
        return CachedRows(self.file(name), name, design, bytes.fromhex(facts["key"]), blocks)

    def keep_index(self, name: CacheName, key: bytes, blocks: list[_Block]) -> None:
        """Seal what opens a cache."""
        facts = {"key": key.hex(), "blocks": [list(block) for block in blocks]}
        write_private(self.index(name), seal(self._key, canonical_bytes(facts), name=_label(name)))

    def drop(self, name: CacheName) -> None:
        """Remove a cache: the index first, and with it the key."""
        for path in (self.index(name), self.file(name)):
            path.unlink(missing_ok=True)

    def file(self, name: CacheName) -> Path:
        """Where the sealed rows lie."""
        return self._folder / f"{name.stem}.rows"

    def index(self, name: CacheName) -> Path:
        """Where the sealed index lies."""
        return self._folder / f"{name.stem}.index"

    @property
    def _key(self) -> bytes:
        return self._keys.derive("feature-cache")


class CacheWriter:
    """Takes rows in part by part, sealed as they come. Memory: one block a number of rows."""

    __slots__ = ("_blocks", "_design", "_file", "_folder", "_key", "_name", "_waiting")

    def __init__(self, folder: CacheFolder, name: CacheName, design: Design) -> None:
        self._folder, self._name, self._design = folder, name, design
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._file: BinaryIO = os.fdopen(os.open(folder.file(name), flags, FILE_MODE), "wb")
        self._file.write(MAGIC)
        self._key = new_key()
        self._blocks: list[_Block] = []
        self._waiting: dict[int, list[Bytes]] = {}

    def add(self, rows: RecipientRows) -> None:
        """Take recipients in, with all of their rows."""
        rows, _ = rows.by_size()
        counts = np.diff(rows.offsets)
        packed = _packed(rows)
        for count in np.unique(counts[counts > 0]).tolist():
            low, high = np.searchsorted(counts, (count, count + 1))
            span = slice(int(rows.offsets[low]), int(rows.offsets[high]))
            waiting = self._waiting.setdefault(count, [])
            waiting.append(packed[span].reshape(int(high - low), -1))
            if sum(part.nbytes for part in waiting) >= BLOCK:
                self._seal(count, last=False)

    def finish(self) -> CachedRows:
        """Seal the rest and the index."""
        for count in sorted(self._waiting):
            self._seal(count, last=True)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._blocks.sort(key=lambda block: (block.rows, block.number))
        self._folder.keep_index(self._name, self._key, self._blocks)
        found = self._folder.open(self._name, self._design)
        if found is None:
            raise IntegrityError("the cache went away", where=self._name.stem)
        return found

    def abandon(self) -> None:
        """Remove what was written."""
        self._file.close()
        self._folder.drop(self._name)

    def _seal(self, count: int, *, last: bool) -> None:
        """Seal full blocks of recipients with `count` rows each; with `last` also the rest."""
        plain = np.concatenate(self._waiting[count])
        most = max(1, BLOCK // plain.shape[1])
        full = len(plain) if last else len(plain) // most * most
        for start in range(0, full, most):
            part = plain[start : min(start + most, full)]
            block = _Block(count, len(part), len(self._blocks), self._file.tell())
            nonce, bound = _binding(self._name, block)
            self._file.write(AESGCM(self._key).encrypt(nonce, part.tobytes(), bound))
            self._blocks.append(block)
        self._waiting[count] = [plain[full:].copy()]


class CachedRows:
    """Sealed rows, opened; `TrainingRows` whose rows stay on disk. Has no `repr` of its content.

    Attributes:
        recipients, rows: how many. Sensitive.
    """

    __slots__ = ("_blocks", "_cipher", "_design", "_edges", "_map", "_name", "recipients", "rows")

    def __init__(
        self, path: Path, name: CacheName, design: Design, key: bytes, blocks: list[_Block]
    ) -> None:
        self._name, self._design, self._blocks = name, design, blocks
        self._cipher = AESGCM(key)
        counts = [block.recipients for block in blocks]
        self._edges: Integers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.recipients = int(self._edges[-1])
        self.rows = sum(block.rows * block.recipients for block in blocks)
        self._map: mmap.mmap | None
        width = _width(design)
        end = max((b.offset + b.size(width) + TAG_BYTES for b in blocks), default=len(MAGIC))
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != end or file.read(len(MAGIC)) != MAGIC:
                raise IntegrityError("the cache was changed, cut or added to", where=path.name)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._map.madvise(mmap.MADV_SEQUENTIAL)

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def batches(self, drawn: Iterable[Integers]) -> Iterator[Batch]:
        """See `TrainingRows.batches`: one sweep through the file for all of them.

        Raises:
            IntegrityError: a block was changed.
        """
        chosen = list(drawn)
        sizes = np.array([len(each) for each in chosen], dtype=np.int64)
        ends = np.cumsum(sizes)
        whole = [np.concatenate([np.zeros(0, np.int64), *chosen])]
        del chosen, drawn
        picked = self._picked(whole.pop())
        counts, starts = picked.counts, picked.starts
        for end, size in zip(ends.tolist(), sizes.tolist(), strict=True):
            mine = counts[end - size : end]
            first = int(starts[end - size])
            lines, labels = _unpacked(self._design, picked.rows[first : first + int(mine.sum())])
            values, many = np.unique(mine, return_counts=True)
            groups = [Group(*pair) for pair in zip(values.tolist(), many.tolist(), strict=True)]
            yield Batch(torch.from_numpy(lines), torch.from_numpy(labels), tuple(groups))

    def blocks(self, size: int) -> Iterator[tuple[Floats, Floats]]:
        """All lines of the design matrix and their labels, about `size` rows at a time."""
        for block in self._blocks:
            plain = self._plain(block).reshape(-1, _width(self._design))
            for start in range(0, len(plain), size):
                yield _unpacked(self._design, plain[start : start + size])

    def _picked(self, wanted: Integers) -> _Picked:
        """The rows of recipients, in the order in which they are asked for."""
        width, many = _width(self._design), len(wanted)
        bits = max(1, many).bit_length()
        positions = wanted << bits
        del wanted  # of 2 million picks each of these arrays is 16 MiB: none is held for nothing
        positions |= np.arange(many)
        positions.sort()  # quicker than an argsort
        places = positions >> bits
        positions &= (1 << bits) - 1
        bounds = np.searchsorted(places, self._edges)
        counts = np.empty(many, dtype=np.int64)
        for block, low, high in zip(self._blocks, bounds, bounds[1:], strict=False):
            counts[positions[low:high]] = block.rows
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.empty((int(starts[-1]), width), dtype=np.uint8)
        for block, first, low, high in zip(
            self._blocks, self._edges, bounds, bounds[1:], strict=False
        ):
            if low == high:
                continue
            found = self._plain(block)[places[low:high] - first]
            into = starts[positions[low:high]]
            if block.rows > 1:
                into = (into[:, None] + np.arange(block.rows)).ravel()
            rows[into] = found.reshape(-1, width)
        return _Picked(rows, counts, starts)

    def _plain(self, block: _Block) -> Bytes:
        """A block's rows, `(recipients, bytes)`. In memory only."""
        size = block.size(_width(self._design))
        if self._map is None:
            raise IntegrityError("the cache is closed", where=self._name.stem)
        nonce, bound = _binding(self._name, block)
        sealed = memoryview(self._map)[block.offset : block.offset + size + TAG_BYTES]
        try:
            plain = self._cipher.decrypt(nonce, sealed, bound)
        except InvalidTag as cause:
            raise IntegrityError(
                "a block of cached rows was changed",
                where=f"{self._name.stem}, block {block.number}",
                do="find out who changed it; it is made again from the store",
            ) from cause
        finally:
            sealed.release()
        page = block.offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, page, block.offset + size + TAG_BYTES - page)
        return np.frombuffer(plain, dtype=np.uint8).reshape(block.recipients, -1)


class _Picked(NamedTuple):
    """Packed rows `(rows, width)`; of each pick how many, and where they start."""

    rows: Bytes
    counts: Integers
    starts: Integers


def _binding(name: CacheName, block: _Block) -> tuple[bytes, bytes]:
    """A block's nonce, unique under the file's own key, and what it is bound to."""
    bound = f"{_label(name)}:{block.number}:{block.rows}:{block.recipients}"
    return block.number.to_bytes(12, "big"), MAGIC + bound.encode()


def _label(name: CacheName) -> str:
    return f"feature-cache:{name.epoch}:{name.question}:{name.side}"


def _width(design: Design) -> int:
    """Bytes of a packed row: features in half precision, labels, an arm."""
    return 2 * design.feature_width + 4 * design.heads.labels + 1


def _packed(rows: RecipientRows) -> Bytes:
    """Rows as bytes, `(rows, width)`. Encoded features are exact in half precision."""
    packed = np.empty((len(rows.labels), _width(rows.design)), dtype=np.uint8)
    inner = 2 * rows.design.feature_width
    packed[:, :inner] = np.ascontiguousarray(rows.features, np.float16).view(np.uint8)
    columns = rows.design.heads.labels
    labels = np.ascontiguousarray(rows.labels.reshape(len(packed), columns), np.float32)
    packed[:, inner:-1] = labels.view(np.uint8)
    packed[:, -1] = rows.arms.view(np.uint8)
    return packed


def _unpacked(design: Design, packed: Bytes) -> tuple[Floats, Floats]:
    """Lines of the design matrix and labels."""
    inner, width = 2 * design.feature_width, design.feature_width
    halves = np.frombuffer(packed[:, :inner].tobytes(), np.float16).reshape(-1, width).copy()
    features = torch.from_numpy(halves).float().numpy()  # ten times as quick as numpy's
    labels = np.frombuffer(packed[:, inner:-1].tobytes(), np.float32).copy()
    if design.heads.labels > 1:
        labels = labels.reshape(len(packed), design.heads.labels)
    return design.expand(features, packed[:, -1].astype(np.int8)), labels
