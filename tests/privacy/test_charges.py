"""What a plan is made of, and that it stays within its own ε."""

from __future__ import annotations

from typing import Any

import pytest

from abfed.privacy.accounting import epsilon_of
from abfed.privacy.charges import noise_multipliers, plan_charges, plan_epsilon
from abfed.protocol.messages import Charge
from abfed.protocol.modelling import training_step
from abfed.protocol.plan import Plan
from tests.examples import make_model_plan, make_plan


def _split(statistics: float, training: float, evaluation: float) -> dict[str, Any]:
    split = {"statistics": statistics, "training": training, "evaluation": evaluation}
    return {"epsilon": sum(split.values()), "delta": 1e-6, "split": split}


PLANS = {
    "statistics": make_plan(),
    "tiny": make_plan(privacy={"epsilon": 0.01, "delta": 1e-9, "split": {"statistics": 0.01}}),
    "large": make_plan(privacy={"epsilon": 20.0, "delta": 1e-4, "split": {"statistics": 20.0}}),
    "model": make_model_plan(),
    "mostly training": make_model_plan(
        privacy=_split(0.1, 2.0, 0.1), training={"rounds": 10, "local_steps": 20}
    ),
    "mostly statistics": make_model_plan(privacy=_split(4.0, 0.3, 0.05)),
    "no sampling": make_model_plan(training={"rounds": 1, "local_steps": 3, "sampling_rate": 1.0}),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_costs_no_more_than_its_epsilon(plan: Plan) -> None:
    cost = plan_epsilon(plan)
    assert 0.4 * plan.privacy.epsilon < cost <= plan.privacy.epsilon
    everything = [charge for step in plan_charges(plan).values() for charge in step]
    assert epsilon_of(everything, plan.privacy.delta) == cost


@pytest.mark.parametrize("plan", [PLANS["model"], PLANS["no sampling"]], ids=["model", "all"])
def test_each_part_stays_within_its_own_epsilon(plan: Plan) -> None:
    steps, split, delta = plan_charges(plan), plan.privacy.split, plan.privacy.delta
    training = [step[0] for name, step in steps.items() if name.startswith("train-")]
    histograms = [step[-1] for name, step in steps.items() if name != "totals"]
    assert epsilon_of(steps["totals"], delta) <= split.statistics
    assert epsilon_of(training, delta) <= split.training
    assert epsilon_of(histograms, delta) <= split.evaluation


def test_statistics_are_one_step() -> None:
    sigma = noise_multipliers(make_plan())
    charge = Charge(event="gaussian", noise_multiplier=sigma.statistics)
    assert plan_charges(make_plan()) == {"totals": (charge,)}
    assert sigma[1:] == (0.0, 0.0, 0.0)


def test_a_model_has_rounds_and_an_evaluation() -> None:
    plan = make_model_plan()
    sigma = noise_multipliers(plan)
    steps = plan_charges(plan)
    histogram = Charge(event="gaussian", noise_multiplier=sigma.evaluation)
    training = Charge(
        event="sampled-gaussian", noise_multiplier=sigma.training, sampling_rate=0.1, count=2
    )
    assert list(steps) == ["totals", "train-0001", "train-0002", "evaluate"]
    assert steps["train-0001"] == steps["train-0002"] == (training, histogram)
    assert steps["evaluate"] == (Charge(event="gaussian", noise_multiplier=sigma.final),)
    rounds = plan.schedule.rounds  # the final model gets half, whatever the number of rounds
    assert sigma.evaluation**2 == pytest.approx(rounds * sigma.final**2)
    assert training_step(1000) == "train-1000"


def test_both_sides_find_the_same_noise() -> None:
    plan = make_model_plan()
    noise_multipliers.cache_clear()
    first = noise_multipliers(plan)
    noise_multipliers.cache_clear()
    assert noise_multipliers(Plan.from_canonical(plan.canonical_bytes())) == first


def test_a_tighter_plan_has_more_noise() -> None:
    sigmas = [
        noise_multipliers(
            make_plan(privacy={"epsilon": e, "delta": 1e-6, "split": {"statistics": e}})
        ).statistics
        for e in (0.1, 0.5, 1.0, 5.0)
    ]
    assert sigmas == sorted(sigmas, reverse=True)
    longer = make_model_plan(training={"rounds": 4, "local_steps": 2})
    assert noise_multipliers(longer).training > noise_multipliers(make_model_plan()).training
    assert noise_multipliers(longer).evaluation > noise_multipliers(make_model_plan()).evaluation
