"""`abfed incident`: open, contain, note, prove, close; and drill for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption, typed
from abfed.protocol.errors import AbfedError, InputError
from abfed.protocol.printable import counted

app = typer.Typer(help="Contain incidents, prove what was done, and drill.", no_args_is_help=True)

IncidentArgument = Annotated[str, typer.Argument(help="Its id, as `inc-2026-001`.")]
KindArgument = Annotated[
    str, typer.Argument(help="silo, person, key, model, plan or vendor.", metavar="KIND")
]
NameArgument = Annotated[
    str,
    typer.Argument(
        help="Which: a silo or vendor, NAME@SITE, a key's id or its site, a model's NAME@VERSION "
        "or digest, a plan's file, run or digest."
    ),
]
AtOption = Annotated[
    list[str] | None,
    typer.Option("--at", help="A site; several times. The incident's if left out."),
]


@app.command("open")
def open_incident(
    title: Annotated[str, typer.Argument(help="What happened, in a line. No personal data.")],
    playbook: Annotated[str, typer.Option(help="Which playbook is followed.")],
    workspace: WorkspaceOption,
    severity: Annotated[str, typer.Option(help="low, medium, high or critical.")] = "high",
    personal_data: Annotated[
        bool, typer.Option(help="Whether personal data is or may be concerned.")
    ] = True,
    known: Annotated[
        str, typer.Option(help="When it was known (UTC), as 2026-11-25T09:30; now if left out.")
    ] = "",
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Write an incident down, and start its clock."""
    from abfed.lab.incidents.playbook import find_playbook
    from abfed.lab.incidents.responding import incidents_of, parse_severity
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    steps = find_playbook(playbook, workspace).steps
    actor = opened.authorise("incident.contain", site)
    office = opened.office(site)
    made = incidents_of(office).open(
        title,
        by=actor,
        playbook=playbook,
        severity=parse_severity(severity),
        personal_data=personal_data,
        known_at=_moment(known) if known else None,
    )
    if as_json:
        say_json(made.model_dump(mode="json"))
        return
    say(f"{made.id} is open at {site}. The authority's clock: {made.clock(office.place().now)}.")
    table(
        [{"act": one.act, "within": f"{one.within_minutes} min", "do": one.do} for one in steps],
        title=f"Playbook {playbook}",
    )
    say(f"Next: {typed(f'incident contain {made.id} KIND NAME -s {site}', workspace)}")


