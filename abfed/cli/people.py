"""`abfed people`: who is known at a site, and what was granted to them."""

from __future__ import annotations

import io
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abfed.cli import factors
from abfed.cli.login import PasswordOption, typed_password
from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption
from abfed.protocol.identity import ROLES, Role

if TYPE_CHECKING:
    from abfed.site.people import Enrolment

app = typer.Typer(
    help="Enrol people of a site, grant them roles; change your own factors.", no_args_is_help=True
)

app.command("password")(factors.password)
app.command("add-key")(factors.add_key)
app.command("remove-key")(factors.remove_key)

NameArgument = Annotated[str, typer.Argument(help="What the person is called at the site.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept with the grant.")]
DaysOption = Annotated[int, typer.Option(min=1, max=366, help="For how many days.")]
WHITE_ON_BLACK = "\033[38;5;231;48;5;16m"  # of the 256 colours, whatever the terminal's theme

SecretsOption = Annotated[
    Path | None,
    typer.Option(help="Write what is shown once to this private file, not to the terminal."),
]


@app.command()
def add(
    name: NameArgument,
    workspace: WorkspaceOption,
    role: Annotated[
        list[str], typer.Option(help=f"To grant; may be repeated: {', '.join(ROLES)}.")
    ],
    reason: ReasonOption,
    site: SiteOption = "coordinator",
    days: DaysOption = 90,
    password_file: PasswordOption = None,
    secrets_file: SecretsOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="The same person as before: left, and was let back.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Enrol a person: a password, a one-time code's QR code and recovery codes, shown once."""
    from abfed.lab.workspace import Workspace
    from abfed.site.files import check_new
    from abfed.site.grants import new_grant, parse_role

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("people.manage", site)
    if secrets_file is not None:
        check_new(secrets_file)
    lasts, now = timedelta(days=days), opened.clock()
    grants = [
        new_grant(one, owner=actor, reason=reason, lasts=lasts, now=now)
        for one in dict.fromkeys(parse_role(text) for text in role)
    ]
    password = typed_password(password_file, confirm=True)
    enrolled = office.people.enrol(name, password, by=actor, grants=grants, again=again)
    if as_json:
        say_json({"person": f"{name}@{site}", "roles": role, "days": days, "by": actor})
    else:
        say(f"{name}@{site} is enrolled as {', '.join(role)} for {days} days, by {actor}.")
    _show_once(enrolled, secrets_file, quiet=as_json)


@app.command()
def service(
    name: NameArgument,
    workspace: WorkspaceOption,
    plan: Annotated[list[Path], typer.Option(help="A plan that it may ask; may be repeated.")],
    key: Annotated[Path, typer.Option(help="Where its key goes; kept nowhere else.")],
    reason: ReasonOption,
    site: SiteOption = "coordinator",
    days: DaysOption = 90,
    hours: Annotated[str, typer.Option(help="Hours of the day in UTC, such as 2-5.")] = "",
    weekdays: Annotated[str, typer.Option(help="Days of the week, Monday is 0.")] = "0123456",
    as_json: JsonOption = False,
) -> None:
    """Add a service account for batch jobs: a key bound to named plans, and to hours."""
    from abfed.lab.waves import digests_of
    from abfed.lab.workspace import Workspace
    from abfed.protocol.plan import Plan
    from abfed.site.accounts import add_account, keep_key, parse_hours
    from abfed.site.files import check_new
    from abfed.site.grants import new_grant

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("people.manage", site)
    check_new(key)
    lasts, now = timedelta(days=days), opened.clock()
    given = new_grant("service-account", owner=actor, reason=reason, lasts=lasts, now=now)
    plans = [Plan.load(path) for path in plan]
    bound = parse_hours(hours, weekdays)
    digests = [digest for one in plans for digest in digests_of(one)]
    made = add_account(office.people, name, digests, hours=bound, by=actor, grants=[given])
    keep_key(key, name, made)
    if as_json:
        say_json({"account": f"{name}@{site}", "plans": [one.digest for one in plans], "key": key})
        return
    say(f"{name}@{site} may ask {', '.join(one.name for one in plans)}. Its key lies in {key}.")


@app.command("list")
def list_people(
    workspace: WorkspaceOption, site: SiteOption = "coordinator", as_json: JsonOption = False
) -> None:
    """List who is known at a site, and each grant with owner, reason and expiry."""
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    register, now = opened.office(site).people.register(), opened.clock()
    rows = [
        {
            "person": f"{name}@{site}",
            "role": grant.role if grant else "–",
            "owner": grant.owner if grant else "",
            "reason": grant.reason if grant else "",
            "until": grant.expires_at[:10] if grant else "",
            "used": grant.used_at[:10] if grant else "",
            "factors": person.factors(),
            "state": person.state(now),
        }
        for name, person in sorted(register.people.items())
        for grant in person.grants or (None,)
    ]
    if as_json:
        say_json(rows)
        return
    table(rows, title=f"People of {site}")


@app.command()
def grant(
    name: NameArgument,
    role: Annotated[Role, typer.Argument(help="The role.")],
    workspace: WorkspaceOption,
    reason: ReasonOption,
    site: SiteOption = "coordinator",
    days: DaysOption = 90,
    as_json: JsonOption = False,
) -> None:
    """Give a role for a time, or renew it. Nobody grants to themselves."""
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("people.manage", site)
    office.check_not_self(actor, name)
    given = office.people.grant(name, role, owner=actor, reason=reason, lasts=timedelta(days=days))
    if as_json:
        say_json({"person": f"{name}@{site}", "role": role, "until": given.expires_at})
        return
    say(f"{name}@{site} is {role} until {given.expires_at[:10]}.")


@app.command()
def attest(
    name: NameArgument,
    module: Annotated[str, typer.Argument(help="The training module that was passed.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    days: DaysOption = 365,
    as_json: JsonOption = False,
) -> None:
    """Note that a person passed a training module; a role may require it."""
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("people.manage", site)
    office.check_not_self(actor, name)
    passed = office.people.attest(name, module, by=actor, lasts=timedelta(days=days))
    if as_json:
        say_json({"person": f"{name}@{site}", "module": module, "until": passed.until})
        return
    say(f"{name}@{site} has passed {module}; it counts until {passed.until[:10]}.")


@app.command()
def leave(
    name: NameArgument,
    workspace: WorkspaceOption,
    reason: Annotated[str, typer.Option(help="Why; kept with the stop.")],
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Let a person or service account go: stop them, end roles, password and second factor."""
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    office = opened.office(site)
    actor = opened.authorise("people.manage", site)
    office.check_not_self(actor, name)
    stop = office.offboard(name, by=actor, reason=reason)
    if as_json:
        say_json({"person": f"{name}@{site}", "by": actor, "durable_ms": stop.durable_ms})
        return
    say(f"{name}@{site} has left: stopped on disk after {stop.durable_ms:.1f} ms; no role,")
    say(f"password, second factor or key of theirs is left at {site}.")


@app.command()
def recover(
    name: NameArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    password_file: PasswordOption = None,
    code: Annotated[str, typer.Option(help="A recovery code; asked for where left out.")] = "",
    secrets_file: SecretsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enrol a new second factor with a recovery code, when the old one is lost."""
    from abfed.lab.workspace import Workspace
    from abfed.site.files import check_new
    from abfed.site.signin import SignIn

    office = Workspace(workspace).office(site)
    if secrets_file is not None:
        check_new(secrets_file)
    password = typed_password(password_file)
    typed = code or typer.prompt("Recovery code", hide_input=True)
    enrolled = SignIn(office.people).recover(name, password, typed)
    if as_json:
        say_json({"person": f"{name}@{site}", "recovered": True})
    else:
        say("The old second factor and all old recovery codes have ended.")
    _show_once(enrolled, secrets_file, quiet=as_json)


def _show_once(enrolled: Enrolment, file: Path | None, *, quiet: bool) -> None:
    """The secrets of an enrolment: to a private file, or once to the terminal."""
    if file is not None:
        from abfed.protocol.canonical import canonical_bytes
        from abfed.site.files import write_private

        write_private(file, canonical_bytes(enrolled._asdict()))
        if not quiet:
            say(f"What is shown once lies in {file}: hand it over, then destroy it.")
        return
    out = sys.stderr if quiet else sys.stdout
    out.write("Scan this with an authenticator; it is not shown again:\n")
    out.write(_qr_code(enrolled.uri, coloured=out.isatty()))
    out.write(f"or type its secret: {enrolled.otp_secret}\nRecovery codes, each good once:\n")
    out.write("".join(f"  {code}\n" for code in enrolled.recovery_codes))


def _qr_code(uri: str, *, coloured: bool) -> str:
    """A QR code in half blocks: black on white also where the terminal is light.

    Without colours a light terminal shows its negative, which not every authenticator reads.
    """
    import segno

    drawn = io.StringIO()
    code: Any = segno.make_qr(uri, error="m")
    code.terminal(out=drawn, compact=True)
    begin, end = (WHITE_ON_BLACK, "\033[0m") if coloured else ("", "")
    return "".join(f"{begin}{line}{end}\n" for line in drawn.getvalue().splitlines())
