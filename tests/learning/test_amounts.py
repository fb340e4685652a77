"""Revenue as it was predicted and as it was, from counts: what noise drowns isn't said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abfed.learning.amounts import amounts
from abfed.learning.evaluation import AMOUNT_BINS, AMOUNT_EDGES, SHOWN, amount_counts

BOUND = 80.0


def spent(people: int, seed: int) -> np.ndarray:
    """Shares of the bound; four of five spend nothing."""
    random = np.random.default_rng(seed)
    return np.where(random.random(people) < 0.2, random.uniform(0.05, 1.0, people), 0.0)


def test_nothing_at_all_is_a_bin_of_its_own_and_each_person_is_one_count() -> None:
    edge = float(AMOUNT_EDGES[1])
    predicted = np.array([0.0, 0.0, edge, np.nextafter(edge, 1), 1.0])
    counts = amount_counts(predicted, np.array([0.0, 1e-9, 0.0, 1.0, 1.0]))
    assert counts.sum() == len(predicted)
    assert (counts[0, 0], counts[0, 1], counts[1, 0], counts[2, -1], counts[-1, -1]) == (1,) * 5


def test_without_noise_the_means_are_those_of_the_people_to_a_bins_width() -> None:
    found = spent(50_000, 1)
    predicted = np.where(np.arange(len(found)) % 2, 0.3, 0.01)
    table = amounts(amount_counts(predicted, found), 0.0, BOUND)
    assert [one.predicted_up_to for one in table] == [BOUND * each for each in (*AMOUNT_EDGES, 1.0)]
    assert sum(one.recipients for one in table) == len(found)
    shown = [one for one in table if not math.isnan(one.observed)]
    assert len(shown) == 2, "a bin without anybody says nothing"
    for one in shown:
        assert one.observed == pytest.approx(BOUND * found.mean(), abs=BOUND * 0.01)


def test_the_error_is_what_repeated_draws_show() -> None:
    random, sd = np.random.default_rng(2), 20.0
    drawn = []
    for seed in range(300):
        counts = amount_counts(np.full(4_000, 0.2), spent(4_000, 100 + seed))
        noised = counts + np.rint(random.normal(0, sd, counts.shape)).astype(np.int64)
        drawn.append(amounts(noised, sd**2, BOUND)[5])
    seen = np.std([one.observed for one in drawn])
    told = np.mean([one.standard_error for one in drawn])
    assert told == pytest.approx(seen, rel=0.2)  # 300 draws: ± 4 % each


def test_what_noise_drowns_is_not_said_and_no_count_is_negative() -> None:
    sd = 10.0
    drowned = SHOWN * sd * math.sqrt(AMOUNT_BINS)
    counts = np.zeros((AMOUNT_BINS, AMOUNT_BINS), dtype=np.int64)
    counts[1, 0], counts[2, 0], counts[3, 0] = math.floor(drowned), math.ceil(drowned) + 1, -50
    table = amounts(counts, sd**2, BOUND)
    assert math.isnan(table[1].observed)
    assert math.isnan(table[1].standard_error)
    assert table[2].observed == 0.0
    assert table[2].standard_error > 0, "noise on the empty bins beside it"
    assert table[3].recipients == 0.0
    assert math.isnan(table[3].observed)
