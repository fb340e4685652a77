"""The mapping: how a brand's export becomes canonical rows, as data that the brand writes.

1. Only columns that the mapping names are read (minimisation, S1).
2. The lawful basis and the opt-out are mandatory: there is no default for either (S1).
3. Experiments and arms are declared by name, so that what a silo holds can be told without looking
   at a row.
4. A column that feeds an outcome can't feed a feature: features are known before the send.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from abfed.protocol.declared import parse_record
from abfed.protocol.documents import read_document
from abfed.protocol.errors import MappingError
from abfed.protocol.schema import (
    DURATION_OUTCOMES,
    NUMERIC_OUTCOMES,
    OUTCOMES,
    RESERVED_COLUMNS,
    Frozen,
    Name,
)
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.columns import (
    ArmColumn,
    BasisChoice,
    FeatureColumn,
    Keep,
    NameChoice,
    OptOut,
    OutcomeColumn,
    Recipient,
    SentAt,
    Source,
    TextChoice,
)
from abfed.silo.rows import SEND_ORDER, FeatureKind


class ExportMapping(Frozen):
    """How one export becomes canonical rows.

    Attributes:
        experiment: which experiment a row is of: a column with a map of its values, or one
            constant.
        recipient: which column or columns say who got the send.
        arm: the column of arms, and the plan's name for each of its texts.
        sent_at: when it was sent: a column with its format, or one constant.
        outcomes: canonical outcome by outcome: where it stands and how it is written.
        features: pre-send features by name.
        basis: the lawful basis of a row (GDPR Art. 6): mandatory, without a default.
        opted_out: whether the person opted out or objected: mandatory, without a default.
        region: the region whose law applies.
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

    def audience_columns(self) -> tuple[str, ...]:
        """The columns of a list of people to be mailed: who they are, and what is known before."""
        named: list[str | None] = [keep.column for keep in self.where]
        named += self.recipient.columns
        named += [feature.column for feature in self.features.values()]
        named += [self.basis.column, self.opted_out.column]
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
