"""Estimates from noised histograms: right without noise, honest about it with noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from abfed.learning.calibration import calibration
from abfed.learning.evaluation import (
    BINS,
    EDGES,
    Estimate,
    ScoreHistogram,
    area_under_curve,
    histogram,
    log_loss,
    majority_loss,
    pool,
)


def scored(count, *, middle=-2.6, spread=0.5, seed=0):
    """Calibrated logits and outcomes."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(middle, spread, count)
    return logits, generator.random(count) < 1 / (1 + np.exp(-logits))


def exact_area(logits, outcomes):
    """AUC from ranks."""
    positives = outcomes.sum()
    ranks = rankdata(logits)[outcomes].sum() - positives * (positives + 1) / 2
    return ranks / (positives * (len(outcomes) - positives))


def known(estimate):
    """An estimate that must be there."""
    assert estimate is not None
    return estimate


def noised(counts, sd, generator):
    """A histogram as a silo would release it."""
    noise = np.rint(generator.normal(0, sd, counts.shape)).astype(np.int64)
    return ScoreHistogram(counts + noise, float(sd))


@pytest.mark.parametrize("rate_logit", [-6.5, -4.0, -3.0, -2.5, -1.0, 2.0])
@pytest.mark.parametrize("spread", [0.4, 0.7, 1.0])
def test_bins_cost_auc_less_than_three_thousandths(rate_logit, spread):
    """For outcomes of about .2 to 88 % and models that rank better than .6; and nothing of loss."""
    logits, outcomes = scored(400_000, middle=rate_logit, spread=spread)
    scores = ScoreHistogram(histogram(logits, outcomes), 0.0)
    lost = exact_area(logits, outcomes) - known(area_under_curve(scores)).value
    assert -0.001 < lost < 0.003  # a few hundred with a rare outcome may lie well in their bins
    exact_loss = (np.logaddexp(0, logits) - outcomes * logits).mean()
    assert known(log_loss(scores)).value == pytest.approx(exact_loss, rel=0.003)


@pytest.mark.parametrize(("people", "middle", "noise"), [(50_000, -6.0, 6), (20_000, 1.5, 20)])
def test_intervals_of_rare_and_of_common_outcomes_hold_the_truth(people, middle, noise):
    """With an open bin from -5 down or from 1 up on they held it in .44 and .00 of draws."""
    generator = np.random.default_rng(people)
    big = scored(400_000, middle=middle, spread=0.9, seed=1)
    truth, held = exact_area(*big), []
    for seed in range(100):
        counts = histogram(*scored(people, middle=middle, spread=0.9, seed=seed + 2))
        found = area_under_curve(noised(counts, noise, generator))
        held.append(found is None or abs(found.value - truth) < 1.96 * found.standard_error)
    assert np.mean(held) >= 0.88  # three sd of a hundred draws below .95


def test_bins_resolve_small_probabilities():
    assert 1 / (1 + math.exp(-EDGES[0])) < 0.0002
    shares = 1 / (1 + np.exp(-EDGES))
    assert (shares < 0.10).sum() >= 14


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False), st.booleans()),
        max_size=30,
    )
)
def test_each_recipient_is_one_count_whatever_their_score(people):
    logits = np.array([score for score, _ in people])
    outcomes = np.array([outcome for _, outcome in people], dtype=bool)
    counts = histogram(logits, outcomes)
    assert counts.shape == (2, BINS)
    assert counts.dtype == np.int64
    assert counts[1].sum() == outcomes.sum()
    assert counts.sum() == len(people)
    if people:  # without the last person: one count less, in one place
        assert np.abs(counts - histogram(logits[:-1], outcomes[:-1])).sum() == 1


def test_pooling_adds_counts_and_variances_of_noise():
    generator = np.random.default_rng(1)
    parts = [ScoreHistogram(generator.integers(-5, 90, (2, BINS)), sd) for sd in (3.0, 4.0, 12.0)]
    whole = pool(parts)
    assert (whole.counts == sum(part.counts for part in parts)).all()
    assert whole.noise_sd == pytest.approx(13.0)
    left, right = (parts[0] + parts[1]) + parts[2], parts[0] + (parts[1] + parts[2])
    assert (left.counts == right.counts).all()
    assert left.noise_sd == pytest.approx(right.noise_sd)
    with pytest.raises(ValueError, match="unpack"):
        pool([])


def test_a_releases_noise_is_that_of_its_histogram():
    counts = np.zeros((2, BINS), dtype=np.int64)
    trained = {"noise_multiplier": 1.9, "clip": 4.0, "evaluation_noise_multiplier": 22.0}
    found = ScoreHistogram.of_release(counts, trained)
    assert found.noise_sd == pytest.approx(math.sqrt(22.0**2 + 1 / 12))
    final = {"noise_multiplier": 21.0, "sensitivity": 2.0}
    found = ScoreHistogram.of_release(counts, final)
    assert found.noise_sd == pytest.approx(math.sqrt(42.0**2 + 1 / 12))


def test_without_noise_the_figures_are_those_of_the_people():
    logits, outcomes = scored(60_000, seed=2)
    scores = ScoreHistogram(histogram(logits, outcomes), 0.0)
    area, loss = known(area_under_curve(scores)), known(log_loss(scores))
    exact_loss = (np.logaddexp(0, logits) - outcomes * logits).mean()
    assert area.noise_error == loss.noise_error == 0.0
    assert area.value == pytest.approx(exact_area(logits, outcomes), abs=0.003)
    assert loss.value == pytest.approx(exact_loss, abs=0.001)
    shown = [each for each in calibration(scores) if each.recipients > 500]
    assert len(shown) > 5
    for each in shown:
        seen = known(each.observed)
        assert abs(seen.value - each.predicted) < 4 * seen.standard_error


