"""A plan's rows, made ready for learning once and kept from round to round.

1. Only columns that the plan declares are asked for; a row without a label is dropped.
2. Who is held out follows from a keyed hash of the pseudonym, never from a value: nobody held out
   is ever trained on, in no round and, for nested shares, in no plan on the experiment.
3. Of a held-out recipient one row is kept, chosen by the same hash: one person, one count.
4. Nothing of it is logged or shown; it has no `repr` of its content. Rows are kept in memory; those
   that don't fit lie in a sealed cache (`abfed.silo.feature_cache`). Recipients are sorted by their
   number of rows either way, so that where they lie changes nothing about what is computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abfed.learning.batches import InMemory, TrainingRows
from abfed.learning.design_matrix import (
    Design,
    RecipientRows,
    encode_category,
    encode_numeric,
)
from abfed.learning.wording import encode_send_time, encode_text
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.modelling import HashedText, SendTime
from abfed.protocol.plan import Plan
from abfed.protocol.schema import NumericFeature
from abfed.silo.feature_cache import CachedRows, CacheFolder, CacheName, CacheWriter
from abfed.silo.permit import Permit

PSEUDONYM = 16  # bytes
_PERSON = b"abfed.holdout.1"  # keeps these hashes apart from others under a key; 16 bytes at most


IN_MEMORY = 1 << 29  # bytes of encoded rows a side; more are kept on disk, sealed
SIDES = ("training", "held-out")

Kept = RecipientRows | CachedRows


@dataclass(frozen=True, slots=True, repr=False)
class PreparedRows:
    """Rows of a plan, encoded. Sensitive: never leaves the silo's process in plain.

    Attributes:
        plan_digest, epoch: the question and the state of the data that it was made for.
        training: all rows of the recipients to train on, sorted by their number.
        held_out: one row of each recipient held out.
        batches: `training`, as batches are gathered from it.
    """

    plan_digest: str
    epoch: str
    training: Kept
    held_out: Kept
    batches: TrainingRows

    @classmethod
    def of(cls, permit: Permit, training: Kept, held_out: Kept) -> PreparedRows:
        """Rows that were made under a permit."""
        batches = InMemory(training) if isinstance(training, RecipientRows) else training
        return cls(permit.plan.digest, permit.epoch, training, held_out, batches)

    def require(self, permit: Permit) -> None:
        """Check that this was made for the permit's plan and state of the data.

        Raises:
            IntegrityError: it wasn't.
        """
        if (self.plan_digest, self.epoch) != (permit.plan.digest, permit.epoch):
            raise IntegrityError(
                "the rows in memory are of another plan or state of the data", where=permit.step
            )

    def close(self) -> None:
        """Let go of files."""
        for kept in (self.training, self.held_out):
            if isinstance(kept, CachedRows):
                kept.close()


@dataclass(frozen=True, slots=True, repr=False)
class _Part:
    """What one table adds to both sides."""

    training: RecipientRows
    held_out: RecipientRows


def columns_needed(plan: Plan) -> tuple[str, ...]:
    """Columns to read beside recipient, arm and time: the outcomes, then the features."""
    outcome = plan.model.outcome_columns if plan.model is not None else ()
    texts = tuple(text.name for text in plan.model.texts) if plan.model is not None else ()
    return outcome + tuple(feature.name for feature in plan.features) + texts


def prepare(
    permit: Permit,
    tables: Iterable[pa.Table],
    caches: CacheFolder | None = None,
    *,
    in_memory: int | None = None,
) -> PreparedRows:
    """Encode what the store yields under a permit.

    Args:
        permit: for a step of training or evaluation.
        tables: `columns_needed` with recipient and arm; a recipient's rows are contiguous and all
            in one table. Rows: sensitive.
        caches: where rows go that don't fit into memory.
        in_memory: bytes of encoded rows a side that do; None for `IN_MEMORY`.

    Raises:
        IntegrityError: a row has an arm that the plan doesn't name.
    """
    design = Design.of(permit.plan)
    limit = IN_MEMORY if in_memory is None else in_memory
    training, held_out = (_Side(cache_name(permit, side), design, caches, limit) for side in SIDES)
    try:
        for table in tables:
            part = _part(permit, design, table)
            training.add(part.training)
            held_out.add(part.held_out)
        return PreparedRows.of(permit, training.finish(), held_out.finish())
    except BaseException:
        training.abandon()
        held_out.abandon()
        raise


def reopen(permit: Permit, caches: CacheFolder) -> PreparedRows | None:
    """What an earlier process kept on disk for this plan, or None if a side is not all there.

    Raises:
        IntegrityError: it was changed.
    """
    design = Design.of(permit.plan)
    training, held_out = (caches.open(cache_name(permit, side), design) for side in SIDES)
    if training is None or held_out is None:
        return None
    return PreparedRows.of(permit, training, held_out)


def cache_name(permit: Permit, side: str) -> CacheName:
    """What the cache of a plan's rows on one side is called: also by whose rows are lawful now."""
    question = sha256_hex(canonical_bytes([permit.plan.digest, sorted(permit.lawful_bases)]))
    return CacheName(question, permit.epoch, side)


