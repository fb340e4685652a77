"""`abfed ledger`: what was charged, and what is left. For the silo's own people."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption

app = typer.Typer(help="Read a silo's privacy ledger.", no_args_is_help=True)


@app.command()
def show(
    workspace: WorkspaceOption,
    silo: Annotated[str, typer.Argument(help="One silo; all where none is named.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show spent and remaining budget, and each plan's charge."""
    from abfed.lab.workspace import Workspace
    from abfed.privacy.accounting import epsilon_of

    opened = Workspace(workspace)
    shown: list[dict[str, Any]] = []
    for name in [silo] if silo else opened.silos:
        with opened.silo(name) as service:
            budget = service.policy().budget
            spent = service.ledger.spent_epsilon(budget.delta)
            plans = [
                {
                    "plan": one.plan_name,
                    "purpose": one.purpose,
                    "at": one.at,
                    "data epoch": one.epoch[:12],
                    "ε (PLD)": epsilon_of(one.charges, budget.delta),
                }
                for one in service.ledger.reservations()
            ]
        facts = {
            "silo": name,
            "spent": spent,
            "left": max(0.0, budget.epsilon - spent),
            "total": budget.epsilon,
            "delta": budget.delta,
        }
        shown.append(facts | {"plans": plans})
    if as_json:
        say_json(shown)
        return
    rows = [{key: value for key, value in one.items() if key != "plans"} for one in shown]
    table(rows, title="ε by silo (Rényi filter over all plans, protected unit: recipient)")
    for one in shown:
        if one["plans"]:
            say()
            table(one["plans"], title=str(one["silo"]))
