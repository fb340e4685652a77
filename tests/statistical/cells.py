"""The cells of the coverage table: worlds with known truths, and how often each interval holds it.

Each function gives rows of the table. `make bench-coverage` prints them; a slow test checks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from abfed.protocol.metrics import Metric
from abfed.protocol.plan import Plan
from abfed.stats.encoding import Floats, Integers
from abfed.stats.estimates import Flags, Reading
from abfed.stats.readouts import read_arms
from abfed.stats.totals import SiloTotals
from tests.statistical import worlds
from tests.statistical.worlds import Setting, World
from tests.stats.simulated import CLICKED, CONVERTED, RATIO, SIGMA, SPEND

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
        read: share of the intervals that could be read; the others say that noise hides them.
    """

    interval: str
    world: str
    epsilon: float
    recipients: int
    times: int
    held: float
    width: float
    nominal: float = 0.95
    read: float = 1.0


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

    def total(parts: list[Floats], power: int) -> Floats:
        return np.asarray((weights**power * np.where(weights > 0, np.stack(parts), 0.0)).sum(0))

    return Many(
        total([one.value for one in readings], 1),
        total([one.sampling for one in readings], 2),
        total([one.variance for one in readings], 2),
    )


def size_weights(totals: dict[str, SiloTotals], usable: Flags | None = None) -> Floats:
    """(brands, times): by noised sizes, of brands whose arms can be told from noise."""
    sizes = np.stack([one.counts()[0].sum(axis=-1) for one in totals.values()])
    kept = np.maximum(sizes, 0) if usable is None else np.where(usable, np.maximum(sizes, 0), 0)
    return np.asarray(kept / np.maximum(kept.sum(axis=0), 1.0))


def both_usable(treated: Sequence[Reading], control: Sequence[Reading]) -> Flags:
    """(brands, times): which brands are in the mean over these brands."""
    return np.stack([a.usable & b.usable for a, b in zip(treated, control, strict=True)])


def mean_of(people: Integers, truth: Floats, usable: Flags) -> Floats:
    """What is true of those brands together, weighted by recipients: (times, arms)."""
    kept = np.where(usable, people[:, None], 0)
    return np.asarray(kept.T @ truth / np.maximum(kept.sum(axis=0), 1)[:, None])


def coverage(
    world: World, truth: Floats, times: int, seed: int, known: tuple[str, Setting]
) -> Iterator[Cell]:
    """Brands by themselves, these brands, and the relative lift over them.

    Args:
        world: of two arms.
        truth: true value of the metric (brands, arms).
        times: simulated experiments.
        seed: of the draws.
        known: what the rows are called, and where they take place.
    """
    plan, metric = world.plan, world.plan.metrics[0]
    totals = world.draw(times, np.random.default_rng(seed))
    readings = read_all(plan, metric, totals)
    treated, control = readings["arm-1"], readings["control"]
    hits, widths = [], []
    for brand, (a, b) in enumerate(zip(treated, control, strict=True)):
        fine = a.usable & b.usable
        off = np.abs(a.value - b.value - (truth[brand, 1] - truth[brand, 0]))
        se = np.sqrt(a.variance + b.variance)
        hits.append((off <= Z * se)[fine])
        with np.errstate(divide="ignore", invalid="ignore"):
            widths.append((se / np.sqrt(a.sampling + b.sampling))[fine])
    hit, width = np.concatenate(hits), np.concatenate(widths)
    yield _cell("effect, a brand", known, times, hit, times * len(treated), width)
    usable = both_usable(treated, control)
    fine = np.logical_or.reduce(usable, axis=0)
    weights = size_weights(totals, usable)
    above, below = over_brands(treated, weights), over_brands(control, weights)
    true = mean_of(world.recipients, truth, usable)
    se = np.sqrt(above.variance + below.variance)
    hit = np.abs(above.value - below.value - (true[:, 1] - true[:, 0])) <= Z * se
    with np.errstate(divide="ignore", invalid="ignore"):
        width = se / np.sqrt(above.sampling + below.sampling)
    yield _cell("effect, these brands", known, times, hit[fine], times, width[fine])
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = true[:, 1] / true[:, 0] - 1
    low, high, bounded = fieller(above, below, plan.arms[1].share / plan.control.share)
    hit = ((low <= lift) & (lift <= high))[fine & bounded]
    yield _cell("relative lift", known, times, hit, times)


