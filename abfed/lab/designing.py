"""Files of a design: curves to look at, a plan with its budget split, an allocation to send by."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from abfed.lab.page import ARM_COLOURS, RULE
from abfed.lab.plots import as_svg, drawing, our_style
from abfed.lab.units import percent
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.stats.design import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run


def plot_design(plan: Plan, metric: str) -> Figure:
    """Smallest effect and power of a metric over recipients in a brand, for several ε."""
    table = curves(plan)
    table = table[table["metric"] == metric]
    with drawing(9.2, 3.4, columns=2) as (figure, panels):
        for number, (epsilon, line) in enumerate(table.groupby("epsilon")):
            colour = ARM_COLOURS[number % len(ARM_COLOURS)]
            wanted = epsilon == plan.privacy.split.statistics
            style: dict[str, Any] = {"color": colour, "lw": 2.6 if wanted else 1.3}
            label = f"ε = {epsilon:g}{' (the plan’s)' if wanted else ''}"
            panels[0].plot(line["recipients"], 100 * line["mde"], label=label, **style)
            panels[1].plot(line["recipients"], line["power"], **style)
        expected = plan.analysis.expects(metric)
        lift = 100 * expected.lift if expected else 0.0
        panels[0].axhline(lift, color="black", lw=0.8, ls=":")
        panels[1].axhline(plan.analysis.power, color="black", lw=0.8, ls=":")
        panels[0].set_title(f"{metric}: smallest relative effect found, %", loc="left")
        panels[0].set_yscale("log")
        power = f"power at a lift of {percent((expected.lift if expected else 0.0), 1)}"
        panels[1].set_title(power, loc="left")
        for axes in panels:
            axes.set_xscale("log")
            axes.set_xlabel("recipients in a brand")
            axes.axvline(float(plan.analysis.recipients or 1), color="black", lw=0.8, ls=":")
            axes.grid(color=RULE, lw=0.6)
        panels[0].legend(fontsize=8)
    return figure


def draw_curves(plan: Plan, path: Path) -> None:
    """Write the curves of the primary metric, or of the first that the plan expects something of.

    Raises:
        InputError: neither .svg nor .png.
    """
    expected = [one.metric for one in plan.analysis.expected]
    metric = plan.primary if plan.primary in expected else expected[0]
    figure = plot_design(plan, metric)
    if path.suffix == ".svg":
        path.write_bytes(as_svg(figure))
        return
    if path.suffix == ".png":
        with our_style():
            figure.savefig(path, dpi=144, metadata={"Software": None})
        return
    raise InputError("curves are drawn as .svg or .png", where=str(path), do="name such a file")


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
        InputError: neither .csv nor .json.
    """
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
