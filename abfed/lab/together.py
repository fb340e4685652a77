"""A run with noise once: its sum is opened from its releases each time it is read.

Nothing of it is kept beside them: what silos signed is what is shown, and anybody who holds the run
can open it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from abfed.coordinator.together import open_sums
from abfed.privacy.charges import epsilon_alone, noise_multipliers, plan_epsilon, silo_share
from abfed.privacy.once import role_of, split, steps_of
from abfed.protocol.messages import Release
from abfed.protocol.modelling import training_step
from abfed.protocol.plan import Plan
from abfed.stats.encoding import SCALE, Floats
from abfed.stats.once import pooled_totals
from abfed.stats.totals import SiloTotals

if TYPE_CHECKING:
    from abfed.lab.runs import Run
    from abfed.silo.service import SiloService


class CountedOn(NamedTuple):
    """What a silo's spending counts on, of its sums that were noised once.

    Attributes:
        charges: how many plans were charged so.
        colluders: how many of the other silos may tell what they added: the least of these plans.
        spent: ε of all its budget, as it is counted.
        alone: the same where all other silos tell, by this silo's own shares of the noise.
    """

    charges: int
    colluders: int
    spent: float
    alone: float

    @property
    def said(self) -> str:
        """In a sentence."""
        plans = "1 charge is" if self.charges == 1 else f"{self.charges} charges are"
        many = "1 other silo tells" if self.colluders == 1 else f"{self.colluders} others tell"
        return (
            f"{plans} of noise once. Spent is ε = {_up(self.spent)} where at most {many} what was "
            f"added; if all others tell, ε = {_up(self.alone)} by this silo's own share."
        )


def counted_on(service: SiloService) -> CountedOn | None:
    """What a silo's spending counts on; None where nothing was noised once. For its own people."""
    once = [one.once for one in service.ledger.reservations() if one.once is not None]
    if not once:
        return None
    budget, ledger = service.policy().budget, service.ledger
    colluders = min(one.colluders for one in once)
    spent, alone = ledger.spent(budget), ledger.spent(budget, alone=True)
    return CountedOn(len(once), colluders, spent, alone)


def pooled(run: Run) -> SiloTotals:
    """The totals of all brands together.

    Raises:
        IntegrityError: the releases don't open.
    """
    steps = {
        step: {silo: one[step] for silo, one in run.releases.items() if step in one}
        for step in steps_of()
    }
    opened = open_sums(run.plan, steps)
    return pooled_totals(run.plan, opened.sums, opened.counts, opened.answered, opened.noise)


def counted(run: Run, silo: str) -> tuple[Floats, float]:
    """A brand's noised recipients by arm, and the noise sd of each: released by themselves."""
    noise = split(run.plan, noise_multipliers(run.plan).statistics)[0]
    return run.releases[silo]["keys"].arrays["counts"] / SCALE, noise


def guarantee(plan: Plan, least: float = 0.0) -> str:
    """What a plan with noise once costs, in a sentence.

    Args:
        plan: with noise once.
        least: the least noise multiplier of a silo's own, by its policy.
    """
    covered, alone = plan_epsilon(plan), epsilon_alone(plan, least)
    own, delta = f"{silo_share(plan, least):.3g}", plan.privacy.delta
    if plan.model is not None:
        own += f" in the totals and {silo_share(plan, least, training_step(1)):.3g} in each round,"
    colluders = plan.privacy.colluders
    return (
        f"Noise once: with {colluders} colluding silo{'' if colluders == 1 else 's'} the guarantee "
        f"is ε = {_up(covered)} at δ = {delta:g}; alone, by this silo's own share of the noise "
        f"({own} of one person's largest influence), ε = {_up(alone)}."
    )


def figures(plan: Plan, least: Mapping[str, float]) -> dict[str, Any]:
    """The same as figures: for all, and what each silo is left with alone.

    Args:
        plan: with noise once.
        least: the least noise multiplier of each silo's own, by its policy.
    """
    return {
        "colluders": plan.privacy.colluders,
        "epsilon": plan_epsilon(plan),
        "alone": {silo: epsilon_alone(plan, floor) for silo, floor in least.items()},
    }


def in_this_run(run: Run, release: Release) -> list[str]:
    """What is promised about one release of a run with noise once."""
    plan = run.plan
    said = [guarantee(plan, _floor(run, release.silo))]
    if role_of(release.step) != "masked":
        return said
    colluders = plan.privacy.colluders
    others = [
        steps[release.step].release.noise["share"]
        for silo, steps in run.releases.items()
        if release.step in steps and silo != release.silo
    ]
    answered = len(others) + 1
    kept = sorted(others)[: len(others) - colluders]
    left = math.hypot(release.noise["share"], *kept)
    said.append(
        f"{answered} silos are in the sum. Whatever {colluders} of the others tell, noise of "
        f"{math.floor(left * 1000) / 1000:.3f} times one person's largest influence stays in it; "
        f"{release.charged[0].noise_multiplier:.3f} was charged. By itself what this silo sent is "
        "hidden by masks and says nothing."
    )
    return said


def _floor(run: Run, silo: str) -> float:
    """What a silo says that it never adds less than, where that is above the plan's share."""
    signed = {
        step: one.release.noise["share"]
        for step, one in run.releases[silo].items()
        if role_of(step) == "masked"
    }
    return max(
        (share for step, share in signed.items() if share > silo_share(run.plan, 0.0, step)),
        default=0.0,
    )


def _up(epsilon: float) -> str:
    """Rounded against us."""
    return f"{math.ceil(epsilon * 1000) / 1000:.3f}"
