"""What is known to be tried against what a run released, what stands against it, and what is left.

Figures are computed from the run: its ledger, the settings of its plan, and the brands that took
part. They bound an attacker who knows everything but whether one person is in the data.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from abfed.lab.paper.page import paragraph, table
from abfed.lab.views.units import NBSP, percent
from abfed.privacy.attack import most_found, surest
from abfed.protocol.modelling import MultiKrum, TrimmedMean
from abfed.protocol.printable import counted

if TYPE_CHECKING:
    from abfed.lab.runs import Run

FALSE_ALARMS = 0.01


class Attack(NamedTuple):
    """One of them: what is tried, what stands against it, and what is left under the settings."""

    tried: str
    against: str
    left: str


def attacks_on(run: Run) -> list[Attack]:
    """The known attacks on a run's releases, with the residual risk under the settings used."""
    plan, ledger = run.plan, run.ledger
    epsilon, delta = float(ledger["epsilon_run"].max()), plan.privacy.delta
    brands = counted(len(run.silos), "brand")
    known = [
        Attack(
            "Finding out whether one person is in the data, from all that was released",
            f"noise on every figure, for {plan.privacy.unit.sentence}",
            f"who knows all else, and thinks it as likely as not, is "
            f"{_sure(epsilon)} (but for a chance of {delta:g}); a test with "
            f"{percent(FALSE_ALARMS)} of false alarms finds them in at most "
            f"{_up(most_found(epsilon, delta, FALSE_ALARMS))} of cases",
        ),
        Attack(
            "Taking the difference of two answers, or the mean of many",
            "the same question gets the same answer, bit for bit; each other one is charged to one "
            "ledger a brand, for all people and plans together",
            _of_all_plans(run),
        ),
    ]
    if plan.model is not None:
        known.append(
            Attack(
                "Getting a person's features or reactions out of the model",
                f"each person's gradients are clipped to {plan.schedule.clip:g} and noised in each "
                "step",
                "as above: the model is counted in it. What is common in the data it repeats, and "
                "is meant to",
            )
        )
    known += [
        Attack("A brand that answers with figures it made up", *_made_up(run, brands)),
        Attack(
            "Listening on the way, or at the coordinator",
            "requests and answers are sealed and signed from end to end, inside TLS",
            "that a brand took part, sizes and times",
        ),
        Attack("Brands, or the coordinator, that put together what they know", *_together(run)),
    ]
    if len(run.silos) > 1:
        known.append(
            Attack(
                "Knowing somebody to be with several of the brands",
                "nothing: each brand answers for its own people",
                f"costs add: with all {brands}, {_sure(len(run.silos) * epsilon)}",
            )
        )
    return known


def known_attacks(run: Run) -> str:
    """The same as a paragraph and a table."""
    if run.plan.simulation is not None or run.plan.privacy.unprotected:
        return paragraph(
            "Against attacks on its releases nothing is promised: its people are made up, and its "
            "noise is seeded or there is none."
        )
    rows = [[escape(part) for part in one] for one in attacks_on(run)]
    said = "What is known to be tried against such releases, and what is left of it here:"
    head = ["Attack", "Against it", "What is left"]
    return paragraph(said) + table(head, rows, source=run.source, counts=())


def _of_all_plans(run: Run) -> str:
    """The bound over all plans for ever, where every brand shows its budget."""
    budgets = run.ledger["epsilon_total"]
    if budgets.notna().all():
        whole = float(budgets.max())
        return f"over all plans for ever {_sure(whole)} (ε{NBSP}={NBSP}{whole:g})"
    return "over all plans for ever what the brands' budgets allow, which not all of them show"


def _made_up(run: Run, brands: str) -> tuple[str, str]:
    """What stands against a brand that lies, and how far it can get."""
    against = ["its signature names it", "checks of its split and its counts"]
    left = f"it moves the result of {brands} by its own weight, and lies about its own people"
    if len(run.silos) == 1:
        left = "the result is its own: it lies about its own people"
    if run.plan.noise_once:
        return "; ".join(against), f"{left}; under masks its own figures can't be looked at"
    if run.plan.model is not None:
        settings = run.plan.schedule
        against.append("alarms about updates that are too long, too quiet or against the others")
        if settings.largest_update is not None:
            against.append(f"an update longer than {settings.largest_update:g} is left out")
        if isinstance(settings.combine, TrimmedMean):
            against.append(f"{percent(settings.combine.cut)} of the brands are cut off at each end")
        elif isinstance(settings.combine, MultiKrum):
            against.append(f"the {settings.combine.hostile} farthest from the others don't count")
        elif settings.largest_update is None:
            left += "; the plan set its updates no bound of length"
    return "; ".join(against), left


def _together(run: Run) -> tuple[str, str]:
    """What stands against those who pool what they know."""
    colluders = run.plan.privacy.colluders
    if not run.plan.noise_once:
        return "each brand's figures carry all of their noise", "nothing more: they are released"
    return (
        f"noise that counts on at most {counted(colluders, 'brand')} telling what they added",
        "with more of them, less noise than was promised, down to each brand's own share of it",
    )


def _sure(epsilon: float) -> str:
    """How sure somebody becomes at most, with the digits that tell it from certainty."""
    doubt = 1.0 - surest(epsilon)
    if doubt < 1e-6:
        return "as good as sure"
    places = max(1, math.ceil(-math.log10(doubt)) - 2)
    whole = math.ceil(100 * (1.0 - doubt) * 10**places) / 10**places
    return f"at most {percent(whole / 100, places)} sure"


def _up(share: float) -> str:
    """A share in percent, rounded against us."""
    return percent(math.ceil(share * 1000) / 1000, 1)
