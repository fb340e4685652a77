"""Contrasts: an arm and the control in one scope, and what can be said of the two.

Every row says how wide its interval is and how much of that is the price of privacy. Where a value
can't be had it is missing, and a note says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy import special

from abfed.stats.encoding import Floats
from abfed.stats.estimates import Estimate

NOT_ESTIMABLE = "not estimable at this ε"

SUPPRESSED = "suppressed"
"""The decision on an effect that drowns in noise."""

UNKNOWN = "not estimable"
"""The decision on an effect that can't be read for another reason."""

UNREAD = (SUPPRESSED, UNKNOWN)
"""Decisions that stand for a missing value; `note` says why it is missing."""

BELOW = "the arm's value came out below zero"

ONLY_INTERVAL = f"{BELOW}: of its relative lift only the interval is known"

COLUMNS = (
    "metric",
    "scope",
    "arm",
    "control",
    "estimate",
    "ci_low",
    "ci_high",
    "relative",
    "rel_low",
    "rel_high",
    "p_value",
    "p_adjusted",
    "privacy_share",
    "n_effective",
    "decision",
    "note",
    "mean_arm",
    "mean_control",
    "se",
    "se_sampling",
    "se_privacy",
    "shrunk",
    "var_control",
    "segment",
)


class Contrast(NamedTuple):
    """An arm and the control, in one scope.

    Attributes:
        arm: the arm's value.
        control: the control's.
        signed: whether values may be below zero (amounts with a lower bound below it).
        odds: planned recipients of the arm for each of the control.
    """

    arm: Estimate
    control: Estimate
    signed: bool = False
    odds: float = 1.0

    @property
    def effect(self) -> float:
        """The difference of the two."""
        return self.arm.value - self.control.value

    @property
    def variance(self) -> float:
        """Of the difference: arms are different people with noise of their own."""
        return self.arm.variance + self.control.variance

    @property
    def size(self) -> float:
        """Noised recipients in both."""
        return self.arm.size + self.control.size

    @property
    def suppressed(self) -> str:
        """Why there is no effect; empty where there is one."""
        return self.arm.suppressed or self.control.suppressed


class Relative(NamedTuple):
    """A relative lift with its interval; missing where `reason` says why."""

    value: float
    low: float
    high: float
    reason: str = ""


def weighted(parts: Sequence[Estimate], weights: Sequence[float] | Floats) -> Estimate:
    """Σwm with variance Σw²V; the size is that of all together.

    Suppressed where a part is.
    """
    pairs = list(zip(weights, parts, strict=True))
    return Estimate(
        value=float(sum(w * one.value for w, one in pairs)),
        sampling=float(sum(w**2 * one.sampling for w, one in pairs)),
        privacy=float(sum(w**2 * one.privacy for w, one in pairs)),
        size=float(sum(one.size for one in parts)),
        suppressed=next((one.suppressed for one in parts if one.suppressed), ""),
    )


def pooled(contrasts: Sequence[Contrast], weights: Sequence[float] | Floats) -> Contrast:
    """The weighted mean of contrasts of different people."""
    return Contrast(
        weighted([one.arm for one in contrasts], weights),
        weighted([one.control for one in contrasts], weights),
        contrasts[0].signed,
        contrasts[0].odds,
    )