def _cell(
    interval: str,
    known: tuple[str, Setting],
    times: int,
    hit: Any,
    asked: int,
    width: Floats | None = None,
) -> Cell:
    """A row from which of the intervals that could be read held the truth."""
    what, at = known
    held = float(hit.mean()) if len(hit) else math.nan
    wide = math.nan if width is None or not len(width) else float(width.mean())
    return Cell(
        interval, at.said(what), at.epsilon, at.recipients, times, held, wide, read=len(hit) / asked
    )


def fieller(above: Many, below: Many, odds: float = 1.0) -> tuple[Floats, Floats, Any]:
    """Fieller's interval, as `contrasts.relative_lift` has it, and where it is given."""
    a = below.value**2 - Z**2 * below.variance
    b, q = above.value * below.value, above.value**2 - Z**2 * above.variance
    root = np.sqrt(np.maximum(0.0, b**2 - a * q))
    sampling, whole = above.sampling + below.sampling, above.variance + below.variance
    planned = sampling * odds / (1 + odds) + (whole - sampling) * odds**2 / (1 + odds**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.maximum((b - root) / a - 1, -1.0), (b + root) / a - 1
        level = below.value + planned / whole * (above.value - below.value)
    clear = (a > 0) & (below.value > 0) & (level > Z * np.sqrt(planned))
    return low, high, clear & (high >= -1.0)


def proportion(rate: float, at: Setting, times: int) -> Iterator[Cell]:
    """A share of recipients, with a lift of 10 %."""
    metric = CLICKED if rate > 0.05 else CONVERTED
    plan = at.plan(metric)
    rates = rate * at.brands.baselines[:, None] * np.array([1.0, 1.1])
    atoms = worlds.vectors(plan, worlds.binary_atoms(metric["column"]))
    world = World(plan, atoms, worlds.binary_chances(rates), at.people, at.sigma)
    yield from coverage(world, rates, times, 1, (f"p = {rate:g}", at))


def spend(at: Setting, times: int) -> Iterator[Cell]:
    """Money, clipped at $200: .9 % buy."""
    plan = at.plan(SPEND)
    rates = 0.009 * at.brands.baselines[:, None] * np.array([1.0, 1.2])
    amounts, mass = worlds.spending()
    mean = float(np.minimum(amounts, worlds.CAP) @ mass)
    atoms = worlds.vectors(plan, worlds.spend_atoms())
    world = World(plan, atoms, worlds.spend_chances(rates), at.people, at.sigma)
    yield from coverage(world, rates * mean, times, 2, ("spend, clipped at $200", at))


def of_sends(at: Setting, times: int) -> Iterator[Cell]:
    """One to five sends a recipient: clicks among opens, opened sends, and whether any was."""
    rates = 0.2 * at.brands.baselines[:, None] * np.array([1.0, 1.05])
    atoms = worlds.sends_atoms(5)
    chances = worlds.sends_chances(rates, 5)
    clicks, opens = (
        np.array([float(one[name].sum()) for one in atoms]) for name in ("clicked", "opened")
    )
    truths = (
        (RATIO, (chances @ clicks) / (chances @ opens), "clicks per open, 1–5 sends"),
        (CLICKS, chances @ np.minimum(clicks, 3), "clicks, of 1–5 sends at most 3"),
        (CLICKED, chances @ (clicks > 0), "any click, 1–5 sends"),
    )
    for metric, truth, what in truths:
        plan = at.plan(metric, sends_per_recipient=5)
        world = World(plan, worlds.vectors(plan, atoms), chances, at.people, at.sigma)
        for cell in coverage(world, truth, times, 3, (what, at)):
            yield cell._replace(interval=f"{cell.interval} ({plan.metrics[0].kind})")


CLICKS = {"name": "clicks", "kind": "count", "column": "clicked", "most": 3}
KEEN = {"name": "keen", "kind": "numeric", "low": 0.0, "high": 1.0}
BANDS = ("low", "middle", "high")
BAND = {"name": "band", "kind": "category", "values": list(BANDS)}


KEENNESS = np.array([0.1, 0.5, 0.9])
KEEN_MASS = np.array([0.5, 0.3, 0.2])


USUAL, RARE = (0.05, 0.15, 0.55), (0.003, 0.009, 0.03)
"""Rates by how keen somebody was; about .16 and .01 of all."""


def keen_world(
    analysis: dict[str, Any],
    at: Setting,
    by_level: tuple[float, float, float] = USUAL,
) -> tuple[World, Floats, Floats]:
    """Clicks that depend on how keen somebody was before: r² is about .2 where they are usual.

    Returns:
        The world; the true rates (brands, arms); and those by band (brands, arms, bands).
    """
    plan = at.plan(CLICKED, features=[KEEN, BAND], analysis=analysis)
    rates = np.array(by_level)[None, None, :] * np.array([1.0, 1.05])[None, :, None]
    by_band = np.clip(rates * (0.8 + 0.2 * at.brands.baselines)[:, None, None], 0, 1)
    chances = np.stack([1 - by_band, by_band], axis=-1) * KEEN_MASS[:, None]
    atoms = [
        pd.DataFrame({"clicked": [flag], "keen": [float(level)], "band": [band]})
        for level, band in zip(KEENNESS, BANDS, strict=True)
        for flag in (False, True)
    ]
    flat = chances.reshape(*by_band.shape[:2], -1)
    world = World(plan, worlds.vectors(plan, atoms), flat, at.people, at.sigma)
    return world, by_band @ KEEN_MASS, by_band


def adjusted(
    at: Setting, times: int, by_level: tuple[float, float, float] = USUAL
) -> Iterator[Cell]:
    """CUPED in its tensor form, and post-stratification."""
    cuped = {"adjust": [{"metric": "clicked", "covariate": "keen", "use": "yes"}]}
    strata = {"segments": [{"name": "bands", "feature": "band", "poststratify": True}]}
    for label, analysis in (("CUPED", cuped), ("post-stratified", strata)):
        world, truth, _ = keen_world(analysis, at, by_level)
        what = f"p ≈ {truth.mean():.2g}"
        for cell in coverage(world, truth, times, 6, (what, at)):
            yield cell._replace(interval=f"{cell.interval} ({label})")


def in_segments(
    at: Setting, times: int, by_level: tuple[float, float, float] = USUAL
) -> Iterator[Cell]:
    """The effect in each cell of a segmentation, over these brands."""
    analysis = {"segments": [{"name": "bands", "feature": "band", "share": 0.3}]}
    world, truth, by_band = keen_world(analysis, at, by_level)
    totals = world.draw(times, np.random.default_rng(7))
    hits = []
    for index in range(len(BANDS)):
        part = {brand: one.cell("bands", index) for brand, one in totals.items()}
        bare = world.plan.model_copy(
            update={"analysis": world.plan.analysis.model_copy(update={"segments": ()})}
        )
        readings = read_all(bare, bare.metrics[0], part)
        usable = both_usable(readings["arm-1"], readings["control"])
        weights = size_weights(part, usable)
        above, below = (over_brands(readings[arm], weights) for arm in ("arm-1", "control"))
        true = mean_of(world.recipients, by_band[:, :, index], usable)
        off = np.abs(above.value - below.value - (true[:, 1] - true[:, 0]))
        hit = off <= Z * np.sqrt(above.variance + below.variance)
        hits.append(hit[usable.any(axis=0)])
    known = (f"p ≈ {truth.mean():.2g}, three bands", at)
    hit = np.concatenate(hits)
    yield _cell("effect in a segment", known, times, hit, times * len(BANDS))


HOURS = {
    "name": "soon",
    "kind": "quantile",
    "column": "hours_to_open",
    "quantile": 0.25,
    "edges": [0.0, *(float(one) for one in np.geomspace(0.25, 96.0, 24))],
}


def time_to_open(at: Setting, times: int, opening: float = 0.45) -> Iterator[Cell]:
    """The time within which a quarter of recipients opened; more than half never do.

    Times are evenly spread inside each bin, so that the truth is known exactly.
    """
    plan = at.plan(HOURS)
    edges = np.array(HOURS["edges"])
    middles = (edges[1:] + edges[:-1]) / 2
    atoms = [pd.DataFrame({"hours_to_open": [float(one)]}) for one in (*middles, np.inf)]
    chances, truth = [], []
    for base in at.brands.baselines:
        pair, true = [], []
        for lift in (1.0, 1.08):
            opened = min(0.95, opening * (0.7 + 0.3 * base) * lift)
            reached = opened * stats.expon(scale=12.0).cdf(edges)
            pair.append([*np.diff(reached), 1 - reached[-1]])
            true.append(float(np.interp(0.25, reached, edges)))
        chances.append(pair)
        truth.append(true)
    world = World(plan, worlds.vectors(plan, atoms), np.array(chances), at.people, at.sigma)
    what = f"hours until a quarter opened, of {opening:.0%}"
    for cell in coverage(world, np.array(truth), times, 8, (what, at)):
        yield cell._replace(interval=f"{cell.interval} (quantile)")
