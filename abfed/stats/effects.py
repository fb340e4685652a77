"""Effects: each arm against the control, in each brand and across brands, from noised totals.

A tidy frame, one row for metric × scope × arm. Every row says how wide its interval is, how much of
that is the price of privacy, and what follows: a decision, or the reason why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from abfed.protocol.metrics import Metric, Ratio
from abfed.protocol.plan import Plan
from abfed.stats import pooling
from abfed.stats.decisions import decide, joined
from abfed.stats.estimates import Estimate, estimate
from abfed.stats.totals import SiloTotals

THESE = "these brands"
LIKE_THESE = "brands like these"
NOT_ESTIMABLE = "not estimable at this ε"
LIKE_THESE_FROM = 3
"""Brands it takes to speak of brands like these."""

HARMFUL = ("unsubscribed", "complained")
"""Outcomes of which less is better."""

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
)


class Contrast(NamedTuple):
    """An arm and the control, in one scope."""

    arm: Estimate
    control: Estimate

    @property
    def effect(self) -> float:
        """The difference of the two."""
        return self.arm.value - self.control.value

    @property
    def variance(self) -> float:
        """Of the difference: arms are different people with noise of their own."""
        return self.arm.variance + self.control.variance

    @property
    def suppressed(self) -> str:
        """Why there is no effect; empty where there is one."""
        return self.arm.suppressed or self.control.suppressed


def effects(plan: Plan, totals: Mapping[str, SiloTotals], *, alpha: float = 0.05) -> pd.DataFrame:
    """Read all effects of a plan off the noised totals of its brands.

    Args:
        plan: what was asked.
        totals: noised totals by brand.
        alpha: one minus the confidence of the intervals, and the level of the decisions.

    Returns:
        The columns of `COLUMNS`. `estimate` and its interval are in the metric's unit, `relative`
        and its interval are shares of the control's value; `privacy_share` is the part of the
        variance that the noise adds (of the brands' variances, for brands like these);
        `n_effective` is how many recipients would have given the same interval without noise.
        `p_adjusted` is Holm's over arms × metrics of a scope; a guardrail has a one-sided p-value
        of its own instead. `shrunk` is a brand's effect pulled towards the brands' mean. Where a
        value can't be had, it is missing and `note` says why.

    Raises:
        ValueError: no totals.
    """
    if not totals:
        raise ValueError("effects need the totals of at least one brand")
    brands = sorted(totals)
    rows: list[dict[str, Any]] = []
    for metric in plan.metrics:
        guardrail = next((g for g in plan.guardrails if g.metric == metric.name), None)
        controls = {b: estimate(metric, totals[b], plan.control.name) for b in brands}
        for arm in plan.arms:
            if arm.control:
                continue
            contrasts = {
                brand: Contrast(estimate(metric, totals[brand], arm.name), controls[brand])
                for brand in brands
            }
            known: dict[str, Any] = {
                "metric": metric.name,
                "arm": arm.name,
                "control": plan.control.name,
                "guardrail": guardrail,
                "harmful": _harmful(metric),
            }
            rows += [row | known for row in _scopes(contrasts, totals, alpha)]
    decide(rows, alpha)
    return pd.DataFrame(rows)[list(COLUMNS)]


def _harmful(metric: Metric) -> bool:
    """Whether more of the metric is worse."""
    return (metric.numerator if isinstance(metric, Ratio) else metric.column) in HARMFUL


def _scopes(
    contrasts: Mapping[str, Contrast],
    totals: Mapping[str, SiloTotals],
    alpha: float,
) -> list[dict[str, Any]]:
    """Rows for each brand, these brands (from two on), and brands like these (from three on)."""
    usable = [brand for brand, one in contrasts.items() if not one.suppressed]
    pulled: dict[str, float] = {}
    if len(usable) > 1:
        values = pooling.shrunk(
            [contrasts[brand].effect for brand in usable],
            [contrasts[brand].variance for brand in usable],
        )
        pulled = dict(zip(usable, map(float, values), strict=True))
    rows = [
        _row(brand, one, alpha) | {"shrunk": pulled.get(brand, math.nan)}
        for brand, one in contrasts.items()
    ]
    if len(contrasts) > 1:
        rows.append(_these_brands(contrasts, usable, totals, alpha))
    # Which scopes there are follows from the brands that were asked, not from the noise: a table
    # whose rows came and went with it would break whatever reads them.
    if len(contrasts) >= LIKE_THESE_FROM:
        rows.append(_brands_like_these([contrasts[brand] for brand in usable], alpha))
    return rows


def _these_brands(
    contrasts: Mapping[str, Contrast],
    usable: Sequence[str],
    totals: Mapping[str, SiloTotals],
    alpha: float,
) -> dict[str, Any]:
    """The size-weighted mean over the brands whose arms could be told from noise."""
    if not usable:
        first = next(iter(contrasts.values()))
        return _row(THESE, first, alpha)
    sizes = [float(totals[brand].counts()[0].sum()) for brand in usable]
    weights = pooling.weights_by_size(sizes)
    pooled = Contrast(
        _weighted([contrasts[brand].arm for brand in usable], weights),
        _weighted([contrasts[brand].control for brand in usable], weights),
    )
    row = _row(THESE, pooled, alpha)
    left_out = [brand for brand in contrasts if brand not in usable]
    if left_out:
        row["note"] = joined(row["note"], f"without {', '.join(left_out)} (suppressed)")
    if len(usable) > 1:
        spread = pooling.heterogeneity(
            [contrasts[brand].effect for brand in usable],
            [contrasts[brand].variance for brand in usable],
        )
        if spread.p_value < alpha:
            note = f"brands differ (Q p = {spread.p_value:.3f}, I² = {spread.i_squared:.0%})"
            row["note"] = joined(row["note"], note)
    return row


def _weighted(parts: Sequence[Estimate], weights: np.ndarray[Any, Any]) -> Estimate:
    """Σwm with variance Σw²V; the size is that of all together."""
    return Estimate(
        value=float(sum(w * one.value for w, one in zip(weights, parts, strict=True))),
        sampling=float(sum(w**2 * one.sampling for w, one in zip(weights, parts, strict=True))),
        privacy=float(sum(w**2 * one.privacy for w, one in zip(weights, parts, strict=True))),
        size=float(sum(one.size for one in parts)),
    )


def _brands_like_these(contrasts: Sequence[Contrast], alpha: float) -> dict[str, Any]:
    """The random-effects mean: its interval holds the differences between brands too."""
    if len(contrasts) < LIKE_THESE_FROM:
        return dict.fromkeys(COLUMNS, math.nan) | {
            "scope": LIKE_THESE,
            "decision": "suppressed",
            "note": f"fewer than {LIKE_THESE_FROM} brands can be told from noise at this ε",
        }
    variances = [one.variance for one in contrasts]
    mean = pooling.random_effects([one.effect for one in contrasts], variances, alpha=alpha)
    return dict.fromkeys(COLUMNS, math.nan) | {
        "scope": LIKE_THESE,
        "estimate": mean.estimate,
        "ci_low": mean.low,
        "ci_high": mean.high,
        "p_value": mean.p_value,
        "se": mean.se,
        "df": len(contrasts) - 1,
        "privacy_share": sum(one.arm.privacy + one.control.privacy for one in contrasts)
        / sum(variances),
        "decision": "",
        "note": f"random effects over {len(contrasts)} brands; relative lift: see {THESE}",
    }


def _row(scope: str, contrast: Contrast, alpha: float) -> dict[str, Any]:
    """One contrast with its intervals."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan) | {"scope": scope, "decision": ""}
    if contrast.suppressed:
        return row | {"decision": "suppressed", "note": contrast.suppressed}
    arm, control = contrast.arm, contrast.control
    sampling, privacy = arm.sampling + control.sampling, arm.privacy + control.privacy
    se = math.sqrt(contrast.variance)
    z = float(special.ndtri(1 - alpha / 2))
    relative, low, high, note = _relative(contrast, z)
    return row | {
        "estimate": contrast.effect,
        "ci_low": contrast.effect - z * se,
        "ci_high": contrast.effect + z * se,
        "relative": relative,
        "rel_low": low,
        "rel_high": high,
        "p_value": 2 * float(special.ndtr(-abs(contrast.effect) / se)),
        "privacy_share": privacy / contrast.variance,
        "n_effective": (arm.size + control.size) * sampling / contrast.variance,
        "note": note,
        "mean_arm": arm.value,
        "mean_control": control.value,
        "se": se,
        "se_sampling": math.sqrt(sampling),
        "se_privacy": math.sqrt(privacy),
    }


def _relative(contrast: Contrast, z: float) -> tuple[float, float, float, str]:
    """Relative lift with its Fieller interval (1954), noise included.

    The interval is unbounded where the control's own value can't be told from zero: then there is
    no number to give, and it is said whether less noise would help.
    """
    m, c = contrast.arm.value, contrast.control.value
    a = c**2 - z**2 * contrast.control.variance
    if a <= 0 or c <= 0:
        reason = NOT_ESTIMABLE
        if a > 0:
            reason = "not defined: the control's value is below zero"
        elif c**2 <= z**2 * contrast.control.sampling:
            reason = "not estimable from so few recipients"
        return math.nan, math.nan, math.nan, f"relative lift {reason}"
    b, q = m * c, m**2 - z**2 * contrast.arm.variance
    root = math.sqrt(max(0.0, b**2 - a * q))
    return m / c - 1, (b - root) / a - 1, (b + root) / a - 1, ""
