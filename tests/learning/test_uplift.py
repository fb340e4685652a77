"""Uplift from noised tables: right without noise, honest with it, and no brand taken for an arm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abfed.learning.uplift import (
    COLUMN_EDGES,
    DECILES,
    UPLIFT_BINS,
    UPLIFT_EDGES,
    Contrast,
    Gain,
    Table,
    arm_weights,
    contrast_counts,
    counted_once,
    policy_counts,
    policy_value,
)


def people(count: int, seed: int = 1, *, share: float = 0.5, base: float = 0.15) -> Any:
    """Scores that are the true uplift (0 to 8 %), who was treated, and outcomes."""
    random = np.random.default_rng(seed)
    uplift = random.uniform(0.0, 0.08, count)
    treated = random.random(count) < share
    labels = (random.random(count) < base + uplift * treated).astype(np.int64)
    return uplift, treated, labels


def contrast(scores: Any, treated: Any, labels: Any, edges: Any = UPLIFT_EDGES) -> Contrast:
    counts = contrast_counts(scores, treated, labels, edges)
    return Contrast(Table.of(counts, 0.0, np.ones(1)))


def gain_of(*facts: Any) -> Gain:
    gain = contrast(*facts).gain()
    assert gain is not None
    return gain


def person_by_person(scores: Any, treated: Any, labels: Any) -> float:
    """Qini by walking through people one by one, highest score first."""
    order = np.argsort(-scores, kind="stable")
    treated, labels = treated[order], labels[order]
    steps = treated * labels / treated.sum() - ~treated * labels / (~treated).sum()
    reached = np.cumsum(steps)
    return float(reached.mean() - reached[-1] / 2)


def test_qini_is_that_of_people_one_by_one():
    facts = people(200_000)
    assert gain_of(*facts).qini.value == pytest.approx(person_by_person(*facts), rel=0.05)


def test_a_random_order_gains_nothing_and_a_reversed_one_loses():
    scores, treated, labels = people(100_000)
    mixed = np.random.default_rng(3).permutation(scores)
    nothing = gain_of(mixed, treated, labels).qini
    assert abs(nothing.value) < 3 * nothing.standard_error
    right, wrong = gain_of(scores, treated, labels), gain_of(-scores, treated, labels)
    assert wrong.qini.value == pytest.approx(-right.qini.value, abs=0.001)
    assert right.auuc.value == pytest.approx(right.qini.value + right.effect.value / 2)


def test_deciles_are_ordered_and_average_to_the_effect():
    found = contrast(*people(400_000))
    deciles = found.deciles()
    assert [one.decile for one in deciles] == list(range(1, DECILES + 1))
    values = [one.uplift.value for one in deciles]
    gain = found.gain()
    assert gain is not None
    assert np.mean(values) == pytest.approx(gain.effect.value, abs=0.002)
    assert values[0] > 0.06
    assert values[-1] < 0.02


@pytest.mark.parametrize("noise_sd", [0.0, 20.0])
def test_intervals_hold_the_truth_as_often_as_they_say(noise_sd):
    truth = gain_of(*people(2_000_000)).qini.value
    held, trials = 0, 60
    random = np.random.default_rng(9)
    for trial in range(trials):
        counts = contrast_counts(*people(20_000, seed=trial + 10), UPLIFT_EDGES)
        noised = counts + np.rint(random.normal(0, noise_sd, counts.shape)).astype(np.int64)
        gain = Contrast(Table.of(noised, noise_sd, np.ones(1))).gain()
        assert gain is not None
        held += abs(gain.qini.value - truth) <= 1.96 * gain.qini.standard_error
    assert held >= 0.87 * trials  # 95 % but for chance: below by 1 in 300


def test_brands_of_unlike_shares_are_not_taken_for_arms():
    """Two brands, unlike in base rate and shares; plain sums would show an effect that isn't."""
    tables = []
    for seed, (base, share) in enumerate([(0.05, 0.2), (0.35, 0.8)]):
        random = np.random.default_rng(seed)
        count = 100_000
        treated = random.random(count) < share
        labels = (random.random(count) < base).astype(np.int64)
        counts = contrast_counts(random.uniform(0, 0.08, count), treated, labels, UPLIFT_EDGES)
        sizes = np.array([(~treated).sum(), treated.sum()], dtype=np.float64)
        weighed = arm_weights(sizes, (0, 1))[:, None, None]
        tables.append((Table.of(counts, 0.0, weighed), Table.of(counts, 0.0, np.ones(1))))
    right, wrong = (Contrast(one + other).gain() for one, other in zip(*tables, strict=True))
    assert right is not None
    assert wrong is not None
    assert abs(right.effect.value) < 3 * right.effect.standard_error
    assert wrong.effect.value > 0.1


