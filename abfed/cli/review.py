"""`abfed review`: how each control S1 to S22 stands here, from facts; kept and signed."""

from __future__ import annotations

import typer

from abfed.cli.doctor import SOMETHING_LEFT
from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption, typed


def review(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """See how each control stands at every site here; ends with 5 where one does not hold."""
    from abfed.lab.sections.security import NEVER
    from abfed.lab.security.posture import as_values, assess, keep
    from abfed.lab.upkeep.doctor import check_lab
    from abfed.lab.workspace import Workspace
    from abfed.site.clock import system_clock

    opened = Workspace(workspace)
    actor = opened.authorise("audit.read")
    now = system_clock()
    found = assess(opened, check_lab(opened.path, now), now)
    path = keep(opened, found, by=actor)
    if as_json:
        say_json(as_values(found) | {"red": found.red, "record": path})
    else:
        rows = [
            {
                "control": one.id,
                "state": "NOT SO" if one.state == "red" else one.state,
                "evidence": one.evidence[0],
                "as of": one.on or NEVER,
                "owner": one.owner or "nobody",
            }
            for one in found.standings
        ]
        table(rows, title=f"Security review of {', '.join(found.sites)}")
        say(f"Next: {typed('report security', workspace)}")
    if found.red:
        raise typer.Exit(SOMETHING_LEFT)
