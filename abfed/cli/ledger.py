"""`abfed ledger`: what was charged, what is left, what a plan would cost.

For the silo's own people: a refused asker learns "budget" and nothing of these figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abfed.cli.output import NOT_PRIVATE, say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from abfed.lab.together import CountedOn

app = typer.Typer(help="Read a silo's privacy ledger; return unused charges.", no_args_is_help=True)

SiloArgument = Annotated[str, typer.Argument(help="One silo; all where none is named.")]
PlanArgument = Annotated[Path, typer.Argument(help="A plan.")]
SiloOption = Annotated[str, typer.Option("--silo", help="One silo; all that the plan names here.")]


@app.command()
def show(workspace: WorkspaceOption, silo: SiloArgument = "", as_json: JsonOption = False) -> None:
    """Show each budget: spent, left, and what its renewal means."""
    from abfed.lab.together import counted_on
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    shown: list[dict[str, Any]] = []
    once: dict[str, CountedOn] = {}
    for name in [silo] if silo else opened.silos:
        with opened.silo(name) as service:
            shown += [
                {
                    "silo": name,
                    "budget": one.scope,
                    "spent": one.spent,
                    "left": one.left,
                    "ε": one.budget,
                    "δ": one.delta,
                    "method": "Rényi filter",
                    "renews": one.renews,
                }
                for one in service.standing()
            ]
            counted = counted_on(service)
        if counted is not None:
            once[name] = counted
    if as_json:
        told = {name: counted._asdict() for name, counted in once.items()}
        say_json([one | {"noise once": told.get(one["silo"])} for one in shown])
        return
    table(shown, title="ε by budget (Rényi filter over all plans, people, names and data epochs)")
    for name, counted in once.items():
        say(f"{name}: {counted.said}")
    say(
        "'Spent' holds for questions chosen by earlier answers, at the budget's δ. A run's own ε is"
    )
    say(
        "a privacy loss distribution (PLD) of fixed settings, at the plan's δ, and comes out lower."
    )
    say("Protected unit: one recipient with all their e-mails, added or removed, in one silo.")


@app.command()
def preview(
    plan: PlanArgument,
    workspace: WorkspaceOption,
    silo: SiloOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what a plan would cost and leave in each silo, before it is run. Charges nothing."""
    from abfed.lab.awaiting import awaited
    from abfed.lab.together import figures, guarantee
    from abfed.lab.workspace import Workspace
    from abfed.privacy.charges import plan_epsilon
    from abfed.protocol.plan import Plan

    opened, loaded = Workspace(workspace), Plan.load(plan)
    here = [name for name in loaded.silos if name in opened.silos]
    shown: list[dict[str, Any]] = []
    charged: list[str] = []
    least: dict[str, float] = {}
    for name in [silo] if silo else here:
        with opened.silo(name) as service:
            found = service.forecast(loaded)
            own = service.policy().noise_once
        if loaded.noise_once:
            least[name] = own.least_share if own is not None else 0.0
        charged += [] if found else [name]
        shown += [
            {
                "silo": name,
                "budget": one.scope,
                "left now": one.left,
                "takes": one.cost,
                "left after": one.left_after,
                "fits": one.fits,
                "questions like it": one.more,
            }
            for one in found
        ]
    cost, waits = plan_epsilon(loaded), awaited(opened, loaded)
    if as_json:
        facts = {"plan": loaded.name, "digest": loaded.digest, "epsilon": cost}
        facts |= {"method": "PLD", "delta": loaded.privacy.delta}
        facts |= {"fits": all(one["fits"] for one in shown)}
        facts |= {"noise_once": figures(loaded, least)} if least else {}
        facts |= {"waiting": waits.waiting, "others_spend": waits.epsilon, "goes_on": waits.goes_on}
        say_json(facts | {"silos": shown, "charged": charged})
        return
    if loaded.privacy.unprotected:
        say(f"{loaded.name}: {NOT_PRIVATE}")
        return
    say(f"{loaded.name}: ε = {cost:.3f} at δ = {loaded.privacy.delta:g} by itself (PLD).")
    for name, floor in least.items():
        say(f"{name}: {guarantee(loaded, floor)}")
    if shown:
        table(shown, title="What it takes of each budget (Rényi filter, at the budget's δ)")
        short = sorted({one["silo"] for one in shown if not one["fits"]})
        if short:
            say(f"It does not fit: {', '.join(short)} would refuse it (budget).")
        else:
            say("It fits in each silo here: none would refuse it for its budget.")
        say("'Takes' is less than the plan's own ε where much was spent: losses don't simply add.")
    for name in charged:
        say(f"{name}: charged already on the data as they are; asking again costs nothing.")
    for line in waits.lines():
        say(line)


