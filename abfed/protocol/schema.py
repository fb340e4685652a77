"""What an engagement row means, and how a plan declares what it needs of it.

A row is one *send*: one e-mail to one recipient. The columns below are the only ones a store keeps
beside declared features. Bounds and category lists are public: they come from a plan or a policy,
never from the data.
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BINARY_OUTCOMES = (
    "opened",
    "clicked",
    "visited",
    "converted",
    "unsubscribed",
    "complained",
)
"""Outcomes that are true or false for a send. `visited` is a visit to the brand's site, from
whatever cause: unlike a click it also exists where no e-mail was sent."""

AMOUNT_OUTCOMES = ("revenue",)
"""Outcomes that are amounts of money, in the brand's currency."""

DURATION_OUTCOMES = ("hours_to_open",)
"""Outcomes that are hours from a send to what happened first; missing where it didn't."""

NUMERIC_OUTCOMES = AMOUNT_OUTCOMES + DURATION_OUTCOMES

OUTCOMES = BINARY_OUTCOMES + NUMERIC_OUTCOMES

IDENTITY_COLUMNS = ("recipient", "experiment", "arm", "sent_at")
"""Who, in which test, which version, when. `recipient` is a keyed pseudonym inside a silo."""

LAWFULNESS_COLUMNS = ("basis", "opted_out", "region")
"""Lawful basis (GDPR Art. 6), CCPA opt-out, and the region whose law applies."""

RESERVED_COLUMNS = IDENTITY_COLUMNS + OUTCOMES + LAWFULNESS_COLUMNS

LAWFUL_BASES = (
    "consent",
    "contract",
    "legal-obligation",
    "vital-interests",
    "public-task",
    "legitimate-interests",
)
"""The six bases of GDPR Art. 6(1)."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")]
"""A name in plans, mappings and sites: lower-case letters, digits, `_`, `-`; at most 48."""

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class Frozen(BaseModel):
    """Base of every declared record: immutable, no unknown keys, no guessing of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NumericFeature(Frozen):
    """A pre-send number with public bounds, scaled to [-1, 1] for the model.

    Values outside the bounds are clipped; a missing value becomes the middle of the range.

    Attributes:
        name: as the silos' mappings call it.
        low, high: public bounds; never taken from the data.
    """

    name: Name
    kind: Literal["numeric"] = "numeric"
    low: FiniteFloat
    high: FiniteFloat

    @model_validator(mode="after")
    def _ordered(self) -> NumericFeature:
        if not self.low < self.high:
            message = f"low ({self.low}) must be below high ({self.high})"
            raise ValueError(message)
        # Half the range is divided by: one that vanishes would make a row's being there show.
        if self.high / 2 - self.low / 2 < sys.float_info.min:
            message = f"low ({self.low}) and high ({self.high}) are too close to be told apart"
            raise ValueError(message)
        return self

    @property
    def width(self) -> int:
        """Columns it takes in the design matrix."""
        return 1


class CategoryFeature(Frozen):
    """A pre-send category with a public list of values; a value not listed encodes as all zeros.

    Attributes:
        name: as the silos' mappings call it.
        values: public list of its values.
    """

    name: Name
    kind: Literal["category"] = "category"
    values: Annotated[tuple[str, ...], Field(min_length=2, max_length=64)]

    @model_validator(mode="after")
    def _distinct(self) -> CategoryFeature:
        if len(set(self.values)) != len(self.values):
            message = "values must be distinct"
            raise ValueError(message)
        return self

    @property
    def width(self) -> int:
        """Columns it takes in the design matrix."""
        return len(self.values)


Feature = Annotated[NumericFeature | CategoryFeature, Field(discriminator="kind")]
