"""Files of a design: curves to look at, a plan with its budget split, an allocation to send by."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from matplotlib.ticker import FuncFormatter, NullFormatter

from abfed.lab.paper.page import ARM_COLOURS, RULE, SOFT_INK
from abfed.lab.views.plots import Drawn, as_svg, our_style
from abfed.lab.views.units import NBSP, percent
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.site.files import check_place
from abfed.stats.design import Design, curves
from abfed.stats.horizon import Horizon

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run


LARGEST_LIFT = 2.0
"""On a curve: whoever needs more than three times as much of anything needs no test."""
DASHES: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0, (6, 1.5)), (0, (3, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
"""Curves are told apart by more than colour; the plan's own is drawn through."""


def design_rows(found: Design) -> list[dict[str, str]]:
    """A design's table for people: shares as percentages, sizes in whole recipients."""
    return [
        {
            "metric": row["metric"],
            "of budget": percent(row["share"], 1),
            "power": percent(row["power"]),
            "smallest lift found": percent(row["mde"], 1),
            "wider for noise": percent(row["widening"] - 1, 1),
            "effective recipients": f"{row['n_effective']:,.0f}",
            "break-even, an arm": f"{row['break_even']:,.0f}",
            "needs recipients": _whole(row["needs_recipients"]),
            "or needs ε": _epsilon(row["needs_epsilon"]),
        }
        for row in found.table.to_dict("records")
    ]


def _whole(size: float) -> str:
    return f"{size:,.0f}" if math.isfinite(size) else "out of reach"


def _epsilon(epsilon: float) -> str:
    return f"{epsilon:.2g}" if math.isfinite(epsilon) else "no ε is enough"


def design_notes(plan: Plan) -> list[str]:
    """How a design's table is to be read."""
    looks = Horizon.of(plan)
    asked = (
        f"In each of {len(plan.silos)} brands: {plan.analysis.recipients or 0:,} recipients. Needed"
        f" for {percent(plan.analysis.power)} power at the expected lift, one question by itself"
        " at the 5 % level: recipients in each brand, or ε with those there are."
    )
    lines = [asked, *_rest_of_budget(plan)]
    if plan.noise_once:
        lines.append("Noise is added once: this is the effect over all brands together.")
    if looks.spending is not None:
        lines.append(
            f"They come in {looks.looks} waves of equal size with noise of its own each, and are"
            f" looked at after each of them ({looks.spending})."
        )
    return lines


def _rest_of_budget(plan: Plan) -> list[str]:
    """What else the budget is spent on than the metrics over all recipients."""
    analysis = plan.analysis
    parts = {f"effects in {one.name}": one.share for one in analysis.segments}
    parts["balance"] = analysis.balance_share if analysis.balance else 0.0
    orphans = analysis.orphans_share if analysis.clicks_without_opens else 0.0
    parts["clicks without opens"] = orphans
    said = [f"{percent(share, 1)} for {what}" for what, share in parts.items() if share]
    return [f"The rest of the budget: {', '.join(said)}."] if said else []


def plot_design(plan: Plan) -> Figure:
    """Smallest effect and power over recipients in a brand, for several ε.

    A row for each metric that the plan expects something of.
    """
    table = curves(plan)
    return _figure(plan, table, list(dict.fromkeys(table["metric"])))


def plots_by_metric(plan: Plan) -> dict[str, Figure]:
    """The same, a figure for each metric."""
    table = curves(plan)
    return {name: _figure(plan, table, [name]) for name in dict.fromkeys(table["metric"])}


def _figure(plan: Plan, table: pd.DataFrame, names: Sequence[str]) -> Figure:
    with our_style():
        figure = Drawn(figsize=(9.2, 0.5 + 2.9 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 2, squeeze=False)
        for panels, name in zip(grid, names, strict=True):
            _draw_metric(plan, name, table[table["metric"] == name], panels)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), fontsize=9)
    return figure


