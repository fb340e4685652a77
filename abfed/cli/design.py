"""`abfed design` and `abfed allocate`: before the first wave, and before the next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption


def design(
    plan: Annotated[Path, typer.Argument(help="A plan that says what it expects.")],
    curves: Annotated[
        Path | None, typer.Option(help="Draw smallest effect and power here (.svg or .png).")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the plan with the budget split of least width.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sample size, smallest effect, power and ε of a plan, before it is run. Asks no silo."""
    from abfed.lab.designing import design_notes, design_rows, draw_curves, write_split
    from abfed.protocol.plan import Plan
    from abfed.stats.design import design as look_ahead

    loaded = Plan.load(plan)
    found = look_ahead(loaded)
    if curves is not None:
        draw_curves(loaded, curves)
    if write is not None:
        write_split(loaded, found.split, write)
    if as_json:
        pays = {metric: one._asdict() for metric, one in found.covariates.items()}
        say_json(
            {
                "metrics": found.table.to_dict(orient="records"),
                "split": found.split,
                "gain": found.gain,
                "covariates": pays,
                "curves": curves,
                "plan": write,
            }
        )
        return
    table(design_rows(found), title="What the plan can find")
    for line in design_notes(loaded):
        say(line)
    shares = {metric: f"{share:.1%}" for metric, share in found.split.items()}
    table([shares], title="Shares of the metrics' budget with the least total width")
    say(
        f"With them intervals are {abs(1 - found.gain):.1%} narrower in total, by the plan's"
        " priorities."
    )
    for metric, forecast in found.covariates.items():
        say(f"Covariate of {metric}: {forecast.why}.")
    for path in (curves, write):
        if path is not None:
            say(f"Written: {path}")


def allocate(
    run: Annotated[str, typer.Argument(help="A run's name or folder.")],
    workspace: WorkspaceOption,
    metric: Annotated[str, typer.Option(help="Another metric than the primary one.")] = "",
    floor: Annotated[float, typer.Option(help="Smallest share of an arm.")] = 0.05,
    out: Annotated[
        Path | None, typer.Option(help="Write the next wave's shares here (.csv or .json).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The Bayesian read-out of a run, and the next wave's allocation. Reads the run only."""
    from abfed.lab.designing import write_allocation
    from abfed.lab.workspace import Workspace
    from abfed.stats.bayes import allocation, readout, rounded

    done = Workspace(workspace).find_run(run)
    name = metric or done.plan.primary
    read = readout(done.plan, done.effects, name)
    shares = rounded(allocation(done.plan, read, floor=floor))
    if out is not None:
        write_allocation(done, name, shares, out)
    if as_json:
        rows = read.to_dict(orient="records")
        say_json({"run": done.name, "metric": name, "readout": rows, "shares": shares, "file": out})
        return
    table(read.to_dict(orient="records"), title=f"Posterior of the effect on {name}")
    table([shares], title="Shares of the next wave (Thompson, with a floor)")
    if out is not None:
        say(f"Written: {out}")
