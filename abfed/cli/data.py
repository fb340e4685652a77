"""`abfed data`: data to try abfed on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, WorkspaceOption, typed

app = typer.Typer(help="Make up brands, or fetch public data.", no_args_is_help=True)

IngestOption = Annotated[
    bool, typer.Option("--ingest", help="Also found the silos and read the data into them.")
]


@app.command()
def synth(
    workspace: WorkspaceOption,
    seed: Annotated[int, typer.Option(min=0, help="Of the people; noise takes none.")] = 2026,
    scale: Annotated[float, typer.Option(min=0.01, max=100, help="Times as many people.")] = 1.0,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Sends before this day only: waves to come."),
    ] = None,
    ingest: IngestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make up three brands with known true effects, each exporting in its own words."""
    from abfed.lab.intake import found_and_ingest
    from abfed.lab.samples.synth import write_brands
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    day = None if until is None else until.date()
    brands = write_brands(opened.data, seed=seed, scale=scale, until=day)
    if ingest:
        for brand in brands:
            found_and_ingest(opened, brand.name, brand.export, brand.mapping, synthetic=True)
    if as_json:
        say_json([{"brand": one.name, "export": one.export, "truth": one.truth} for one in brands])
        return
    for brand in brands:
        state = "is in its silo" if ingest else f"lies in {brand.export}"
        say(f"{brand.name}: {state}; the truth is in {brand.truth}")


@app.command()
def mock(
    plan: Annotated[Path, typer.Argument(help="The plan whose schema the people have.")],
    workspace: WorkspaceOption,
    seed: Annotated[int, typer.Option(min=0, help="Of the people; noise takes none.")] = 2026,
    recipients: Annotated[
        int | None, typer.Option(min=10, help="Of each brand; what the plan expects, or 5,000.")
    ] = None,
    ingest: IngestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make up brands of a plan's schema from its declarations alone; arms don't differ."""
    from abfed.lab.intake import found_and_ingest
    from abfed.lab.samples.mock import write_mock
    from abfed.lab.workspace import Workspace
    from abfed.protocol.plan import Plan

    opened = Workspace(workspace)
    asked = Plan.load(plan)
    folder = opened.data / f"mock-{asked.name}"
    brands = write_mock(asked, folder, seed=seed, recipients=recipients)
    if ingest:
        for brand in brands:
            found_and_ingest(
                opened, brand.name, brand.export, brand.mapping, synthetic=True,
                purposes=(asked.purpose,),
            )  # fmt: skip
    if as_json:
        say_json(
            [{"brand": one.name, "export": one.export, "mapping": one.mapping} for one in brands]
        )
        return
    for brand in brands:
        say(f"{brand.name}: {'is in its silo' if ingest else f'lies in {brand.export}'}")
    say(
        f"Next: {typed(f'run {plan}', workspace)}" if ingest else "Add --ingest to found the silos."
    )


@app.command()
def fetch(
    name: Annotated[Literal["hillstrom"], typer.Argument(help="Which data set.")],
    workspace: WorkspaceOption,
    source: Annotated[
        Path | None, typer.Option("--from", help="A local copy, where there is no network.")
    ] = None,
    ingest: IngestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a public data set, checked; Hillstrom's is split into four brands."""
    from abfed.lab.intake import found_and_ingest
    from abfed.lab.samples.shipped import shipped
    from abfed.lab.samples.sources import HILLSTROM_SILOS, fetch_hillstrom
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    file = fetch_hillstrom(opened.data / f"{name}.csv", source=source)
    if ingest:
        for silo in HILLSTROM_SILOS:
            mapping = shipped(f"experiments/hillstrom/{silo}.mapping.yaml")
            found_and_ingest(opened, silo, file, mapping)
    if as_json:
        say_json({"file": file, "silos": list(HILLSTROM_SILOS) if ingest else []})
        return
    say(f"{file} is complete and unchanged.")
    if ingest:
        say(f"It is in four silos: {', '.join(HILLSTROM_SILOS)}.")
        say(f"Next: {typed('run experiments/hillstrom.yaml', workspace)}")
