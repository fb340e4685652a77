"""Sections of a portfolio: all experiments of a period over brands: wins, learning, budget left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.paper.page import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    RULE,
    SOFT_INK,
    VERMILLION,
    opening,
    paragraph,
    picture,
    pill,
    roomy,
    section,
    table,
    under,
)
from abfed.lab.periods import PERIOD, within
from abfed.lab.runs import Run
from abfed.lab.views.display import PILLS
from abfed.lab.views.plots import as_svg, draw_parts, drawing, explain_parts, row_height, wrapped
from abfed.lab.views.readings import auc_with_interval, effects_at, widest
from abfed.lab.views.units import NBSP, NONE, level, plain, signed, unit_of
from abfed.lab.waves import design_of
from abfed.protocol.errors import InputError
from abfed.stats.between import BRANDS
from abfed.stats.decisions import DECISIONS
from abfed.stats.effects import DEFAULT_ALPHA

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def open_runs(folder: Path, period: str = "") -> list[Run]:
    """All complete runs that lie in a folder, those of a period where one is named, oldest first.

    Of the waves of one design only the last is kept: it reads all of them together.

    Raises:
        InputError: it's no period, or no run lies there at all.
        IntegrityError: a run was changed.
    """
    if period and not PERIOD.fullmatch(period):
        raise InputError(f"{period!r} is no period", do="write 2026, 2026-Q2 or 2026-05")
    found = [Run.open(one.parent) for one in sorted(folder.glob("*/manifest.sig"))]
    if not found:
        raise InputError(
            "there is no complete run in it", where=str(folder),
            do="name a workspace's runs/, or type `abfed report all --notebook portfolio`",
        )  # fmt: skip
    return without_earlier_waves(run for run in found if within(run.made_at, period))


def without_earlier_waves(runs: Iterable[Run]) -> list[Run]:
    """Runs, oldest first; of the waves of one design the last only, which reads them all."""
    last: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.plan.analysis.wave, run.made_at)):
        last[design_of(run.plan) if run.plan.analysis.wave else run.name] = run
    return sorted(last.values(), key=lambda run: run.made_at)


def headline(runs: Sequence[Run], period: str, *, alpha: float = DEFAULT_ALPHA) -> str:
    """Title, and the period in a few sentences."""
    decided = Counter(DECISIONS[one] for run in runs for one in _primary(run, alpha))
    brands = sorted({silo for run in runs for silo in run.silos})
    arms = sum(decided.values())
    many = [
        f"{number} {noun}{'s' if number != 1 else ''}"
        for number, noun in ((len(runs), "experiment"), (len(brands), "brand"), (arms, "arm"))
    ]
    counted = (
        f"{many[0]} over {many[1]} compared {many[2]} with their controls: {decided['good']} "
        f"better, {decided['bad']} worse, {decided['open']} open, by their primary metrics."
    )
    said = [counted, budget_reading(runs)] if runs else ["No experiment was completed in it."]
    simulated = any(run.plan.simulation is not None for run in runs)
    note = paragraph("Some of these are simulations on made-up brands.")
    return opening(
        "Portfolio",
        f"<h1>Experiments{f' of {escape(period)}' if period else ''}</h1>"
        f'<div class="soft">{escape(", ".join(brands))}</div>'
        f"{f'<div class=warn>{note}</div>' if simulated else ''}"
        f'<div class="key">{"".join(map(paragraph, said))}</div>',
    )


def _primary(run: Run, alpha: float) -> list[str]:
    """The decisions on a run's primary metric, over its brands."""
    rows = effects_at(run, alpha, run.plan.primary)
    return rows[rows["scope"] == widest(run)]["decision"].tolist()


