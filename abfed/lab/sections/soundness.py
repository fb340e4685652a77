"""Sections on whether an experiment can be believed: checks, segments, and whether brands agree.

As markup; all text is computed from the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from abfed.lab.paper.page import paragraph, pill, section, table
from abfed.lab.views.display import PILLS, stacked
from abfed.lab.views.figures import (
    Figures,
    agreement_rows,
    alarm_rows,
    check_rows,
    figures,
    readable,
    remarks,
)
from abfed.lab.views.readings import effects_at
from abfed.lab.views.units import level
from abfed.stats.decisions import DECISIONS
from abfed.stats.effects import DEFAULT_ALPHA

if TYPE_CHECKING:
    import pandas as pd

    from abfed.lab.runs import Run


ELSEWHERE = (": relative lift", ": margin ")
"""Notes on columns that a table of segments doesn't have, and on what the plan itself says."""


def checks(run: Run) -> str:
    """What every check found, alarms first."""
    alarms = alarm_rows(run)
    how = (
        "Computed from the same noised releases; every test allows for the noise. An alarm is a "
        "p-value below 0.001: find out why before any effect is believed."
    )
    lead = "No check raised an alarm."
    if alarms:
        lead = f"{len(alarms)} alarm{'s' if len(alarms) != 1 else ''}: look before you believe."
    warning = f'<div class="warn">{paragraph(lead)}</div>' if alarms else paragraph(lead)
    parts = [warning]
    if alarms:
        parts += ["<h3>Alarms</h3>", _rows(run, alarms, numeric=(3,)), "<h3>All checks</h3>"]
    parts.append(_rows(run, check_rows(run), numeric=(1, 2, 3)))
    return section("Checks", *parts, paragraph(how, "soft"))


def agreement(run: Run) -> str:
    """Whether effects differ between brands or segments; nothing where there is one of each."""
    rows = agreement_rows(run)
    if not rows:
        return ""
    how = (
        "Cochran’s Q tests whether effects differ beyond chance and noise. I² is the share of "
        "their variation that does, τ how far true effects lie apart. A small p says that one "
        "figure for all hides something; a large one doesn’t say that all are alike."
    )
    return section(
        "Do effects differ?", _rows(run, rows, numeric=(3, 4, 5, 6)), paragraph(how, "soft")
    )


def segments(
    run: Run, *, alpha: float = DEFAULT_ALPHA, heading: str = "Segments", caution: str = ""
) -> str:
    """Effects in each cell of the declared segmentations; nothing where there is none.

    The primary metric stands open, all others are folded away; what noise drowns is named below.

    Args:
        run: whose.
        alpha: one minus the confidence of the intervals.
        heading: of the section.
        caution: what else its reader should know.
    """
    frame = effects_at(run, alpha, segments=True)
    if frame.empty:
        return ""
    seen, hidden = readable(frame)
    told = seen[seen["estimate"].notna()]
    first = frame["metric"] == run.plan.primary
    parts = [paragraph(segments_reading(frame[first]))]
    parts += [paragraph(caution, "soft")] if caution else []
    if rows := _segment_rows(run, told[told["metric"] == run.plan.primary]):
        parts.append(_segment_table(run, rows, alpha))
    if rows := _segment_rows(run, told[told["metric"] != run.plan.primary]):
        parts.append(
            "<details><summary>All other metrics, segment by segment</summary>"
            f"{_segment_table(run, rows, alpha)}</details>"
        )
    said = [note for note in remarks(told, scoped=True) if not any(map(note.count, ELSEWHERE))]
    how = (
        "Over these brands. A segmentation’s cells, arms and metrics are one family: p-values are "
        "adjusted for all of them."
    )
    notes = [hidden, _drowned(seen), *said, how]
    return section(heading, *parts, *(paragraph(one, "soft") for one in notes if one))


def segments_reading(frame: pd.DataFrame) -> str:
    """In which segments an arm is clearly better than the control, and in which clearly worse."""
    if frame["estimate"].isna().all():
        return "What the arms do in each segment can’t be told from noise at this ε."
    said = []
    for decision in ("better", "worse"):
        found = frame[frame["decision"] == decision]
        arms: dict[str, list[str]] = {}
        for arm, scope in zip(found["arm"], found["scope"], strict=True):
            arms.setdefault(arm, []).append(scope)
        if arms:
            named = "; ".join(f"“{arm}” for {', '.join(scopes)}" for arm, scopes in arms.items())
            said.append(f"Clearly {decision} than the control: {named}.")
    return " ".join(said) or "In no segment is an arm clearly better or worse than the control."


def _drowned(seen: pd.DataFrame) -> str:
    """Effects of cells that can be read in part, of which nothing can be said."""
    lost = seen[seen["estimate"].isna()]
    named: dict[str, list[str]] = {}
    for metric, scope in dict.fromkeys(zip(lost["metric"], lost["scope"], strict=True)):
        named.setdefault(metric, []).append(scope)
    said = "; ".join(f"“{metric}” for {', '.join(scopes)}" for metric, scopes in named.items())
    return f"Not told for some arm or all: {said}." if said else ""


def _segment_rows(run: Run, frame: pd.DataFrame) -> list[list[str]]:
    """Cells of markup, a row for each effect."""
    cells, above = [], ("", "")
    for _, row in frame.iterrows():
        one = figures(run, row)
        cells.append(_segment_cells(one, above))
        above = (one.scope, one.metric)
    return cells


def _segment_table(run: Run, rows: Sequence[Sequence[str]], alpha: float) -> str:
    head = [
        "Segment", "Metric", "Arm", "Control", "In the arm", f"Difference, {level(alpha)} interval",
        "Noise’s part, worth", "p, adjusted", "Reading",
    ]  # fmt: skip
    return table(head, rows, source=run.source, numeric=(3, 4, 5, 6, 7), counts=())


def _segment_cells(one: Figures, above: tuple[str, str]) -> list[str]:
    """An effect in a segment, as markup; what stands above already is only read out again."""
    scope, metric = escape(one.scope), escape(one.metric)
    if above[0] == one.scope:
        scope = f'<span class="unseen">{scope}</span>'
        if above[1] == one.metric:
            metric = f'<span class="unseen">{metric}</span>'
    return [
        scope,
        metric,
        escape(one.arm),
        one.control_value,
        one.arm_value,
        stacked(one.difference, one.span),
        stacked(one.privacy, one.worth),
        one.p,
        pill(one.decision, PILLS[DECISIONS[one.decision]]),
    ]


def _rows(run: Run, rows: Sequence[dict[str, str]], *, numeric: Sequence[int]) -> str:
    """Rows of texts as a table, without notes where nothing is noted."""
    kept = [name for name in rows[0] if name != "note" or any(row[name] for row in rows)]
    cells = [[escape(row[name]) for name in kept] for row in rows]
    return table(list(map(_headed, kept)), cells, source=run.source, numeric=numeric, counts=())


def _headed(name: str) -> str:
    """A column's name as a heading; a symbol stays as it is."""
    return name if len(name.split(maxsplit=1)[0].rstrip(",")) == 1 else name[:1].upper() + name[1:]
