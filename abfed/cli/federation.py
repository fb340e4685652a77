"""`abfed federation`: run and look after a federation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from abfed.cli.output import complain, say, say_json, table
from abfed.cli.settings import JsonOption, MetricsOption, WorkspaceOption

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What Flower colours its lines with; shown as text it hides what they say."""

UNANSWERED = 5  # as for each check that found something

app = typer.Typer(help="Run a federation and look after it.", no_args_is_help=True)


@app.command()
def up(
    workspace: WorkspaceOption, metrics: MetricsOption = None, as_json: JsonOption = False
) -> None:
    """Coordinator: run SuperLink, SuperExec and TLS proxy; ends them all when it ends."""
    from abfed.lab.operations import keep_coordinator

    starts = keep_coordinator(workspace, metrics)
    if as_json:
        say_json({"starts": starts})


@app.command()
def node(
    folder: Annotated[Path, typer.Argument(help="The node's folder.")],
    metrics: MetricsOption = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Take the bundle of a neighbouring release too, by its SHA-256."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Brand: run the SuperNode and its SuperExec; ends them when it ends."""
    from abfed.lab.operations import keep_node

    starts = keep_node(folder, metrics, also or ())
    if as_json:
        say_json({"starts": starts})


@app.command()
def status(
    workspace: WorkspaceOption,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait until every admitted node is connected.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Who is admitted, whose certificate runs out, whose node is connected, what runs.

    Ends with exit code 5 where SuperLink or proxy doesn't answer.
    """
    from abfed.coordinator.control import DOWN, HANGS
    from abfed.lab.operations import status as look
    from abfed.lab.operations import wait_until_connected

    facts = wait_until_connected(workspace, wait) if wait else look(workspace)
    if as_json:
        say_json(facts)
    else:
        _show(facts)
        for name, why in facts["unanswered"].items():
            complain(f"{name} does not answer: {why}")
        if facts["unanswered"]:
            complain(f"  do:  {DOWN if facts['superlink'] == 'down' else HANGS}")
    if facts["unanswered"]:
        raise typer.Exit(UNANSWERED)


def _show(facts: dict[str, Any]) -> None:
    head = f"Federation {facts['federation']}; SuperLink {facts['superlink']}"
    say(head)
    say(f"Certificates: the authority's {facts['authority']}, the proxy's {facts['proxy']}")
    if facts["silos"]:
        table(facts["silos"], title="Silos")
    if facts["runs"]:
        rows = [{**run, "order": run["order"][:12]} for run in facts["runs"]]
        table(rows, title="Runs")


@app.command()
def stop(
    workspace: WorkspaceOption,
    run_id: Annotated[int | None, typer.Option("--run", help="Only this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Stop what runs. What was released and charged stays; `abfed run --resume` goes on."""
    from abfed.lab.operations import stop_runs
    from abfed.lab.workspace import Workspace

    Workspace(workspace).authorise("plan.submit")  # who may start runs may stop them
    stopped = stop_runs(workspace, run_id)
    if as_json:
        say_json({"stopped": stopped})
        return
    if stopped:
        say(f"Stopped: {', '.join(map(str, stopped))}")
    else:
        say("Nothing was going on: no run was stopped.")


@app.command()
def logs(
    workspace: WorkspaceOption,
    lines: Annotated[int, typer.Option(help="The last so many of each file.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """The last lines of each process's log, and the events of each run."""
    from abfed.lab.operations import log_files

    last = {
        path.name: _COLOUR.sub("", path.read_text(errors="replace")).splitlines()[-lines:]
        for path in log_files(workspace)
    }
    if as_json:
        say_json([{"file": name, "lines": told} for name, told in last.items()])
        return
    for name, told in last.items():
        say(f"== {name}")
        for line in told:
            say(line)


@app.command()
def bundle(as_json: JsonOption = False) -> None:
    """The SHA-256 of this installation's bundle: what executors take. The same at every site."""
    from abfed.coordinator.bundle import bundle_digest

    digest = bundle_digest()
    if as_json:
        say_json({"bundle": digest})
        return
    say(digest)
