"""What every accountant must keep. A suite that each implementation inherits.

The lower bound is computed here from the definition, without the libraries that are tested: the
privacy loss of one Poisson-sampled Gaussian step is put on a grid and rounded *down*, composed by
Fourier transform, and what falls off the grid is left out. Each of the three can only lower δ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
import pytest
from scipy.special import log_ndtr
from scipy.stats import norm

from abfed.privacy.accounting import Accountant
from abfed.protocol.messages import Charge

GRID = 2e-3
CELLS = 1 << 15


def gaussian(sigma: float, count: int = 1) -> Charge:
    return Charge(event="gaussian", noise_multiplier=sigma, count=count)


def sampled(sigma: float, rate: float, count: int = 1) -> Charge:
    return Charge(event="sampled-gaussian", noise_multiplier=sigma, sampling_rate=rate, count=count)


def exact_delta(epsilon: float, sigma: float) -> float:
    """Of one Gaussian release (Balle and Wang 2018, Theorem 8)."""
    first = math.exp(log_ndtr(0.5 / sigma - epsilon * sigma))
    return first - math.exp(epsilon + log_ndtr(-0.5 / sigma - epsilon * sigma))


def lowest_epsilon(delta: float, sigma: float, rate: float, steps: int) -> float:
    """No ε below this can be right for so many sampled steps."""
    edges = np.linspace(-30 * sigma, 30 * sigma + 1, 200_001)
    with_person = (1 - rate) * np.diff(norm.cdf(edges, 0, sigma)) + rate * np.diff(
        norm.cdf(edges, 1, sigma)
    )
    without = np.diff(norm.cdf(edges, 0, sigma))
    low_edge = np.log1p(rate * np.expm1((edges - 0.5) / sigma**2))
    removed = (low_edge[:-1], with_person)  # increasing: the left edge is the lowest
    added = (-low_edge[1:], without)
    return max(_composed(delta, *one, steps) for one in (removed, added))


def _composed(delta: float, losses: np.ndarray, mass: np.ndarray, steps: int) -> float:
    place = np.floor(losses / GRID).astype(np.int64)
    inside = np.abs(place) < CELLS // (2 * steps)
    held = np.bincount(place[inside] % CELLS, weights=mass[inside], minlength=CELLS)
    together = np.fft.irfft(np.fft.rfft(held) ** steps, CELLS).clip(min=0.0)
    value = np.arange(CELLS)
    value = np.where(value < CELLS // 2, value, value - CELLS) * GRID
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        above = value > middle
        found = float((together[above] * -np.expm1(middle - value[above])).sum()) - 1e-12
        low, high = (middle, high) if found > delta else (low, middle)
    return low


class AccountantSuite(ABC):
    """Inherit it and say how an accountant is made.

    Attributes:
        keeps: ε of a Gaussian release is at least this share of what is counted.
    """

    keeps = 0.7

    @abstractmethod
    def made(self, charges: Iterable[Charge]) -> Accountant:
        """An accountant that counted these."""

    def epsilon(self, *charges: Charge, delta: float = 1e-6) -> float:
        return self.made(charges).epsilon(delta)

    def test_nothing_costs_nothing(self) -> None:
        assert self.epsilon() == 0.0

    @pytest.mark.parametrize("one", [gaussian(3.0), sampled(1.2, 0.05)], ids=["whole", "sampled"])
    def test_it_is_monotone(self, one: Charge) -> None:
        steps = [self.epsilon(one.model_copy(update={"count": n})) for n in (1, 7, 50)]
        assert steps == sorted(set(steps))
        sigmas = [self.epsilon(one.model_copy(update={"noise_multiplier": s})) for s in (9, 3, 1)]
        assert sigmas == sorted(set(sigmas))
        deltas = [self.epsilon(one, delta=delta) for delta in (1e-4, 1e-6, 1e-9)]
        assert deltas == sorted(set(deltas))
        assert self.epsilon(one, gaussian(50.0)) > self.epsilon(one)

    @pytest.mark.parametrize("sigma", [0.7, 2.0, 12.0])
    @pytest.mark.parametrize("count", [1, 9])
    def test_of_gaussian_releases_it_bounds_the_closed_form(self, sigma: float, count: int) -> None:
        found = self.epsilon(gaussian(sigma, count))
        together = sigma / math.sqrt(count)
        assert exact_delta(found, together) <= 1e-6 * (1 + 1e-6)
        assert exact_delta(found * self.keeps, together) > 1e-6

    def test_it_composes_with_plus(self) -> None:
        parts = [gaussian(4.0), sampled(1.2, 0.05, 20), gaussian(4.0, 3)]
        whole = self.made(parts)
        added = self.made(parts[:1]) + self.made(parts[1:])
        turned = self.made(parts[1:]) + self.made(parts[:1])
        for delta in (1e-5, 1e-8):
            assert added.epsilon(delta) == pytest.approx(whole.epsilon(delta), rel=1e-9)
            assert turned.epsilon(delta) == pytest.approx(whole.epsilon(delta), rel=1e-9)

    @pytest.mark.parametrize(
        ("sigma", "rate", "steps"),
        [(0.8, 0.02, 1), (1.2, 0.05, 20), (2.0, 0.3, 5), (0.6, 0.2, 4), (1.0, 0.9, 2)],
    )
    @pytest.mark.parametrize("delta", [1e-5, 1e-7])
    def test_it_is_never_below_an_integrated_bound(
        self, sigma: float, rate: float, steps: int, delta: float
    ) -> None:
        lowest = lowest_epsilon(delta, sigma, rate, steps)
        found = self.epsilon(sampled(sigma, rate, steps), delta=delta)
        assert lowest > 0
        assert found >= lowest
        assert found < 2.5 * lowest + 0.5  # the bound is worth comparing with

    def test_an_unknown_event_is_refused(self) -> None:
        unknown = gaussian(1.0).model_copy(update={"event": "laplace"})
        with pytest.raises(AssertionError):
            self.made([unknown]).epsilon(1e-6)
