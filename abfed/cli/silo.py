"""`abfed silo`: what a brand's own people do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from abfed.cli.intake import NameArgument, ingest, pull
from abfed.cli.output import complain, say, say_json, table
from abfed.cli.peers import peers, pin
from abfed.cli.scoring import score
from abfed.cli.settings import JsonOption, MetricsOption, WorkspaceOption, typed
from abfed.cli.subject import app as subject

app = typer.Typer(help="Found, fill and look at a silo.", no_args_is_help=True)
app.add_typer(subject, name="subject")
app.command()(ingest)
app.command()(pull)
app.command()(score)
app.command()(peers)
app.command()(pin)

MappingOption = Annotated[
    Path | None, typer.Option("--mapping", "-m", help="How the export becomes canonical columns.")
]


@app.command()
def create(
    name: NameArgument,
    workspace: WorkspaceOption,
    mapping: MappingOption = None,
    purpose: Annotated[
        list[str] | None, typer.Option(help="A purpose that plans may state; may be repeated.")
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Budget for all plans together.")] = 10.0,
    synthetic: Annotated[bool, typer.Option(help="The brand's people are made up.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Found a silo: keys, an empty encrypted store, an empty ledger, a policy to edit.

    The policy allows the outcomes and features that the mapping declares; all outcomes and no
    feature where none is given.
    """
    from abfed.lab.workspace import Workspace
    from abfed.protocol.schema import OUTCOMES
    from abfed.silo.mapping import ExportMapping

    columns: tuple[str, ...] = OUTCOMES
    if mapping is not None:
        declared = ExportMapping.load(mapping)
        columns = (*declared.outcomes, *declared.features)
    folder = Workspace(workspace).create_silo(
        name,
        columns=columns,
        purposes=purpose or ("email-optimisation",),
        synthetic=synthetic,
        epsilon=epsilon,
    )
    if as_json:
        say_json({"silo": name, "folder": folder, "columns": columns})
        return
    say(f"Silo {name} is founded in {folder}.")
    say(f"What it allows stands in {folder / 'policy.yaml'}; whatever is not there is a no.")
    given = mapping if mapping is not None else "MAPPING.yaml"
    say(f"Next: {typed(f'silo ingest {name} EXPORT --mapping {given}', workspace)}")