def test_noise_alone_shows_nothing():
    random = np.random.default_rng(4)
    counts = np.rint(random.normal(0, 50, (2, 2, UPLIFT_BINS))).astype(np.int64)
    found = Contrast(Table.of(counts, 50.0, np.ones(1)))
    assert found.gain() is None
    assert found.deciles() == ()
    policy = np.rint(random.normal(0, 50, (3, 3, 2))).astype(np.int64)
    assert policy_value(Table.of(policy, 50.0, np.ones(1))) is None


def test_scores_in_one_bin_rank_nobody_and_are_not_said_to():
    """A Qini of 0 ± 0 would be certainty where there is none."""
    _, treated, labels = people(50_000)
    counts = contrast_counts(np.full(len(labels), 0.003), treated, labels, UPLIFT_EDGES)
    noised = counts + np.rint(np.random.default_rng(6).normal(0, 5, counts.shape)).astype(np.int64)
    found = Contrast(Table.of(noised, 5.0, np.ones(1)))
    assert found.window().table.counts.shape[-1] == 1
    gain = found.gain()
    assert gain is not None
    assert gain.qini is None
    assert gain.effect.standard_error > 0
    assert found.deciles() == ()


def test_a_policy_that_knows_beats_the_best_single_arm():
    random = np.random.default_rng(5)
    count = 200_000
    likes = random.integers(0, 2, count)  # half the people react to arm 1, half to arm 2
    got = random.integers(0, 3, count)
    labels = (random.random(count) < 0.1 + 0.1 * (got == likes + 1)).astype(np.int64)
    table = Table.of(policy_counts(likes + 1, got, labels, 3), 0.0, np.ones(1))
    found = policy_value(table)
    assert found is not None
    assert found.value.value == pytest.approx(0.2, abs=0.005)
    assert found.gain.value == pytest.approx(0.05, abs=0.006)
    assert found.gain.value > 3 * found.gain.standard_error
    assert found.best in {1, 2}
    assert found.shares == pytest.approx((0.0, 0.5, 0.5), abs=0.01)


@pytest.mark.privacy
@given(st.integers(2, 6), st.data())
def test_one_person_moves_all_tables_by_no_more_than_is_paid_for(arms, data):
    """Adding a person: squared L2 distance of all tables together."""
    got = data.draw(st.integers(0, arms - 1))
    label = np.array([data.draw(st.integers(0, 1))])
    score = np.array([data.draw(st.floats(-2, 2))])
    moved = 2 * 1**2  # score histogram and single column: one count each
    moved += int((policy_counts(np.array([arms - 1]), np.array([got]), label, arms) ** 2).sum())
    for arm in range(1, arms):
        if got in {0, arm}:
            for edges in (UPLIFT_EDGES, COLUMN_EDGES):
                counts = contrast_counts(score, np.array([got == arm]), label, edges)
                moved += int((counts**2).sum())
    assert moved <= counted_once(arms)
    if got == 0:
        assert moved == counted_once(arms)
    assert math.isclose(counted_once(3), 7)
