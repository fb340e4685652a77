"""`abfed model`: models, their versions and stages, where they came from, and who takes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption

app = typer.Typer(
    help="List, approve, retire, export and verify models; where they came from.",
    no_args_is_help=True,
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME@VERSION, or NAME for its newest version.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; kept with it.")]


@app.command("list")
def list_models(
    workspace: WorkspaceOption,
    of: Annotated[
        str,
        typer.Option(
            "--made-of",
            metavar="DIGEST",
            help="Only those that a release, plan, data epoch or model of this digest is in; "
            "as receipts of erasures name them.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List models: version, stage, run, ε and AUC."""
    from abfed.lab.models import card_facts, made_of, registry_of
    from abfed.lab.workspace import Workspace

    found = registry_of(Workspace(workspace)).standings()
    if of:
        found = made_of(found, of)
    if as_json:
        say_json([card_facts(one) for one in found])
        return
    rows = [
        {
            "model": model.label,
            "stage": stage,
            "run": model.run,
            "silos": len(model.releases),
            "ε at most": max((one for one in model.epsilon.values() if one), default=None),
            "AUC": model.evaluation.get("auc"),
            "registered": model.registered_at[:10],
        }
        for model, stage in ((one.registration, one.stage) for one in found)
    ]
    if not rows:
        say(f"No model here has {of} in its history." if of else "No run made a model yet.")
        return
    table(rows, title="Models")


@app.command()
def show(model: ModelArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Show a model's registration and stages."""
    from abfed.lab.models import card_facts, registry_of
    from abfed.lab.workspace import Workspace

    facts = card_facts(registry_of(Workspace(workspace)).find(model))
    if as_json:
        say_json(facts)
        return
    wanted = ("name", "version", "stage", "run", "asked_by", "digest", "sealed", "id", "delta",
              "registered_at")  # fmt: skip
    table([{"": one, "value": str(facts[one])} for one in wanted])


@app.command()
def approve(
    model: ModelArgument,
    workspace: WorkspaceOption,
    reason: ReasonOption,
    as_json: JsonOption = False,
) -> None:
    """Approve a model to be used. Nobody approves their own; needs a fresh second factor."""
    from abfed.lab.models import approve as approve_model
    from abfed.lab.models import card_facts
    from abfed.lab.workspace import Workspace

    standing = approve_model(Workspace(workspace), model, reason=reason)
    if as_json:
        say_json(card_facts(standing))
        return
    say(f"{standing.registration.label} is approved by {standing.steps[-1].by}.")


@app.command()
def retire(
    model: ModelArgument,
    workspace: WorkspaceOption,
    reason: ReasonOption,
    as_json: JsonOption = False,
) -> None:
    """Retire a model: it is kept, and given out no more. Needs a fresh second factor."""
    from abfed.lab.models import card_facts
    from abfed.lab.models import retire as retire_model
    from abfed.lab.workspace import Workspace

    standing = retire_model(Workspace(workspace), model, reason=reason)
    if as_json:
        say_json(card_facts(standing))
        return
    say(f"{standing.registration.label} is retired by {standing.steps[-1].by}.")


@app.command()
def countersign(
    model: ModelArgument,
    workspace: WorkspaceOption,
    times: Annotated[int, typer.Option(min=1, help="How many exports it is good for.")] = 1,
    days: Annotated[int, typer.Option(min=1, help="For how many days.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Let somebody else export a model, where the policy asks for a second person."""
    from abfed.lab.models import countersign as sign
    from abfed.lab.workspace import Workspace

    file = sign(Workspace(workspace), model, runs=times, days=days)
    if as_json:
        say_json({"model": model, "times": times, "days": days, "file": file})
        return
    say(f"{model} may be exported by somebody else, {times} times within {days} days.")


@app.command()
def export(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="Where the safetensors go.")],
    workspace: WorkspaceOption,
    purpose: Annotated[str, typer.Option(help="What for; it is logged.")],
    as_json: JsonOption = False,
) -> None:
    """Take an approved model out, logged. Needs a fresh factor; a second person where asked."""
    from abfed.lab.models import export as take_out
    from abfed.lab.workspace import Workspace

    files = take_out(Workspace(workspace), model, file, purpose=purpose)
    if as_json:
        say_json({"model": model, "files": files, "purpose": purpose})
        return
    say(f"{model} is in {files[0]}, its signed registration in {files[1].name}.")


@app.command()
def verify(
    workspace: WorkspaceOption,
    model: Annotated[
        list[str] | None, typer.Argument(help="Models; all where none is named.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Open models and check signature, seal, digest and shapes; exit code 4 where one fails."""
    from abfed.lab.models import verify as verify_models
    from abfed.lab.workspace import Workspace

    found = verify_models(Workspace(workspace), model or [])
    if as_json:
        say_json({label: why or "holds" for label, why in found.items()})
    for label, why in found.items() if not as_json else ():
        say(f"{label}: {why or 'holds'}")
    if any(found.values()):
        raise typer.Exit(4)


@app.command()
def card(model: ModelArgument, workspace: WorkspaceOption) -> None:
    """Print a model's card as Markdown, made from what was signed."""
    from abfed.lab.models import registry_of
    from abfed.lab.views.model_cards import model_card
    from abfed.lab.workspace import Workspace

    sys.stdout.write(model_card(registry_of(Workspace(workspace)).find(model)))


@app.command()
def lineage(model: ModelArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Show the run, plan, releases and states of the data that a model came from."""
    from abfed.lab.models import lineage as trace
    from abfed.lab.models import registry_of
    from abfed.lab.workspace import Workspace

    traced = trace(registry_of(Workspace(workspace)).find(model).registration)
    if as_json:
        say_json(traced)
        return
    say(f"{traced['model']}, model {traced['digest'][:16]}")
    say(f"  came of run {traced['run']}, manifest {traced['run_manifest'][:16]}")
    plan = traced["plan"]
    say(f"  which carried out plan {plan['name']} {plan['digest'][:16]}, by {plan['asked_by']}")
    for silo, one in traced["silos"].items():
        say(f"  from {silo}, data epoch {one['data_epoch'][:16]}:")
        for step, release in one["releases"].items():
            say(f"    {step}: release {release[:16]}")
