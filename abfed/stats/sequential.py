"""Looks during an experiment: intervals and p-values that hold however often one looks.

Recipients come in waves, each in one wave only, so that each wave's release has noise of its own.
After look k the effect is Σn_i·d_i / Σn_i. Its score Σn_i·d_i is a sum of independent steps of
variance U_i = n_i²·V_i, where V_i holds sampling *and* noise: so Z_k = score / √ΣU has the
canonical joint distribution with correlations √(U_j/U_k), and what plays the part of information
has the noise in it. (With the plain fraction n_j/n_k levels are wrong where waves differ in size.)

* `obrien-fleming`, `pocock`: α is spent on looks as fast as Lan and DeMets' (1983) functions of
  those names allow at the share of planned waves that are over; critical values by recursive
  integration (Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, ch. 19). Intervals
  are repeated confidence intervals: estimate ± critical value × standard error.
* `always-valid`: a confidence sequence from a normal mixture (Robbins 1970; Howard et al. 2021,
  eq. 14): valid at all looks at once, also at ones that were never planned.

p-values are the smallest α at which some look so far would have crossed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from abfed.protocol.analysis import Spending

GRID = 401
"""Points of the integration over one look's statistic."""

REACH = 8.0
"""How many standard deviations it goes out to."""

SMALLEST_STEP = 1e-3
"""Of information between two looks, as a share of the last: less is as good as none."""

FEW_LOOKS = 10
"""Up to so many, information to a hundredth moves critical values by less than a hundredth."""

SMALLEST_P = 1e-9
"""Below this p-values are not told apart."""


def spent(spending: Spending, time: float, alpha: float) -> float:
    """The part of a two-sided α that may be spent at this share of the planned looks."""
    if time >= 1:
        return alpha
    if spending == "obrien-fleming":
        z = float(special.ndtri(1 - alpha / 4))  # each side spends α/2 by 2 − 2Φ(z/√t)
        return float(4 * special.ndtr(-z / math.sqrt(time)))
    return alpha * math.log(1 + (math.e - 1) * time)


@functools.lru_cache(maxsize=4096)
def critical_values(
    spending: Spending, times: tuple[float, ...], information: tuple[float, ...], alpha: float
) -> tuple[float, ...]:
    """Two-sided critical values of Z at each look.

    Args:
        spending: how fast α is spent.
        times: share of the planned looks that are over, rising; α is spent by it.
        information: U at each look, rising; correlations follow from it.
        alpha: to be spent in all.
    """
    values: list[float] = []
    alive, density = np.zeros(1), np.ones(1)  # of the score that has not crossed yet
    scale = information[-1]
    before = used = 0.0
    # A first look at next to nothing: at a level of 0 no value would be crossed, and none be left.
    levels = (max(one / scale, SMALLEST_STEP) for one in information)
    for time, level in zip(times, levels, strict=True):
        step = math.sqrt(max(level - before, SMALLEST_STEP))
        crossing = max(spent(spending, time, alpha) - used, 0.0)
        root = math.sqrt(level)
        value = _critical(alive, density, step, root, crossing)
        values.append(value)
        used = max(used, spent(spending, time, alpha))
        bound = value * root
        edge = min(bound, REACH * root)
        points = np.linspace(-edge, edge, GRID)
        weights = density * _trapezoid(alive)
        kernel = np.exp(-0.5 * ((points[:, None] - alive[None, :]) / step) ** 2)
        density = kernel @ weights / (step * math.sqrt(2 * math.pi))
        alive, before = points, level
    return tuple(values)


def _critical(
    alive: np.ndarray[tuple[int], np.dtype[np.float64]],
    density: np.ndarray[tuple[int], np.dtype[np.float64]],
    step: float,
    root: float,
    crossing: float,
) -> float:
    """The value that the next statistic exceeds, either way, with this probability."""
    if crossing <= 0:
        return REACH
    weights = density * _trapezoid(alive)

    def beyond(value: float) -> float:
        bound = value * root
        above = special.ndtr((alive - bound) / step) + special.ndtr((-bound - alive) / step)
        return float(weights @ above) - crossing

    if beyond(0.0) <= 0:
        return 0.0
    if beyond(REACH) >= 0:
        return REACH
    return float(optimize.brentq(beyond, 0.0, REACH, xtol=1e-8))


