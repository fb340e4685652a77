"""`abfed silo score`: what a brand sends next, by a model, inside the brand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption


def score(
    name: Annotated[str, typer.Argument(help="The brand's name.")],
    model: Annotated[str, typer.Argument(help="A model it evaluated: its plan's name or digest.")],
    workspace: WorkspaceOption,
    export: Annotated[Path, typer.Option("--list", help="The brand's list of people.")],
    mapping: Annotated[Path, typer.Option("--mapping", "-m", help="How to read the list.")],
    purpose: Annotated[str, typer.Option(help="What for, as the silo's policy names it.")],
    explore: Annotated[
        float, typer.Option(help="Largest share of sends in which a random arm is drawn.")
    ] = 0.1,
    personal: Annotated[
        bool, typer.Option("--personal", help="Fit the last layer to this brand; kept nowhere.")
    ] = False,
    send_at: Annotated[
        datetime | None, typer.Option(help="When it will be sent (UTC), if not now.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the arm that a model recommends to each of a brand's people, into the silo only."""
    from abfed.lab.scoring import Order, score_list
    from abfed.lab.workspace import Workspace

    order = Order(name, model, export, mapping, purpose, explore, personal, send_at)
    path, scored = score_list(Workspace(workspace), order)
    if as_json:
        told = {"silo": name, "list": path, "recipients": scored.recipients}
        say_json(told | {"left_out": dict(scored.left_out)})
        return
    say(f"{name}: for this silo's own people, not for sharing")
    say(f"{scored.recipients} recipients: {path}")
    rows = [{"left out because": why, "lines": n} for why, n in scored.left_out.items()]
    if rows:
        table(rows)
    say("Import the column `send`; remove the file once your e-mail tool has it.")
