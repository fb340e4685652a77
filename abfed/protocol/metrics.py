"""Metrics and guardrails: what a plan measures, as declarations with public bounds.

How a metric is encoded for a release, and how effects are read from it, stands in `abfed.stats`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from abfed.protocol.schema import (
    AMOUNT_OUTCOMES,
    BINARY_OUTCOMES,
    DURATION_OUTCOMES,
    FiniteFloat,
    Frozen,
    Name,
)

_SUMMED = BINARY_OUTCOMES + AMOUNT_OUTCOMES
_MEASURED = AMOUNT_OUTCOMES + DURATION_OUTCOMES

BinaryOutcome = Literal[BINARY_OUTCOMES]  # type: ignore[valid-type]
SummedOutcome = Literal[_SUMMED]  # type: ignore[valid-type]
MeasuredOutcome = Literal[_MEASURED]  # type: ignore[valid-type]

MOST_EDGES = 200
"""Of a quantile's histogram: more bins than this share the noise of too few recipients."""


class Proportion(Frozen):
    """The share of recipients with at least one send for which `column` is true.

    Attributes:
        name: of the metric.
        column: the outcome.
    """

    name: Name
    kind: Literal["proportion"] = "proportion"
    column: BinaryOutcome

    def columns(self) -> tuple[str, ...]:
        """Outcome columns that it reads."""
        return (self.column,)


class Mean(Frozen):
    """The mean over recipients of the sum of `column` over their sends, clipped to [low, high].

    Attributes:
        name: of the metric.
        column: the outcome that is summed over a recipient's sends.
        low, high: public bounds of a recipient's sum; the tighter, the less noise.
    """

    name: Name
    kind: Literal["mean"] = "mean"
    column: SummedOutcome
    low: FiniteFloat = 0.0
    high: FiniteFloat

    @model_validator(mode="after")
    def _ordered(self) -> Mean:
        if not self.low < self.high:
            message = f"low ({self.low}) must be below high ({self.high})"
            raise ValueError(message)
        return self

    def columns(self) -> tuple[str, ...]:
        """Outcome columns that it reads."""
        return (self.column,)


class Count(Frozen):
    """How many of a recipient's sends have `column`; at most `most` of them count.

    `column: sends` counts every send.

    Attributes:
        name: of the metric.
        column: the outcome that is counted, or `sends`.
        most: of a recipient's sends that count; the fewer, the less noise.
    """

    name: Name
    kind: Literal["count"] = "count"
    column: BinaryOutcome | Literal["sends"]
    most: Annotated[int, Field(ge=1, le=1000)]

    def columns(self) -> tuple[str, ...]:
        """Outcome columns that it reads."""
        return () if self.column == "sends" else (self.column,)


class Ratio(Frozen):
    """Sends with both outcomes over sends with `denominator`, summed over recipients.

    `denominator: sends` counts every send. Each recipient adds at most `sends_per_recipient`.

    Attributes:
        name: of the metric.
        numerator: the outcome above the line.
        denominator: the outcome below the line, or `sends`.
    """

    name: Name
    kind: Literal["ratio"] = "ratio"
    numerator: BinaryOutcome
    denominator: BinaryOutcome | Literal["sends"]

    @model_validator(mode="after")
    def _differs(self) -> Ratio:
        if self.numerator == self.denominator:
            message = "numerator and denominator must differ"
            raise ValueError(message)
        return self

    def columns(self) -> tuple[str, ...]:
        """Outcome columns that it reads."""
        both = (self.numerator, self.denominator)
        return tuple(column for column in both if column != "sends")


class Quantile(Frozen):
    """A quantile over recipients, from a histogram over public edges.

    Of an amount it is that of a recipient's total. Of `hours_to_open` it is the time within which
    this share of *all* recipients opened for the first time: who never opened comes after everybody
    else, so that no arm gains by losing its slow readers.

    Attributes:
        name: of the metric.
        column: an amount, or `hours_to_open`.
        quantile: between 0 and 1; 0.5 is the median.
        edges: rising; bins reach from edge to edge, and beyond the outer ones. Inside a bin values
            count as evenly spread, so edges should stand close where the quantile is expected.
    """

    name: Name
    kind: Literal["quantile"] = "quantile"
    column: MeasuredOutcome
    quantile: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    edges: Annotated[tuple[FiniteFloat, ...], Field(min_length=2, max_length=MOST_EDGES)]

    @model_validator(mode="after")
    def _rising(self) -> Quantile:
        if any(after <= before for before, after in pairwise(self.edges)):
            message = "edges must rise"
            raise ValueError(message)
        return self

    def columns(self) -> tuple[str, ...]:
        """Outcome columns that it reads."""
        return (self.column,)


Metric = Annotated[Proportion | Mean | Count | Ratio | Quantile, Field(discriminator="kind")]


class Guardrail(Frozen):
    """A metric that must not get worse than the control by more than `margin` (its own unit).

    Attributes:
        metric: one of the metrics, not the primary.
        harm: which way is worse.
        margin: change against the control that is still tolerated, in the metric's unit.
    """

    metric: Name
    harm: Literal["increase", "decrease"]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
