"""`abfed records`: what data-protection law asks for, made from what a silo enforces and did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption

app = typer.Typer(
    help="Records of processing, impact assessment, CCPA notice, transfers: from enforced state.",
    no_args_is_help=True,
)

SiloArgument = Annotated[str, typer.Argument(help="The brand.")]


@app.command()
def show(
    silo: SiloArgument,
    workspace: WorkspaceOption,
    kind: Annotated[
        Literal["all", "processing", "assessment", "notice", "transfers"],
        typer.Option(help="Which record."),
    ] = "all",
    as_json: JsonOption = False,
) -> None:
    """Show the records as they are now, with what is missing in them."""
    from abfed.lab.records.record import records_of, stated
    from abfed.lab.workspace import Workspace
    from abfed.site.clock import system_clock

    opened = Workspace(workspace)
    opened.authorise("audit.read", silo)
    now = system_clock()
    with opened.silo(silo) as service:
        found = [
            one
            for one in records_of(service, opened.office(silo), now)
            if kind in {"all", one.kind}
        ]
        if as_json:
            say_json([stated(one, service, now) for one in found])
            return
    for one in found:
        table([{"": key, "what is so": _short(value)} for key, value in one.facts.items()],
              title=one.title)  # fmt: skip
        for gap in one.gaps:
            say(f"  gap: {gap}")


@app.command()
def write(
    silo: SiloArgument,
    folder: Annotated[Path, typer.Argument(help="Where to; each record as JSON, page, signed.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Write all records, dated and signed by the silo, for an authority or an auditor."""
    from abfed.lab.records.files import write_records
    from abfed.lab.workspace import Workspace
    from abfed.site.clock import system_clock

    opened = Workspace(workspace)
    actor = opened.authorise("audit.read", silo)
    now = system_clock()
    with opened.silo(silo) as service:
        written = write_records(folder, service, opened.office(silo), now, by=actor)
    if as_json:
        say_json(written)
        return
    for path in written:
        say(str(path))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A .record file.")],
    key: Annotated[str, typer.Option(help="The silo's public key, 64 hex digits.")],
    as_json: JsonOption = False,
) -> None:
    """Check a record that was handed over: that this silo made it, and when. Needs no workspace."""
    from abfed.lab.records.files import read_record

    record = read_record(file, key)
    if as_json:
        say_json(record)
        return
    say(f"{record['title']}: made by {record['silo']} on {record['made_at'][:10]}; it holds.")
    for gap in record["gaps"]:
        say(f"  gap: {gap}")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_short(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, list):
        apart = "\n" if value and isinstance(value[0], dict) else ", "
        return apart.join(_line(one) for one in value) or "–"
    return "–" if value is None else str(value)


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_short(inner)}" for key, inner in value.items())
    return str(value)
