"""Metrics and guardrails: what a plan measures, as declarations with public bounds.

How a metric is encoded for a release, and how effects are read from it, stands in `abfed.stats`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from abfed.protocol.schema import BINARY_OUTCOMES, OUTCOMES, FiniteFloat, Frozen, Name

BinaryOutcome = Literal[BINARY_OUTCOMES]  # type: ignore[valid-type]
Outcome = Literal[OUTCOMES]  # type: ignore[valid-type]


class Proportion(Frozen):
    """The share of recipients with at least one send for which `column` is true."""

    name: Name
    kind: Literal["proportion"] = "proportion"
    column: BinaryOutcome


class Mean(Frozen):
    """The mean over recipients of the sum of `column` over their sends, clipped to [low, high]."""

    name: Name
    kind: Literal["mean"] = "mean"
    column: Outcome
    low: FiniteFloat = 0.0
    high: FiniteFloat

    @model_validator(mode="after")
    def _ordered(self) -> Mean:
        if not self.low < self.high:
            message = f"low ({self.low}) must be below high ({self.high})"
            raise ValueError(message)
        return self


class Ratio(Frozen):
    """Sends with both outcomes over sends with `denominator`, summed over recipients.

    `denominator: sends` counts every send. Each recipient adds at most `sends_per_recipient`.
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


Metric = Annotated[Proportion | Mean | Ratio, Field(discriminator="kind")]


class Guardrail(Frozen):
    """A metric that must not get worse than the control by more than `margin` (its own unit)."""

    metric: Name
    harm: Literal["increase", "decrease"]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
