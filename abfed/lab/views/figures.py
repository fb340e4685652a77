"""A row of effects as people read it: figures in the metric's unit, and the decision's own word.

Pages and terminals show the same texts. Whose value it is stands beside the metric: a share of
recipients is not a share of sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from abfed.lab.views.units import (
    NBSP,
    NONE,
    count,
    interval,
    level,
    p_value,
    percent,
    signed,
    unit_of,
)
from abfed.protocol.messages import REFUSAL_TEXT

if TYPE_CHECKING:
    from abfed.lab.runs import Run

UNKNOWN = "unknown"
"""A relative lift of which only the interval is known (`stats.contrasts.ONLY_INTERVAL`)."""


class Figures(NamedTuple):
    """One effect, as plain texts; a dash for what is missing.

    Attributes:
        metric, scope, arm: which.
        per: what the metric is a figure of.
        control_value, arm_value: under the control and in the arm.
        difference, span: with its interval.
        relative, relative_span: to the control's value, with its interval.
        privacy: the noise's part of the difference's variance.
        worth: recipients who would have given the same interval without noise.
        p: adjusted.
        decision: one of `stats.decisions.DECISIONS`.
        note: why something is missing, and what else is to be known.
    """

    metric: str
    scope: str
    arm: str
    per: str
    control_value: str
    arm_value: str
    difference: str
    span: str
    relative: str
    relative_span: str
    privacy: str
    worth: str
    p: str
    decision: str
    note: str


def figures(run: Run, row: pd.Series[Any]) -> Figures:
    """One row of a run's effects."""
    unit, se = unit_of(run.plan, row["metric"]), row["se"]
    difference = span = relative = relative_span = NONE
    if pd.notna(row["estimate"]):
        difference = f"{unit.effect(row['estimate'], se)} {unit.short}".strip()
        span = unit.interval(row["ci_low"], row["ci_high"], se)
    if pd.notna(row["rel_high"]):  # an arm below zero has an interval and no value
        known = pd.notna(row["relative"])
        relative = f"{signed(100 * row['relative'], 1)}{NBSP}%" if known else UNKNOWN
        relative_span = interval(100 * row["rel_low"], 100 * row["rel_high"], 1)
    return Figures(
        metric=row["metric"],
        scope=row["scope"],
        arm=row["arm"],
        per=unit.per,
        control_value=unit.value(row["mean_control"], se),
        arm_value=unit.value(row["mean_arm"], se),
        difference=difference,
        span=span,
        relative=relative,
        relative_span=relative_span,
        privacy=percent(row["privacy_share"]),
        worth=count(row["n_effective"]),
        p=p_value(row["p_adjusted"]),
        decision=row["decision"],
        note=row["note"],
    )


def effect_rows(
    run: Run, frame: pd.DataFrame, alpha: float = 0.05, *, scoped: bool = False
) -> list[dict[str, str]]:
    """Rows of effects in few columns; with their scope where they have several.

    What stands in `note` is left to `remarks`.
    """
    sure = level(alpha)
    rows = []
    for _, row in frame.iterrows():
        one = figures(run, row)
        named = {"metric": f"{one.metric} ({one.per})"}
        values = f"{one.control_value} → {one.arm_value}"
        rows.append(
            {
                **({"metric": one.metric, "scope": one.scope} if scoped else named),
                "arm": one.arm,
                f"{run.plan.control.name} → arm": NONE if one.arm_value == NONE else values,
                f"difference, {sure} interval": _with_span(one.difference, one.span),
                "relative": _with_span(one.relative, one.relative_span),
                "noise's part, worth": _with_span(one.privacy, one.worth),
                "p, adjusted": one.p,
                "decision": one.decision,
            }
        )
    return rows


def _with_span(figure: str, span: str) -> str:
    return figure if figure == NONE else f"{figure} ({span})"


def remarks(frame: pd.DataFrame, *, scoped: bool = False) -> list[str]:
    """Every note of these effects once, behind those that it is about."""
    about: dict[str, list[str]] = {}
    for row in frame.to_dict("records"):
        for note in str(row["note"]).split("; ") if row["note"] else ():
            about.setdefault(note, []).append(row["scope"] if scoped else row["metric"])
    return [f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in about.items()]


def readable(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Effects without the scopes in which none has a value; and those in a sentence, if any."""
    seen = set(frame["scope"][frame["estimate"].notna()])
    hidden = [scope for scope in dict.fromkeys(frame["scope"]) if scope not in seen]
    said = f"No effect can be read in {', '.join(hidden)}." if hidden else ""
    return frame[frame["scope"].isin(seen)], said


def agreement_rows(run: Run) -> list[dict[str, str]]:
    """How much effects differ, as pages and terminals show it."""
    return [
        {
            "metric": row["metric"],
            "arm": row["arm"],
            "between": row["over"],
            "Q": f"{row['q']:.2f} on {row['df']}" if pd.notna(row["q"]) else NONE,
            "p": p_value(row["p_value"]),
            "I²": percent(row["i_squared"]),
            "spread (τ)": unit_of(run.plan, row["metric"]).spread(row["tau"]),
            "note": row["note"],
        }
        for row in run.heterogeneity.to_dict("records")
    ]


def check_rows(run: Run) -> list[dict[str, str]]:
    """The checks in short, as pages and terminals show them."""
    from abfed.stats.checklist import by_check

    return [
        {
            "check": row["check"],
            "tests": str(row["tests"]),
            "alarms": str(row["alarms"]),
            "smallest p": p_value(row["smallest_p"]),
            "found": row["reading"],
        }
        for row in by_check(run.checks).to_dict("records")
    ]


def alarm_rows(run: Run) -> list[dict[str, str]]:
    """Every alarm."""
    found = run.checks[run.checks["alarm"]]
    return [
        {
            "check": row["check"],
            "where": row["scope"],
            "what": row["subject"],
            "p": p_value(row["p_value"]),
            "found": row["reading"],
        }
        for row in found.to_dict("records")
    ]


def left_out_rows(run: Run) -> list[tuple[str, str, str]]:
    """Who was left out of steps, as pages and terminals show it: silo, of which, why."""
    rows = []
    alike = run.left_out.groupby(["silo", "reason", "why"], sort=False)
    for (silo, reason, why), steps in alike["step"]:
        words = str(why)
        if reason == "refused":  # a code, and what it is about; elsewhere a colon is a sentence's
            code, _, about = words.partition(":")
            words = REFUSAL_TEXT.get(code, code) + (f" ({about})" if about else "")
        span = steps.iloc[0] if len(steps) == 1 else f"{len(steps)} steps, from {steps.min()}"
        rows.append((str(silo), str(span), f"{reason}: {words}"))
    return rows
