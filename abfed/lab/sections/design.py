"""Sections of the experiment design: what a plan can find, what it takes, what it costs each silo.

Computed from the plan alone: no silo is asked, nothing is charged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from abfed.lab.designing import design_notes, design_rows, plots_by_metric
from abfed.lab.paper.page import facts, opening, paragraph, picture, plan_source, section, table
from abfed.lab.together import guarantee
from abfed.lab.views.plots import as_svg
from abfed.lab.views.units import NBSP, NONE, count, percent, plain
from abfed.privacy.accounting import epsilon_of
from abfed.privacy.charges import noise_multipliers, plan_charges, plan_epsilon
from abfed.privacy.once import steps_of
from abfed.stats.design import Design, design

if TYPE_CHECKING:
    from abfed.protocol.plan import Plan

NOTHING_EXPECTED = (
    "The plan says nothing of what is expected, so nothing can be said of sample sizes. Add "
    "analysis.recipients and analysis.expected (metric, mean, lift)."
)


def look_ahead(plan: Plan, *, alpha: float = 0.05) -> Design | None:
    """What the plan can find; None where it says nothing of what it expects."""
    if plan.analysis.recipients is None or not plan.analysis.expected:
        return None
    return design(plan, alpha=alpha)


def headline(plan: Plan, *, alpha: float = 0.05) -> str:
    """Title, and whether the plan is likely to find what it looks for."""
    found = look_ahead(plan, alpha=alpha)
    said = [NOTHING_EXPECTED] if found is None else _verdicts(plan, found)
    simulated = (
        f'<div class="warn">{paragraph("The plan is a simulation: made-up brands only.")}</div>'
        if plan.simulation
        else ""
    )
    return opening(
        "Experiment design",
        f"<h1>{escape(plan.report.title or plan.name)}</h1>"
        f'<div class="soft">{len(plan.silos)} brands · ε = {plan.privacy.epsilon:g} for each '
        f"recipient · before any silo was asked</div>{simulated}"
        f'<div class="key">{"".join(map(paragraph, said))}</div>',
    )


def _verdicts(plan: Plan, found: Design) -> list[str]:
    """One sentence for the primary metric, one for all others."""
    rows = found.table.set_index("metric")
    wanted = plan.analysis.power
    said = []
    if plan.primary in rows.index:
        said.append(_verdict(plan, plan.primary, rows.loc[plan.primary]))
    weak = [name for name, row in rows.iterrows() if row["power"] < wanted and name != plan.primary]
    strong = [name for name in rows.index if name not in weak and name != plan.primary]
    if strong:
        said.append(f"Enough power as well for: {', '.join(map(str, strong))}.")
    if weak:
        said.append(f"Too little power for: {', '.join(map(str, weak))}.")
    return said


def _verdict(plan: Plan, name: str, row: Any) -> str:
    expected = plan.analysis.expects(name)
    lift = percent(expected.lift, 1) if expected else NONE
    start = (
        f"With {count(row['recipients'])} recipients in each brand a lift of {lift} in “{name}” "
        f"is found with {percent(row['power'])} power"
    )
    if row["power"] >= plan.analysis.power:
        return f"{start}: enough for the {percent(plan.analysis.power)} that is wanted."
    needs = row["needs_recipients"]
    more = f"{count(needs)} recipients in each brand would do" if math.isfinite(needs) else ""
    budget = row["needs_epsilon"]
    privacy = f"ε = {plain(budget, 2)} with those there are" if math.isfinite(budget) else ""
    ways = ", or ".join(one for one in (more, privacy) if one)
    wanted = percent(plan.analysis.power)
    return f"{start}, and {wanted} is wanted. {ways or 'No number of recipients would do'}."


def power(plan: Plan, *, alpha: float = 0.05) -> str:
    """For each metric: power, smallest effect, and what it would take."""
    found = look_ahead(plan, alpha=alpha)
    if found is None:
        return ""  # the headline says what is missing
    rows = design_rows(found)
    cells = [[escape(text) for text in row.values()] for row in rows]
    head = [name[:1].upper() + name[1:] for name in rows[0]]
    split = ", ".join(f"{escape(name)} {percent(one, 1)}" for name, one in found.split.items())
    better = facts([("Split of least width", split), ("Width with it", f"{found.gain:.3f} of now")])
    shown = table(head, cells, source=plan_source(plan), numeric=range(1, len(head)), counts=())
    notes = [paragraph(note, "soft") for note in design_notes(plan)]
    return section("What it can find", shown, *notes, better)


def curves(plan: Plan, *, alpha: float = 0.05) -> str:
    """Smallest effect and power over recipients, for several ε; a figure for each metric."""
    found = look_ahead(plan, alpha=alpha)
    if found is None:
        return ""
    figures = plots_by_metric(plan)
    rows = sorted(found.table.to_dict("records"), key=lambda one: one["metric"] != plan.primary)
    parts = [
        picture(as_svg(figures[row["metric"]]), curves_reading(plan, row))
        for row in rows
        if row["metric"] in figures
    ]
    how = "Dotted lines are what the plan expects and wants."
    return section("Power against ε and size", *parts, paragraph(how, "soft"))


def curves_reading(plan: Plan, row: Mapping[Any, Any]) -> str:
    """Whether a metric's uncertainty is rather noise or chance, at the size that is expected."""
    here, even = row["recipients"] / len(plan.arms), row["break_even"]
    start = f"“{row['metric']}”: power {percent(row['power'])}"
    if not math.isfinite(even):
        return f"{start} with some {count(here)} recipients an arm."
    part = "smaller" if here >= even else "greater"
    return (
        f"{start}; with some {count(here)} recipients an arm noise is the {part} part of the "
        f"uncertainty, with {count(even)} it is half."
    )


def cost(plan: Plan) -> str:
    """What each silo would charge each of its recipients."""
    if plan.privacy.unprotected:
        return section("Cost for each silo", paragraph("The plan is not private: no charge."))
    sigma = noise_multipliers(plan)
    delta = plan.privacy.delta
    charged = plan_charges(plan)
    parts = {
        "statistics": (sigma.statistics, [s for s in charged if s in steps_of() and charged[s]]),
        "training": (sigma.training, [s for s in charged if s.startswith("train")]),
        "evaluation": (sigma.evaluation, [s for s in charged if s == "evaluate"]),
    }
    rows = []
    for name, (multiplier, steps) in parts.items():
        if multiplier == 0:
            continue
        given = getattr(plan.privacy.split, name)
        rows.append([name, str(len(steps)), f"{multiplier:.3g}", plain(given, 2)])
    total = plan_epsilon(plan)
    one = epsilon_of([c for step in parts["statistics"][1] for c in charged[step]], delta)
    said = (
        f"Each recipient of each of the {len(plan.silos)} brands would be charged ε = "
        f"{plain(total, 2)} at δ = {delta:g} for all of it (asked for: "
        f"{plan.privacy.epsilon:g}); the totals alone cost {plain(one, 2)}. Somebody known to two "
        "brands is two recipients: costs add. Each silo’s own budget decides whether it answers."
    )
    head = ["Part", "Steps", f"Noise multiplier{NBSP}σ", "ε of its own"]
    shown = table(head, rows, source=plan_source(plan), numeric=(1, 2, 3), counts=())
    once = paragraph(guarantee(plan)) if plan.noise_once else ""
    return section("Cost for each silo", paragraph(said), once, shown)
