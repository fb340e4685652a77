"""Do effects differ: from brand to brand, and from cell to cell of a segmentation?

Brands are different people, and so are the cells of a segmentation: their effects are independent,
so that Cochran's Q, I² and τ say of either how far they lie apart beyond chance and noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from abfed.protocol.plan import Plan
from abfed.stats import pooling
from abfed.stats.once import NOTE

BRANDS = "brands"
"""What effects are compared over, where it isn't a segmentation."""

COLUMNS = (
    "metric",
    "arm",
    "control",
    "over",
    "parts",
    "q",
    "df",
    "p_value",
    "i_squared",
    "tau",
    "note",
)


def differences(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """How much effects differ.

    Args:
        plan: what was asked.
        frame: its effects (`stats.effects.effects`).

    Returns:
        One row for metric × arm × what they are compared over ("brands", or a segmentation):
        metric, arm, control, over, parts (how many have an effect), q and df (Cochran's), p_value,
        i_squared (share of the variation that isn't chance or noise), tau (standard deviation
        between them, in the metric's unit), note. Where fewer than two have an effect, figures are
        missing and the note says why.
    """
    rows = [
        _row(metric, arm, str(seen["control"].iloc[0]), over, seen)
        for over, parts in _compared(plan, frame)
        for (metric, arm), seen in parts.groupby(["metric", "arm"], sort=False)
    ]
    if plan.noise_once:
        rows = [
            _row(metric, arm, plan.control.name, BRANDS, seen[:0]) | {"note": NOTE}
            for (metric, arm), seen in frame.groupby(["metric", "arm"], sort=False)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _compared(plan: Plan, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that are compared with one another."""
    brands = frame[(frame["segment"] == "") & frame["scope"].isin(plan.silos)]
    if len(set(brands["scope"])) > 1:
        yield BRANDS, brands
    for segment in plan.analysis.segments:
        yield segment.name, frame[frame["segment"] == segment.name]


def _row(metric: Any, arm: Any, control: str, over: str, seen: pd.DataFrame) -> dict[str, Any]:
    known = {"metric": metric, "arm": arm, "control": control, "over": over}
    usable = seen[seen["estimate"].notna()]
    what = BRANDS if over == BRANDS else f"cells of {over}"
    if len(usable) < 2:
        missing = dict.fromkeys(("q", "p_value", "i_squared", "tau"), math.nan)
        note = f"not estimable: fewer than two {what} have an effect"
        return known | missing | {"parts": len(usable), "df": 0, "note": note}
    found = pooling.heterogeneity(
        usable["estimate"].tolist(), (usable["se"] ** 2).astype(float).tolist()
    )
    left_out = len(seen) - len(usable)
    return known | {
        "parts": len(usable),
        "q": found.q,
        "df": len(usable) - 1,
        "p_value": found.p_value,
        "i_squared": found.i_squared,
        "tau": found.tau,
        "note": f"{left_out} of {len(seen)} left out: no effect to compare" if left_out else "",
    }
