"""`abfed login` and `abfed logout`: who asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace
    from abfed.site.device import Shown
    from abfed.site.proofs import Second

CodeOption = Annotated[str, typer.Option(help="One-time code; asked for where left out.")]
PortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Of the page for a hardware key; any where 0.")
]
PasswordOption = Annotated[
    Path | None, typer.Option(help="A private file with the password; asked for where left out.")
]


def login(
    workspace: WorkspaceOption,
    name: Annotated[str, typer.Argument(help="Your name at the site.")] = "",
    site: SiteOption = "coordinator",
    development: Annotated[
        bool, typer.Option("--development", help="As the person made up for trying abfed out.")
    ] = False,
    password_file: PasswordOption = None,
    code: CodeOption = "",
    key: Annotated[
        Path | None, typer.Option(help="A service account's key file, instead of a person.")
    ] = None,
    openid: Annotated[
        bool, typer.Option("--openid", help="Through the provider that the site trusts.")
    ] = False,
    hardware_key: Annotated[
        bool, typer.Option("--hardware-key", help="Touch a hardware key in place of a code.")
    ] = False,
    port: PortOption = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Give a second factor again, for a dangerous act.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign in with password and second factor; the session lasts hours, its tokens minutes."""
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    if fresh and not openid:  # at a provider, a fresh factor is a new sign-in
        session = opened.session(site)
        session.expect(name)
        session.fresh(_second(opened, session.facts.person, site, code, port, touch=hardware_key))
        session.keep(opened.lab)
    elif development:
        session = opened.sign_in_development()
    elif openid:
        session = opened.sign_in_by_device(_show, site=site)
    elif key is not None:
        session = opened.sign_in_with_key(key, site=site)
    else:
        who = name or typer.prompt("Name")
        password = typed_password(password_file)
        second = _second(opened, who, site, code, port, touch=hardware_key)
        session = opened.sign_in(who, password, second, site=site)
    late = opened.office(site).alert_overdue()
    if as_json:
        say_json({"person": session.who, "roles": session.facts.roles, "until": session.ends_at})
        return
    roles = ", ".join(session.facts.roles) or "no role"
    say(f"Signed in as {session.who} ({roles}) until {session.ends_at[:16]}Z.")
    if late > 0:
        say(f"Alert: the access review of {site} is {late} days late: abfed access review")


def _second(
    opened: Workspace, name: str, site: str, code: str, port: int, *, touch: bool
) -> Second:
    """The second factor: a touch, the code that was given, or one that is asked for."""
    if touch:
        from abfed.lab.touching import ask_touch

        return ask_touch(opened.office(site).people, name, show_page, port=port)
    typed: str = code or typer.prompt("Code")
    return typed


def show_page(address: str) -> None:
    """Tell where a hardware key is touched."""
    typer.echo(f"Open {address} in a browser on this machine", err=True)


def _show(shown: Shown) -> None:
    typer.echo(f"Open {shown.address} and type {shown.code}", err=True)


def logout(
    workspace: WorkspaceOption, site: SiteOption = "coordinator", as_json: JsonOption = False
) -> None:
    """Sign out: the session's key is destroyed."""
    from abfed.lab.session import forget_session
    from abfed.lab.workspace import Workspace

    was = forget_session(Workspace(workspace).lab, site)
    if as_json:
        say_json({"signed_out": was})
        return
    say("Signed out." if was else "Nobody was signed in.")


def typed_password(file: Path | None, text: str = "Password", *, confirm: bool = False) -> str:
    """A password, from a private file or the terminal; it is never shown."""
    from abfed.site.files import read_private

    if file is not None:
        return read_private(file).decode().rstrip("\n")
    typed: str = typer.prompt(text, hide_input=True, confirmation_prompt=confirm)
    return typed
