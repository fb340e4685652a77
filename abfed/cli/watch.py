"""`abfed watch`: look for what is unusual, and tell it."""

from __future__ import annotations

import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, MetricsOption, WorkspaceOption
from abfed.protocol.errors import RunFailed
from abfed.protocol.printable import counted

if TYPE_CHECKING:
    from abfed.lab.watch.watching import Look

NEW_ALARMS = 5
"""Exit code where one look found something new: a finding, neither an error nor a refusal."""

REHEARSED_EVERY = 60.0  # seconds between two looks, where none are named
MONTHS = 10


def watch(
    workspace: WorkspaceOption,
    at: Annotated[
        list[str] | None, typer.Option("--at", help="A site; several times. All here if left out.")
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.0, help="Seconds between looks; looks once if left out.")
    ] = 0.0,
    metrics: MetricsOption = None,
    rehearsal: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Instead: how soon each rule finds an anomaly, and false alarms of quiet months.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at logs, runs and registers for what is unusual; tell the sinks of watch.yaml.

    Without --every it looks once, and ends with 5 where something new was found. With it, Ctrl-C
    and SIGTERM end it after the look that it is at. A rehearsal looks at made-up months, and at no
    site.
    """
    if rehearsal:
        _rehearse(every or REHEARSED_EVERY, as_json=as_json)
        return
    from abfed.lab.watch.watching import Watch
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
    with served(metrics, watching.metrics, tuple, lambda: None) as port:
        if port is not None:
            sys.stderr.write(f"metrics on http://127.0.0.1:{port}/metrics\n")
        watching.keep_looking(every, lambda look: _tell(look, as_json=as_json))


def _rehearse(every: float, *, as_json: bool) -> None:
    from abfed.lab.watch.rehearsing import rehearse, spoken

    told = rehearse(timedelta(seconds=every), MONTHS)
    rows = [
        {
            "rule": one.rule.name,
            "severity": one.rule.severity,
            "put in": one.entries,
            "found after": "NOT FOUND" if one.after is None else spoken(one.after),
            "false alarms": one.false_alarms,
        }
        for one in told
    ]
    cried = sum(one.false_alarms for one in told)
    deaf = [one.rule.name for one in told if one.after is None]
    if as_json:
        seconds = [one.after.total_seconds() if one.after else None for one in told]
        found = [row | {"found after": at} for row, at in zip(rows, seconds, strict=True)]
        say_json({"every": every, "months": MONTHS, "false_alarms": cried, "rules": found})
    else:
        table(
            rows,
            title=f"From an anomaly's first entry to the alarm, at most; {MONTHS} quiet months",
        )
        say(f"False alarms in {MONTHS} quiet months of four sites: {cried}.")
        say(f"Alarms that count nothing are found at the next look: after {every:g} s at most.")
    if deaf:
        raise RunFailed(f"not found: {', '.join(deaf)}", do="mend the rule; nobody else will")


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
        say(f"Nothing new; {counted(len(look.standing), 'alarm')} told before.")
    sys.stdout.flush()
