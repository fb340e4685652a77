"""What privacy costs: interval widths over those of the exact analysis, as published in the design.

Local noise, four brands, one metric, δ = 1e-6; per brand 16,000 or 64,000 recipients on average.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from abfed.privacy.accounting import gaussian_multiplier
from abfed.stats.adjusting import Forecast, forecast
from abfed.stats.encoding import Floats
from tests.statistical.cells import (
    KEEN_MASS,
    KEENNESS,
    keen_world,
    over_brands,
    read_all,
    size_weights,
)
from tests.statistical.worlds import FOUR, Brands, Setting, World, sizes_of, vectors
from tests.stats.simulated import (
    BASELINES,
    CLICKED,
    CONVERTED,
    SIGMA,
    SIZES,
    SPEND,
    plan_of,
)

EXPECTED = [
    *[(CLICKED, 0.15, 16_000, e, w) for e, w in zip(SIGMA, (1.36, 1.02, 1.01, 1.00), strict=True)],
    *[
        (CONVERTED, 0.009, 16_000, e, w)
        for e, w in zip(SIGMA, (4.02, 1.32, 1.10, 1.01), strict=True)
    ],
    *[
        (CONVERTED, 0.009, 64_000, e, w)
        for e, w in zip(SIGMA, (2.19, 1.09, 1.03, 1.00), strict=True)
    ],
    *[(SPEND, 0.009, 16_000, e, w) for e, w in zip(SIGMA, (6.91, 1.92, 1.37, 1.08), strict=True)],
    *[(SPEND, 0.009, 64_000, e, w) for e, w in zip(SIGMA, (3.60, 1.30, 1.09, 1.01), strict=True)],
]
"""Every cell of the design's table for local noise."""


ORDERS = np.array(
    [30, 30, 30, 30, 30.4, 34.9, 42.9, 53.2, 64.1, 74.3, 87.1, 96.6, 109.1, 126.4, 147.5, 167, 193,
     200, 200, 200]
)  # fmt: skip
"""Dollars: what Hillstrom's buyers spent, clipped at $200; a twentieth of them each."""


def amounts_of(metric: dict[str, Any]) -> Floats:
    """What somebody with the outcome counts, in equal shares."""
    return ORDERS if metric is SPEND else np.ones(1)


def exact_width(metric: dict[str, Any], rate: float, recipients: int) -> float:
    """Width of the exact 95 % interval of the size-weighted mean."""
    variance = 0.0
    amounts = amounts_of(metric)
    for size, base in zip(SIZES, BASELINES, strict=True):
        p = rate * base
        of_one = p * (amounts**2).mean() - (p * amounts.mean()) ** 2
        weight = size / sum(SIZES)
        variance += weight**2 * 4 * of_one / (recipients * size)
    return 2 * float(stats.norm.ppf(0.975)) * math.sqrt(variance)


def drawn_width(world: World, times: int) -> float:
    """Mean width of the interval over these brands."""
    totals = world.draw(times, np.random.default_rng(17))
    readings = read_all(world.plan, world.plan.metrics[0], totals)
    weights = size_weights(totals)
    parts = [over_brands(readings[arm], weights) for arm in ("arm-1", "control")]
    se = np.sqrt(parts[0].variance + parts[1].variance)
    return 2 * float(stats.norm.ppf(0.975)) * float(se.mean())


@pytest.mark.parametrize(("metric", "rate", "recipients", "epsilon", "expected"), EXPECTED)
def test_widths_are_as_published(
    metric: dict[str, Any], rate: float, recipients: int, epsilon: float, expected: float
) -> None:
    amounts = amounts_of(metric)
    believed = {"metric": metric["name"], "mean": rate * float(amounts.mean())}
    if metric is SPEND:
        believed["sd"] = math.sqrt(rate * float((amounts**2).mean()))
    plan = plan_of(
        metric,
        analysis={"recipients": recipients, "expected": [believed]},
        privacy={"epsilon": epsilon, "split": {"statistics": epsilon}},
    )
    column = plan.metrics[0].columns()[0]
    values = [0.0, *amounts] if metric is SPEND else [False, True]
    atoms = [pd.DataFrame({column: [one]}) for one in values]
    rates = rate * np.asarray(BASELINES)[:, None] * np.ones(2)
    share = rates[..., None] * np.full(len(amounts), 1 / len(amounts))
    chances = np.concatenate([1 - rates[..., None], share], axis=-1)
    world = World(plan, vectors(plan, atoms), chances, sizes_of(recipients), SIGMA[epsilon])
    found = drawn_width(world, 200) / exact_width(metric, rate, recipients)
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("epsilon", list(SIGMA))
def test_noise_is_that_of_the_analytic_gaussian(epsilon: float) -> None:
    """The simulations use the noise that a plan of this ε really has."""
    assert gaussian_multiplier(epsilon, 1e-6) == pytest.approx(SIGMA[epsilon], rel=0.01)


ALIKE = Brands(np.ones(4), FOUR.baselines)
"""In size."""

RARE_KEEN = (0.03, 0.12, 0.50)
"""Rates by level of the covariate: p = .15 and r² = .22."""


def adjusted_width(at: Setting) -> tuple[float, Forecast]:
    """Width with the covariate over that without, over four brands; and what was forecast."""
    p = float(np.dot(RARE_KEEN, KEEN_MASS))
    v = float(KEENNESS @ KEEN_MASS)
    of_v = float(KEENNESS**2 @ KEEN_MASS) - v**2
    shared = float((KEENNESS * RARE_KEEN) @ KEEN_MASS) - v * p
    r_squared = shared**2 / of_v / (p * (1 - p))
    assert (p, r_squared) == pytest.approx((0.15, 0.22), abs=0.005)
    analysis = {
        "recipients": int(at.people.mean()),
        "expected": [{"metric": "clicked", "mean": p, "r_squared": r_squared}],
    }
    known = {"metric": "clicked", "covariate": "keen", "mean": v, "sd": math.sqrt(of_v)}
    widths = []
    for use in ("yes", "no"):
        adjust = {"adjust": [known | {"use": use}]}
        world, _, _ = keen_world(analysis | adjust, at, RARE_KEEN)
        widths.append(drawn_width(world, 200))
    values = {"epsilon": at.epsilon, "split": {"statistics": at.epsilon}}
    asked = world.plan.model_copy(update={"privacy": world.plan.privacy.model_validate(values)})
    return widths[0] / widths[1], forecast(asked, asked.analysis.adjust[0])


def test_a_covariate_narrows_as_published() -> None:
    """p = .15, r² = .22, ε = .5, 16,000 a brand: .92 of the unadjusted width."""
    found, _ = adjusted_width(Setting(0.5, 16_000))
    assert found == pytest.approx(0.92, abs=0.02)


@pytest.mark.parametrize(
    ("epsilon", "recipients", "pays"),
    [(0.1, 16_000, False), (0.5, 4000, False), (0.5, 16_000, True), (3.0, 64_000, True)],
)
def test_what_is_said_beforehand_of_a_covariate_comes_true(
    epsilon: float, recipients: int, *, pays: bool
) -> None:
    """Four brands alike in size, so that one forecast holds for all: pays or not, and how much."""
    found, said = adjusted_width(Setting(epsilon, recipients, brands=ALIKE))
    assert said.ratio == pytest.approx(found, rel=0.03)
    assert said.pays == pays == (found < 1)
