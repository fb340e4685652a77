"""From a batch of an export to canonical rows: what can't be converted is counted by reason.

A row is rejected as a whole, under the first reason in the order below; reasons name canonical
columns and what is wrong, never the value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.errors import DataError
from abfed.protocol.schema import NUMERIC_OUTCOMES
from abfed.silo.columns import ISO, OptOut, OutcomeColumn, SentAt
from abfed.silo.mapping import ExportMapping
from abfed.silo.moments import constant_moment, hours_between, parse_moments
from abfed.silo.pseudonyms import SEPARATOR, Pseudonyms
from abfed.silo.rows import PSEUDONYM_BYTES, SENT_AT, canonical_schema

Flags = npt.NDArray[np.bool_]

EARLIEST, LATEST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Dates outside are typing errors, such as the year 0026."""

CLOCKS_APART = 5 / 60
"""Hours by which something may precede its send, as the clocks of two machines have it: none."""

NOBODY = bytes(PSEUDONYM_BYTES)
"""Stands in rows without a recipient, which are rejected."""

_NUMBER = r"^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:nan|inf|infinity))$"


@dataclass(slots=True)
class Converted:
    """One batch, converted.

    Attributes:
        table: canonical rows. Sensitive.
        rejected: rows left out, by reason.
        left_out: rows that `where` gives to somebody else.
        opted_out: people of rejected rows which say that they did. Sensitive.
    """

    table: pa.Table
    rejected: Counter[str]
    left_out: int
    opted_out: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Audience:
    """People of a list to be mailed.

    Attributes:
        table: pseudonym, basis, opt-out and features. Sensitive.
        identifiers: of the same people, as the brand gave them. Sensitive.
        rejected: rows left out, by reason.
    """

    table: pa.Table
    identifiers: list[tuple[str, ...]]
    rejected: Counter[str]


@dataclass(slots=True)
class _Bad:
    """Which rows can't be converted, under their first reason."""

    rows: Flags
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, bad: Flags) -> None:
        fresh = bad & ~self.rows
        if count := int(fresh.sum()):
            self.reasons[reason] += count
            self.rows |= fresh


