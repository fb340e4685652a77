"""`abfed evaluate`: how good a run's model is, beside what needs none."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption


def evaluate(
    run: Annotated[str, typer.Argument(help="The run's folder or name.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Show how good a run's model is, from its releases: it costs nothing and asks no silo."""
    from abfed.lab.evaluating import Evaluation
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace).find_run(run)
    found = Evaluation.of(opened)
    frames = {
        "outcome": (found.outcome, "Telling the outcome: model and baselines"),
        "uplift": (found.uplift, "Ranking people by what an arm does to them"),
        "deciles": (found.deciles, "An arm's effect by tenths of the model's uplift"),
        "policy": (found.policy, "What the model's recommendations are worth, a recipient"),
        "recalibrated": (found.recalibrated, "With the slope and shift of the logit that fit best"),
        "further": (found.further, "Further outcomes, by the same network"),
        "revenue": (found.revenue, "Revenue by what was predicted"),
        "calibration": (found.calibration, "Predicted and observed"),
    }
    if as_json:
        tables: dict[str, Any] = {
            name: frame.to_dict(orient="records") for name, (frame, _) in frames.items()
        }
        fitted = found.recalibration
        best = {"slope": fitted[0], "shift": fitted[1]} if fitted else None
        say_json({"run": opened.name, "recalibration": best, **tables})
        return
    for frame, title in frames.values():
        if not len(frame) and not len(frame.columns):
            continue  # the plan doesn't ask for it
        if len(frame):
            table([_folded(row) for row in frame.to_dict(orient="records")], title=title)
        else:
            say(f"{title}: not shown, noise drowns it")
    if found.recalibration is not None:
        slope, shift = found.recalibration
        say(
            f"Recalibration: logit × {slope:.3f} {shift:+.3f} would fit best (1 and 0 fit already)."
        )
    say("Intervals are at 95 % and hold chance and noise; behind them stands how much of the")
    say("variance is noise. A figure is empty where noise drowns it; one about an order also where")
    say("all scores lie in one bin.")


def _folded(row: dict[Any, Any]) -> dict[str, Any]:
    """A row whose estimates are one cell each: value, interval, the noise's part."""
    from abfed.cli.output import cell
    from abfed.lab.views.frames import in_parts

    shown: dict[str, Any] = {}
    estimates = [name for name in row if f"{name}_se" in row]
    parts = {part for name in estimates for part in in_parts(name, None)}
    for name, value in row.items():
        if name in estimates:
            low, high, share = (row[f"{name}_{one}"] for one in ("low", "high", "privacy_share"))
            shown[name] = cell(value)
            if low < high:
                shown[name] += f" ({cell(low)} to {cell(high)}; noise {100 * share:.0f} %)"
        elif name not in parts:
            shown[name] = value
    return shown
