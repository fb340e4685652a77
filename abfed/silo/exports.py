"""A brand's export as a stream of raw columns: opened, checked, never copied.

Before a row is read, the whole file is looked over once: it must be UTF-8 without NUL bytes, its
header must name each needed column once. Only the needed columns are parsed. Errors name lines
and columns, never what stands in a row.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from abfed.protocol.errors import DataError
from abfed.silo.columns import Source
from abfed.site.keys import SiteKeys

BLOCK = 4 << 20  # bytes read and parsed at a time
BATCH = 65_536  # rows of a Parquet export at a time
MAX_HEADER = 1 << 20  # bytes
DELIMITERS = (",", ";", "\t", "|")

Progress = Callable[[int, int], None]
"""Told how many bytes are done, and of how many."""

_PLAIN_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_ .-]{0,47}$")


@dataclass(frozen=True, slots=True)
class Export:
    """An export that was looked over.

    Attributes:
        path: the file.
        digest: keyed digest of its bytes, hex: recognises it again, tells nothing of it.
        size: in bytes.
    """

    path: Path
    source: Source
    columns: tuple[str, ...]
    digest: str
    size: int

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The needed columns, batch by batch. Rows: sensitive.

        Raises:
            DataError: a ragged row, no rows, or not the format it should be.
        """
        read = _csv_batches if self.source.format == "csv" else _parquet_batches
        batches = (batch for batch in read(self) if batch.num_rows)
        first = next(batches, None)
        if first is None:
            raise DataError("the file has a header but no rows", where=str(self.path))
        return chain([first], batches)


def look_over(path: Path, source: Source, columns: Sequence[str], keys: SiteKeys) -> Export:
    """Check a file as a whole, and that it has the needed columns.

    Raises:
        DataError: missing, empty, not text, not Parquet, or without a needed column.
    """
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), do="check the path")
    if not path.stat().st_size:
        raise DataError("the file is empty", where=str(path), do="export it again")
    digest = hashlib.blake2b(key=keys.derive("export-digest"), digest_size=32)
    checker = _TextCheck(path) if source.format == "csv" else None
    size = 0
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                size += len(block)
                digest.update(block)
                if checker is not None:
                    checker.feed(block)
    except OSError as cause:
        raise DataError(f"can't be read ({cause.strerror})", where=str(path)) from cause
    if checker is not None:
        checker.end()
    header = _csv_header(path, source) if source.format == "csv" else _parquet_header(path)
    _check_header(header, columns, path, source)
    return Export(path, source, tuple(columns), digest.hexdigest(), size)


class _TextCheck:
    """Looks for bytes that are no text, and says in which line."""

    def __init__(self, path: Path) -> None:
        self._where = str(path)
        self._line = 1
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def feed(self, block: bytes) -> None:
        """Check the next bytes."""
        nul = block.find(b"\0")
        if nul >= 0:
            raise DataError(
                f"line {self._line + block.count(10, 0, nul)} holds a NUL byte",
                where=self._where,
                why="a text file has none; UTF-16 and cut-off files do",
                do="export it as CSV in UTF-8",
            )
        pending = len(self._decoder.getstate()[0])
        bad = self._bad_byte(block, last=False)
        if bad is not None:
            self._refuse(self._line + block.count(10, 0, max(bad - pending, 0)))
        self._line += block.count(10)

    def end(self) -> None:
        """Check that the last character is whole."""
        if self._bad_byte(b"", last=True) is not None:
            self._refuse(self._line)

    def _bad_byte(self, block: bytes, *, last: bool) -> int | None:
        """Where the text ends; the decoder's own error carries the bytes, so it stops here."""
        try:
            self._decoder.decode(block, final=last)
        except UnicodeDecodeError as cause:
            return cause.start
        return None

    def _refuse(self, line: int) -> None:
        raise DataError(
            f"line {line} is not UTF-8 text", where=self._where, do="export it as CSV in UTF-8"
        )


