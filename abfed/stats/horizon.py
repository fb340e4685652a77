"""What a planned number of looks asks of a design: how far an effect must stand out to be found.

The *drift* is the effect over its standard error at the last look. Looks are planned at equal
shares of the information. With one look a design finds with chance Φ(drift − z): with several it
finds where any look crosses its boundary, which is computed by the same recursive integration as
the boundaries themselves (`stats.sequential`).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from abfed.protocol.analysis import Spending
from abfed.protocol.plan import Plan
from abfed.stats.sequential import critical_values, mixture, mixture_for

LARGEST_DRIFT = 30.0

POINTS = 201
"""Of the integration over one look's score: far closer together than a step's spread."""


class Horizon(NamedTuple):
    """How often one looks, and by which boundaries.

    Attributes:
        looks: how many are planned.
        spending: by which design; None where there is one look.
    """

    looks: int = 1
    spending: Spending | None = None

    @classmethod
    def of(cls, plan: Plan) -> Horizon:
        """A plan's."""
        design = plan.analysis.sequential
        return cls() if design is None else cls(len(design.waves), design.spending)

    def boundaries(self, alpha: float) -> tuple[float, ...]:
        """Two-sided critical values at each look."""
        if self.spending is None:
            return (float(special.ndtri(1 - alpha / 2)),)
        times = tuple((look + 1) / self.looks for look in range(self.looks))
        if self.spending == "always-valid":
            rho = mixture_for(1.0)
            return tuple(mixture(one, rho, alpha) for one in times)
        return critical_values(self.spending, times, times, alpha)

    def power(self, drift: float, alpha: float) -> float:
        """The chance that some look crosses its boundary."""
        return _power(self, abs(drift), alpha)

    def reach(self, alpha: float, power: float) -> float:
        """The drift that is found with this power."""
        return _reach(self, alpha, power)


ONE_LOOK = Horizon()
"""A fixed horizon: read once."""


@functools.lru_cache(maxsize=4096)
def _power(horizon: Horizon, drift: float, alpha: float) -> float:
    bounds = horizon.boundaries(alpha)
    if len(bounds) == 1:
        z = bounds[0]
        return float(special.ndtr(drift - z) + special.ndtr(-drift - z))
    share = 1 / len(bounds)
    step = math.sqrt(share)
    alive, weights = np.zeros(1), np.ones(1)  # of the score that has not crossed yet
    for look, bound in enumerate(bounds, start=1):
        edge = bound * math.sqrt(look * share)
        points = np.linspace(-edge, edge, POINTS)
        moved = (points[:, None] - alive[None, :] - drift * share) / step
        density = np.exp(-0.5 * moved**2) @ weights / (step * math.sqrt(2 * math.pi))
        spacing = np.full(POINTS, points[1] - points[0])
        spacing[[0, -1]] /= 2
        alive, weights = points, density * spacing
    return min(1.0, max(0.0, 1.0 - float(weights.sum())))


@functools.lru_cache(maxsize=256)
def _reach(horizon: Horizon, alpha: float, power: float) -> float:
    if _power(horizon, 0.0, alpha) >= power:  # no effect at all is called one that often
        return 0.0
    return float(
        optimize.brentq(
            lambda drift: _power(horizon, drift, alpha) - power, 0.0, LARGEST_DRIFT, xtol=1e-8
        )
    )
