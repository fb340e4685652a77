"""`abfed access`: who may do what, why, since when, and who says so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption
from abfed.protocol.errors import Refused
from abfed.protocol.identity import Right

app = typer.Typer(help="Show, explain, review and revoke access.", no_args_is_help=True)

PersonArgument = Annotated[str, typer.Argument(help="NAME, or NAME@SITE.")]


@app.command()
def show(
    workspace: WorkspaceOption, site: SiteOption = "coordinator", as_json: JsonOption = False
) -> None:
    """Show a site's table of rights, and whose word on people counts there."""
    from abfed.lab.workspace import Workspace

    policy = Workspace(workspace).office(site).place().policy
    if as_json:
        say_json(policy.model_dump(mode="json"))
        return
    rules: list[dict[str, Any]] = [
        {
            "role": rule.role,
            "right": rule.right,
            "relation": ", ".join(rule.people) or rule.relation,
        }
        for rule in policy.rights
    ]
    table(rules, title=f"Who may do what at {site}; whatever is not here is a no")
    heard = [{"site": one.site, "roles": ", ".join(one.roles)} for one in policy.identities]
    table(heard, title="Whose word on people counts")


@app.command()
def why(
    person: PersonArgument,
    right: Annotated[Right, typer.Argument(help="What they want to do.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    submitter: Annotated[str, typer.Option(help="Whose plan or run it is, as NAME@SITE.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain why a person has a right at a site, or has not; exit code 3 where not."""
    from abfed.lab.offices import parse_who
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    name, home = parse_who(person, site)
    decision = opened.office(home).explain(
        name, right, submitter=submitter, place=opened.office(site).place()
    )
    if as_json:
        say_json({"person": f"{name}@{home}", "right": right, "site": site, **decision._asdict()})
    else:
        for step in decision.steps:
            say(f"  {step}")
        say(f"{name}@{home} {'may' if decision.allowed else 'may not'} {right} at {site}.")
    if not decision.allowed:
        raise typer.Exit(Refused.exit_code)


@app.command()
def approve(
    plan: Annotated[Path, typer.Argument(help="Somebody else's plan.")],
    workspace: WorkspaceOption,
    site: Annotated[str, typer.Option("--site", "-s", help="The silo that asks for it.")],
    runs: Annotated[int, typer.Option(min=1, help="How many runs it is good for.")] = 1,
    days: Annotated[int, typer.Option(min=1, help="For how many days.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Countersign a plan for a silo. Needs a second factor of the last minutes."""
    from abfed.lab.approvals import give_approval
    from abfed.lab.waves import wave_to_run
    from abfed.lab.workspace import Workspace
    from abfed.protocol.plan import Plan

    opened = Workspace(workspace)
    # of a plan with waves it is the next one that is asked, and approved
    loaded = wave_to_run(opened.runs_folder, Plan.load(plan), today=opened.clock().date())
    with opened.silo(site) as service:
        given = give_approval(
            opened.lab, service, opened.session(site), loaded, runs=runs, days=days
        )
    if as_json:
        say_json(given._asdict() | {"question": given.question._asdict(), "runs": runs})
        return
    say(f"{given.who} approves {loaded.name} at {site} for {runs} runs and {days} days,")
    say(f"because {' and '.join(given.why)}. It is bound to")
    for what, digest in given.question._asdict().items():
        say(f"  {what}: {digest[:16]}")


@app.command()
def revoke(
    person: PersonArgument,
    workspace: WorkspaceOption,
    reason: Annotated[str, typer.Option(help="Why; kept with it.")],
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Stop a person at a site from the next message on; says how long it took."""
    from abfed.lab.offices import parse_who
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("incident.contain", site)
    name, home = parse_who(person, site)
    stop = office.revoke(f"{name}@{home}", by=actor, reason=reason)
    if as_json:
        say_json({"person": f"{name}@{home}", "site": site, "durable_ms": stop.durable_ms})
        return
    say(f"{name}@{home} is stopped at {site}: on disk after {stop.durable_ms:.1f} ms,")
    say("and in effect at the next message. See `abfed access stopped`.")


@app.command()
def restore(
    person: PersonArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Let a person who was stopped ask again; it takes a new sign-in."""
    from abfed.lab.offices import parse_who
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("freeze.lift", site)
    name, home = parse_who(person, site)
    office.check_not_self(actor, name)
    since = office.restore(f"{name}@{home}", by=actor)
    if as_json:
        say_json({"person": f"{name}@{home}", "site": site, "signed_in_after": since})
        return
    say(f"{name}@{home} may ask at {site} again, signed in after {since[:19]}Z.")


@app.command()
def stopped(
    workspace: WorkspaceOption, site: SiteOption = "coordinator", as_json: JsonOption = False
) -> None:
    """List who was stopped at a site, and when a message of theirs was first refused for it."""
    from abfed.lab.workspace import Workspace

    stops = Workspace(workspace).office(site).stops.list()
    rows = [
        {
            "person": who,
            "at": stop.at[:19],
            "by": stop.by,
            "reason": stop.reason,
            "on disk after ms": stop.durable_ms,
            "first refused after ms": None if (ms := stop.refused_after_ms) is None else round(ms),
        }
        for who, stop in sorted(stops.items())
    ]
    if as_json:
        say_json(rows)
        return
    if not rows:
        say(f"Nobody is stopped at {site}.")
        return
    table(rows, title=f"Stopped at {site}")


def _ask(text: str) -> str:
    answer: str = typer.prompt(text)
    return answer


@app.command()
def review(
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    template: Annotated[
        Path | None, typer.Option(help="Write what is to be decided to this file, and stop.")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="Decisions from such a file; asked for where left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Review who may do what at a site: keep or revoke each marked grant, and record it."""
    from abfed.lab.upkeep.reviewing import ask_verdicts, read_verdicts, write_template
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("access.review", site)
    lines = office.review_lines()
    if template is not None:
        others = [line for line in lines if f"{line.person}@{site}" != actor]
        write_template(template, others)
        say(f"{sum(bool(line.marks) for line in others)} marked of {len(others)}: {template}")
        return
    if decisions is not None:
        verdicts = read_verdicts(decisions)
    else:
        verdicts = ask_verdicts(lines, actor, site, say, _ask)
    done = office.review(verdicts, by=actor)
    revoked = [one for one in done.verdicts if one.decision == "revoke"]
    if as_json:
        say_json(done.model_dump(mode="json"))
        return
    kept = len(done.verdicts) - len(revoked)
    say(f"Reviewed by {done.by}: {kept} kept, {len(revoked)} revoked.")
