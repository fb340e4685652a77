"""What privacy costs: interval widths over those of the exact analysis, as published in the design.

Local noise, four brands, one metric, δ = 1e-6; per brand 16,000 or 64,000 recipients on average.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from abfed.privacy.accounting import gaussian_multiplier
from abfed.stats.effects import THESE, effects
from tests.stats.simulated import (
    BASELINES,
    CLICKED,
    CONVERTED,
    SIGMA,
    SIZES,
    SPEND,
    World,
    plan_of,
)

EXPECTED = [
    (CLICKED, 0.15, 16_000, 0.1, 1.36),
    (CLICKED, 0.15, 16_000, 0.5, 1.02),
    (CLICKED, 0.15, 16_000, 1.0, 1.01),
    (CLICKED, 0.15, 16_000, 3.0, 1.00),
    (CONVERTED, 0.009, 16_000, 0.1, 4.02),
    (CONVERTED, 0.009, 16_000, 0.5, 1.32),
    (CONVERTED, 0.009, 16_000, 1.0, 1.10),
    (CONVERTED, 0.009, 16_000, 3.0, 1.01),
    (CONVERTED, 0.009, 64_000, 0.1, 2.19),
    (CONVERTED, 0.009, 64_000, 1.0, 1.03),
    (SPEND, 0.009, 64_000, 1.0, 1.09),
    (SPEND, 0.009, 64_000, 3.0, 1.01),
]


def spent_moments() -> tuple[float, float]:
    """Mean and mean square of min(amount, 200) of a buyer."""
    amount = stats.lognorm(0.7, scale=math.exp(4.4))
    draws = np.minimum(amount.ppf((np.arange(200_000) + 0.5) / 200_000), 200)
    return float(draws.mean()), float((draws**2).mean())


def exact_width(metric: dict[str, Any], rate: float, recipients: int) -> float:
    """Width of the exact 95 % interval of the size-weighted mean."""
    variance = 0.0
    for size, base in zip(SIZES, BASELINES, strict=True):
        p = rate * base
        first, second = spent_moments() if metric is SPEND else (1.0, 1.0)
        of_one = p * second - (p * first) ** 2
        weight = size / sum(SIZES)
        variance += weight**2 * 4 * of_one / (recipients * size)
    return 2 * float(stats.norm.ppf(0.975)) * math.sqrt(variance)


@pytest.mark.parametrize(("metric", "rate", "recipients", "epsilon", "expected"), EXPECTED)
def test_widths_are_as_published(
    metric: dict[str, Any], rate: float, recipients: int, epsilon: float, expected: float
) -> None:
    plan = plan_of(metric)
    world = World(plan, {metric["name"]: rate}, {}, recipients, SIGMA[epsilon])
    rng = np.random.default_rng(17)
    widths = []
    for _ in range(12):
        row = effects(plan, world.draw(rng)).set_index("scope").loc[THESE]
        widths.append(row["ci_high"] - row["ci_low"])
    found = float(np.mean(widths)) / exact_width(metric, rate, recipients)
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("epsilon", list(SIGMA))
def test_noise_is_that_of_the_analytic_gaussian(epsilon: float) -> None:
    """The simulations use the noise that a plan of this ε really has."""
    assert gaussian_multiplier(epsilon, 1e-6) == pytest.approx(SIGMA[epsilon], rel=0.01)
