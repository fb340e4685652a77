"""`abfed explain`: a release in plain words."""

from __future__ import annotations

from typing import Annotated

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, WorkspaceOption


def explain(
    release: Annotated[str, typer.Argument(help="A release's file, or RUN/SILO/STEP.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Say what was released, what is guaranteed, on what it rests and what remains."""
    from abfed.lab.explaining import explain as explained
    from abfed.lab.explaining import find_release
    from abfed.lab.workspace import Workspace

    parts = explained(*find_release(Workspace(workspace), release))
    if as_json:
        say_json(parts)
        return
    for heading, sentences in parts.items():
        say(heading)
        for sentence in sentences:
            say(f"  - {sentence}")