def wins(runs: Sequence[Run], *, alpha: float = DEFAULT_ALPHA) -> str:
    """What came of each experiment; nothing where there was none."""
    if not runs:
        return ""
    rows = []
    for run in runs:
        frame = effects_at(run, alpha, run.plan.primary)
        unit = unit_of(run.plan, run.plan.primary)
        for row in frame[frame["scope"] == widest(run)].to_dict("records"):
            effect = NONE
            if math.isfinite(row["estimate"]):
                span = unit.interval(row["ci_low"], row["ci_high"], row["se"])
                effect = f"{unit.effect(row['estimate'], row['se'])} {unit.short}".strip()
                effect = f'{effect}<br><span class="soft">{span}</span>'
            decision = row["decision"]
            rows.append(
                [
                    _named(run),
                    f"<time>{escape(run.made_at[:10])}</time>",
                    str(len(run.silos)),
                    escape(run.plan.primary),
                    escape(row["arm"]),
                    effect,
                    pill(decision, PILLS[DECISIONS[decision]]),
                ]
            )
    head = ["Experiment", "Ended", "Brands", "Primary metric", "Arm", f"Effect, {level(alpha)}"]
    shown = table([*head, "Decision"], rows, source=runs[-1].source, numeric=(2, 5), counts=())
    how = f"Over each experiment’s brands, against its control, at a level of {alpha:g}."
    svg = as_svg(plot_wins(runs, alpha=alpha))
    return section(
        "Wins", picture(svg, wins_reading(runs, alpha=alpha)), shown, paragraph(how, "soft")
    )


def _named(run: Run) -> str:
    """An experiment as it stands in tables: its title, and the plan's name by which figures go."""
    if not run.report.title:
        return escape(run.plan.name)
    return under(roomy(escape(run.report.title)), escape(run.plan.name))


def wins_reading(runs: Sequence[Run], *, alpha: float = DEFAULT_ALPHA) -> str:
    """Which experiment bettered its primary metric most, relative to its control."""
    return largest(
        (run.report.title or run.plan.name, row)
        for run in runs
        for row in effects_at(run, alpha, run.plan.primary).to_dict("records")
        if row["scope"] == widest(run)
    )


def largest(effects: Iterable[tuple[str, dict[Any, Any]]]) -> str:
    """The largest gain of these effects, each with its experiment's title; or the largest loss."""
    clear: dict[str, list[tuple[float, str]]] = {"better": [], "worse": []}
    for titled, row in effects:
        if row["decision"] not in clear:
            continue
        size, amount = -1.0, "by how much of the control’s value can’t be told"
        if math.isfinite(row["relative"]):
            size = abs(row["relative"])
            amount = f"{signed(100 * row['relative'], 0)}{NBSP}% of “{row['metric']}”"
        clear[row["decision"]].append((size, f"“{row['arm']}” in “{titled}”, {amount}"))
    for decision, words in (("better", "The largest gain"), ("worse", "No gain; the largest loss")):
        if clear[decision]:
            return f"{words}: {max(clear[decision], key=lambda one: one[0])[1]}."
    return "No experiment moved its primary metric clearly."