def _trapezoid(
    points: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Weights of an integral over evenly spaced points; one point is a mass."""
    if len(points) == 1:
        return np.ones(1)
    weights = np.full(len(points), points[1] - points[0])
    weights[[0, -1]] /= 2
    return weights


def mixture(information: float, rho: float, alpha: float) -> float:
    """Critical value of Z in the confidence sequence with mixture variance 1/ρ."""
    total = information + rho
    return math.sqrt(total / information * math.log(total / (rho * alpha**2)))


def mixture_for(information: float, alpha: float = 0.05) -> float:
    """The ρ whose sequence is tightest about this information (Howard et al. 2021, sec. 3.5)."""
    level = -2 * math.log(alpha)
    return information / (level + math.log(1 + level))


class Looks(NamedTuple):
    """What was seen of one effect, look by look.

    Attributes:
        spending: the design.
        times: share of the planned looks that were over, at each look with a value.
        information: U at each.
        z: estimate over standard error at each.
        roots: standard error at each.
        planned: how many looks are planned.
    """

    spending: Spending
    times: tuple[float, ...]
    information: tuple[float, ...]
    z: tuple[float, ...]
    roots: tuple[float, ...]
    planned: int

    @classmethod
    def of(
        cls, spending: Spending, planned: int, seen: Mapping[int, tuple[float, float, float]]
    ) -> Looks:
        """From estimate, standard error and recipients so far, by number of the look."""
        numbers = sorted(seen)
        rising = np.maximum.accumulate([(seen[n][1] * seen[n][2]) ** 2 for n in numbers])
        return cls(
            spending,
            tuple(n / planned for n in numbers),
            tuple(float(one) for one in rising),
            tuple(seen[n][0] / seen[n][1] for n in numbers),
            tuple(seen[n][1] for n in numbers),
            planned,
        )

    def critical(self, alpha: float) -> float:
        """Half the width of the interval at the last look, in standard errors."""
        return self.values(alpha)[-1]

    def p_value(self) -> float:
        """Two-sided, over all looks."""
        return self._p([abs(one) for one in self.z])

    def margin(self, sign: float, margin: float) -> tuple[float, float]:
        """One-sided p-values of "the harm is within the margin" and "it is beyond it"."""
        zs = [(sign * z * root - margin) / root for z, root in zip(self.z, self.roots, strict=True)]
        return self._p([-one for one in zs]) / 2, self._p(zs) / 2

    def describe(self, alpha: float) -> str:
        """Which look this is, and whether a boundary was crossed before."""
        text = f"look {round(self.times[-1] * self.planned)} of {self.planned}, {self.spending}"
        values = self.values(alpha)
        pairs = zip(self.times, self.z, values, strict=True)
        crossed = [time for time, z, value in pairs if abs(z) > value]
        if crossed:
            look = round(crossed[0] * self.planned)
            text += f"; boundary crossed at look {look}, as if it were the only question"
        return text

    def values(self, alpha: float) -> tuple[float, ...]:
        """Critical values of Z at each look."""
        if self.spending != "always-valid":
            return critical_values(self.spending, self.times, self._relative(), alpha)
        rho = mixture_for(self.information[0] / self.times[0])
        return tuple(mixture(one, rho, alpha) for one in self.information)

    def _relative(self) -> tuple[float, ...]:
        """Information as a share of the last, rounded so that like designs share their values."""
        places = 2 if self.planned <= FEW_LOOKS else 3
        return tuple(round(one / self.information[-1], places) for one in self.information)

    def _p(self, zs: Sequence[float]) -> float:
        """The smallest α at which one of these crosses its critical value."""

        def crosses(alpha: float) -> bool:
            values = self.values(alpha)
            return any(z > value for z, value in zip(zs, values, strict=True))

        if self.spending == "always-valid":
            return min(self._mixture_p(z, one) for z, one in zip(zs, self.information, strict=True))
        if crosses(SMALLEST_P):
            return SMALLEST_P
        low, high = math.log(SMALLEST_P), 0.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if crosses(math.exp(middle)) else (middle, high)
        return math.exp(high)

    def _mixture_p(self, z: float, information: float) -> float:
        if z <= 0:
            return 1.0
        rho = mixture_for(self.information[0] / self.times[0])
        total = information + rho
        # α at which √(total/U·log(total/(ρα²))) = z
        return min(1.0, math.sqrt(total / rho) * math.exp(-(z**2) * information / (2 * total)))
