"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar="ABFED_WORKSPACE",
        help="The workspace's folder.",
        show_default="workspace",
        default_factory=lambda: Path("workspace"),
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