def _draw_metric(plan: Plan, name: str, table: pd.DataFrame, panels: Sequence[Axes]) -> None:
    expected = plan.analysis.expects(name)
    lift = abs(expected.lift) if expected else 0.0
    effects, powers = panels
    for number, (epsilon, line) in enumerate(table.groupby("epsilon")):
        wanted = epsilon == plan.privacy.split.statistics
        style: dict[str, Any] = {
            "color": ARM_COLOURS[number % len(ARM_COLOURS)],
            "ls": "-" if wanted else DASHES[number % len(DASHES)],
            "lw": 2.6 if wanted else 1.3,
            "label": f"ε = {epsilon:g}{' (the plan’s)' if wanted else ''}",
        }
        effects.plot(line["recipients"], line["mde"], **style)
        powers.plot(line["recipients"], line["power"], **style)
    effects.set_title(f"{name}: smallest lift found", loc="left")
    effects.set_yscale("log")
    top = float(table["mde"].max())
    effects.set_ylim(top=min(1.3 * top, LARGEST_LIFT))
    powers.set_title(f"{name}: power to find a lift of {100 * lift:g}{NBSP}%", loc="left")
    powers.set_ylim(0, 1.03)
    for axes, level in ((effects, lift), (powers, plan.analysis.power)):
        axes.set_xscale("log")
        axes.set_xlabel("recipients in a brand")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}{NBSP}%"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.axhline(level, color=SOFT_INK, lw=0.8, ls=":")
        axes.axvline(float(plan.analysis.recipients or 1), color=SOFT_INK, lw=0.8, ls=":")
        axes.grid(color=RULE, lw=0.6)
    here = float(plan.analysis.recipients or 1)
    for text, place in (
        ("wanted", (effects.get_xlim()[0], lift)),
        ("expected", (here, effects.get_ylim()[1] / 1.4)),
    ):
        effects.annotate(
            text, place, (4, 3), color=SOFT_INK, fontsize=8, textcoords="offset points"
        )


def draw_curves(plan: Plan, path: Path) -> None:
    """Write the curves of all metrics that the plan expects something of.

    Raises:
        InputError: neither .svg nor .png, or no file can be made there.
    """
    check_place(path)
    if path.suffix not in {".svg", ".png"}:
        raise InputError("curves are drawn as .svg or .png", where=str(path), do="name such a file")
    figure = plot_design(plan)
    if path.suffix == ".svg":
        path.write_bytes(as_svg(figure))
        return
    with our_style():
        figure.savefig(path, dpi=144, metadata={"Software": None})


def write_split(plan: Plan, split: Mapping[str, float], path: Path) -> None:
    """Write the plan with these shares of the budget.

    Raises:
        InputError: no file can be made there.
    """
    check_place(path)
    path.write_text(with_split(plan, split), encoding="utf-8")


def with_split(plan: Plan, split: Mapping[str, float]) -> str:
    """The plan as YAML, with these shares of the budget and whatever else as it was."""
    values = plan.model_dump(mode="json", exclude_defaults=True)
    budget = [
        {
            "metric": metric.name,
            "share": split.get(metric.name, plan.analysis.budget_of(metric.name).share),
            "priority": plan.analysis.budget_of(metric.name).priority,
        }
        for metric in plan.metrics
    ]
    values["analysis"] = values.get("analysis", {}) | {"budget": budget}
    for metric in values["metrics"]:
        metric.setdefault("kind", next(m.kind for m in plan.metrics if m.name == metric["name"]))
    for feature in values.get("features", []):
        kind = next(one.kind for one in plan.features if one.name == feature["name"])
        feature.setdefault("kind", kind)
    if plan.privacy.unprotected:
        values["privacy"] = "none"
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return f"# Written by `abfed design`: shares of the budget with the least total width.\n{text}"


def write_allocation(run: Run, metric: str, shares: Mapping[str, float], path: Path) -> None:
    """The next wave's shares, for an e-mail tool: CSV (arm, share) or JSON.

    Raises:
        InputError: neither .csv nor .json, or no file can be made there.
    """
    check_place(path)
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["experiment", "arm", "share"])
        writer.writerows([run.plan.experiment, arm, share] for arm, share in shares.items())
        path.write_text(text.getvalue(), encoding="utf-8")
        return
    if path.suffix == ".json":
        known = {
            "experiment": run.plan.experiment,
            "run": run.name,
            "metric": metric,
            "wave": run.plan.analysis.wave + 1 if run.plan.analysis.wave else None,
            "shares": dict(shares),
        }
        path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        return
    raise InputError("an allocation is a .csv or .json file", where=str(path), do="name such")