@app.command()
def show(name: NameArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Show what a silo holds and allows, in declared names. No figure here comes from a row."""
    from abfed.lab.workspace import Workspace

    with Workspace(workspace).silo(name) as service:
        holdings, policy = service.holdings(), service.policy()
        spent = service.ledger.spent(policy.budget)
        facts = {
            "silo": name,
            "key": service.keys.key_id,
            "data epoch": holdings.epoch[:16],
            "experiments": {test: list(arms) for test, arms in holdings.experiments.items()},
            "outcomes": list(holdings.outcomes),
            "features": dict(holdings.features),
            "purposes": {one.name: list(one.bases) for one in policy.purposes},
            "allowed columns": list(policy.columns),
            "budget": {"epsilon": policy.budget.epsilon, "delta": policy.budget.delta},
            "spent": spent,
            "synthetic": policy.synthetic,
        }
    if as_json:
        say_json(facts)
        return
    table([{"": key, "value": _short(value)} for key, value in facts.items()])


@app.command()
def verify(
    workspace: WorkspaceOption,
    name: Annotated[str, typer.Argument(help="One brand; all where none is named.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Check silos: every file of the store, ledger, releases and audit log (exit code 4).

    Where none is named, one that is lost is told, and the others are checked all the same.
    """
    from abfed.lab.checked import check_silos
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    if name:
        opened.silo_folder(name)  # a name that stands for none is bad input
    found = check_silos(opened, [name] if name else opened.silos)
    broken = [silo for silo, parts in found.items() if not all(part.holds for part in parts)]
    if as_json:
        parts = {silo: [one._asdict() for one in checked] for silo, checked in found.items()}
        say_json({"holds": not broken, "broken": broken, "silos": parts})
    else:
        table(
            [
                {"silo": silo, "part": one.part, "holds": "yes" if one.holds else "NO",
                 "what": one.what}
                for silo, parts in found.items()
                for one in parts
            ]
        )  # fmt: skip
        for silo in broken:
            complain(f"integrity: {silo} is not as it was written")
            complain("  do:  restore what is named from a backup, or find out who changed it")
    if broken:
        raise typer.Exit(4)


@app.command()
def schema(
    of: Annotated[Literal["mapping", "policy"], typer.Argument(help="Of which file.")],
) -> None:
    """Print the JSON Schema of mappings or policies, each field described, for editors."""
    from abfed.protocol.described import described_schema
    from abfed.silo.mapping import ExportMapping
    from abfed.silo.policy import Policy

    model = ExportMapping if of == "mapping" else Policy
    say_json(described_schema(model, f"abfed {of}"))


@app.command()
def purge(name: NameArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Remove sends that are older than the policy keeps; for a daily schedule.

    Nobody has to be signed in: it removes what the policy says, as the silo's next request would.
    """
    from abfed.lab.workspace import Workspace

    with Workspace(workspace).silo(name) as service:
        due, days = service.purge(), service.policy().retention_days
        before = service.store.describe().purged_before
    if as_json:
        say_json({"silo": name, "retention_days": days, "due": due, "purged_before": before})
        return
    if days is None:
        say(f"The policy of {name} keeps sends for ever: retention_days is left out.")
        return
    say(f"{name} holds no send from before {before[:10]}{'' if due else ', as before'}.")


PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A private file with the passphrase; asked for if not."),
]


@app.command()
def backup(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    workspace: WorkspaceOption,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a silo, keys included, into one file that only the passphrase opens."""
    from abfed.lab.upkeep.backups import back_up
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("keys.rotate", name)
    secret = _passphrase(passphrase_file, confirm=True)
    made = back_up(opened, name, path, secret, by=actor)
    if as_json:
        say_json(made._asdict() | {"path": str(path)})
        return
    say(f"{made.files} files of {name}, {made.size / 1e6:.1f} MB: {path}")
    say("Keep it away from the passphrase. Restored, it is only as good as it is recent:")
    say("what the silo releases from now on is charged in its own ledger alone.")


@app.command()
def restore(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(help="The backup.")],
    workspace: WorkspaceOption,
    anchors: Annotated[
        Path | None,
        typer.Option(help="What a coordinator saw of the silo: `abfed audit anchors`."),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(help="What people asked of it since: `abfed silo subject carry`."),
    ] = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a silo back, unless it is older than what the silo has released since."""
    from abfed.lab.upkeep.backups import restore as put_back
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("policy.change")
    secret = _passphrase(passphrase_file, confirm=False)
    count = put_back(opened, name, path, secret, by=actor, anchors=anchors, subjects=subjects)
    if as_json:
        say_json({"silo": name, "files": count, "subjects": subjects is not None})
        return
    say(f"{count} files of {name} are back; its log holds all that was seen of it.")
    if subjects is None:
        say("Who was erased, opted out or restricted since that backup is back too: carry it out")
        say("again (`abfed silo subject`), then back up anew. `abfed doctor` says so until then.")


def _passphrase(file: Path | None, *, confirm: bool) -> str:
    from abfed.site.files import read_private

    if file is not None:
        return read_private(file).decode().strip()
    asked: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    return asked


@app.command()
def serve(
    name: NameArgument,
    workspace: WorkspaceOption,
    socket: Annotated[
        Path | None,
        typer.Option(help="Where to listen.", show_default="nodes/<silo>/silo.sock"),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="A user whose processes may connect; may be repeated. Default: oneself."),
    ] = None,
    metrics: MetricsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a silo to its node, through a Unix socket, until it is told to end."""
    from abfed.lab.workspace import Workspace
    from abfed.silo.serving import serve_silo

    opened = Workspace(workspace)
    path = socket or opened.path / "nodes" / name / "silo.sock"
    with opened.silo(name) as service:
        served = serve_silo(service, path, peer or [], metrics)
    if as_json:
        say_json({"silo": name, **served})


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_short(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
