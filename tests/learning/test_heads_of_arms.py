"""Where an arm's outputs are, also where the control isn't the first of three arms."""

from __future__ import annotations

import numpy as np
import pytest

from abfed.learning.calibration import recalibration
from abfed.learning.evaluation import BINS, ScoreHistogram, histogram
from abfed.learning.heads import EFFECT_STEP, Heads

THREE = {"arms": 3, "control": 1, "by_arm": True}


@pytest.mark.parametrize(
    ("heads", "outputs", "labels"),
    [
        (Heads(), 1, 1),
        (Heads(arms=3), 1, 1),
        (Heads(("a", "b"), bound=80.0), 4, 3),
        (Heads(("a",), **THREE), 3, 2),
        (Heads(("a", "b"), **THREE, shares=(0.2, 0.5, 0.3), bound=80.0), 4 * 3 + 4, 4),
    ],
)
def test_each_output_has_one_meaning(heads: Heads, outputs: int, labels: int) -> None:
    assert (heads.outputs, heads.labels) == (outputs, labels)
    arms = range(heads.arms if heads.by_arm else 1)
    places = [heads.place(one, arm) for one in range(heads.quantities) for arm in arms]
    if heads.shares:
        several = range(heads.arms - 1)
        places += [
            heads.effect(one, from_control=side) for side in (True, False) for one in several
        ]
    assert sorted(places) == list(range(outputs))


def test_a_send_is_judged_by_the_output_of_the_arm_it_got() -> None:
    heads = Heads(("a", "b"), **THREE)
    scores = np.arange(18, dtype=np.float64).reshape(3, 6)
    labels = np.array([[1, 0, 2], [0, 1, 0], [1, 1, 1]], dtype=np.float32)
    assert heads.own(scores, labels).tolist() == [2.0, 6.0, 13.0]
    assert heads.own(scores, labels, 1).tolist() == [5.0, 9.0, 16.0]


def test_effects_are_of_the_treated_and_weigh_by_the_planned_shares() -> None:
    heads = Heads(("a",), **THREE, shares=(0.2, 0.6, 0.2))
    assert heads.treated == (0, 2)
    scores = np.zeros((1, heads.outputs))
    scores[0, heads.effect(0, from_control=True)] = 8.0
    scores[0, heads.effect(1, from_control=False)] = 8.0
    assert heads.effects(scores)[0] == pytest.approx([EFFECT_STEP * 2.0, EFFECT_STEP * 6.0])


def test_nothing_is_recalibrated_by_what_noise_drowns_and_little_by_few() -> None:
    assert recalibration(ScoreHistogram(np.zeros((2, BINS), dtype=np.int64), 5.0)) is None
    logits = np.repeat([-1.0, 1.0], 500)
    happened = np.arange(1000) % 2 == 0
    counts = histogram(logits, happened)
    assert recalibration(ScoreHistogram(counts, 1_000.0)) is None
    useless = recalibration(ScoreHistogram(counts, 1.0))
    assert useless is not None
    assert abs(useless[0]) < 0.05, "scores that say nothing are flattened"
