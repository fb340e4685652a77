"""Several looks, and several questions at once: how often anything at all is said wrongly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import numpy as np
from scipy import special

from abfed.protocol.analysis import Spending
from abfed.stats.decisions import holm
from abfed.stats.encoding import Floats
from abfed.stats.sequential import Looks
from tests.statistical import worlds
from tests.statistical.cells import Cell, Z, over_brands, read_all, size_weights
from tests.statistical.worlds import World
from tests.stats.simulated import CLICKED, CONVERTED, SIGMA, SPEND, plan_of

WAVE_SIZES = (0.6, 1.4, 0.8, 1.2, 1.0)
"""Of five waves: unlike, so that noise weighs differently in each."""


def any_look(
    spending: str, epsilon: float, times: int, lift: float = 0.0, recipients: int = 4000
) -> Iterator[Cell]:
    """Five looks: how often the interval of any of them leaves the truth out.

    Without a lift that is how often a true null is rejected; fixed intervals are shown beside it.
    """
    z, information = _walk(epsilon, times, lift, recipients)
    crossed, fixed = np.zeros(times, bool), (np.abs(z) > Z).any(axis=0)
    for one in range(times):
        seen = {n + 1: (z[n, one], 1.0, math.sqrt(information[n, one])) for n in range(5)}
        values = Looks.of(cast("Spending", spending), 5, seen).values(0.05)
        crossed[one] = any(abs(a) > b for a, b in zip(z[:, one], values, strict=True))
    what = "no effect" if lift == 0 else f"a lift of {lift:.0%}"
    known = (f"p = 0.15, five unlike waves, {what}", epsilon, recipients, times)
    yield Cell(f"{spending}, any look errs", *known, float(crossed.mean()), math.nan, 0.05)
    if lift == 0:
        yield Cell(
            "fixed intervals, any look errs", *known, float(fixed.mean()), math.nan, math.nan
        )


def _walk(epsilon: float, times: int, lift: float, recipients: int) -> tuple[Floats, Floats]:
    """At each look, (5, times): how many standard errors the effect is off, and information."""
    plan = plan_of(CLICKED)
    rng = np.random.default_rng(3)
    vectors = worlds.vectors(plan, worlds.binary_atoms("clicked"))
    rates = 0.15 * worlds.BASELINES[:, None] * np.array([1.0, 1.0 + lift])
    chances = worlds.binary_chances(rates)
    score, used = np.zeros(times), np.zeros(times)
    z, information = np.zeros((5, times)), np.zeros((5, times))
    for look, size in enumerate(WAVE_SIZES):
        sizes = worlds.sizes_of(round(recipients * size))
        true = sizes @ (rates[:, 1] - rates[:, 0]) / sizes.sum()
        totals = World(plan, vectors, chances, sizes, SIGMA[epsilon]).draw(times, rng)
        readings = read_all(plan, plan.metrics[0], totals)
        weights = size_weights(totals)
        above, below = (over_brands(readings[arm], weights) for arm in ("arm-1", "control"))
        many = np.sum([one.counts()[0].sum(axis=-1) for one in totals.values()], axis=0)
        score += many * (above.value - below.value - true)
        used += many**2 * (above.variance + below.variance)
        information[look], z[look] = used, score / np.sqrt(used)
    return z, information


def any_finding(epsilon: float, recipients: int, times: int) -> Iterator[Cell]:
    """Two arms, three metrics and no effect: how often anything is found, corrected and not."""
    plan = plan_of(CLICKED, CONVERTED, SPEND, shares=(0.4, 0.3, 0.3))
    amounts, mass = worlds.spending()
    atoms = worlds.purchase_atoms(amounts)
    rates = 0.15 * worlds.BASELINES[:, None] * np.ones(3)
    chances = worlds.purchase_chances(rates, mass)
    world = World(
        plan, worlds.vectors(plan, atoms), chances, worlds.sizes_of(recipients), SIGMA[epsilon]
    )
    totals = world.draw(times, np.random.default_rng(12))
    weights = size_weights(totals)
    p_values = []
    for metric in plan.metrics:
        readings = read_all(plan, metric, totals)
        parts = {arm: over_brands(brands, weights) for arm, brands in readings.items()}
        below = parts["control"]
        for arm in ("arm-1", "arm-2"):
            se = np.sqrt(parts[arm].variance + below.variance)
            p_values.append(2 * special.ndtr(-np.abs(parts[arm].value - below.value) / se))
    each = np.stack(p_values, axis=1)
    corrected = float(np.mean([min(holm(list(row))) < 0.05 for row in each]))
    known = ("two arms, three metrics, no effect", epsilon, recipients, times)
    yield Cell("any false finding, Holm", *known, corrected, math.nan, 0.05)
    bare = float((each.min(axis=1) < 0.05).mean())
    yield Cell("uncorrected, any finding", *known, bare, math.nan, math.nan)
