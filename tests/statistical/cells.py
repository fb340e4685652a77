"""The cells of the coverage table: worlds with known truths, and how often each interval holds it.

Each function gives rows of the table. `make bench-coverage` prints them; a slow test checks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from abfed.protocol.analysis import Spending
from abfed.protocol.metrics import Metric
from abfed.protocol.plan import Plan
from abfed.stats.encoding import Floats
from abfed.stats.estimates import Reading
from abfed.stats.readouts import read_arms
from abfed.stats.sequential import Looks
from abfed.stats.totals import SiloTotals
from tests.statistical import worlds
from tests.statistical.worlds import World
from tests.stats.simulated import CLICKED, CONVERTED, RATIO, SIGMA, SPEND, plan_of

Z = 1.959963984540054
EPSILONS = tuple(SIGMA)


class Cell(NamedTuple):
    """One row of the table.

    Attributes:
        interval: which kind.
        world: what was simulated.
        epsilon: of the release.
        recipients: in a brand, on average.
        times: simulated experiments.
        held: share of them whose interval holds the truth (or, for a test, share of alarms).
        width: mean width of the interval over that without noise; NaN where it has no part.
        nominal: what `held` should be.
    """

    interval: str
    world: str
    epsilon: float
    recipients: int
    times: int
    held: float
    width: float
    nominal: float = 0.95


def read_all(plan: Plan, metric: Metric, totals: dict[str, SiloTotals]) -> dict[str, list[Reading]]:
    """Every brand's readings by arm."""
    brands = [read_arms(plan, metric, one).arms for one in totals.values()]
    return {arm.name: [brand[arm.name] for brand in brands] for arm in plan.arms}


class Many(NamedTuple):
    """Size-weighted means over brands, of many experiments at once."""

    value: Floats
    sampling: Floats
    variance: Floats


def over_brands(readings: Sequence[Reading], weights: Floats) -> Many:
    """Σwm and Σw²V, as `contrasts.weighted` has them: (times,)."""
    value = sum(w * one.value for w, one in zip(weights, readings, strict=True))
    sampling = sum(w**2 * one.sampling for w, one in zip(weights, readings, strict=True))
    variance = sum(w**2 * one.variance for w, one in zip(weights, readings, strict=True))
    return Many(np.asarray(value), np.asarray(sampling), np.asarray(variance))


def size_weights(totals: dict[str, SiloTotals]) -> Floats:
    """(brands, times)."""
    sizes = np.stack([one.counts()[0].sum(axis=-1) for one in totals.values()])
    return np.asarray(np.maximum(sizes, 0) / np.maximum(sizes, 0).sum(axis=0))


def coverage(
    world: World, truth: Floats, times: int, seed: int, label: str, epsilon: float
) -> Iterator[Cell]:
    """Brands by themselves, these brands, and the relative lift over them.

    Args:
        world: of two arms.
        truth: true value of the metric (brands, arms).
        times: simulated experiments.
        seed: of the draws.
        label: what the rows are called.
        epsilon: of the release, for the table.
    """
    plan, metric = world.plan, world.plan.metrics[0]
    totals = world.draw(times, np.random.default_rng(seed))
    readings = read_all(plan, metric, totals)
    treated, control = readings["arm-1"], readings["control"]
    n = int(world.recipients.mean())
    hits, widths, kept = [], [], 0
    for brand, (a, b) in enumerate(zip(treated, control, strict=True)):
        fine = a.usable & b.usable
        off = np.abs(a.value - b.value - (truth[brand, 1] - truth[brand, 0]))
        se = np.sqrt(a.variance + b.variance)
        hits.append((off <= Z * se)[fine])
        widths.append((se / np.sqrt(a.sampling + b.sampling))[fine])
        kept += int(fine.sum())
    if kept > 0.98 * times * len(treated):
        held = float(np.concatenate(hits).mean())
        width = float(np.concatenate(widths).mean())
        yield Cell("effect, a brand", label, epsilon, n, times, held, width)
    weights = size_weights(totals)
    above, below = over_brands(treated, weights), over_brands(control, weights)
    fine = np.all([one.usable for one in (*treated, *control)], axis=0)
    if fine.mean() < 0.98:
        return
    true = world.recipients @ truth / world.recipients.sum()
    se = np.sqrt(above.variance + below.variance)
    off = np.abs(above.value - below.value - (true[1] - true[0]))
    width = float((se / np.sqrt(above.sampling + below.sampling))[fine].mean())
    held = float((off <= Z * se)[fine].mean())
    yield Cell("effect, these brands", label, epsilon, n, times, held, width)
    yield from _relative(above, below, true[1] / true[0] - 1, fine, (label, epsilon, n, times))


