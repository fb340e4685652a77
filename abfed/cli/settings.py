"""Options that many commands share, and how a command is written that somebody types next."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

VARIABLE = "ABFED_WORKSPACE"
USUAL = "workspace"
WITHOUT_WORKSPACE = (
    "plan check",
    "plan schema",
    "design",
    "attack",
    "silo schema",
    "vendor schema",
    "incident verify",
    "provision fingerprint",
    "report reader-key",
    "report open",
    "federation node",
    "federation bundle",
)
"""Commands, by how they begin, that read no workspace; a test holds them to it."""

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


def typed(command: str, workspace: Path | str) -> str:
    """A command to type next, over the same workspace."""
    usual = os.environ.get(VARIABLE) or USUAL
    if str(workspace) == usual or command.startswith(WITHOUT_WORKSPACE):
        return f"abfed {command}"
    return f"abfed {command} -w {shlex.quote(str(workspace))}"


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


def over(advice: str, workspace: str) -> str:
    """Advice whose commands (between backticks) name the workspace that was worked on."""
    if not workspace:
        return advice
    return re.sub(r"`abfed ([^`]+)`", lambda found: f"`{typed(found[1], workspace)}`", advice)
