"""Canonical rows: which columns a silo keeps of a send, and of what type.

A row is one send. `SEND_KEY` names it. Outcomes and features are as many as the brand's mapping
declares; all others are always there. Every function here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from abfed.protocol.errors import DataError
from abfed.protocol.schema import NUMERIC_OUTCOMES, OUTCOMES, RESERVED_COLUMNS

FeatureKind = Literal["numeric", "category"]

PSEUDONYM_BYTES = 16
RECIPIENT = pa.binary(PSEUDONYM_BYTES)
SENT_AT = pa.timestamp("us", tz="UTC")

SEND_KEY = ("experiment", "recipient", "sent_at")
"""What names a send, in the order in which a bucket is sorted."""

SEND_ORDER = "send_order"
"""A keyed random number for each send: surplus sends are dropped by it."""

FIXED: dict[str, pa.DataType] = {
    "recipient": RECIPIENT,
    "experiment": pa.string(),
    "arm": pa.string(),
    "sent_at": SENT_AT,
    "basis": pa.string(),
    "opted_out": pa.bool_(),
    "region": pa.string(),
}
"""Columns that every row has, none of them null."""

KIND_TYPES: dict[FeatureKind, pa.DataType] = {"numeric": pa.float64(), "category": pa.string()}


def outcome_type(name: str) -> pa.DataType:
    """The type of an outcome column."""
    return pa.float64() if name in NUMERIC_OUTCOMES else pa.bool_()


def canonical_schema(outcomes: Iterable[str], features: Mapping[str, FeatureKind]) -> pa.Schema:
    """The schema of canonical rows with these outcomes and features.

    Outcomes and features may be null: not yet known.
    """
    held = set(outcomes)
    fields = [pa.field(name, kind, nullable=False) for name, kind in FIXED.items()]
    fields += [pa.field(name, outcome_type(name)) for name in OUTCOMES if name in held]
    fields += [pa.field(name, KIND_TYPES[features[name]]) for name in sorted(features)]
    return pa.schema(fields)


def schema_parts(schema: pa.Schema) -> tuple[tuple[str, ...], dict[str, FeatureKind]]:
    """The outcomes and features of a canonical schema.

    Raises:
        DataError: a column is missing or has another type than the canonical one.
    """
    for name, wanted in FIXED.items():
        if name not in schema.names or schema.field(name).type != wanted:
            raise DataError(f"column {name!r} is missing or isn't {wanted}")
    outcomes = tuple(name for name in OUTCOMES if name in schema.names)
    for name in outcomes:
        if schema.field(name).type != outcome_type(name):
            raise DataError(f"outcome {name!r} must be {outcome_type(name)}")
    features: dict[str, FeatureKind] = {}
    for field in schema:
        if field.name in RESERVED_COLUMNS:
            continue
        kinds = [kind for kind, wanted in KIND_TYPES.items() if wanted == field.type]
        if not kinds:
            raise DataError(f"feature {field.name!r} must be a number (float64) or text")
        features[field.name] = kinds[0]
    return outcomes, features


def value_columns(schema: pa.Schema) -> list[str]:
    """Columns in which a later file may bring news of a known send."""
    return [name for name in schema.names if name not in (*SEND_KEY, "arm", SEND_ORDER)]


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in this schema's columns and order; a column it lacks is null throughout."""
    arrays: list[Any] = [
        table[field.name]
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array of a column."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def recipient_bytes(recipients: pa.Array) -> bytes:
    """The pseudonyms one after the other, 16 bytes each."""
    start = recipients.offset * PSEUDONYM_BYTES
    size = len(recipients) * PSEUDONYM_BYTES
    return recipients.buffers()[1].slice(start, size).to_pybytes() if size else b""


def recipient_words(recipients: pa.Array) -> npt.NDArray[np.uint64]:
    """Pseudonyms as two words each, shape (sends, 2), that sort as their bytes do."""
    return in_order(stored_words(recipients))


def stored_words(recipients: pa.Array) -> npt.NDArray[np.uint64]:
    """The same without a copy, as they lie: to be told apart, not sorted."""
    if not len(recipients):
        return np.empty((0, 2), dtype=np.uint64)
    start = recipients.offset * PSEUDONYM_BYTES
    words = np.frombuffer(recipients.buffers()[1], np.uint64, 2 * len(recipients), start)
    return words.reshape(-1, 2)


def in_order(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Stored words as numbers that sort as their bytes do."""
    return np.ascontiguousarray(words).view(">u8").astype(np.uint64)


def changes(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where a row differs from the row before in any of these columns; the first is True."""
    rows = len(columns[0])
    differs = np.zeros(rows, dtype=np.bool_)
    if rows:
        differs[0] = True
    for column in columns:
        unequal = column[1:] != column[:-1]
        # column by column: `any` along short rows takes several times as long
        for part in unequal.T if unequal.ndim > 1 else (unequal,):
            differs[1:] |= part
    return differs


def codes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Small numbers that stand for text, in the text's order; null is -1."""
    encoded = column.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    rank = np.empty(len(texts) + 1, dtype=np.int64)
    rank[np.array(sorted(range(len(texts)), key=texts.__getitem__), dtype=np.int64)] = np.arange(
        len(texts)
    )
    rank[-1] = -1
    indices = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    ranks: npt.NDArray[np.int64] = rank[indices]
    return ranks
