"""`abfed silo ingest` and `abfed silo pull`: an export into a brand's silo, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from abfed.silo.ingest import IngestReport

NameArgument = Annotated[str, typer.Argument(help="The brand's name.")]


def ingest(
    name: NameArgument,
    export: Annotated[Path, typer.Argument(help="The brand's export, CSV or Parquet.")],
    workspace: WorkspaceOption,
    mapping: Annotated[Path, typer.Option("--mapping", "-m", help="How to read the export.")],
    as_json: JsonOption = False,
) -> None:
    """Read an export into the encrypted store; known sends are updated, the rest is added."""
    from abfed.lab.intake import ingest_export
    from abfed.lab.workspace import Workspace

    _tell(name, ingest_export(Workspace(workspace), name, export, mapping), as_json=as_json)


def pull(
    name: NameArgument,
    connector: Annotated[str, typer.Argument(help="As `connectors.yaml` of the silo names it.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Fetch an export from the brand's e-mail tool, an approved vendor's, and ingest it."""
    from abfed.lab.upkeep.pulling import pull_export
    from abfed.lab.workspace import Workspace

    _tell(name, pull_export(Workspace(workspace), name, connector), as_json=as_json)


def _tell(name: str, report: IngestReport, *, as_json: bool) -> None:
    counted = (
        "rows",
        "left_out",
        "accepted",
        "new",
        "updated",
        "unchanged",
        "kept_out",
        "repeated",
    )
    facts = {what: getattr(report, what) for what in counted}
    if as_json:
        reasons = {"rejected": report.rejected, "doubts": report.doubts}
        lists = {
            kind: [{"reason": reason, "rows": rows} for reason, rows in found.items()]
            for kind, found in reasons.items()
        }
        say_json({"silo": name, **facts, **lists})
        return
    say(f"{name}: for this silo's own people, not for sharing")
    table([{"what": what, "rows": count} for what, count in facts.items()])
    if report.rejected:
        table(
            [{"reason": reason, "rows": count} for reason, count in report.rejected.items()],
            title="rejected",
        )
    if report.doubts:
        table(
            [{"look at this": doubt, "rows": count} for doubt, count in report.doubts.items()],
            title="doubtful, and taken in",
        )
