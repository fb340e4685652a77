"""The mapping: how a brand's export becomes canonical rows, as data that the brand writes.

1. Only columns that the mapping names are read (minimisation, S1).
2. The lawful basis and the opt-out are mandatory: there is no default for either (S1).
3. Experiments and arms are declared by name, so that what a silo holds can be told without looking
   at a row.
4. A column that feeds an outcome can't feed a feature: features are known before the send.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from abfed.protocol.declared import parse_record
from abfed.protocol.documents import read_document
from abfed.protocol.errors import MappingError
from abfed.protocol.schema import (
    DURATION_OUTCOMES,
    LAWFUL_BASES,
    NUMERIC_OUTCOMES,
    OUTCOMES,
    RESERVED_COLUMNS,
    Frozen,
    Name,
)
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.rows import SEND_ORDER, FeatureKind

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
        decimal: how the file writes the decimal point.
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
    """Keeps rows whose `column` is one of these texts; the others belong to somebody else."""

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
    """A declared name: of the experiment. A column's values are mapped to names."""

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
    """The column of arms; `values` maps its texts to the plan's arm names."""

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
    """Whether the person opted out (CCPA) or objected: a column's texts, or a constant."""

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
    """The lawful basis (GDPR Art. 6): a column's texts mapped to bases, or a constant."""

    constant: Basis | None = None
    values: Annotated[dict[str, Basis], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _mapped(self) -> BasisChoice:
        if (self.column is None) == (self.values is not None):
            message = f"a column needs values (its texts and one of: {', '.join(LAWFUL_BASES)})"
            raise ValueError(message)
        return self


class TextChoice(_Choice):
    """A text: a column, optionally with a map of its values, or a constant."""

    constant: Annotated[str, Field(min_length=1)] | None = None
    values: Annotated[dict[str, str], Field(min_length=1)] | None = None


class FeatureColumn(Frozen):
    """A pre-send feature: a number, or a category with an optional map of its values."""

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


class ExportMapping(Frozen):
    """How one export becomes canonical rows.

    Attributes:
        source: the file's format.
        where: which rows of the file are this brand's; all conditions must hold.
        two_arms: what to do with a recipient in two arms of an experiment: refuse the file, or
            keep the rows and exclude such recipients from every computation.
        on_bad_row: leave a bad row out and count it by reason, or refuse the file at the first.
        max_rejected_share: above this share of rejected rows the whole file is refused.
    """

    source: Source = Source()
    where: tuple[Keep, ...] = ()
    experiment: NameChoice
    recipient: Recipient
    arm: ArmColumn
    sent_at: SentAt
    outcomes: Annotated[dict[str, OutcomeColumn], Field(min_length=1)]
    features: dict[Name, FeatureColumn] = Field(default_factory=dict, max_length=200)
    basis: BasisChoice
    opted_out: OptOut
    region: TextChoice
    two_arms: Literal["refuse", "exclude"] = "refuse"
    on_bad_row: Literal["reject", "refuse"] = "reject"
    max_rejected_share: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.05

    @model_validator(mode="after")
    def _coherent(self) -> ExportMapping:
        for check in (_check_outcomes, _check_features):
            problem = check(self)
            if problem:
                raise ValueError(problem)
        return self

    @classmethod
    def load(cls, path: str | Path) -> ExportMapping:
        """Read a mapping from a YAML file.

        Raises:
            MappingError: it is missing or malformed; every problem is named.
        """
        where = str(path)
        data = read_document(path, "mapping", error=MappingError)
        return cls.from_values(parse_yaml(data, where=where, error=MappingError), where=where)

    @classmethod
    def from_values(cls, values: dict[str, Any], *, where: str = "mapping") -> ExportMapping:
        """Build a mapping from plain values, as YAML gives them.

        Raises:
            MappingError: with each problem on it.
        """
        return parse_record(cls, values, where=where, error=MappingError)

    def columns(self) -> tuple[str, ...]:
        """The export's columns that are read, each once."""
        named: list[str | None] = [keep.column for keep in self.where]
        named += [self.experiment.column, *self.recipient.columns]
        named += [self.arm.column, self.sent_at.column]
        named += [outcome.column for outcome in self.outcomes.values()]
        named += [feature.column for feature in self.features.values()]
        named += [self.basis.column, self.opted_out.column, self.region.column]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def experiments(self) -> dict[str, tuple[str, ...]]:
        """Declared arms by experiment."""
        arms = tuple(dict.fromkeys(self.arm.values.values()))
        return dict.fromkeys(self.experiment.names(), arms)

    def feature_kinds(self) -> dict[str, FeatureKind]:
        """Kind by feature."""
        return {name: feature.kind for name, feature in self.features.items()}


def _check_outcomes(mapping: ExportMapping) -> str:
    for name, outcome in mapping.outcomes.items():
        if name not in OUTCOMES:
            near = difflib.get_close_matches(name, OUTCOMES, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(OUTCOMES)}"
            return f"outcomes.{name}: is not an outcome; {hint}"
        told = outcome.present or bool(outcome.yes)
        if outcome.moment is not None and name not in DURATION_OUTCOMES:
            return f"outcomes.{name}: is not a duration, so it has no moment"
        if name in NUMERIC_OUTCOMES and told:
            what = "a duration" if name in DURATION_OUTCOMES else "an amount"
            return f"outcomes.{name}: is {what}, not true or false"
        if name not in NUMERIC_OUTCOMES and not told:
            return f"outcomes.{name}: give yes and no, or present: true"
    return ""


def _check_features(mapping: ExportMapping) -> str:
    after = {outcome.column: name for name, outcome in mapping.outcomes.items()}
    for name, feature in mapping.features.items():
        if name in RESERVED_COLUMNS or name == SEND_ORDER:
            return f"features.{name}: is a canonical column and can't be a pre-send feature"
        if feature.column in after:
            return (
                f"features.{name}: column {feature.column!r} feeds the outcome "
                f"{after[feature.column]!r}, so it isn't known before the send"
            )
        if feature.column == mapping.arm.column:
            return f"features.{name}: column {feature.column!r} is the arm"
    return ""
