"""What a mapping says of one column of an export: where something stands, and how it is written."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from abfed.protocol.schema import LAWFUL_BASES, Frozen, Name
from abfed.silo.rows import FeatureKind

Column = Annotated[str, Field(min_length=1, max_length=200)]
Basis = Literal[LAWFUL_BASES]  # type: ignore[valid-type]
ISO = "iso8601"


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name; UTC needs no database."""
    return UTC if name == "UTC" else ZoneInfo(name)


class Source(Frozen):
    """The export file.

    Attributes:
        format: CSV with a header line, or Parquet.
        delimiter: of a CSV.
        encoding: of a CSV.
        decimal: how the file writes the decimal point; a number that holds the other sign, as for
            thousands, is none.
        missing: texts that mean "no value", beside an empty field; compared after trimming.
    """

    format: Literal["csv", "parquet"] = "csv"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8"] = "utf-8"
    decimal: Literal[".", ","] = "."
    missing: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _unlike(self) -> Source:
        if self.delimiter in ('"', "\n", "\r") or not self.delimiter.isascii():
            message = "delimiter must be one ASCII character, not a quote or the end of a line"
            raise ValueError(message)
        return self


class Keep(Frozen):
    """Keeps rows whose `column` is one of these texts; the others belong to somebody else.

    Attributes:
        column: of the export.
        one_of: its texts that are kept.
    """

    column: Column
    one_of: Annotated[tuple[str, ...], Field(min_length=1)]


class _Choice(Frozen):
    """Either a column with a map of its values, or one constant."""

    column: Column | None = None
    constant: Any = None

    @model_validator(mode="after")
    def _one(self) -> _Choice:
        if (self.column is None) == (self.constant is None):
            message = "give either column or constant"
            raise ValueError(message)
        return self