class Converter:
    """Converts batches of one export by its mapping.

    Args:
        mapping: the export's mapping.
        pseudonyms: the silo's.
    """

    def __init__(self, mapping: ExportMapping, pseudonyms: Pseudonyms) -> None:
        self._mapping = mapping
        self._pseudonyms = pseudonyms
        self._schema = canonical_schema(mapping.outcomes, mapping.feature_kinds())
        self._missing = pa.array(("", *mapping.source.missing), pa.string())

    def convert(self, batch: pa.RecordBatch, first_row: int) -> Converted:
        """Canonical rows of a batch.

        Args:
            batch: the mapping's columns, raw. Sensitive.
            first_row: number of the batch's first row in the file, from 0.
        """
        keep = self._kept(batch)
        numbers = np.flatnonzero(keep)
        left_out = batch.num_rows - len(numbers)
        if left_out:
            batch = batch.take(pa.array(numbers))
        bad = _Bad(np.zeros(len(numbers), dtype=np.bool_))
        columns = self._columns(batch, first_row + numbers, bad)
        table = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        out: frozenset[bytes] = frozenset()
        if bad.rows.any():
            said = columns["opted_out"].fill_null(False)  # noqa: FBT003 - Arrow's signature
            theirs = table["recipient"].filter(pc.and_(said, pa.array(bad.rows)))
            out = frozenset(theirs.to_pylist()) - {NOBODY}
            table = table.filter(pa.array(~bad.rows))
        return Converted(table, bad.reasons, left_out, out)

    def audience(self, batch: pa.RecordBatch, first_row: int) -> Audience:
        """People of a batch of a list: no arm, time or outcome is read.

        Args:
            batch: the mapping's `audience_columns`, raw. Sensitive.
            first_row: number of the batch's first row in the file, from 0.
        """
        numbers = np.flatnonzero(self._kept(batch))
        batch = batch.take(pa.array(numbers))
        bad = _Bad(np.zeros(len(numbers), dtype=np.bool_))
        mapping, basis = self._mapping, self._mapping.basis
        columns = {
            "recipient": self._recipients(batch, first_row + numbers, bad),
            "basis": self._named("basis", batch, basis.column, basis.constant, basis.values, bad),
            "opted_out": self._opted_out(batch, mapping.opted_out, bad),
            **self._features(batch, bad),
        }
        parts = [
            self._texts(batch.column(name)).fill_null("").to_pylist()
            for name in mapping.recipient.columns
        ] or [[str(number + 1) for number in (first_row + numbers).tolist()]]
        good = np.flatnonzero(~bad.rows)
        people = list(zip(*parts, strict=True))
        table = pa.table(columns).take(pa.array(good))
        return Audience(table, [people[place] for place in good], bad.reasons)

    def _kept(self, batch: pa.RecordBatch) -> Flags:
        """Which rows are this brand's."""
        keep = np.ones(batch.num_rows, dtype=np.bool_)
        for condition in self._mapping.where:
            texts = self._texts(batch.column(condition.column))
            listed = pc.is_in(texts, value_set=pa.array(condition.one_of, pa.string()))
            keep &= _flags(listed)
        return keep

    def _columns(
        self, batch: pa.RecordBatch, numbers: npt.NDArray[np.int64], bad: _Bad
    ) -> dict[str, pa.Array]:
        """All canonical columns; where a row is bad they hold anything."""
        mapping = self._mapping
        columns = {"recipient": self._recipients(batch, numbers, bad)}
        experiment = mapping.experiment
        columns["experiment"] = self._named(
            "experiment", batch, experiment.column, experiment.constant, experiment.values, bad
        )
        columns["arm"] = self._named(
            "arm", batch, mapping.arm.column, None, mapping.arm.values, bad
        )
        columns["sent_at"] = self._sent_at(batch, mapping.sent_at, bad)
        basis = mapping.basis
        columns["basis"] = self._named(
            "basis", batch, basis.column, basis.constant, basis.values, bad
        )
        columns["opted_out"] = self._opted_out(batch, mapping.opted_out, bad)
        region = mapping.region
        columns["region"] = self._named(
            "region", batch, region.column, region.constant, region.values, bad
        )
        for name, outcome in mapping.outcomes.items():
            if outcome.moment is not None:
                columns[name] = self._hours(name, batch, outcome, columns["sent_at"], bad)
            elif name in NUMERIC_OUTCOMES:
                columns[name] = self._numbers(name, batch.column(outcome.column), bad)
            else:
                columns[name] = self._outcome(name, batch, outcome, bad)
        return columns | self._features(batch, bad)

    def _features(self, batch: pa.RecordBatch, bad: _Bad) -> dict[str, pa.Array]:
        """What is known before the send."""
        columns: dict[str, pa.Array] = {}
        for name, feature in self._mapping.features.items():
            raw = batch.column(feature.column)
            if feature.kind == "numeric":
                columns[name] = self._numbers(name, raw, bad)
            else:
                columns[name] = self._category(name, raw, feature.values, bad)
        return columns

    def _texts(self, column: pa.Array) -> pa.StringArray:
        """A column as trimmed text, missing values as nulls."""
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            try:
                column = pc.cast(column, pa.string())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise DataError(f"a column of type {column.type} can't be read as text") from None
        texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
        return pc.if_else(pc.is_in(texts, value_set=self._missing), None, texts)

    def _recipients(
        self, batch: pa.RecordBatch, numbers: npt.NDArray[np.int64], bad: _Bad
    ) -> pa.Array:
        recipient = self._mapping.recipient
        if recipient.row_number:
            # A prefix that no trimmed identifier has: numbers can't meet ids of another export.
            texts = pa.array([f"row{SEPARATOR}{number + 1}" for number in numbers.tolist()])
            return self._pseudonyms.column(texts, normalise="trim")
        parts = [self._texts(batch.column(name)) for name in recipient.columns]
        whole = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, SEPARATOR)
        found = self._pseudonyms.column(whole.fill_null(""), normalise=recipient.normalise)
        bad.add("recipient: missing", _nulls(found))
        return found.fill_null(NOBODY)

    def _named(
        self,
        name: str,
        batch: pa.RecordBatch,
        column: str | None,
        constant: str | None,
        values: Mapping[str, str] | None,
        bad: _Bad,
    ) -> pa.Array:
        """A text that must be there: a constant, or a column with a map of its values."""
        if column is None:
            return pa.repeat(pa.scalar(constant, pa.string()), batch.num_rows)
        texts = self._texts(batch.column(column))
        named = _mapped(texts, values) if values is not None else texts
        bad.add(f"{name}: missing", _nulls(texts) & _nulls(named))
        bad.add(f"{name}: not a value that the mapping names", _nulls(named))
        return named.fill_null("")

    def _category(
        self, name: str, raw: pa.Array, values: Mapping[str, str] | None, bad: _Bad
    ) -> pa.Array:
        """A category, or null where it is missing."""
        texts = self._texts(raw)
        if values is None:
            return texts
        named = _mapped(texts, values)
        bad.add(f"{name}: not a value that the mapping names", _nulls(named) & ~_nulls(texts))
        return named

    def _outcome(
        self, name: str, batch: pa.RecordBatch, outcome: OutcomeColumn, bad: _Bad
    ) -> pa.Array:
        """A binary outcome, or null where it is not known yet."""
        texts = self._texts(batch.column(outcome.column))
        if outcome.present:
            return texts.is_valid()
        return self._decided(name, texts, outcome, bad)

    def _opted_out(self, batch: pa.RecordBatch, choice: OptOut, bad: _Bad) -> pa.Array:
        """The opt-out, which must be known; null where it isn't."""
        if choice.column is None:
            return pa.repeat(pa.scalar(choice.constant, pa.bool_()), batch.num_rows)
        texts = self._texts(batch.column(choice.column))
        decided = self._decided("opted_out", texts, choice, bad)
        bad.add("opted_out: missing", _nulls(decided))
        return decided

    @staticmethod
    def _decided(
        name: str, texts: pa.StringArray, choice: OutcomeColumn | OptOut, bad: _Bad
    ) -> pa.Array:
        """True or false by the lists of texts; null where missing."""
        yes = pc.is_in(texts.fill_null(""), value_set=pa.array(choice.yes, pa.string()))
        no = pc.is_in(texts.fill_null(""), value_set=pa.array(choice.no, pa.string()))
        known = pc.or_(yes, no)
        bad.add(f"{name}: neither yes nor no", ~_flags(known) & ~_nulls(texts))
        return pc.if_else(known, yes, None)

    def _numbers(self, name: str, raw: pa.Array, bad: _Bad) -> pa.Array:
        """A finite number, or null where it is missing."""
        typed = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        if any(is_one(raw.type) for is_one in typed):  # no text, so no sign that it is written with
            numbers = raw.cast(pa.float64(), safe=False)
        else:
            texts = self._texts(raw)
            if self._mapping.source.decimal == ",":
                # where commas are points, "1.500" is fifteen hundred: it is not read as less
                pointed = pc.match_substring(texts, ".")
                bad.add(f"{name}: not a number", _flags(pointed.fill_null(False)))  # noqa: FBT003
                texts = pc.replace_substring(pc.if_else(pointed, None, texts), ",", ".")
            numbers = self._parsed(name, texts, bad)
        bad.add(f"{name}: infinite", _flags(pc.is_inf(numbers).fill_null(False)))  # noqa: FBT003
        bad.add(f"{name}: not a number", _flags(pc.is_nan(numbers).fill_null(False)))  # noqa: FBT003
        return numbers

    @staticmethod
    def _parsed(name: str, texts: pa.StringArray, bad: _Bad) -> pa.Array:
        """Numbers from text; Arrow's own parser where all are numbers."""
        try:
            return texts.cast(pa.float64())
        except pa.ArrowInvalid:
            looks = pc.match_substring_regex(texts, _NUMBER)
            bad.add(f"{name}: not a number", ~_flags(looks.fill_null(True)))  # noqa: FBT003
            return pc.if_else(looks, texts, None).cast(pa.float64())

    def _sent_at(self, batch: pa.RecordBatch, sent: SentAt, bad: _Bad) -> pa.Array:
        """The moment of sending, in UTC."""
        if sent.constant is not None:
            return pa.repeat(constant_moment(sent.constant, sent.timezone), batch.num_rows)
        raw = self._dates(batch.column(sent.column))
        bad.add("sent_at: missing", _nulls(raw))
        moments = self._moments("sent_at", raw, sent, bad)
        return moments.fill_null(pa.scalar(0, pa.int64()).cast(SENT_AT))

    def _hours(
        self,
        name: str,
        batch: pa.RecordBatch,
        outcome: OutcomeColumn,
        sent_at: pa.Array,
        bad: _Bad,
    ) -> pa.Array:
        """Hours from the send to a moment; null where that is missing."""
        ended = SentAt(
            column=outcome.column,
            format=outcome.moment or ISO,
            timezone=self._mapping.sent_at.timezone,
        )
        moments = self._moments(name, self._dates(batch.column(outcome.column)), ended, bad)
        hours = hours_between(sent_at, moments)
        early = pc.less(hours, -CLOCKS_APART).fill_null(False)  # noqa: FBT003
        bad.add(f"{name}: before the send", _flags(early))
        return pc.max_element_wise(hours, 0.0, skip_nulls=False)

    def _dates(self, raw: pa.Array) -> pa.Array:
        """A column of dates: typed ones as they are, others as text."""
        typed = pa.types.is_timestamp(raw.type) or pa.types.is_date(raw.type)
        return raw if typed else self._texts(raw)

    @staticmethod
    def _moments(name: str, raw: pa.Array, declared: SentAt, bad: _Bad) -> pa.Array:
        """Moments in UTC, null where missing or bad."""
        moments = parse_moments(raw, declared)
        bad.add(f"{name}: not a date in the declared format", _nulls(moments) & ~_nulls(raw))
        early = pc.less(moments, pa.scalar(EARLIEST, SENT_AT))
        late = pc.greater_equal(moments, pa.scalar(LATEST, SENT_AT))
        beyond = pc.or_(early, late).fill_null(False)  # noqa: FBT003
        bad.add(f"{name}: before 1990 or after 2099", _flags(beyond))
        return moments


def _mapped(texts: pa.StringArray, values: Mapping[str, str]) -> pa.StringArray:
    """Each text's value; null where the map doesn't name it. `""` names a missing text."""
    known = pa.array(list(values), pa.string())
    return pa.array(list(values.values()), pa.string()).take(
        pc.index_in(texts.fill_null(""), value_set=known)
    )


def _flags(column: pa.Array) -> Flags:
    """A boolean column without nulls, as an array of our own."""
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _nulls(column: pa.Array) -> Flags:
    """Where a column has no value."""
    return _flags(column.is_null())