def plot_wins(runs: Sequence[Run], *, alpha: float = DEFAULT_ALPHA) -> Figure:
    """Relative change of each primary metric, by arm, with its interval in two parts.

    Chance has the part that it has in the difference; the control's own noise is a smaller matter.
    """
    lines = [
        (run, row)
        for run in runs
        for row in effects_at(run, alpha, run.plan.primary).to_dict("records")
        if row["scope"] == widest(run)
    ]
    colours = {"good": GREEN, "bad": VERMILLION, "open": SOFT_INK}
    names = [f"{run.plan.name}: {row['arm']}" for run, row in lines]
    with drawing(8.2, 1.4 + row_height(names, 0.42) * len(lines)) as (figure, (axes,)):
        for place, (_, row) in enumerate(lines):
            if not math.isfinite(row["rel_high"]):
                told = math.isfinite(row["estimate"])  # the difference is in the table then
                words = "relative to the control it can’t be told" if told else (
                    "can’t be told from noise"
                )  # fmt: skip
                axes.text(0, place, f" {words}", va="center", style="italic",
                          color=SOFT_INK)  # fmt: skip
                continue
            colour = colours[DECISIONS[row["decision"]]]
            low, high, middle = (100 * row[one] for one in ("rel_low", "rel_high", "relative"))
            part = math.sqrt(max(0.0, 1 - row["privacy_share"]))  # of the standard error
            ends = (middle - part * (middle - low), middle + part * (high - middle))
            draw_parts(axes, (low, high), ends, place, colour)
            if math.isfinite(middle):  # an arm below zero has an interval only
                axes.plot(middle, place, "o", color=colour, ms=6.5)
            axes.text(1.02, place, row["decision"], color=colour, va="center", fontsize=8.5,
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.axvline(0, color=INK, lw=0.9)
        axes.set_yticks(range(len(names)), [wrapped(one) for one in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("change of the primary metric against the control, %")
        axes.grid(axis="x", color=RULE, lw=0.6)
        axes.legend(handles=explain_parts(axes, alpha), loc="lower left",
                    bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8.5)  # fmt: skip
    return figure


def learning(runs: Sequence[Run]) -> str:
    """What the period taught: models, and whether brands agree; nothing where none was."""
    if not runs:
        return ""
    rows = []
    for run in runs:
        differ = brands_differ(run.heterogeneity, run.plan.primary)
        model = NONE
        if run.plan.model is not None:
            last = run.training.iloc[-1]
            model = "drowned in noise"
            if math.isfinite(last["auc"]):
                model = auc_with_interval(last)
        alarms = int(run.checks["alarm"].sum())
        rows.append(
            [
                _named(run),
                roomy(escape(model)),
                differ,
                str(alarms) if alarms else "none",
            ]
        )
    head = ["Experiment", "Model", "Do brands differ?", "Alarms of checks"]
    return section("Learning", table(head, rows, source=runs[-1].source, counts=()))


def brands_differ(agreement: pd.DataFrame, metric: str) -> str:
    """Whether a metric's effects differ between brands; segments are another question."""
    between = (agreement["metric"] == metric) & (agreement["over"] == BRANDS)
    p_values = agreement[between]["p_value"].dropna()
    if p_values.empty:
        return NONE
    found = p_values.min() * len(p_values) < DEFAULT_ALPHA  # Bonferroni, over arms
    return "differ" if found else "no sign that they differ"


def _last(runs: Sequence[Run]) -> dict[str, tuple[float, float, str]]:
    """Spent and total ε of each brand, as of its newest run that shows it."""
    found: dict[str, tuple[float, float, str]] = {}
    for run in runs:
        for row in run.ledger.to_dict("records"):
            if math.isfinite(row["epsilon_total"]):
                found[row["silo"]] = (row["epsilon_spent"], row["epsilon_total"], run.source)
    return found


def budget_reading(runs: Sequence[Run]) -> str:
    """Which brand has least of its budget left."""
    found = _last(runs)
    if not found:
        return "No brand’s policy shows its budget."
    left = {one: round(1 - spent / total, 9) for one, (spent, total, _) in found.items()}
    least = [one for one in left if left[one] == min(left.values())]
    spent, total, _ = found[least[0]]
    alike = [one for one in least if found[one][1] == total]
    lead = f"Least budget is left in {' and '.join(alike)}"
    if len(least) == len(left) > 1:
        lead = "The same part of the budget is left in each brand"
    amount = f"ε = {plain(max(0.0, total - spent), 2)} of {plain(total, 2)}"
    return f"{lead}: {amount} for each recipient."


def budgets(runs: Sequence[Run]) -> str:
    """What is left to each brand after the period; nothing where nothing was asked in it."""
    if not runs:
        return ""
    found = _last(runs)
    if not found:
        return section("Budget left", paragraph(budget_reading(runs)))
    rows = [
        [escape(brand), plain(spent, 2), plain(max(0.0, total - spent), 2), plain(total, 2)]
        for brand, (spent, total, _) in sorted(found.items())
    ]
    shown = table(
        ["Brand", "ε spent", "ε left", "ε in all"],
        rows,
        source=runs[-1].source,
        numeric=(1, 2, 3),
        counts=(),
    )
    svg = as_svg(_plot_budgets(found))
    return section("Budget left", picture(svg, budget_reading(runs)), shown)


def _plot_budgets(found: dict[str, tuple[float, float, str]]) -> Figure:
    names = sorted(found)
    with drawing(8.2, 1.1 + row_height(names, 0.38) * len(names)) as (figure, (axes,)):
        spent = [found[one][0] for one in names]
        left = [max(0.0, found[one][1] - found[one][0]) for one in names]
        axes.barh([wrapped(one) for one in names], spent, color=ORANGE, height=0.55, label="spent")
        axes.barh([wrapped(one) for one in names], left, left=spent, color=BLUE, alpha=0.28,
                  height=0.55, label="left")  # fmt: skip
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("ε of each brand’s budget, over all plans")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8.5)
    return figure