@pytest.mark.parametrize("noise", [0, 10, 30])
def test_standard_errors_are_what_repeated_draws_show(noise):
    generator = np.random.default_rng(noise)
    big = ScoreHistogram(histogram(*scored(400_000, spread=0.6, seed=3)), 0.0)
    truths = {figure: known(figure(big)).value for figure in (area_under_curve, log_loss)}
    found: dict = {figure: [] for figure in truths}
    for seed in range(300):
        counts = histogram(*scored(10_000, spread=0.6, seed=seed + 100))
        release = noised(counts, noise, generator) if noise else ScoreHistogram(counts, 0.0)
        for figure, estimates in found.items():
            estimates.append(figure(release))
    for figure, estimates in found.items():
        values = np.array([each.value for each in estimates])
        errors = np.array([each.standard_error for each in estimates])
        assert errors.mean() == pytest.approx(values.std(), rel=0.15)
        covered = np.abs(values - truths[figure]) < 1.96 * errors
        assert covered.mean() > 0.9  # 300 draws of .95 have an sd of .013


def test_the_window_keeps_people_and_leaves_empty_bins_out():
    counts = histogram(*scored(10_000, seed=4))
    assert ScoreHistogram(counts, 0.0).window() == slice(0, BINS)
    release = noised(counts, 20, np.random.default_rng(4))
    window = release.window()
    assert window.stop - window.start < BINS - 8
    assert counts[:, window].sum() > 0.95 * counts.sum()


@pytest.mark.parametrize(("people", "middle"), [(5_000, -1.5), (8_000, -2.5)])
def test_bins_are_not_picked_by_the_noise_that_log_loss_depends_on(people, middle):
    """Picked by both outcomes' noise alike it erred upwards by .26 and .33 of its error."""
    counts, noise = histogram(*scored(people, middle=middle, spread=0.6)), 40.0
    truth = known(log_loss(ScoreHistogram(counts, 0.0))).value
    random = np.random.default_rng(1)
    off = []
    for _ in range(600):
        drawn = counts + np.rint(random.normal(0, noise, counts.shape)).astype(np.int64)
        found = log_loss(ScoreHistogram(drawn, noise))
        if found is not None:
            off.append((found.value - truth) / found.noise_error)
    assert len(off) > 590
    assert abs(np.mean(off)) < 0.15


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("noise", [20.0, 60.0])
def test_the_majoritys_error_holds_where_its_entropy_bends(share, noise):
    """At a share of a half its slope is 0, and so would be an error that is taken from it."""
    random = np.random.default_rng(2)
    counts = np.zeros((2, BINS), dtype=np.int64)
    counts[:, 10:14] = np.rint(1_500 * np.array([[1 - share], [share]]))
    truth = known(majority_loss(ScoreHistogram(counts, 0.0))).value
    held = shown = 0
    for _ in range(300):
        drawn = counts + np.rint(random.normal(0, noise, counts.shape)).astype(np.int64)
        found = majority_loss(ScoreHistogram(drawn, noise))
        if found is not None:
            shown += 1
            held += abs(found.value - truth) <= 1.96 * found.noise_error
    assert shown > 50
    assert held > 0.9 * shown


def test_negative_counts_are_kept_in_estimates_and_clipped_where_shown():
    counts = np.zeros((2, BINS), dtype=np.int64)
    counts[0, 10:16], counts[1, 10:16] = 900, [-20, 200, 200, 200, 200, 300]
    counts[:, 16] = -10
    release = ScoreHistogram(counts, 0.0)
    positive, negative = counts[1].astype(float), counts[0].astype(float)
    pairs = np.triu(np.ones((BINS, BINS)), 1) + np.eye(BINS) / 2
    expected = negative @ pairs @ positive / (negative.sum() * positive.sum())
    assert known(area_under_curve(release)).value == pytest.approx(expected)
    table = calibration(release)
    assert known(table[10].observed).value == 0.0
    assert known(table[10].observed).sampling_error > 0, "nobody of 880 isn't nobody at all"
    assert table[16] == (*table[16][:3], None, 0.0)


def test_figures_that_noise_drowns_are_not_given():
    noise = noised(np.zeros((2, BINS), dtype=np.int64), 20, np.random.default_rng(5))
    assert area_under_curve(noise) is None
    assert log_loss(noise) is None
    few = histogram(*scored(3000, middle=-6.0, seed=6))  # a handful of positives
    assert area_under_curve(noised(few, 20, np.random.default_rng(6))) is None
    assert area_under_curve(ScoreHistogram(np.zeros((2, BINS), dtype=np.int64), 0.0)) is None


def test_both_parts_of_an_error_add_in_squares():
    assert Estimate(0.6, 0.3, 0.4).standard_error == pytest.approx(0.5)


def test_a_log_loss_that_could_be_below_nothing_is_not_shown():
    """Without noise in the way it is; drowned, it once stood in a table as −.05."""
    counts, generator = histogram(*scored(2_000, seed=4)), np.random.default_rng(4)
    assert known(log_loss(ScoreHistogram(counts, 1.0))).value > 0
    found = [log_loss(noised(counts, 30.0, generator)) for _ in range(200)]
    shown = [one for one in found if one is not None]
    assert all(one.value > 2 * one.noise_error for one in shown)
    assert len(shown) < len(found)
