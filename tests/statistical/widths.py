"""What privacy costs: widths over those of the exact analysis, beside those that were published.

Four brands, one metric, δ = 1e-6; per brand 16,000 or 64,000 recipients on average. With noise in
each brand, and with one noise over all of them (nobody colluding or missing).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from abfed.privacy.charges import silo_share
from abfed.privacy.once import split
from abfed.protocol.plan import Plan
from abfed.stats.encoding import SCALE, Floats
from abfed.stats.once import pooled_totals, weights_of
from abfed.stats.readouts import read_arms
from abfed.stats.totals import SiloTotals
from tests.statistical import worlds
from tests.statistical.cells import Z, over_brands, read_all, size_weights
from tests.statistical.worlds import Setting, World
from tests.stats.simulated import CLICKED, CONVERTED, SIGMA, SPEND

TOLERANCE = 0.05
"""How far a width may be from what was published."""

TIMES = 200
"""Experiments over which a width is averaged: it hardly differs between them."""

ORDERS = np.array(
    [30, 30, 30, 30, 30.4, 34.9, 42.9, 53.2, 64.1, 74.3, 87.1, 96.6, 109.1, 126.4, 147.5, 167, 193,
     200, 200, 200]
)  # fmt: skip
"""Dollars: what Hillstrom's buyers spent, clipped at $200; a twentieth of them each."""


class Published(NamedTuple):
    """A row of the design's table: widths by ε, with noise in each brand and with noise once."""

    metric: dict[str, Any]
    rate: float
    recipients: int
    each: tuple[float, ...]
    once: tuple[float | None, ...]


PUBLISHED = (
    Published(CLICKED, 0.15, 16_000, (1.36, 1.02, 1.01, 1.00), (1.10, 1.01, None, None)),
    Published(CONVERTED, 0.009, 16_000, (4.02, 1.32, 1.10, 1.01), (2.19, 1.09, 1.03, None)),
    Published(CONVERTED, 0.009, 64_000, (2.19, 1.09, 1.03, 1.00), (1.39, 1.02, None, None)),
    Published(SPEND, 0.009, 16_000, (6.91, 1.92, 1.37, 1.08), (3.60, 1.30, 1.07, 1.01)),
    Published(SPEND, 0.009, 64_000, (3.60, 1.30, 1.09, 1.01), (2.03, 1.07, 1.02, None)),
)


class Width(NamedTuple):
    """A width that was found, and the published one."""

    noise: str
    metric: str
    rate: float
    recipients: int
    epsilon: float
    found: float
    published: float

    @property
    def holds(self) -> bool:
        """Whether the two agree."""
        return abs(self.found / self.published - 1) <= TOLERANCE


def every_width() -> Iterator[Width]:
    """The whole table."""
    for row in PUBLISHED:
        for epsilon, each, once in zip(SIGMA, row.each, row.once, strict=True):
            at = Setting(epsilon, row.recipients)
            exact = exact_width(row.metric, row.rate, at)
            name = str(row.metric["name"])
            known = (name, row.rate, row.recipients, epsilon)
            yield Width("each", *known, drawn_width(_world(row, at), TIMES) / exact, each)
            if once is None:
                continue
            yield Width("once", *known, once_width(row, at, TIMES) / exact, once)
            if epsilon > 0.1:  # below, doubt about noised shares widens it (decision 0119)
                yield Width("counted", *known, counted_width(row, at, TIMES) / exact, once)


def amounts_of(metric: dict[str, Any]) -> Floats:
    """What somebody with the outcome counts, in equal shares."""
    return ORDERS if metric is SPEND else np.ones(1)


def exact_width(metric: dict[str, Any], rate: float, at: Setting) -> float:
    """Width of the exact 95 % interval of the size-weighted mean."""
    amounts = amounts_of(metric)
    p = rate * at.brands.baselines
    of_one = p * (amounts**2).mean() - (p * amounts.mean()) ** 2
    weights = at.brands.sizes / at.brands.sizes.sum()
    variance = float((weights**2 * 4 * of_one / (at.recipients * at.brands.sizes)).sum())
    return 2 * Z * math.sqrt(variance)


def drawn_width(world: World, times: int) -> float:
    """Mean width of the interval over these brands."""
    totals = world.draw(times, np.random.default_rng(17))
    readings = read_all(world.plan, world.plan.metrics[0], totals)
    weights = size_weights(totals)
    parts = [over_brands(readings[arm], weights) for arm in ("arm-1", "control")]
    se = np.sqrt(parts[0].variance + parts[1].variance)
    return 2 * Z * float(se.mean())


def once_width(row: Published, at: Setting, times: int) -> float:
    """The same under one noise over all brands, which keep the planned shares of arms."""
    found = noised_once(_once_world(row, at, "planned"), at, times, np.random.default_rng(18))
    return 2 * Z * float(np.sqrt(_variance(found, row, at)).mean())


