"""Several outputs of one network: their loss, whose they are, and what they say of each arm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from abfed.learning.counterfactual import chances, further_chances
from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import train_round
from abfed.learning.heads import Heads
from abfed.learning.losses import LOGISTIC, HeadsLoss, loss_of
from abfed.learning.networks import network_for, scores_of
from abfed.learning.shapes import initial_arrays, parameter_shapes, release_shapes
from abfed.protocol.errors import PlanError
from abfed.protocol.plan import Plan
from tests.examples import make_model_plan
from tests.learning.signal_rows import NoNoise

MODELS: dict[str, dict[str, Any]] = {
    "several": {"also": ["opened", "converted"], "revenue": {"high": 80.0}},
    "t": {"learner": "t", "hidden": [4]},
    "x": {"learner": "x"},
    "x with all": {"learner": "x", "hidden": [4], "also": ["opened"], "revenue": {"high": 80.0}},
}


def plan_with(model: dict[str, Any], **changes: Any) -> Plan:
    return make_model_plan(model={"outcome": "clicked"} | model, **changes)


def made(plan: Plan, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels of all kinds, some unknown."""
    heads, random = Heads.of(plan), np.random.default_rng(seed)
    labels = random.integers(0, 2, (rows, heads.labels)).astype(np.float32)
    if heads.bound:
        labels[:, len(heads.outcomes)] *= random.random(rows)
    unknown = random.random((rows, heads.labels)) < 0.2
    unknown[:, 0] = unknown[:, -1] = False
    if not heads.by_arm and heads.labels > 1:
        unknown[:, -1] = random.random(rows) < 0.2
    labels[unknown] = np.nan
    scores = torch.from_numpy(random.normal(0, 6, (rows, heads.outputs)))
    return scores, torch.from_numpy(labels)


@pytest.mark.parametrize("name", MODELS)
def test_both_sides_of_the_loss_are_one(name):
    plan = plan_with(MODELS[name])
    loss = HeadsLoss(Heads.of(plan))
    scores, labels = made(plan, 400, 1)
    traced = scores.clone().requires_grad_()
    loss.total(traced, labels).backward()
    assert traced.grad is not None
    assert torch.allclose(traced.grad, loss.signals(scores, labels), atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_rows_signals_are_bounded_and_depend_on_it_alone(name):
    plan = plan_with(MODELS[name])
    loss = HeadsLoss(Heads.of(plan))
    scores, labels = made(plan, 300, 2)
    scores[::7] *= 1e9
    whole = loss.signals(scores, labels)
    assert bool((whole.abs() <= 1.0).all())
    for row in range(0, 300, 11):
        alone = loss.signals(scores[row : row + 1], labels[row : row + 1])
        assert torch.equal(alone[0], whole[row])


def test_a_send_trains_only_the_outputs_of_its_arm():
    heads = Heads.of(plan_with({"learner": "x"}))
    scores = torch.zeros(2, heads.outputs, dtype=torch.float64)
    signals = HeadsLoss(heads).signals(scores, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    control = {heads.place(0, 0), heads.effect(0, from_control=True)}
    treated = {heads.place(0, 1), heads.effect(0, from_control=False)}
    assert {int(place) for place in signals[0].nonzero()} == control
    assert {int(place) for place in signals[1].nonzero()} == treated


def test_an_outcome_that_is_not_known_has_no_loss():
    heads = Heads.of(plan_with({"also": ["opened"]}))
    scores = torch.full((1, 2), 3.0, dtype=torch.float64)
    loss, labels = HeadsLoss(heads), torch.tensor([[1.0, float("nan")]])
    assert loss.signals(scores, labels)[0, 1] == 0.0
    one = LOGISTIC.total(scores[:, 0], labels[:, 0].double())
    assert float(loss.total(scores, labels)) == pytest.approx(float(one))


def test_the_loss_of_one_outcome_stays_what_it_was():
    assert loss_of(Heads.of(plan_with({}))) is LOGISTIC


@pytest.mark.parametrize("name", MODELS)
def test_shapes_known_without_data_are_those_of_the_network(name):
    plan = plan_with(MODELS[name])
    heads, design = Heads.of(plan), Design.of(plan)
    assert parameter_shapes(plan)["output.bias"].shape == (heads.outputs,)
    network = network_for(plan, initial_arrays(plan))
    lines = design.expand(np.zeros((3, design.feature_width), np.float32), np.zeros(3, np.int8))
    assert scores_of(network, lines).shape == (3, heads.outputs)
    assert ("further-outcomes" in release_shapes(plan, "evaluate")) == bool(heads.further)


def test_older_plans_keep_their_digest():
    plan = plan_with({})
    assert "also" not in plan.canonical_bytes().decode()
    assert '"revenue":' not in plan.canonical_bytes().decode()
    again = plan_with(MODELS["several"])
    assert Plan.from_canonical(again.canonical_bytes()) == again
    assert {"opened", "converted", "revenue"} <= set(again.columns())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"also": ["clicked"]}, "stands twice"),
        ({"learner": "t", "hidden": [8, 8]}, "one hidden layer"),
        ({"revenue": {"high": 0.0}}, "high"),
    ],
)
def test_models_that_make_no_sense_are_refused(model, said):
    with pytest.raises(PlanError, match=said):
        plan_with(model)


def trained(plan: Plan, rows: RecipientRows) -> torch.nn.Sequential:
    network = network_for(plan, initial_arrays(plan))
    settings = plan.schedule
    train_round(
        network,
        rows,
        settings,
        noise_multiplier=0.01,
        noise=NoNoise(5),
        expected_batch=rows.recipients * settings.sampling_rate,
        loss=loss_of(Heads.of(plan)),
    )
    return network


def test_two_parts_tell_what_people_spend():
    """The first feature says who buys, the second how much; both are found by one network."""
    plan = plan_with(
        {"revenue": {"high": 80.0}, "also": ["converted"]},
        training={"rounds": 1, "local_steps": 150, "sampling_rate": 0.1, "learning_rate": 1.0},
    )
    design, random, count = Design.of(plan), np.random.default_rng(3), 12_000
    features = random.uniform(-1, 1, (count, design.feature_width)).astype(np.float32)
    buys = random.random(count) < 1 / (1 + np.exp(-(2 * features[:, 0] - 1)))
    share = np.clip(0.4 + 0.3 * features[:, 1] + random.normal(0, 0.05, count), 0.01, 1)
    labels = np.stack([buys, buys, np.where(buys, share, 0.0)], axis=1).astype(np.float32)
    arms = random.integers(0, 2, count).astype(np.int8)
    rows = RecipientRows(design, features, arms, labels, np.arange(count + 1))
    network = trained(plan, rows)
    told = further_chances(network, design, features)
    expected = 80 * (0.4 + 0.3 * features[:, 1]) / (1 + np.exp(-(2 * features[:, 0] - 1)))
    found = told["revenue"][:, 0]
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    assert found.mean() == pytest.approx(expected.mean(), rel=0.1)
    assert np.allclose(told["converted"], chances(network, design, features), atol=0.02)
