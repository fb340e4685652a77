"""S-, T- and X-learner beside one another on people whose true effects are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from abfed.learning.calibration import recalibration, reliability
from abfed.learning.counterfactual import chances, uplifts
from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import train_round
from abfed.learning.evaluation import (
    ScoreHistogram,
    histogram,
    log_loss,
)
from abfed.learning.heads import Heads
from abfed.learning.losses import loss_of
from abfed.learning.networks import network_for
from abfed.learning.shapes import initial_arrays
from abfed.learning.uplift import (
    UPLIFT_EDGES,
    Contrast,
    Table,
    contrast_counts,
    policy_counts,
    policy_value,
)
from abfed.privacy.accounting import sampled_multiplier
from abfed.privacy.mechanisms import UnsafeSeededNoise
from tests.examples import make_model_plan

PEOPLE = 40_000
LEARNERS: dict[str, dict[str, Any]] = {
    "s": {},
    "t": {"learner": "t"},
    "t with a hidden layer": {"learner": "t", "hidden": [8]},
    "x": {"learner": "x"},
}


class World(NamedTuple):
    """Made-up people: the arm helps those with a high first feature and harms the others."""

    features: np.ndarray
    arms: np.ndarray
    chances: np.ndarray
    clicked: np.ndarray

    @property
    def effect(self) -> np.ndarray:
        return self.chances[:, 1] - self.chances[:, 0]


def world(seed: int, width: int) -> World:
    random = np.random.default_rng(seed)
    features = random.uniform(-1, 1, (PEOPLE, width)).astype(np.float32)
    base = -1.0 + 0.8 * features[:, 1]
    both = np.stack([base, base + 1.2 * features[:, 0]], axis=1)
    chance = 1 / (1 + np.exp(-both))
    arms = random.integers(0, 2, PEOPLE).astype(np.int8)
    clicked = random.random(PEOPLE) < chance[np.arange(PEOPLE), arms]
    return World(features, arms, chance, clicked)


@pytest.mark.parametrize("name", LEARNERS)
def test_each_learner_at_epsilon_three_finds_whom_the_arm_helps(name):
    plan = make_model_plan(
        model={"outcome": "clicked"} | LEARNERS[name],
        training={"rounds": 1, "local_steps": 120, "sampling_rate": 0.05, "learning_rate": 1.0},
    )
    design, heads, settings = Design.of(plan), Heads.of(plan), plan.schedule
    seen, unseen = (world(seed, design.feature_width) for seed in (1, 2))
    labels = seen.clicked.astype(np.float32)
    if heads.by_arm:
        labels = np.stack([labels, seen.arms.astype(np.float32)], axis=1)
    rows = RecipientRows(design, seen.features, seen.arms, labels, np.arange(PEOPLE + 1))
    network = network_for(plan, initial_arrays(plan))
    train_round(
        network,
        rows,
        settings,
        noise_multiplier=sampled_multiplier(
            3.0, 1e-6, rate=settings.sampling_rate, steps=settings.local_steps
        ),
        noise=UnsafeSeededNoise(11),
        expected_batch=settings.sampling_rate * PEOPLE,
        loss=loss_of(heads),
    )
    chance = chances(network, design, unseen.features)
    found = uplifts(chance, design)[:, 0]
    assert np.corrcoef(found, unseen.effect)[0, 1] > 0.6
    counts = contrast_counts(found, unseen.arms == 1, unseen.clicked, UPLIFT_EDGES)
    gain = Contrast(Table.of(counts, 0.0, np.ones(1))).gain()
    assert gain is not None
    assert gain.qini.value > 5 * gain.qini.standard_error
    assert gain.auuc.value > gain.effect.value / 2
    best = chance.argmax(axis=1)
    counts = policy_counts(best, unseen.arms.astype(np.int64), unseen.clicked, 2)
    policy = policy_value(Table.of(counts, 0.0, np.ones(1)))
    assert policy is not None
    assert policy.gain.value > 4 * policy.gain.standard_error
    truth = unseen.chances[np.arange(PEOPLE), best].mean()
    assert abs(policy.value.value - truth) < 5 * policy.value.standard_error


def test_calibration_from_noised_counts_makes_scores_truer_on_others():
    """Overconfident and shifted scores, corrected by counts of other people with noise on them."""

    def scored(seed: int, noise_sd: float) -> ScoreHistogram:
        random = np.random.default_rng(seed)
        logit = random.normal(-1.5, 0.6, 30_000)
        happened = random.random(len(logit)) < 1 / (1 + np.exp(-logit))
        counts = histogram(2.0 * logit + 1.0, happened)
        noise = np.rint(random.normal(0, noise_sd, counts.shape)).astype(np.int64)
        return ScoreHistogram(counts + noise, noise_sd)

    fit = recalibration(scored(1, 15.0))
    assert fit is not None
    others = scored(2, 0.0)
    before, after = log_loss(others), log_loss(others, *fit)
    assert before is not None
    assert after is not None
    assert after.value < before.value - 3 * before.sampling_error
    far, near = reliability(others), reliability(others, *fit)
    assert far is not None
    assert near is not None
    assert near.value < 0.3 * far.value
    assert near.by_chance < near.value < 3 * near.by_chance
