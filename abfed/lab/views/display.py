"""How a run shows itself: plots, a table of effects, a card, and sentences.

Records compute nothing to show themselves; it is all here and next door (`plots`, `readings`,
`sections.readout`). Whatever is shown comes from releases, so it may be shown to whoever may see
the run.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from abfed.lab.paper.page import facts, paragraph, pill, table, title
from abfed.lab.views.cards import in_card
from abfed.lab.views.curves import plot_training
from abfed.lab.views.figures import figures
from abfed.lab.views.plots import plot_budget, plot_effects
from abfed.lab.views.readings import effects_at, reading, sample_ratio_reading, widest
from abfed.lab.views.units import NONE, count, level, plain, unit_of
from abfed.stats.decisions import DECISIONS
from abfed.stats.effects import DEFAULT_ALPHA, LIKE_THESE, THESE

if TYPE_CHECKING:
    from abfed.lab.runs import Run

__all__ = [
    "effects_table",
    "plot_budget",
    "plot_effects",
    "plot_training",
    "reading",
    "run_card",
    "title",
]

PILLS = {"good": "yes", "bad": "no", "open": "open"}
"""How a decision of each tone stands out."""


def effects_table(run: Run, *, alpha: float = DEFAULT_ALPHA, scope: str | None = None) -> str:
    """Effects as a table.

    Args:
        run: whose.
        alpha: one minus the confidence of the intervals.
        scope: a brand, "these brands" or "brands like these"; where none is named, the widest that
            the run has.

    Returns:
        Markup: a row for metric × arm.

    Raises:
        InputError: alpha isn't between 0 and 1.
    """
    rows = effects_at(run, alpha)
    rows = rows[rows["scope"] == (scope or widest(run))]
    sure = f"{level(alpha)} interval"
    head = ["Metric", "Arm", "Control", "In the arm", f"Difference, {sure}", f"Relative, {sure}",
            "Noise’s part, worth", "p, adjusted", "Reading"]  # fmt: skip
    cells, seen = [], ""
    for _, row in rows.iterrows():
        metric = row["metric"]
        name = f'<span class="unseen">{escape(metric)}</span>'  # it stands above; read out again
        if metric != seen:
            name = stacked(escape(metric), escape(unit_of(run.plan, metric).per))
        seen = metric
        cells.append([name, *_cells(run, row)])
    return table(head, cells, source=run.source, numeric=(2, 3, 4, 5, 6, 7), counts=())


def _cells(run: Run, row: pd.Series[Any]) -> list[str]:
    """One row's cells behind the metric's name, as markup."""
    shown = figures(run, row)
    return [
        escape(shown.arm),
        shown.control_value,
        shown.arm_value,
        stacked(shown.difference, shown.span),
        stacked(shown.relative, shown.relative_span),
        stacked(shown.privacy, shown.worth),
        shown.p,
        pill(shown.decision, PILLS[DECISIONS[shown.decision]]),
    ]


def stacked(figure: str, span: str) -> str:
    """A figure with its interval below it; a dash alone where there is none."""
    return figure if figure == NONE else f'{figure}<br><span class="soft">{span}</span>'


def effects_by_scope(run: Run, *, alpha: float = DEFAULT_ALPHA) -> str:
    """Effects in each scope but the widest, folded away."""
    scopes = dict.fromkeys(effects_at(run, alpha)["scope"])
    parts = []
    for scope in scopes:
        if scope == widest(run):
            continue
        named = f"“{scope}”: where each brand counts the same" if scope == LIKE_THESE else scope
        shown = effects_table(run, alpha=alpha, scope=scope)
        parts.append(f"<h3>{escape(named)}</h3>{shown}")
    if not parts:
        return ""
    return f"<details><summary>Effects brand by brand</summary>{''.join(parts)}</details>"


def run_card(run: Run) -> str:
    """A run in short, for a notebook."""
    plan = run.plan
    kept = "found complete; nothing was charged again" if run.found else "carried out"
    recipients = sum(float(one.counts()[0].sum()) for one in run.totals.values())
    pairs = [
        ("Run", f"<code>{escape(run.name)}</code> ({kept})"),
        ("Brands", escape(", ".join(run.silos))),
        ("Recipients", f"{count(recipients)} (noised)"),
        ("Privacy", (f"ε = {plain(run.ledger['epsilon_run'].max(), 2)} of {plan.privacy.epsilon:g} "
                    f"asked, δ = {plan.privacy.delta:g}, for each recipient")),
    ]  # fmt: skip
    left_out = sorted(set(run.left_out["silo"]) | set(run.missing or {}))
    if left_out:
        pairs.append(("Left out", escape(", ".join(left_out))))
    lead = paragraph(reading(run, plan.primary))
    checks = paragraph(sample_ratio_reading(run), "soft")
    scope = THESE if len(run.silos) > 1 else run.silos[0]
    key = f'<div class="key">{lead}</div>'
    body = f"{key}{effects_table(run, scope=scope)}{checks}{facts(pairs)}"
    return in_card("abfed run", title(run), body)