def counted_width(row: Published, at: Setting, times: int) -> float:
    """The same where the brands' sums are weighed by their noised counts."""
    many = len(at.brands.sizes)
    world = _once_world(row, at, "counted")
    plan, rng = world.plan, np.random.default_rng(18)
    drawn = World(plan, world.vectors, world.chances, world.recipients, 0.0).draw(times, rng)
    layout = next(iter(drawn.values())).layout
    sds = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks])
    of_counts, share = split(plan, at.sigma)[0], silo_share(plan)
    widths = []
    for one in range(times):
        exact = {silo: totals.values[one] for silo, totals in drawn.items()}
        counts = {
            silo: _noised(layout.counts(values)[0], of_counts, rng)
            for silo, values in exact.items()
        }
        weighed = [_weighed(plan, values, counts, silo) for silo, values in exact.items()]
        opened = sum(_noised(values, share * sds, rng) for values in weighed)
        pooled = pooled_totals(plan, np.asarray(opened), counts, list(exact), share * many**0.5)
        widths.append(2 * Z * math.sqrt(float(_variance(pooled, row, at))))
    return float(np.mean(widths))


def noised_once(world: World, at: Setting, times: int, rng: np.random.Generator) -> SiloTotals:
    """Sums over all brands of many experiments, whose plan promises its shares."""
    plan, many = world.plan, len(at.brands.sizes)
    drawn = World(plan, world.vectors, world.chances, world.recipients, 0.0).draw(times, rng)
    layout = next(iter(drawn.values())).layout
    sds = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks])
    noise = silo_share(plan) * math.sqrt(many)
    whole = np.sum([one.values for one in drawn.values()], axis=0)
    return pooled_totals(plan, _noised(whole, noise * sds, rng), {}, list(drawn), noise)


def once_held(row: Published, at: Setting, times: int) -> tuple[float, float]:
    """How often the interval holds the effect over all brands, and how many are read."""
    world = _once_world(row, at, "planned", lift=1.1)
    found = noised_once(world, at, times, np.random.default_rng(19))
    arms = read_arms(world.plan, world.plan.metrics[0], found).arms
    base = row.rate * at.brands.baselines * float(amounts_of(row.metric).mean())
    truth = 0.1 * float((at.people * base).sum() / at.people.sum())
    off = np.abs(arms["arm-1"].value - arms["control"].value - truth)
    usable = arms["arm-1"].usable & arms["control"].usable
    return (
        float((off <= Z * np.sqrt(_variance(found, row, at)))[usable].mean()),
        float(usable.mean()),
    )


def _variance(totals: SiloTotals, row: Published, at: Setting) -> Floats:
    """Of the effect over all brands."""
    plan = _once_world(row, at, "planned").plan
    arms = read_arms(plan, plan.metrics[0], totals).arms
    return np.asarray(sum(one.variance for one in arms.values()))


def _once_world(row: Published, at: Setting, shares: str, lift: float = 1.0) -> World:
    privacy = {"noise": "once", "colluders": 0, "shares": shares}
    return _world(row, at, privacy, lift, minimum_silos=len(at.brands.sizes))


def _noised(values: Floats, sd: Floats | float, rng: np.random.Generator) -> Any:
    """In a release's own integers."""
    return np.rint((values + rng.normal(size=values.shape) * sd) * SCALE).astype(np.int64)


def _weighed(plan: Plan, values: Floats, counts: dict[str, Any], silo: str) -> Floats:
    return np.asarray(values * (weights_of(plan, counts)[silo] / SCALE)[:, None])


def _world(
    row: Published,
    at: Setting,
    privacy: dict[str, Any] | None = None,
    lift: float = 1.0,
    **changes: Any,
) -> World:
    """Brands whose plan says what it expects."""
    amounts = amounts_of(row.metric)
    believed = {"metric": row.metric["name"], "mean": row.rate * float(amounts.mean())}
    if row.metric is SPEND:
        believed["sd"] = math.sqrt(row.rate * float((amounts**2).mean()))
    plan = at.plan(
        row.metric,
        analysis={"recipients": row.recipients, "expected": [believed]},
        privacy={"epsilon": at.epsilon, "split": {"statistics": at.epsilon}} | (privacy or {}),
        **changes,
    )
    column = plan.metrics[0].columns()[0]
    values = [0.0, *amounts] if row.metric is SPEND else [False, True]
    atoms = [pd.DataFrame({column: [one]}) for one in values]
    rates = row.rate * at.brands.baselines[:, None] * np.array([1.0, lift])
    share = rates[..., None] * np.full(len(amounts), 1 / len(amounts))
    chances = np.concatenate([1 - rates[..., None], share], axis=-1)
    return World(plan, worlds.vectors(plan, atoms), chances, at.people, at.sigma)