def _csv_header(path: Path, source: Source) -> list[str]:
    """The names in the first record."""
    with path.open("rb") as file:
        text = file.read(MAX_HEADER).decode("utf-8-sig", errors="ignore")
    header: list[str] | None
    try:
        lines = text.splitlines(keepends=True)
        header = next(csv.reader(lines, delimiter=source.delimiter), [])
    except csv.Error:
        header = None
    if header is None:
        raise DataError("the header can't be read as CSV", where=str(path))
    return header


def _parquet_header(path: Path) -> list[str]:
    """The names of the top-level columns."""
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError):
        raise DataError("not a Parquet file", where=str(path)) from None


def _check_header(header: list[str], columns: Sequence[str], path: Path, source: Source) -> None:
    """Each needed column exactly once, and no name twice."""
    missing = [name for name in columns if name not in header]
    if missing and (hint := _other_delimiter(path, source, columns, len(missing))):
        raise DataError(
            f"the columns seem to be separated by {hint!r}, not by {source.delimiter!r}",
            where=str(path),
            do=f"write `delimiter: {hint!r}` under source in the mapping",
        )
    if missing and len(missing) == len(columns):
        raise DataError(
            f"it has none of the columns that the mapping names ({', '.join(missing)})",
            where=str(path),
            do="check that the first line is the header, and that this is the mapping's file",
        )
    if missing:
        raise DataError(
            "; ".join(_missing(name, header) for name in missing),
            where=str(path),
            do="correct the mapping, or export the file with this column",
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        named = [name for name in repeated if _PLAIN_NAME.match(name)]
        told = f"column {named[0]!r} stands twice" if named else "a column stands twice"
        raise DataError(f"{told} in the header", where=str(path), do="give each column one name")


def _missing(name: str, header: list[str]) -> str:
    """One missing column, with the nearest name; names that may be values aren't repeated."""
    plain = [other for other in header if _PLAIN_NAME.match(other)]
    by_folded = {other.casefold(): other for other in plain}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    hint = f"; did you mean {by_folded[near[0]]!r}?" if near else ""
    return f"column {name!r} is missing{hint}"


def _other_delimiter(path: Path, source: Source, columns: Sequence[str], missing: int) -> str:
    """A delimiter under which more of the needed columns would be found."""
    if source.format != "csv":
        return ""
    for delimiter in DELIMITERS:
        other = source.model_copy(update={"delimiter": delimiter})
        header = _csv_header(path, other) if delimiter != source.delimiter else []
        if sum(name not in header for name in columns) < missing:
            return delimiter
    return ""


def _csv_batches(export: Export) -> Iterator[pa.RecordBatch]:
    ragged: list[tuple[int, int, int]] = []

    def note(row: Any) -> str:
        ragged.append((row.number, row.expected_columns, row.actual_columns))
        return "error"

    names = list(export.columns)
    failed = False
    try:
        with pyarrow.csv.open_csv(
            export.path,
            # One thread: rows keep their numbers, and the parser is not what takes the time.
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=export.source.delimiter,
                newlines_in_values=True,
                invalid_row_handler=note,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                null_values=[""],
            ),
        ) as reader:
            yield from reader
    except pa.ArrowInvalid:
        failed = True  # Arrow's text holds the row, so it is neither shown nor chained
    if failed:
        raise _csv_error(export.path, ragged)


def _csv_error(path: Path, ragged: list[tuple[int, int, int]]) -> DataError:
    if ragged:
        number, expected, actual = ragged[0]
        return DataError(
            f"row {number} has {actual} fields, the header {expected}",
            where=str(path),
            why="values would land in the wrong columns (the header is row 1)",
            do="quote values that hold the delimiter, or export the file again",
        )
    return DataError(
        "can't be read as CSV",
        where=str(path),
        why="a quoted value doesn't end, or a line is longer than 4 MiB",
        do="check the quotes, or export the file again",
    )


def _parquet_batches(export: Export) -> Iterator[pa.RecordBatch]:
    failed = False
    try:
        with pq.ParquetFile(export.path) as file:
            yield from file.iter_batches(BATCH, columns=list(export.columns))
    except (pa.ArrowInvalid, OSError):
        failed = True
    if failed:
        raise DataError("can't be read as Parquet", where=str(export.path), do="export it again")
