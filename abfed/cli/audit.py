"""`abfed audit`: check the logs of the sites of a workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, WorkspaceOption

app = typer.Typer(help="Check audit logs.", no_args_is_help=True)


@app.command()
def verify(
    workspace: WorkspaceOption,
    site: Annotated[str, typer.Argument(help="One site; all where none is named.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Verify every signature and link; stops at the first entry that doesn't hold (exit code 4)."""
    from abfed.lab.workspace import COORDINATOR, Workspace

    opened = Workspace(workspace)
    found = {}
    for name in [site] if site else [COORDINATOR, *opened.silos]:
        if name == COORDINATOR:
            found[name] = opened.audit.verify()
        else:
            with opened.silo(name) as service:
                found[name] = service.audit.verify()
    if as_json:
        say_json({name: state._asdict() for name, state in found.items()})
        return
    for name, state in found.items():
        say(f"{name}: {state.entries} entries hold, head {state.head[:16]}")
