"""Options that many commands share, and how a command is written that somebody types next."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import typer

VARIABLE = "ABFED_WORKSPACE"
USUAL = "workspace"

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar=VARIABLE,
        help="The workspace's folder.",
        show_default=USUAL,
        default_factory=lambda: Path(USUAL),
    ),
]

SiteOption = Annotated[
    str, typer.Option("--site", "-s", help="The coordinator, or a silo of this machine.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]

MetricsOption = Annotated[
    int | None,
    typer.Option("--metrics", help="Port on loopback for /healthz, /readyz and /metrics."),
]


def typed(command: str, workspace: Path | str, root: click.Command | None = None) -> str:
    """A command to type next, over the same workspace.

    Args:
        command: without the word `abfed`.
        workspace: what was worked on.
        root: all commands; those of the one that is running where it is left out.
    """
    usual = os.environ.get(VARIABLE) or USUAL
    if root is None:
        running = click.get_current_context(silent=True)
        root = running.find_root().command if running is not None else None
    if str(workspace) == usual or not _takes_workspace(command, root):
        return f"abfed {command}"
    return f"abfed {command} -w {shlex.quote(str(workspace))}"


def _takes_workspace(command: str, root: click.Command | None) -> bool:
    """Whether a command works on a workspace: asked of the command itself, which is imported."""
    found: Any = root
    for word in command.split():
        if not hasattr(found, "get_command"):
            break
        context = click.Context(found)
        inner = found.get_command(context, word)
        # `abfed report RUN` leaves its verb out
        found = inner if inner is not None else found.get_command(context, "make")
    return any("--workspace" in one.opts for one in getattr(found, "params", ()))


def workspace_in(arguments: Sequence[str]) -> str:
    """The workspace that a command line names; empty where it names none."""
    for place, one in enumerate(arguments):
        if one in {"-w", "--workspace"} and place + 1 < len(arguments):
            return arguments[place + 1]
        if one.startswith("--workspace="):
            return one.partition("=")[2]
        if one.startswith("-w") and len(one) > 2:
            return one[2:]
    return ""


def over(advice: str, workspace: str, root: click.Command) -> str:
    """Advice whose commands (between backticks) name the workspace that was worked on.

    What is typed on another machine, over a workspace of theirs, stands between apostrophes.
    """
    if not workspace:
        return advice
    return re.sub(r"`abfed ([^`]+)`", lambda found: f"`{typed(found[1], workspace, root)}`", advice)
