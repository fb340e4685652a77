"""`abfed people password|add-key|remove-key`: what a person changes about how they sign in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abfed.cli.login import CodeOption, PasswordOption, PortOption, show_page, typed_password
from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption

NameArgument = Annotated[str, typer.Argument(help="Your name at the site.")]
LabelArgument = Annotated[str, typer.Argument(help="What you call the key.")]


def password(
    name: NameArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    password_file: PasswordOption = None,
    new_password_file: Annotated[
        Path | None,
        typer.Option(help="A private file with the new password; asked for where left out."),
    ] = None,
    code: CodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change your own password, with the old one and a one-time code; it ends your sessions."""
    from abfed.lab.workspace import Workspace
    from abfed.site.selfservice import change_password

    people = Workspace(workspace).office(site).people
    old = typed_password(password_file)
    typed = code or typer.prompt("Code")
    new = typed_password(new_password_file, "New password", confirm=True)
    change_password(people, name, old, typed, new)
    if as_json:
        say_json({"person": f"{name}@{site}", "changed": True})
        return
    say(f"The password of {name}@{site} is changed, and their sessions have ended.")


def add_key(
    name: NameArgument,
    label: LabelArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    password_file: PasswordOption = None,
    code: CodeOption = "",
    port: PortOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Enrol a hardware key of yours (WebAuthn), with your password and a one-time code."""
    from abfed.lab.touching import ask_new_key
    from abfed.lab.workspace import Workspace
    from abfed.site.clock import stamp
    from abfed.site.hardware import new_key
    from abfed.site.selfservice import add_key as enrol

    people = Workspace(workspace).office(site).people
    secret = typed_password(password_file)
    enrolled = ask_new_key(people, name, show_page, port=port)
    key = new_key(enrolled.made, label, stamp(people.clock()))
    # asked for last: a code is good for a minute, and finding the key may take longer
    typed = code or typer.prompt("Code")
    enrol(people, name, secret, typed, key=key, touch=enrolled.touch)
    if as_json:
        say_json({"person": f"{name}@{site}", "key": label})
        return
    say(f"{name}@{site} signs in with {label} from now on: abfed login {name} --hardware-key")


def remove_key(
    name: NameArgument,
    label: LabelArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    password_file: PasswordOption = None,
    code: CodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a hardware key of yours away, with your password and a one-time code."""
    from abfed.lab.workspace import Workspace
    from abfed.site.selfservice import remove_key as remove

    people = Workspace(workspace).office(site).people
    secret = typed_password(password_file)
    remove(people, name, secret, code or typer.prompt("Code"), label)
    if as_json:
        say_json({"person": f"{name}@{site}", "removed": label})
        return
    say(f"{label} signs {name}@{site} in no more.")