def _relative(
    above: Many, below: Many, lift: float, fine: Any, known: tuple[str, float, int, int]
) -> Iterator[Cell]:
    """Fieller's interval, as `contrasts.relative_lift` has it, where it is bounded."""
    a = below.value**2 - Z**2 * below.variance
    bounded = fine & (a > 0) & (below.value > 0)
    if bounded.mean() < 0.999:
        return
    b, q = above.value * below.value, above.value**2 - Z**2 * above.variance
    root = np.sqrt(np.maximum(0.0, b**2 - a * q))
    low, high = (b - root) / a - 1, (b + root) / a - 1
    held = float(((low <= lift) & (lift <= high)).mean())
    label, epsilon, n, times = known
    yield Cell("relative lift", label, epsilon, n, times, held, math.nan)


def proportion(
    rate: float, epsilon: float, recipients: int, shares: tuple[float, float], times: int
) -> Iterator[Cell]:
    """A share of recipients, with a lift of 10 %."""
    metric = CLICKED if rate > 0.05 else CONVERTED
    plan = plan_of(metric, shares=shares)
    rates = rate * worlds.BASELINES[:, None] * np.array([1.0, 1.1])
    world = World(
        plan,
        worlds.vectors(plan, worlds.binary_atoms(metric["column"])),
        worlds.binary_chances(rates),
        worlds.sizes_of(recipients),
        SIGMA[epsilon],
    )
    name = f"p = {rate:g}, arms {shares[0]:g}/{shares[1]:g}"
    yield from coverage(world, rates, times, 1, name, epsilon)


def spend(epsilon: float, recipients: int, times: int) -> Iterator[Cell]:
    """Money, clipped at $200: .9 % buy."""
    plan = plan_of(SPEND)
    rates = 0.009 * worlds.BASELINES[:, None] * np.array([1.0, 1.2])
    amounts, mass = worlds.spending()
    mean = float(np.minimum(amounts, worlds.CAP) @ mass)
    world = World(
        plan,
        worlds.vectors(plan, worlds.spend_atoms()),
        worlds.spend_chances(rates),
        worlds.sizes_of(recipients),
        SIGMA[epsilon],
    )
    yield from coverage(world, rates * mean, times, 2, "spend, clipped at $200", epsilon)


def ratio(epsilon: float, recipients: int, times: int) -> Iterator[Cell]:
    """Clicks among opens, one to five sends a recipient."""
    plan = plan_of(RATIO, sends_per_recipient=5)
    rates = 0.2 * worlds.BASELINES[:, None] * np.array([1.0, 1.05])
    atoms = worlds.sends_atoms(5)
    chances = worlds.sends_chances(rates, 5)
    clicks = np.array([one["clicked"].sum() for one in atoms])
    opens = np.array([one["opened"].sum() for one in atoms])
    truth = (chances @ clicks) / (chances @ opens)
    world = World(
        plan, worlds.vectors(plan, atoms), chances, worlds.sizes_of(recipients), SIGMA[epsilon]
    )
    yield from coverage(world, truth, times, 3, "clicks per open, 1–5 sends", epsilon)


WAVE_SIZES = (0.6, 1.4, 0.8, 1.2, 1.0)
"""Of five waves: unlike, so that noise weighs differently in each."""


def sequential_errors(
    spending: str, epsilon: float, times: int, seed: int, recipients: int = 4000
) -> Iterator[Cell]:
    """Five looks at a true null: how often any of them rejects it, with and without a design."""
    plan = plan_of(CLICKED)
    rng = np.random.default_rng(seed)
    vectors = worlds.vectors(plan, worlds.binary_atoms("clicked"))
    chances = worlds.binary_chances(0.15 * worlds.BASELINES[:, None] * np.ones(2))
    score = np.zeros(times)
    information = np.zeros((5, times))
    z = np.zeros((5, times))
    used = np.zeros(times)
    for look, size in enumerate(WAVE_SIZES):
        sizes = worlds.sizes_of(round(recipients * size))
        totals = World(plan, vectors, chances, sizes, SIGMA[epsilon]).draw(times, rng)
        readings = read_all(plan, plan.metrics[0], totals)
        weights = size_weights(totals)
        above, below = (over_brands(readings[arm], weights) for arm in ("arm-1", "control"))
        many = np.sum([one.counts()[0].sum(axis=-1) for one in totals.values()], axis=0)
        score += many * (above.value - below.value)
        used += many**2 * (above.variance + below.variance)
        information[look], z[look] = used, score / np.sqrt(used)
    crossed, fixed = np.zeros(times, bool), (np.abs(z) > Z).any(axis=0)
    for one in range(times):
        seen = {n + 1: (z[n, one], 1.0, math.sqrt(information[n, one])) for n in range(5)}
        last = Looks.of(cast("Spending", spending), 5, seen)
        values = last.values(0.05)
        crossed[one] = any(abs(a) > b for a, b in zip(z[:, one], values, strict=True))
    label = "p = 0.15, five unlike waves"
    known = (label, epsilon, recipients, times)
    yield Cell(f"{spending}, any look", *known, float(crossed.mean()), math.nan, 0.05)
    yield Cell("fixed intervals, any look", *known, float(fixed.mean()), math.nan, math.nan)


def table(cells: Sequence[Cell]) -> pd.DataFrame:
    """As printed."""
    return pd.DataFrame(cells)
