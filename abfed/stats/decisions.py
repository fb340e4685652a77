"""Decisions: what follows from the effects of one scope, with many questions asked at once.

Arms × metrics of a scope are one family, and so are arms × metrics × cells of a segmentation. The
plan declares the correction:

* Holm (1979) and Hochberg (1988) hold the chance of *any* false finding at α; Hochberg's finds
  more and needs p-values that don't depend negatively on one another;
* Benjamini and Hochberg (1995) hold the expected share of false findings among all findings.

A guardrail stands apart: it is a one-sided test of its own, and each must hold, so that there is no
choice among them to adjust for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from scipy import special

from abfed.protocol.analysis import Correction
from abfed.protocol.metrics import Guardrail
from abfed.stats.contrasts import SUPPRESSED, UNKNOWN, UNREAD, joined

DECISIONS: dict[str, Literal["good", "bad", "open"]] = {
    "better": "good",
    "worse": "bad",
    "inconclusive": "open",
    "within margin": "good",
    "not shown": "open",
    "breached": "bad",
    SUPPRESSED: "open",
    UNKNOWN: "open",
}
"""Every decision there is, in the words that tables, pages and terminals show, and its tone.

Less of a harmful outcome is better. The words of a guardrail are about its margin. What is
suppressed or not estimable has no value; `note` has the reason.
"""


def decide(rows: list[dict[str, Any]], alpha: float, correction: Correction = "holm") -> None:
    """Fill in adjusted p-values and decisions, family by family.

    Args:
        rows: of `effects`, with the keys `guardrail` (or None) and `harmful` (more is worse). A row
            of brands like these has `mean`, one that was looked at before has `looks`: they test
            margins in their own way.
        alpha: level of every decision.
        correction: for many questions at once.
    """
    adjust = CORRECTIONS[correction]
    for family in dict.fromkeys(_family(row) for row in rows):
        here = [row for row in rows if _family(row) == family and row["decision"] not in UNREAD]
        judged = [row for row in here if row["guardrail"] is None]
        adjusted = adjust([row["p_value"] for row in judged])
        for row, p in zip(judged, adjusted, strict=True):
            row["p_adjusted"] = p
            sign = "worse" if (row["estimate"] > 0) == row["harmful"] else "better"
            row["decision"] = sign if p < alpha else "inconclusive"
        for row in here:
            if row["guardrail"] is not None:
                _guard(row, row["guardrail"], alpha)


def _family(row: dict[str, Any]) -> str:
    """What is asked at once: a segmentation's cells together, any other scope by itself."""
    return f"segment {row['segment']}" if row["segment"] else str(row["scope"])


def _guard(row: dict[str, Any], guardrail: Guardrail, alpha: float) -> None:
    """One-sided non-inferiority: is the harm shown to stay within the margin?"""
    within, beyond = _margin_tests(row, guardrail)
    row["p_value"] = row["p_adjusted"] = within  # each must hold: there is no choice among them
    if within < alpha:
        row["decision"] = "within margin"
    elif beyond < alpha:
        row["decision"] = "breached"
    else:
        row["decision"] = "not shown"
    margin = f"margin {guardrail.margin:g}, harm: {guardrail.harm}"
    row["note"] = joined(row["note"], margin)


def _margin_tests(row: dict[str, Any], guardrail: Guardrail) -> tuple[float, float]:
    """p-values of "harm is within the margin" and of "harm is beyond it"."""
    sign = 1.0 if guardrail.harm == "increase" else -1.0
    if row.get("looks") is not None:
        within, beyond = row["looks"].margin(sign, guardrail.margin)
        return float(within), float(beyond)
    distance = sign * row["estimate"] - guardrail.margin
    if row.get("mean") is not None:
        return float(row["mean"].tail(distance)), float(row["mean"].tail(-distance))
    p = float(special.ndtr(distance / row["se"]))
    return p, 1 - p


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): controls the chance of any false finding."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def hochberg(p_values: Sequence[float]) -> list[float]:
    """Hochberg's step-up adjustment (1988)."""
    return _step_up(p_values, lambda rank, many: many - rank)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg (1995): controls the expected share of false findings."""
    return _step_up(p_values, lambda rank, many: many / (rank + 1))


def _step_up(p_values: Sequence[float], factor: Callable[[int, int], float]) -> list[float]:
    """From the largest p-value down: the smallest factor × p so far; ranks from 0, ascending."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    smallest = 1.0
    for rank in range(len(p_values) - 1, -1, -1):
        i = order[rank]
        smallest = min(smallest, factor(rank, len(p_values)) * p_values[i])
        adjusted[i] = smallest
    return adjusted


CORRECTIONS: dict[Correction, Callable[[Sequence[float]], list[float]]] = {
    "holm": holm,
    "hochberg": hochberg,
    "benjamini-hochberg": benjamini_hochberg,
}