@app.command()
def contain(
    incident: IncidentArgument,
    kind: KindArgument,
    name: NameArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze a silo, person, key, model, plan or vendor from the next message on.

    What was interrupted is asked again: it is written down then, and nothing is frozen twice.
    """
    from abfed.lab.incidents.containing import contain_everywhere
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actors: dict[str, str] = {}
    refused: dict[str, AbfedError] = {}
    for one in at or [site]:
        try:
            actors[one] = opened.authorise("incident.contain", one)
        except AbfedError as error:  # a site where somebody else acts keeps no other from freezing
            refused[one] = error
    done = contain_everywhere(
        opened, incident, kind, name, site=site, actors=actors, refused=refused
    )
    if as_json:
        say_json([one._asdict() for one in done])
        return
    for made in done:
        say(
            f"{made.kind} {made.name} is frozen at {made.site}: "
            f"on disk after {made.durable_ms:.1f} ms,"
        )
    say("and in effect at the next message. `abfed incident show` says when one was first refused.")


@app.command()
def lift(
    incident: IncidentArgument,
    kind: KindArgument,
    name: NameArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let something be used again. Needs a second factor of the last minutes."""
    from abfed.lab.incidents.containing import lift_everywhere
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actors = {one: opened.authorise("freeze.lift", one) for one in at or [site]}
    who = lift_everywhere(opened, incident, kind, name, site=site, actors=actors)
    if as_json:
        say_json({"kind": kind, "name": who, "sites": list(actors)})
        return
    say(f"{kind} {who} may be used again at {', '.join(actors)}.")


@app.command()
def note(
    incident: IncidentArgument,
    text: Annotated[str, typer.Argument(help="What was found or done. Kept sealed.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Add a note."""
    from abfed.lab.incidents.responding import incidents_of
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("incident.contain", site)
    noted = incidents_of(opened.office(site)).note(incident, text, by=actor)
    if as_json:
        say_json(noted.model_dump(mode="json"))
        return
    say(f"{incident} has {counted(len(noted.notes), 'note')}.")


@app.command()
def told(
    incident: IncidentArgument,
    to: Annotated[str, typer.Argument(help="Whom, or why nobody had to be told.")],
    workspace: WorkspaceOption,
    reference: Annotated[str, typer.Option(help="Their reference.")] = "",
    people: Annotated[
        bool, typer.Option("--people", help="The people concerned: the authority's clock goes on.")
    ] = False,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Record that the authority, or with --people the people concerned, were told."""
    from abfed.lab.incidents.responding import incidents_of
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("incident.contain", site)
    office = opened.office(site)
    changed = incidents_of(office).told(incident, to, reference, by=actor, authority=not people)
    clock = changed.clock(office.place().now)
    if as_json:
        say_json(changed.model_dump(mode="json") | {"clock": clock})
        return
    say(f"{incident}: {clock}.")


@app.command()
def evidence(
    incident: IncidentArgument,
    path: Annotated[Path, typer.Argument(help="The ZIP file to write.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bundle signed slices of the logs, who had access, what was frozen, and versions."""
    from abfed.lab.incidents.responding import write_evidence
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    sites = at or [site]
    actor = opened.authorise("audit.read", site)
    for one in sites:
        opened.authorise("audit.read", one)
    office = opened.office(site)
    digest = write_evidence(opened, office, incident, path, sites=sites, by=actor)
    key = office.keys.public_key.hex()
    if as_json:
        say_json({"path": str(path), "digest": digest, "key": key})
        return
    say(f"{path} holds the evidence; its SHA-256 is {digest}.")
    say(f"Whoever gets it checks it with: abfed incident verify {path} --key {key}")


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A bundle of evidence.")],
    key: Annotated[str, typer.Option(help="Public key of the site that made it, in hex.")],
    as_json: JsonOption = False,
) -> None:
    """Check a bundle: its signature, every digest, and every signed line of every log."""
    from abfed.lab.incidents.responding import verify_evidence
    from abfed.protocol.envelope import parse_public_key

    public = parse_public_key(key, do="give --key as it was told with the bundle")
    manifest = verify_evidence(path, public)
    if as_json:
        say_json(manifest)
        return
    say(
        f"{path} is whole: {manifest['incident']} of {manifest['site']}, "
        f"made {manifest['made_at']}."
    )
    for log, entries in sorted(manifest["entries"].items()):
        say(f"  {log}: {entries} entries, each signed, each linked to the one before")


@app.command()
def close(
    incident: IncidentArgument,
    summary: Annotated[str, typer.Argument(help="What it was, and what changes because of it.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """End an incident. What is frozen stays frozen."""
    from abfed.lab.incidents.containing import still_frozen
    from abfed.lab.incidents.responding import incidents_of
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("incident.contain", site)
    closed = incidents_of(opened.office(site)).close(incident, summary, by=actor)
    if as_json:
        say_json(closed.model_dump(mode="json"))
        return
    held = still_frozen(opened, closed)
    say(f"{incident} is closed.{' Still frozen, each until it is lifted:' if held else ''}")
    for (kind, name), sites in held.items():
        say(f"  {kind} {name} at {', '.join(sites)}")


@app.command()
def show(
    workspace: WorkspaceOption,
    incident: Annotated[str, typer.Argument(help="One of them; all where left out.")] = "",
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Show incidents with their clocks, and what is frozen at a site."""
    from abfed.lab.incidents.containing import still_frozen
    from abfed.lab.incidents.responding import frozen_at, incidents_of
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    opened.authorise("audit.read", site)
    office = opened.office(site)
    now, kept = office.place().now, incidents_of(office)
    found = [kept.find(incident)] if incident else list(kept.list().values())
    frozen = frozen_at(office)
    if as_json:
        say_json({"incidents": [one.model_dump(mode="json") for one in found], "frozen": frozen})
        return
    rows: list[dict[str, Any]] = [
        {
            "incident": one.id,
            "title": one.title,
            "severity": one.severity,
            "playbook": one.playbook,
            "state": "closed" if one.closed_at else "open",
            "72 h": one.clock(now),
        }
        for one in found
    ]
    table(rows, title=f"Incidents of {site}")
    for one in found if incident else ():
        for at, by, text in one.story():
            say(f"  {at[:19]}Z {f'{by}: ' if by else ''}{text}")
        for (kind, name), sites in still_frozen(opened, one).items():
            say(f"  Still frozen: {kind} {name} at {', '.join(sites)}")
    if frozen:
        table(frozen, title=f"Frozen at {site}")
    else:
        say(f"Nothing is frozen at {site}.")


@app.command()
def playbooks(
    workspace: WorkspaceOption,
    copy: Annotated[bool, typer.Option(help="Copy the shipped ones here, to be changed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List playbooks with owner and review date."""
    from abfed.lab.incidents.playbook import copy_playbooks
    from abfed.lab.incidents.playbook import playbooks as all_playbooks

    if copy:
        made = copy_playbooks(workspace)
        say(f"{len(made)} copied to {workspace / 'playbooks'}")
    today = datetime.now(UTC).date()
    rows = [
        {
            "playbook": one.name,
            "title": one.title,
            "owner": one.owner,
            "reviewed": one.reviewed_on,
            "next": f"{one.due_on}{' OVERDUE' if one.due_on <= today else ''}",
            "steps": len(one.steps),
        }
        for one in all_playbooks(workspace).values()
    ]
    if as_json:
        say_json(rows)
        return
    table(rows, title="Playbooks")


@app.command()
def drill(
    playbook: Annotated[str, typer.Argument(help="Which playbook.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Carry a playbook out against two made-up brands, and keep the timed, signed record."""
    from abfed.lab.incidents.drills import Drilled, read_drill
    from abfed.lab.incidents.drills import drill as run_drill
    from abfed.lab.incidents.playbook import find_playbook
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    found = find_playbook(playbook, workspace)
    actor = opened.authorise("incident.contain", site)
    office = opened.office(site)

    def tell(done: Drilled) -> None:
        if not as_json:
            say(f"  {done.seconds:7.2f} s  {done.act}: {done.outcome}")

    path = run_drill(found, office, by=actor, tell=tell)
    if as_json:
        say_json(read_drill(path, office.keys.public_key) | {"path": str(path)})
        return
    say(f"The record, signed by {site}: {path}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as cause:
        raise InputError(f"{text!r:.40} is no time", do="write it as 2026-11-25T09:30") from cause
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