class _Side:
    """Rows of one side as they come: in memory while they are few, then all of them on disk."""

    __slots__ = ("_caches", "_design", "_limit", "_name", "_parts", "_writer")

    def __init__(
        self, name: CacheName, design: Design, caches: CacheFolder | None, limit: int
    ) -> None:
        self._name, self._design, self._caches, self._limit = name, design, caches, limit
        self._parts: list[RecipientRows] = []
        self._writer: CacheWriter | None = None

    def add(self, part: RecipientRows) -> None:
        """Take rows in."""
        self._parts.append(part)
        if self._writer is None and self._caches is not None and self._held() > self._limit:
            self._writer = self._caches.write(self._name, self._design)
        if self._writer is not None:
            for each in self._parts:
                self._writer.add(each)
            self._parts = []

    def finish(self) -> Kept:
        """All rows, sorted by how many a recipient has."""
        if self._writer is not None:
            return self._writer.finish()
        return _joined(self._design, self._parts).by_size()[0]

    def abandon(self) -> None:
        """Leave nothing on disk."""
        if self._writer is not None:
            self._writer.abandon()

    def _held(self) -> int:
        return sum(part.features.nbytes + part.labels.nbytes for part in self._parts)


def _part(permit: Permit, design: Design, table: pa.Table) -> _Part:
    """One table, encoded and parted by the keyed hash."""
    outcome = columns_needed(permit.plan)[0]
    table = table.filter(pc.is_valid(table[outcome]))
    pseudonyms, offsets = _owners(table["recipient"])
    held_out, draws = _drawn(pseudonyms, permit)
    arms = _arms(design, table)
    rows = RecipientRows(
        design,
        encoded_features(design, table),
        arms,
        _labels(design, table, outcome, arms),
        offsets,
    )
    counts = np.diff(offsets)
    chosen = offsets[:-1] + (draws % np.maximum(counts, 1).astype(np.uint64)).astype(np.int64)
    kept = np.repeat(~held_out, counts)
    return _Part(
        _selected(rows, np.flatnonzero(kept), counts[~held_out]),
        _selected(rows, chosen[held_out], np.ones(int(held_out.sum()), dtype=np.int64)),
    )