def empty_row(scope: str, **known: Any) -> dict[str, Any]:
    """A row in which nothing is known yet."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    return row | {"scope": scope, "decision": "", "note": "", "segment": ""} | known


def row_of(scope: str, contrast: Contrast, alpha: float, critical: float = 0.0) -> dict[str, Any]:
    """One contrast with its intervals.

    Args:
        scope: whose.
        contrast: the arm and the control.
        alpha: one minus the confidence.
        critical: half-widths in standard errors; 0 for the normal distribution's at `alpha`.
    """
    if contrast.suppressed:
        return empty_row(scope, decision=SUPPRESSED, note=contrast.suppressed)
    arm, control = contrast.arm, contrast.control
    sampling, privacy = arm.sampling + control.sampling, arm.privacy + control.privacy
    se = math.sqrt(contrast.variance)
    if se == 0:
        return empty_row(scope, decision=UNKNOWN, note="no variation: all values are alike")
    z = critical or float(special.ndtri(1 - alpha / 2))
    relative = relative_lift(contrast, z)
    return empty_row(
        scope,
        estimate=contrast.effect,
        ci_low=contrast.effect - z * se,
        ci_high=contrast.effect + z * se,
        relative=relative.value,
        rel_low=relative.low,
        rel_high=relative.high,
        p_value=2 * float(special.ndtr(-abs(contrast.effect) / se)),
        privacy_share=privacy / contrast.variance,
        n_effective=contrast.size * sampling / contrast.variance,
        note=relative.reason,
        mean_arm=arm.value,
        mean_control=control.value,
        se=se,
        se_sampling=math.sqrt(sampling),
        se_privacy=math.sqrt(privacy),
        var_control=contrast.control.variance,
    )


def relative_lift(contrast: Contrast, z: float) -> Relative:
    """Relative lift with its Fieller interval (1954), noise included.

    The interval is unbounded where the control's own value can't be told from zero: then there is
    no number to give, and it is said whether less noise would help. None is given either where the
    level of both arms together can't be: there it takes luck for the control to stand out, and of
    such intervals down to .82 held the truth. That level is independent of the arms' difference;
    what it lets through holds the truth in .95 to .974 of cases (decision 0153).

    What can't be below zero can't lose more than all of it: the interval ends at −100 %, and an arm
    whose value came out below zero has that interval and no value of its own. To give it no
    interval either would keep those that luck pushed up, which hold the truth in up to 98 % of
    cases (decision 0131).
    """
    m, c = contrast.arm.value, contrast.control.value
    a = c**2 - z**2 * contrast.control.variance
    level, planned = _level(contrast)
    reason = ""
    if a <= 0 or (c > 0 and level <= z * math.sqrt(planned)):
        reason = NOT_ESTIMABLE
        if (c if a <= 0 else level) ** 2 <= z**2 * contrast.control.sampling:
            reason = "not estimable: the control can't be told from zero, noise or no noise"
        elif a > 0 and level < 0:
            reason = f"{NOT_ESTIMABLE}: {BELOW}"
    elif c <= 0:
        reason = "not defined: the control's value is below zero"
    if reason:
        return Relative(math.nan, math.nan, math.nan, f"relative lift {reason}")
    b, q = m * c, m**2 - z**2 * contrast.arm.variance
    root = math.sqrt(max(0.0, b**2 - a * q))
    low, high = (b - root) / a - 1, (b + root) / a - 1
    if contrast.signed:
        return Relative(m / c - 1, low, high)
    if high < -1.0:
        return Relative(math.nan, math.nan, math.nan, f"relative lift {NOT_ESTIMABLE}: {BELOW}")
    value, reason = (m / c - 1, "") if m >= 0 else (math.nan, ONLY_INTERVAL)
    return Relative(value, max(low, -1.0), high, reason)


def _level(contrast: Contrast) -> tuple[float, float]:
    """The value of both arms, were they alike, and the control's variance by the arms' plan.

    Each arm weighs by the inverse of its variance; how much of it either has follows from their
    planned sizes. By their own variances the arm would weigh more that luck made large.
    """
    above, below, odds = contrast.arm, contrast.control, contrast.odds
    planned = (above.sampling + below.sampling) * odds / (1 + odds)
    planned += (above.privacy + below.privacy) * odds**2 / (1 + odds**2)
    if contrast.variance == 0:
        return below.value, 0.0
    part = planned / contrast.variance
    return part * above.value + (1 - part) * below.value, planned


def joined(first: object, second: str) -> str:
    """Two remarks as one; the first may be missing."""
    return f"{first}; {second}" if first and isinstance(first, str) else second
