"""`abfed watch`: look for what is unusual, and tell it."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, MetricsOption, WorkspaceOption

if TYPE_CHECKING:
    from abfed.lab.watching import Look

NEW_ALARMS = 5
"""Exit code where one look found something new: a finding, neither an error nor a refusal."""


def watch(
    workspace: WorkspaceOption,
    at: Annotated[
        list[str] | None, typer.Option("--at", help="A site; several times. All here if left out.")
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.0, help="Seconds between looks; looks once if left out.")
    ] = 0.0,
    metrics: MetricsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at logs, runs and registers for what is unusual; tell the sinks of watch.yaml.

    Without --every it looks once, and ends with 5 where something new was found. With it, Ctrl-C
    and SIGTERM end it after the look that it is at.
    """
    from abfed.lab.watching import Watch
    from abfed.lab.workspace import Workspace
    from abfed.site.health import served

    opened = Workspace(workspace)
    opened.authorise("audit.read", "coordinator")
    watching = Watch(opened, at or ())
    if not every:
        look = watching.look()
        _tell(look, as_json=as_json)
        if look.new:
            raise typer.Exit(NEW_ALARMS)
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watching.end())
    with served(metrics, watching.metrics, lambda: True, lambda: None) as port:
        if port is not None:
            sys.stderr.write(f"metrics on http://127.0.0.1:{port}/metrics\n")
        watching.keep_looking(every, lambda look: _tell(look, as_json=as_json))


def _tell(look: Look, *, as_json: bool) -> None:
    from abfed.site.sinks import described

    if as_json:
        say_json(
            {
                "new": [one.model_dump(mode="json") for one in look.first],
                "waiting": len(look.new) if look.failed else 0,
                "standing": len(look.standing),
                "failed_sinks": list(look.failed),
            }
        )
        return
    for alarm in look.first:
        say(described(alarm))
    for failed in look.failed:
        say(f"{len(look.new)} wait for a sink, which gets them again at the next look: {failed}")
    if not look.new:
        say(f"Nothing new; {len(look.standing)} alarms were told before.")
    sys.stdout.flush()