def _labels(
    design: Design, table: pa.Table, outcome: str, arms: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """The labels of a table, as the loss of the plan's network wants them (`Heads.labels`)."""
    heads = design.heads
    first: npt.NDArray[np.float32] = table[outcome].to_numpy().astype(np.float32)
    if heads.labels == 1:
        return first
    columns = [first]
    columns += [pc.cast(table[name], pa.float32()).to_numpy() for name in heads.outcomes[1:]]
    if heads.bound:
        spent = pc.cast(table["revenue"], pa.float64()).to_numpy()
        columns.append((np.clip(spent, 0.0, heads.bound) / heads.bound).astype(np.float32))
    if heads.by_arm:
        columns.append(arms.astype(np.float32))
    return np.stack(columns, axis=1)


def _owners(column: pa.ChunkedArray) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """The recipients of a column that is sorted by them, and where each one's rows start."""
    pseudonyms = column.to_pylist()
    if not pseudonyms:
        return [], np.zeros(1, dtype=np.int64)
    joined = np.frombuffer(b"".join(pseudonyms), dtype=np.uint64).reshape(-1, PSEUDONYM // 8)
    starts = np.flatnonzero(np.r_[True, (joined[1:] != joined[:-1]).any(axis=1)])
    return [pseudonyms[start] for start in starts], np.append(starts, len(pseudonyms))


def _drawn(
    pseudonyms: list[bytes], permit: Permit
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]:
    """For each recipient: whether they are held out, and a number that chooses one of their rows.

    Two 64-bit halves of BLAKE2b (RFC 7693) of the pseudonym under the silo's key.
    """
    digests = b"".join(
        hashlib.blake2b(pseudonym, digest_size=16, key=permit.holdout_key, person=_PERSON).digest()
        for pseudonym in pseudonyms
    )
    words = np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    threshold = np.uint64(int(permit.plan.schedule.holdout * 2.0**64))
    return words[:, 0] < threshold, words[:, 1]


def encoded_features(design: Design, table: pa.Table) -> npt.NDArray[np.float32]:
    """The declared features of a table, encoded, `(rows, feature_width)`."""
    blocks = []
    for feature in design.features:
        column = table[feature.name]
        if isinstance(feature, HashedText):
            texts: list[str | None] = pc.cast(column, pa.string()).to_pylist()
            blocks.append(encode_text(feature, texts))
            continue
        if isinstance(feature, SendTime):
            moments = pc.cast(column, pa.int64()).to_numpy()
            blocks.append(encode_send_time(feature, moments))
            continue
        if isinstance(feature, NumericFeature):
            numbers = pc.cast(column, pa.float64()).to_numpy()
            blocks.append(encode_numeric(feature, numbers))
        else:
            blocks.append(encode_category(feature, _codes(column, feature.values)))
    return np.hstack(blocks)


def _arms(design: Design, table: pa.Table) -> npt.NDArray[np.int8]:
    """The arm codes of a table."""
    codes = _codes(table["arm"], design.arms)
    if (codes < 0).any():
        raise IntegrityError("the store gave a row of an arm that the plan doesn't name")
    return codes.astype(np.int8)


def _codes(column: pa.ChunkedArray, values: tuple[str, ...]) -> npt.NDArray[np.int32]:
    """Places of strings in a list; -1 for null or not listed."""
    known = pa.array(values, pa.string())
    places = pc.index_in(pc.cast(column, pa.string()), value_set=known, skip_nulls=True)
    codes: npt.NDArray[np.int32] = pc.fill_null(places, -1).to_numpy()
    return codes


def _selected(
    rows: RecipientRows, places: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> RecipientRows:
    """Some rows, of recipients who own `counts` of them."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return RecipientRows(
        rows.design, rows.features[places], rows.arms[places], rows.labels[places], offsets
    )


def _joined(design: Design, parts: list[RecipientRows]) -> RecipientRows:
    """Parts one after another."""
    counts = [np.diff(part.offsets) for part in parts]
    empty = np.zeros(0, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([empty, *counts]))])

    def stacked(blocks: list[npt.NDArray[Any]], start: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([start, *blocks])

    return RecipientRows(
        design,
        stacked([p.features for p in parts], np.zeros((0, design.feature_width), np.float32)),
        stacked([p.arms for p in parts], np.zeros(0, np.int8)),
        stacked([p.labels for p in parts], _no_labels(design)),
        offsets,
    )


def _no_labels(design: Design) -> npt.NDArray[np.float32]:
    """The labels of nobody."""
    columns = design.heads.labels
    return np.zeros(0 if columns == 1 else (0, columns), np.float32)