class NameChoice(_Choice):
    """A declared name: of the experiment. A column's values are mapped to names.

    Attributes:
        column: of the export.
        constant: one name for all rows, instead of a column.
        values: each text of the column, and the name that it stands for.
    """

    constant: Name | None = None
    values: Annotated[dict[str, Name], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _mapped(self) -> NameChoice:
        if (self.column is None) == (self.values is not None):
            message = "a column needs values (its texts and the names they stand for)"
            raise ValueError(message)
        return self

    def names(self) -> tuple[str, ...]:
        """All names that can come out."""
        return (
            (self.constant,)
            if self.constant
            else tuple(dict.fromkeys((self.values or {}).values()))
        )


class ArmColumn(Frozen):
    """The column of arms; `values` maps its texts to the plan's arm names.

    Attributes:
        column: of the export.
        values: each text of the column, and the plan's name of the arm.
    """

    column: Column
    values: Annotated[dict[str, Name], Field(min_length=1)]


class Recipient(Frozen):
    """Who got the send.

    Attributes:
        columns: one column or several that identify a person together.
        normalise: `casefold` trims and ignores case; `trim` keeps case, for case-sensitive ids.
        row_number: the row's number in the file stands for a person. For files without ids only:
            each row becomes somebody else, and the order of rows must never change.
    """

    columns: tuple[Column, ...] = ()
    normalise: Literal["casefold", "trim"] = "casefold"
    row_number: bool = False

    @model_validator(mode="after")
    def _one(self) -> Recipient:
        if bool(self.columns) == self.row_number:
            message = "give either columns, or row_number: true"
            raise ValueError(message)
        return self


def _dated(text: str) -> str:
    """A format that says which day it is."""
    if text != ISO and not all(code in text for code in ("%Y", "%d")) and "%j" not in text:
        message = "must be iso8601, or a strptime format with at least %Y and %d (or %j)"
        raise ValueError(message)
    return text


class SentAt(_Choice):
    """When it was sent.

    Attributes:
        column: of the export.
        constant: one ISO 8601 date for all rows, instead of a column.
        format: as in Python's `strptime`, or `iso8601`.
        timezone: of times without an offset, an IANA name.
    """

    constant: str | None = None
    format: str = ISO
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            zone(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as cause:
            message = f"{name!r} is not an IANA time zone, such as Europe/Paris"
            raise ValueError(message) from cause
        return name

    @field_validator("format")
    @classmethod
    def _format(cls, text: str) -> str:
        return _dated(text)

    @model_validator(mode="after")
    def _constant_date(self) -> SentAt:
        if self.constant is not None:
            try:
                datetime.fromisoformat(self.constant)
            except ValueError as cause:
                message = "constant must be an ISO 8601 date, such as 2026-03-20"
                raise ValueError(message) from cause
        return self


class OutcomeColumn(Frozen):
    """An outcome: true or false by the texts of a column, an amount, or a duration.

    Attributes:
        column: where it stands. An amount needs no more: it is a finite number, or missing. Nor
            does a duration that the file has in hours.
        yes: texts that mean true.
        no: texts that mean false; `""` makes a missing value false, which is unknown otherwise.
        present: any value means true and a missing one false (a column of timestamps).
        moment: of a duration: the column has the moment at which it ended, in this format (as of
            `sent_at`, whose time zone it shares); hours are counted from the send.
    """

    column: Column
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()
    present: bool = False
    moment: str | None = None

    @field_validator("moment")
    @classmethod
    def _format(cls, text: str | None) -> str | None:
        return None if text is None else _dated(text)

    @model_validator(mode="after")
    def _whole(self) -> OutcomeColumn:
        if bool(self.yes) != bool(self.no):
            message = "give both yes and no"
            raise ValueError(message)
        if self.present and self.yes:
            message = "give either yes and no, or present: true"
            raise ValueError(message)
        _check_disjoint(self.yes, self.no)
        return self


class OptOut(_Choice):
    """Whether the person opted out (CCPA) or objected: a column's texts, or a constant.

    Attributes:
        column: of the export.
        constant: the same for all rows, instead of a column.
        yes: texts that mean opted out.
        no: texts that mean not opted out.
    """

    constant: bool | None = None
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _both(self) -> OptOut:
        if (self.column is not None) != bool(self.yes and self.no):
            message = "a column needs yes and no (its texts)"
            raise ValueError(message)
        _check_disjoint(self.yes, self.no)
        return self


class BasisChoice(_Choice):
    """The lawful basis (GDPR Art. 6): a column's texts mapped to bases, or a constant.

    Attributes:
        column: of the export.
        constant: one basis for all rows, instead of a column.
        values: each text of the column, and the basis that it stands for.
    """

    constant: Basis | None = None
    values: Annotated[dict[str, Basis], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _mapped(self) -> BasisChoice:
        if (self.column is None) == (self.values is not None):
            message = f"a column needs values (its texts and one of: {', '.join(LAWFUL_BASES)})"
            raise ValueError(message)
        return self


class TextChoice(_Choice):
    """A text: a column, optionally with a map of its values, or a constant.

    Attributes:
        column: of the export.
        constant: one text for all rows, instead of a column.
        values: each text of the column, and what it becomes; texts themselves where it is left out.
    """

    constant: Annotated[str, Field(min_length=1)] | None = None
    values: Annotated[dict[str, str], Field(min_length=1)] | None = None


class FeatureColumn(Frozen):
    """A pre-send feature: a number, or a category with an optional map of its values.

    Attributes:
        kind: a number or a category.
        column: of the export; known before the send.
        values: of a category: each text, and what it becomes; texts themselves where it is left
            out.
    """

    kind: FeatureKind
    column: Column
    values: Annotated[dict[str, str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _categories(self) -> FeatureColumn:
        if self.kind == "numeric" and self.values is not None:
            message = "values are for categories; a numeric feature is read as a number"
            raise ValueError(message)
        return self


def _check_disjoint(yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    both = set(yes) & set(no)
    if both:
        message = f"{min(both)!r} stands under both yes and no"
        raise ValueError(message)
