"""`abfed audit`: the logs of sites, verified against one another, asked, handed out, pruned."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption

app = typer.Typer(
    help="Check audit logs, ask them, hand them out, prune them.", no_args_is_help=True
)

FileArgument = Annotated[Path, typer.Argument(help="The file.")]
KeyOption = Annotated[str, typer.Option("--key", help="Public key of who signed it, in hex.")]


@app.command()
def verify(
    workspace: WorkspaceOption,
    site: Annotated[str, typer.Argument(help="One site; all where none is named.")] = "",
    anchors: Annotated[
        Path | None, typer.Option(help="Heads that another site keeps: `abfed audit anchors`.")
    ] = None,
    key: Annotated[str, typer.Option(help="Public key of that site, in hex.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Verify each entry and link, and that nothing is missing that other sites remember.

    Ends with exit code 4 at the first entry that doesn't hold, a missing tail or a fork, and names
    the site whose anchor proves it.
    """
    from abfed.lab.upkeep.auditing import anchors_here, figures, read_anchors, verify_site
    from abfed.lab.workspace import COORDINATOR, Workspace

    opened = Workspace(workspace)
    known = anchors_here(opened) + (read_anchors(anchors, key) if anchors else [])
    shown: dict[str, Any] = {}
    for name in [site] if site else [COORDINATOR, *opened.silos]:
        log = opened.office(name).folder / "audit.jsonl"
        started = time.perf_counter()
        verdict = verify_site(opened, name, known)
        shown[name] = figures(verdict, log, time.perf_counter() - started)
    if as_json:
        say_json(shown)
        return
    for name, one in shown.items():
        say(f"{name}: {one['entries']} entries hold, head {one['head'][:16]}")
        if one["pruned"]:
            say(f"  {one['pruned']} of them were pruned: their number and last head are signed.")
        say(f"  {one['anchors']} heads that others keep are in it. {one['unanchored']} entries are")
        say("  newer: that none is missing after them rests on this machine alone.")
        say(f"  {one['bytes_per_entry']} bytes and {one['microseconds_per_entry']} µs an entry.")


@app.command()
def anchors(
    site: Annotated[str, typer.Argument(help="The site whose log it is about.")],
    file: FileArgument,
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Write the heads of a site's log that this coordinator keeps, signed, for that site."""
    from abfed.lab.upkeep.auditing import write_anchors
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    count = write_anchors(opened, site, file)
    key = opened.keys.public_key.hex()
    if as_json:
        say_json({"site": site, "anchors": count, "file": file, "key": key})
        return
    say(f"{count} heads of {site} are in {file}. There: abfed audit verify {site}")
    say(f"  --anchors {file.name} --key {key}")


@app.command()
def query(
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    person: Annotated[str, typer.Option(help="Who acted, or was acted on.")] = "",
    plan: Annotated[str, typer.Option(help="A plan's digest, or its beginning.")] = "",
    model: Annotated[str, typer.Option(help="A model's name.")] = "",
    run: Annotated[str, typer.Option(help="A run's name.")] = "",
    receipt: Annotated[str, typer.Option(help="A subject-rights receipt.")] = "",
    event: Annotated[str, typer.Option(help="Events whose name begins so.")] = "",
    since: Annotated[str, typer.Option(help="Not before this day, as 2026-11-25.")] = "",
) -> None:
    """Print entries of a site's log, one JSON line each. Needs the right to read it."""
    from abfed.lab.upkeep.auditing import as_lines, ask
    from abfed.lab.workspace import Workspace

    asked = {"person": person, "plan": plan, "model": model, "run": run, "receipt": receipt}
    wanted = {what: value for what, value in asked.items() if value}
    found = ask(Workspace(workspace), site, wanted, since=since, event=event)
    sys.stdout.write(as_lines(found))


@app.command()
def export(
    file: FileArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Write a site's log as JSON lines with proof, for a SIEM. Needs the right to read it."""
    from abfed.lab.upkeep.auditing import export as write_export
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    count = write_export(opened, site, file)
    key = opened.office(site).keys.public_key.hex()
    if as_json:
        say_json({"site": site, "entries": count, "file": file, "key": key})
        return
    say(f"{count} entries of {site} are in {file}. Anybody can check them:")
    say(f"  abfed audit check {file} --key {key}")


@app.command()
def check(file: FileArgument, key: KeyOption, as_json: JsonOption = False) -> None:
    """Check an export with nothing but the site's public key."""
    from abfed.lab.upkeep.auditing import check_export

    stated = check_export(file, key)
    if as_json:
        say_json(stated)
        return
    say(f"{stated['site']}: {stated['entries']} entries hold, head {stated['head'][:16]}")


@app.command()
def prune(
    workspace: WorkspaceOption,
    before: Annotated[str, typer.Option(help="Keep entries from this day on, as 2025-11-25.")],
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Let go of entries older than a year or more; the rest still verifies. Export them first."""
    from abfed.lab.upkeep.auditing import day
    from abfed.lab.upkeep.auditing import prune as prune_log
    from abfed.lab.workspace import Workspace

    gone = prune_log(Workspace(workspace), site, day(before))
    if as_json:
        say_json({"site": site, "pruned": gone})
        return
    say(f"{gone} entries of {site} were pruned; how many, until when and their head stay, signed.")
