"""Decisions: what follows from the effects of one scope, with many questions asked at once.

Arms × metrics of a scope are one family: Holm's adjustment holds the chance of *any* false finding
at α. A guardrail stands apart: it is a one-sided test of its own, and each must hold, so that there
is no choice among them to adjust for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy import special

from abfed.protocol.metrics import Guardrail


def decide(rows: list[dict[str, Any]], alpha: float) -> None:
    """Fill in adjusted p-values and decisions, scope by scope.

    Args:
        rows: of `effects`, with the keys `guardrail` (or None) and `harmful` (more is worse); one
            whose p-value is from a t distribution has its degrees of freedom as `df`.
        alpha: level of every decision.
    """
    for scope in {row["scope"] for row in rows}:
        here = [row for row in rows if row["scope"] == scope and row["decision"] != "suppressed"]
        judged = [row for row in here if row["guardrail"] is None]
        adjusted = holm([row["p_value"] for row in judged])
        for row, p in zip(judged, adjusted, strict=True):
            row["p_adjusted"] = p
            sign = "worse" if (row["estimate"] > 0) == row["harmful"] else "better"
            row["decision"] = sign if p < alpha else "inconclusive"
        for row in here:
            if row["guardrail"] is not None:
                _guard(row, row["guardrail"], alpha)


def _guard(row: dict[str, Any], guardrail: Guardrail, alpha: float) -> None:
    """One-sided non-inferiority: is the harm shown to stay within the margin?"""
    harm = row["estimate"] if guardrail.harm == "increase" else -row["estimate"]
    z = (harm - guardrail.margin) / row["se"]
    df = row.get("df")
    row["p_value"] = float(special.ndtr(z) if df is None else special.stdtr(df, z))
    row["p_adjusted"] = row["p_value"]  # each guardrail must hold: there is no choice among them
    if row["p_value"] < alpha:
        row["decision"] = "within margin"
    elif row["p_value"] > 1 - alpha:
        row["decision"] = "breached"
    else:
        row["decision"] = "not shown"
    margin = f"margin {guardrail.margin:g}; harm: {guardrail.harm}"
    row["note"] = joined(row["note"], margin)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): controls the chance of any false finding."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def joined(first: object, second: str) -> str:
    """Two remarks as one; the first may be missing."""
    return f"{first}; {second}" if first and isinstance(first, str) else second
