"""In which unit each metric is shown, and how its numbers are written.

Shares are differences in percentage points, never "percent": 4 % against 3 % is one point more, and
a third more. Amounts are in the brand's own currency, which abfed doesn't know the name of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from abfed.protocol.metrics import Count, Mean, Proportion, Quantile, Ratio
from abfed.protocol.plan import Plan
from abfed.protocol.schema import AMOUNT_OUTCOMES, DURATION_OUTCOMES

MINUS = "\N{MINUS SIGN}"
NONE = "–"
NBSP = "\N{NO-BREAK SPACE}"
NOISES_PART = "Noise’s part"
"""Heading of the noise's part of an estimate's variance."""
PARTS = "“Noise” is the privacy noise’s part of an interval’s variance; the rest is chance."
"""What `frames.noises_part` is, where it stands below a figure."""
SINGULAR = {"percentage points": "percentage point", "hours": "hour", "sends": "send"}


@dataclass(frozen=True, slots=True)
class Unit:
    """How a metric is shown.

    Attributes:
        scale: what its own value is multiplied by.
        difference: unit of an effect, as in an axis label.
        short: the same in a table's cell; empty where a bare number does.
        level: behind a value of an arm.
        per: what one is counted per.
    """

    scale: float
    difference: str
    short: str
    level: str
    per: str

    def effect(self, value: float, se: float) -> str:
        """A difference with its sign, without unit, as exactly as its standard error allows."""
        return signed(value * self.scale, places_for(se * self.scale))

    def interval(self, low: float, high: float, se: float) -> str:
        """The difference's interval, as exactly as the difference itself."""
        return interval(low * self.scale, high * self.scale, places_for(se * self.scale))

    def amount(self, value: float) -> str:
        """A declared difference with its unit: 1 percentage point, 0.5 percentage points."""
        number = f"{value * self.scale:g}"
        words = self.difference
        for many, one in SINGULAR.items() if number == "1" else ():
            words = words.replace(many, one)
        return f"{number} {words}"

    def spread(self, value: float) -> str:
        """A standard deviation of differences, to two significant digits."""
        shown = plain(value * self.scale, places_for(value * self.scale))
        return shown if shown == NONE else f"{shown} {self.short}".strip()

    def value(self, value: float, se: float) -> str:
        """An arm's own value, with its unit."""
        text = plain(value * self.scale, places_for(se * self.scale))
        return text if text == NONE else f"{text}{self.level}"


def unit_of(plan: Plan, name: str) -> Unit:
    """The unit of a plan's metric."""
    metric = next(one for one in plan.metrics if one.name == name)
    if isinstance(metric, Proportion):
        return Unit(100.0, "percentage points", "pp", f"{NBSP}%", "share of recipients")
    if isinstance(metric, Ratio):
        of = "sends" if metric.denominator == "sends" else f"{metric.denominator} sends"
        return Unit(100.0, "percentage points", "pp", f"{NBSP}%", f"share of {of}")
    if isinstance(metric, Quantile):
        return _quantile(metric)
    return _mean(metric)


def _quantile(metric: Quantile) -> Unit:
    share = f"{100 * metric.quantile:g}{NBSP}%"
    if metric.column in DURATION_OUTCOMES:
        return Unit(1.0, "hours", "h", f"{NBSP}h", f"hours until {share} of recipients opened")
    per = f"currency that {share} of recipients stay below"
    return Unit(1.0, "currency", "", "", per)


def _mean(metric: Mean | Count) -> Unit:
    if metric.column in AMOUNT_OUTCOMES:
        return Unit(1.0, "currency per recipient", "", "", "currency per recipient")
    per = "sends per recipient"
    if metric.column != "sends":
        per = f"{metric.column} {per}"
    return Unit(1.0, per, "", "", per)


def places_for(se: float) -> int:
    """Decimals that show two significant digits of a standard error; more would be noise."""
    if not (math.isfinite(se) and se > 0):
        return 2
    return min(5, max(0, 1 - math.floor(math.log10(se))))


def plain(value: float, places: int = 2) -> str:
    """A number with a real minus; a dash where there is none."""
    if not math.isfinite(value):
        return NONE
    return f"{MINUS if value < 0 else ''}{abs(value):,.{places}f}"


def signed(value: float, places: int = 2) -> str:
    """A number with its sign, also where it rounds to zero: −0.00 is below it."""
    return f"{'+' if value > 0 and math.isfinite(value) else ''}{plain(value, places)}"


def interval(low: float, high: float, places: int = 2) -> str:
    """Both ends of an interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NONE
    return f"{signed(low, places)} to {signed(high, places)}"


def percent(share: float, places: int = 0) -> str:
    """A share as a percentage that doesn't break before its sign."""
    return f"{plain(100 * share, places)}{NBSP}%" if math.isfinite(share) else NONE


def level(alpha: float) -> str:
    """The confidence of an interval."""
    return f"{100 * (1 - alpha):g}{NBSP}%"


def p_value(value: float) -> str:
    """A p-value; very small ones as a bound."""
    if not math.isfinite(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float) -> str:
    """A noised count of recipients, whole and never below zero."""
    return NONE if not math.isfinite(value) else f"{max(0.0, value):,.0f}"
