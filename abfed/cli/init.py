"""`abfed init`: a workspace, empty."""

from __future__ import annotations

from typing import Annotated

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, WorkspaceOption, typed


def init(
    workspace: WorkspaceOption,
    development: Annotated[
        bool,
        typer.Option(
            "--development-person/--no-development-person",
            help="Make up a person to try abfed out with.",
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace: a coordinator, and room for silos, runs and reports."""
    from abfed.lab.workspace import Workspace

    made = Workspace.create(workspace, development=development)
    if as_json:
        say_json({"workspace": made.path, "coordinator": made.keys.key_id})
        return
    say(f"Workspace {made.path} is ready. Its coordinator's key is {made.keys.key_id}.")
    if development:
        say("A development person is enrolled; their secrets lie in its lab folder.")
        say(f"Sign in as them: {typed('login --development', workspace)}")
    say(f"Next: {typed('data synth --ingest', workspace)}")
    say(f"or your own brand: {typed('silo create NAME --mapping FILE', workspace)}")
