"""δ of discrete Gaussian noise, summed over its lattice, against what is claimed for it.

Calibration takes the continuous Gaussian's formula. Noise is discrete; how fine its grid must be
for the claim to hold is shown here, and that a grid of whole counts is not fine enough.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import fftconvolve

from abfed.privacy.accounting import gaussian_multiplier
from abfed.silo.heldout import GRID
from abfed.stats.encoding import SCALE

pytestmark = pytest.mark.privacy
DELTA = 1e-6


def exact_delta(epsilon: float, sigma: float, releases: int, grid: int) -> float:
    """δ(ε) of discrete Gaussian noise of scale σ·grid whose centre moves by `grid`.

    The loss is linear in the sum of the draws, so the sum tells all that there is to tell.
    """
    reach = math.ceil(10 * sigma * grid) + grid
    places = np.arange(-reach, reach + 1)
    mass = np.exp(-((places / (sigma * grid)) ** 2) / 2)
    mass /= mass.sum()
    total = mass
    for _ in range(releases - 1):
        total = np.clip(fftconvolve(total, mass), 0.0, None)
    sums = np.arange(len(total)) - len(total) // 2
    # log P(sum) − log Q(sum), from (Σx)² with all centres moved: −(2·sum·grid − releases·grid²)/2s²
    loss = -(2 * sums * grid - releases * grid**2) / (2 * (sigma * grid) ** 2)
    return float(np.sum(total * np.clip(-np.expm1(epsilon - loss), 0.0, None)))


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("releases", [1, 2])
def test_on_the_grid_that_is_used_the_claim_holds(epsilon, releases):
    sigma = gaussian_multiplier(epsilon, DELTA, releases)
    for grid in (1 << 8, 1 << 12):
        assert exact_delta(epsilon, sigma, releases, grid) <= DELTA
    if epsilon >= 8:  # millions of places where noise is wide
        assert exact_delta(epsilon, sigma, releases, GRID) <= DELTA
    assert GRID == SCALE >= 1 << 10


def test_on_a_grid_of_whole_counts_it_would_not():
    found = [exact_delta(e, gaussian_multiplier(e, DELTA, 2), 2, 1) / DELTA for e in (5.0, 8.0)]
    assert found[0] > 1.2
    assert found[1] > 1.5


def test_the_sum_over_the_lattice_is_that_of_the_continuous_formula():
    """The oracle itself: on a fine grid it must give Balle and Wang's δ."""
    sigma = gaussian_multiplier(3.0, DELTA)
    assert exact_delta(3.0, sigma, 1, 1 << 12) == pytest.approx(DELTA, rel=2e-3)
