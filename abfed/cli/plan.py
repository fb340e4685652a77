"""`abfed plan`: check a plan, or print the schema that editors complete it with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abfed.cli.output import NOT_PRIVATE, say, say_json, table
from abfed.cli.settings import JsonOption

app = typer.Typer(help="Check plans.", no_args_is_help=True)


@app.command()
def check(
    plan: Annotated[Path, typer.Argument(help="A plan.")], as_json: JsonOption = False
) -> None:
    """Validate a plan and say what it would cost each recipient. Asks no silo."""
    from abfed.privacy.charges import plan_charges, plan_epsilon
    from abfed.protocol.plan import Plan

    loaded = Plan.load(plan)
    steps = plan_charges(loaded)
    cost = plan_epsilon(loaded)
    if as_json:
        charges = {
            step: [charge.model_dump() for charge in charged] for step, charged in steps.items()
        }
        say_json({"digest": loaded.digest, "epsilon": cost, "steps": charges})
        return
    say(f"{loaded.name}: a valid plan, digest {loaded.digest}")
    if loaded.privacy.unprotected:
        say(NOT_PRIVATE)
        return
    say(
        f"It costs each recipient ε = {cost:.3f} at δ = {loaded.privacy.delta:g} (PLD);"
        f" it declares ε = {loaded.privacy.epsilon:g}."
    )
    table(
        [
            {"step": step, "event": one.event, "σ": one.noise_multiplier, "count": one.count}
            for step, charged in steps.items()
            for one in charged
        ]
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of plans, each field described, for editors."""
    from abfed.protocol.described import described_schema
    from abfed.protocol.plan import Plan

    say_json(described_schema(Plan, "abfed plan"))
