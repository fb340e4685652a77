"""`abfed attack`: try to break the privacy claims of this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption
from abfed.protocol.errors import IntegrityError

EffortOption = Annotated[
    float, typer.Option("--effort", min=0.05, max=100.0, help="More gets closer to the truth.")
]


def attack(effort: EffortOption = 1.0, as_json: JsonOption = False) -> None:
    """Audit the shipped mechanisms empirically: a lower bound on ε, with 95 % confidence.

    People are made up and no silo is asked. Ends with exit code 4 where a claim is refuted.
    """
    from abfed.lab.security.attacks import attack_all, infer_all

    found, inferred = attack_all(effort=effort), infer_all()
    shown = [
        {
            "attack on": one.what,
            "claimed ε": one.claimed,
            "proved ε ≥": one.bound.epsilon,
            "δ": one.bound.delta,
            "confidence": one.bound.confidence,
            "right guesses": f"{one.bound.correct} of {one.bound.guesses}",
            "canaries": one.bound.canaries,
            "claim holds": one.holds,
        }
        for one in found
    ]
    members = [
        {
            "model": one.what,
            "loss threshold": one.loss_threshold,
            "likelihood ratio": one.likelihood_ratio,
            "most allowed": one.most,
            "claim holds": one.holds,
        }
        for one in inferred
    ]
    if as_json:
        say_json({"audit": shown, "membership": members})
    else:
        table(shown, title="One-run audit (Steinke, Nasr and Jagielski 2023)")
        say("A bound below the claim is what an honest mechanism gives; it does not prove the")
        say("claim. A bound above it would prove a defect.")
        table(members, title="Who was trained on? Area under the attacker's curve (.5 is blind)")
    refuted = [one.what for one in found if not one.holds]
    refuted += [one.what for one in inferred if not one.holds]
    if refuted:
        raise IntegrityError(
            f"the claim is refuted for: {'; '.join(refuted)}",
            why="the attack proved more ε than the ledger charges, at 95 % confidence",
            do="run it again; if it stays, release nothing with this version and report it",
        )
