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
    amount = np.array([0.0, 0.001, 0.0, 1.0, 0.9])
    counts = amount_counts(predicted, amount, np.array([0.0, 0.49, 0.0, 0.999, 0.81]))
    assert counts.sum() == len(predicted)
    assert (counts[0, 0], counts[0, 1], counts[1, 0], counts[2, -1], counts[-1, -2]) == (1,) * 5


@pytest.mark.parametrize("prices", [(9.99, 29.99, 59.99), (3.0, 21.0, 41.0), (79.0,)])
def test_the_mean_is_that_of_the_people_whatever_the_prices(prices: tuple[float, ...]) -> None:
    """At the middle of its bin each was told up to a quarter too little, or a third too much."""
    random = np.random.default_rng(7)
    found = random.choice((0.0, *prices), 100_000) / BOUND
    table = amounts(amount_counts(np.full(len(found), 0.2), found, random.random(len(found))),
                    0.0, BOUND)  # fmt: skip
    one = table[5].observed
    assert one is not None
    assert one.value == pytest.approx(BOUND * found.mean(), rel=0.01)


def test_without_noise_the_means_are_those_of_the_people_to_a_bins_width() -> None:
    found = spent(50_000, 1)
    predicted = np.where(np.arange(len(found)) % 2, 0.3, 0.01)
    table = amounts(
        amount_counts(predicted, found, np.random.default_rng(3).random(len(found))), 0.0, BOUND
    )
    assert [one.predicted_up_to for one in table] == [BOUND * each for each in (*AMOUNT_EDGES, 1.0)]
    assert sum(one.recipients for one in table) == len(found)
    shown = [one for one in table if one.observed is not None]
    assert len(shown) == 2, "a bin without anybody says nothing"
    for one in shown:
        assert one.observed.value == pytest.approx(BOUND * found.mean(), abs=BOUND * 0.01)


def test_the_error_is_what_repeated_draws_show() -> None:
    random, sd = np.random.default_rng(2), 20.0
    drawn, exact = [], []
    for seed in range(300):
        counts = amount_counts(np.full(4_000, 0.2), spent(4_000, 100 + seed), random.random(4_000))
        noised = counts + np.rint(random.normal(0, sd, counts.shape)).astype(np.int64)
        drawn.append(amounts(noised, sd**2, BOUND)[5].observed)
        exact.append(amounts(counts, 0.0, BOUND)[5].observed)
    told = np.mean([one.standard_error for one in drawn])
    assert told == pytest.approx(np.std([one.value for one in drawn]), rel=0.2)  # ± 4 % each
    by_chance = np.mean([one.sampling_error for one in drawn])
    assert by_chance == pytest.approx(np.std([one.value for one in exact]), rel=0.15)
    by_noise = np.std([one.value - two.value for one, two in zip(drawn, exact, strict=True)])
    assert np.mean([one.noise_error for one in drawn]) == pytest.approx(by_noise, rel=0.15)


def test_what_noise_drowns_is_not_said_and_no_count_is_negative() -> None:
    sd = 10.0
    drowned = SHOWN * sd * math.sqrt(AMOUNT_BINS)
    counts = np.zeros((AMOUNT_BINS, AMOUNT_BINS), dtype=np.int64)
    counts[1, 0], counts[2, 0], counts[3, 0] = math.floor(drowned), math.ceil(drowned) + 1, -50
    table = amounts(counts, sd**2, BOUND)
    assert table[1].observed is None
    assert table[2].observed is not None
    assert table[2].observed.value == 0.0
    assert table[2].observed.standard_error > 0, "noise on the empty bins beside it"
    assert table[3].recipients == 0.0
    assert table[3].observed is None