@app.command()
def history(
    workspace: WorkspaceOption, silo: SiloArgument = "", as_json: JsonOption = False
) -> None:
    """Show each charge, oldest first: plan, purpose, when, data epoch, events, returned steps."""
    from abfed.lab.workspace import Workspace
    from abfed.privacy.accounting import epsilon_of

    opened = Workspace(workspace)
    shown: list[dict[str, Any]] = []
    for name in [silo] if silo else opened.silos:
        with opened.silo(name) as service:
            delta = service.policy().budget.delta
            shown += [
                {
                    "silo": name,
                    "at": one.at,
                    "plan": one.plan_name,
                    "purpose": one.purpose,
                    "digest": one.plan_digest[:12],
                    "data epoch": one.epoch[:12],
                    "events": sum(charge.count for charge in one.charges),
                    "returned": len(one.returned),
                    "ε (PLD)": "NOT PRIVATE" if one.exact else epsilon_of(one.charges, delta),
                    "δ": delta,
                    "colluders": one.once.colluders if one.once is not None else None,
                    "ε alone": epsilon_of(one.alone, delta) if one.once is not None else None,
                }
                for one in service.ledger.reservations()
            ]
    if as_json:
        say_json(shown)
        return
    table(charges_told(shown), title="Charges")
    if any(one["colluders"] is not None for one in shown):
        say(
            "Of noise once: ε holds where no more than so many colluders are among the other silos;"
        )
        say("'alone' is what is left where all others tell: by this silo's own share of the noise.")


def charges_told(charges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Charges for people: minutes, and what only noise once fills where there is any."""
    left_out = {"colluders", "ε alone"}
    if any(one["colluders"] is not None for one in charges):
        left_out = set()
    return [
        {
            name: f"{value[:10]} {value[11:16]}Z" if name == "at" else value
            for name, value in one.items()
            if name not in left_out
        }
        for one in charges
    ]


@app.command()
def settle(
    plan: PlanArgument,
    workspace: WorkspaceOption,
    silo: SiloOption = "",
    as_json: JsonOption = False,
) -> None:
    """Give back what a plan reserved for steps that nothing was ever released for."""
    from abfed.lab.workspace import Workspace
    from abfed.protocol.errors import Refused
    from abfed.protocol.plan import Plan

    opened, loaded = Workspace(workspace), Plan.load(plan)
    here = [name for name in loaded.silos if name in opened.silos]
    shown: list[dict[str, Any]] = []
    refusals: list[Refused] = []
    for name in [silo] if silo else here:
        opened.authorise("budget.raise", name)
        with opened.silo(name) as service:
            row: dict[str, Any] = {"silo": name, "returned steps": 0, "why": ""}
            try:
                row["returned steps"] = len(service.return_unused(loaded))
            except Refused as refused:  # of this silo: the others' charges come back all the same
                refusals.append(refused)
                row["why"] = refused.what
            shown.append(row | {"left": service.standing()[0].left})
    if refusals and len(refusals) == len(shown):
        raise refusals[0]
    if as_json:
        say_json(shown)
        return
    table(shown, title="Returned")
