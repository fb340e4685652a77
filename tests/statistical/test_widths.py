"""What privacy costs: widths of intervals over those of the exact analysis, as published."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abfed.privacy.accounting import gaussian_multiplier
from abfed.stats.adjusting import Forecast, forecast
from tests.statistical.cells import (
    KEEN_MASS,
    KEENNESS,
    keen_world,
)
from tests.statistical.widths import drawn_width, every_width
from tests.statistical.worlds import FOUR, Brands, Setting
from tests.stats.simulated import (
    SIGMA,
)


def test_widths_are_as_published() -> None:
    """All cells of the design's table: with noise in each brand, and with noise once where the plan
    promises its shares; where they are counted, from ε = .5 on (decision 0119 says why)."""
    rows = list(every_width())
    assert [sum(one.noise == kind for one in rows) for kind in ("each", "once", "counted")] == [
        20,
        14,
        9,
    ]
    assert [one for one in rows if not one.holds] == []


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
