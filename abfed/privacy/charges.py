"""Which privacy events a plan is made of, step by step.

Both sides derive this from the plan alone: the silo to reserve and to calibrate its noise, the
coordinator to know what to expect. Each part of the plan (statistics, training, evaluation) is
calibrated to its own ε at the plan's δ; together they cost less than the sum, and never more than
the plan's ε, which `plan_charges` checks.

Steps, in order:

* `totals`: one Gaussian release of all arms and metrics;
* `train-0001` … : `local_steps` Poisson-sampled Gaussian steps, and one Gaussian release of the
  score histogram of the model that came in, on the recipients held out;
* `evaluate`: tables for the final model, of which that histogram is one. Half of the evaluation's
  cost goes to it, whatever the number of rounds: it is what people decide by.

With noise once there are five steps instead of the first: `keys`, with the silo's noised counts,
which are a release of their own; `shares`, `answered` and `opening`, of which nobody's data are a
part; and `totals`, charged at the noise that all silos but the colluding add together. A round of
training has five as well, of which one is charged.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from abfed.privacy.accounting import epsilon_of, gaussian_multiplier, sampled_multiplier
from abfed.privacy.once import own_share, role_of, split, steps_of, sum_of
from abfed.protocol.errors import PlanError
from abfed.protocol.messages import Charge
from abfed.protocol.modelling import LARGEST_MULTIPLIER, training_step
from abfed.protocol.plan import Plan


class NoiseMultipliers(NamedTuple):
    """Noise standard deviation over L2 sensitivity, for each part of a plan.

    `evaluation` is of each round's histogram, `final` of all tables of the final model together.
    """

    statistics: float
    training: float
    evaluation: float
    final: float


@functools.lru_cache(maxsize=64)
def noise_multipliers(plan: Plan) -> NoiseMultipliers:
    """The smallest multipliers that keep each part of the plan within its own ε.

    Parts that the plan doesn't have get 0.
    """
    split, delta = plan.privacy.split, plan.privacy.delta
    if plan.privacy.unprotected:
        return NoiseMultipliers(0.0, 0.0, 0.0, 0.0)
    statistics = gaussian_multiplier(split.statistics, delta)
    if plan.model is None:
        return NoiseMultipliers(statistics, 0.0, 0.0, 0.0)
    schedule = plan.schedule
    # Gaussian releases cost what Σ 1/σ² costs together (Dong, Roth and Su 2022)
    alone = gaussian_multiplier(split.evaluation, delta)
    return NoiseMultipliers(
        statistics,
        sampled_multiplier(
            split.training,
            delta,
            rate=schedule.sampling_rate,
            steps=schedule.rounds * schedule.local_steps,
        ),
        alone * math.sqrt(2.0 * schedule.rounds),
        alone * math.sqrt(2.0),
    )


@functools.lru_cache(maxsize=64)
def _plan_charges(plan: Plan) -> tuple[tuple[str, tuple[Charge, ...]], ...]:
    sigma = noise_multipliers(plan)
    if plan.privacy.unprotected:  # made-up people only (gate, check 5): there is nothing to charge
        return (("totals", ()),)
    steps: dict[str, tuple[Charge, ...]] = {"totals": (_gaussian(sigma.statistics),)}
    if plan.noise_once:
        counts, sums = (_gaussian(one) for one in split(plan, sigma.statistics))
        steps = dict.fromkeys(steps_of(), ()) | {"keys": (counts,), "totals": (sums,)}
    if plan.model is not None:
        schedule = plan.schedule
        histogram = _gaussian(sigma.evaluation)
        training = Charge(
            event="sampled-gaussian",
            noise_multiplier=sigma.training,
            sampling_rate=schedule.sampling_rate,
            count=schedule.local_steps,
        )
        for number in range(1, schedule.rounds + 1):
            step = training_step(number)
            if plan.noise_once:
                steps |= dict.fromkeys(steps_of(sum_of(step)), ())
            steps[step] = (training, histogram)
        steps["evaluate"] = (_gaussian(sigma.final),)
    return tuple(steps.items())


def _gaussian(sigma: float) -> Charge:
    return Charge(event="gaussian", noise_multiplier=sigma)


def plan_charges(plan: Plan) -> dict[str, tuple[Charge, ...]]:
    """The events of each step, in the order of the steps.

    Raises:
        PlanError: the parts together would cost more than the plan's ε, or no step of training
            can have as much noise as its part needs.
    """
    steps = dict(_plan_charges(plan))
    noise = noise_multipliers(plan).training
    if noise > LARGEST_MULTIPLIER:
        raise PlanError(
            f"each step of training would need noise of {noise:,.0f} clips",
            where=plan.name,
            why=f"a silo adds {LARGEST_MULTIPLIER:,.0f} at most, and so much teaches nothing",
            do="take fewer steps, a smaller sampling_rate, or more ε for training",
        )
    cost = plan_epsilon(plan)
    if not plan.privacy.unprotected and cost > plan.privacy.epsilon:
        raise PlanError(
            f"the parts of the plan cost ε = {cost:.4f} together",
            where=plan.name,
            why=f"more than the plan's ε = {plan.privacy.epsilon:g}",
            do="give the parts less, or the plan more",
        )
    return steps


def plan_epsilon(plan: Plan) -> float:
    """What the whole plan costs each recipient at its δ (PLD); infinite without privacy."""
    if plan.privacy.unprotected:
        return math.inf
    charges = [charge for _, step in _plan_charges(plan) for charge in step]
    return epsilon_of(charges, plan.privacy.delta)


def silo_share(plan: Plan, least: float = 0.0, step: str = "totals") -> float:
    """The noise multiplier that each silo adds to a sum, of a plan with noise once.

    Args:
        plan: with noise once.
        least: of the silo's own policy: it never adds less.
        step: that is masked: the totals, or a round of training.
    """
    sigma = noise_multipliers(plan)
    whole = sigma.training if step.startswith("train-") else split(plan, sigma.statistics)[1]
    return own_share(plan, whole, least)


def epsilon_alone(plan: Plan, least: float = 0.0) -> float:
    """What a plan with noise once costs where all other silos tell what they added."""
    alone: list[Charge] = []
    for step, charges in plan_charges(plan).items():
        first, *others = charges or (None,)
        if first is not None and role_of(step) == "masked":
            share = silo_share(plan, least, step)
            first = first.model_copy(update={"noise_multiplier": share})
        alone += [one for one in (first, *others) if one is not None]
    return epsilon_of(alone, plan.privacy.delta)
