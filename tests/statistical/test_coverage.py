"""Intervals hold what they promise: 95 % of them cover the truth, however much noise there is.

Totals are drawn directly in the quick tests; the slow one takes recipients through the silo's own
computation. Seeds are fixed, so that a failure is a defect and not bad luck; the bounds are those
of a binomial at four standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from abfed.privacy.accounting import gaussian_multiplier
from abfed.privacy.charges import noise_multipliers
from abfed.privacy.mechanisms import UnsafeSeededNoise
from abfed.stats.effects import LIKE_THESE, THESE, effects
from tests.statistical.people import exact_effects, released, sends
from tests.stats.simulated import (
    BASELINES,
    BRANDS,
    CLICKED,
    CONVERTED,
    RATIO,
    SIGMA,
    SIZES,
    SPEND,
    World,
    plan_of,
)

RATES = {"clicked": 0.15, "converted": 0.009, "spend": 0.009, "ctor": 0.2}
LIFTS = {"clicked": 0.1, "converted": 0.2, "spend": 0.3, "ctor": 0.05}
METRICS: dict[str, Any] = {
    "clicked": CLICKED,
    "converted": CONVERTED,
    "spend": SPEND,
    "ctor": RATIO,
}
NOMINAL = 0.95

WIDER = {"spend": 1.0, "ctor": 1.0}
"""Metrics whose spread may have to be bounded instead of read through the noise (see `check`)."""


def mean_spent() -> float:
    """E[min(amount, 200)] of a buyer in `simulated.draw_metric`."""
    amount = stats.lognorm(0.7, scale=math.exp(4.4))
    return float(integrate.quad(amount.sf, 0, 200)[0])


def truths(world: World, metric: str) -> dict[str, float]:
    """The true difference in each brand, and of these brands together (weights: sizes)."""
    unit = mean_spent() if metric == "spend" else 1.0
    by_brand = [
        unit * (world.rate(metric, i, treated=True) - world.rate(metric, i, treated=False))
        for i in range(len(BRANDS))
    ]
    pooled = float(np.average(by_brand, weights=SIZES))
    return dict(zip(BRANDS, by_brand, strict=True)) | {THESE: pooled}


def covered(world: World, times: int, seed: int) -> pd.DataFrame:
    """Over many experiments: metric, scope, and whether each interval holds the truth."""
    rng = np.random.default_rng(seed)
    known = {metric.name: truths(world, metric.name) for metric in world.plan.metrics}
    hits = []
    for _ in range(times):
        frame = effects(world.plan, world.draw(rng))
        frame = frame[frame["scope"].ne(LIKE_THESE) & frame["decision"].ne("suppressed")]
        truth = [known[m][s] for m, s in zip(frame["metric"], frame["scope"], strict=True)]
        hit = frame["ci_low"].le(truth) & frame["ci_high"].ge(truth)
        hits.append(pd.DataFrame({"metric": frame["metric"], "scope": frame["scope"], "hit": hit}))
    return pd.concat(hits)


def check(hits: pd.DataFrame, *, at_most: Mapping[str, float]) -> None:
    """Coverage of brands together and of the pooled effect, against binomial error.

    Where the spread can't be read through the noise, its upper bound makes intervals wider than
    they need be; `at_most` says for which metrics coverage may lie above nominal, and how far.
    """
    pooled = hits["scope"].eq(THESE)
    for (metric, together), hit in hits["hit"].groupby([hits["metric"], pooled]):
        error = 4 * math.sqrt(NOMINAL * (1 - NOMINAL) / len(hit))
        low, high = NOMINAL - error, at_most.get(str(metric), NOMINAL + error)
        assert low <= hit.mean() <= high, f"{metric}: {hit.mean()} (pooled: {together})"


def test_intervals_are_nominal_for_each_kind_of_metric() -> None:
    """At ε = 1, four metrics sharing it."""
    world = World(plan_of(*METRICS.values()), RATES, LIFTS, 8000, SIGMA[1.0])
    hits = covered(world, 80, seed=11)
    assert len(hits) > 0.9 * 80 * 4 * 5  # hardly any is suppressed
    check(hits, at_most=WIDER)


def test_intervals_are_nominal_where_noise_is_most_of_them() -> None:
    """At ε = .1, a rare event: nine tenths of the variance are noise."""
    world = World(plan_of(CONVERTED), RATES, LIFTS, 16_000, SIGMA[0.1])
    check(covered(world, 120, seed=12), at_most={})


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("epsilon", list(SIGMA))
@pytest.mark.parametrize("recipients", [2000, 16_000])
def test_intervals_are_nominal_everywhere(metric: str, epsilon: float, recipients: int) -> None:
    """Each metric by itself, over ε and sizes, 400 experiments each."""
    world = World(plan_of(METRICS[metric]), RATES, LIFTS, recipients, SIGMA[epsilon])
    check(covered(world, 400, seed=13), at_most=WIDER)


def test_naive_intervals_would_not_be() -> None:
    """The same draws, read as if there were no noise: the test above can fail."""
    world = World(plan_of(CONVERTED), RATES, {}, 16_000, SIGMA[0.1])
    rng = np.random.default_rng(1)
    z = stats.norm.ppf(0.975)
    hits = []
    for _ in range(40):
        frame = effects(world.plan, world.draw(rng))
        rows = frame[frame["scope"].isin(BRANDS)]
        hits += list(rows["estimate"].abs() <= z * rows["se_sampling"])
    assert np.mean(hits) < 0.6


def test_rare_events_in_small_arms_are_covered() -> None:
    """p = .009 with 100 an arm covers .843 without pseudo-counts, even without noise."""
    plan = plan_of(CONVERTED)
    world = World(plan, RATES, {}, 200, 0.007)
    hits = covered(world, 100, seed=5)
    check(hits, at_most={"converted": 1.0})


def test_intervals_for_brands_like_these_are_nominal() -> None:
    """Brands' own effects are drawn too; sampling, noise and brands all vary."""
    rng = np.random.default_rng(3)
    plan, tau, sigma, times = plan_of(CLICKED), 0.02, SIGMA[1.0], 150
    hits, naive = [], []
    for _ in range(times):
        world = World(plan, {"clicked": 0.15}, {}, 8000, sigma)
        totals = world.draw(rng)
        for brand in BRANDS:
            shift = rng.normal(0.01, tau)
            half = totals[brand].values[1].sum()
            totals[brand].values[1] += np.array([shift * half, -shift * half])
        frame = effects(plan, totals).set_index("scope")
        hit = frame["ci_low"].le(0.01) & frame["ci_high"].ge(0.01)
        hits.append(hit[LIKE_THESE])
        naive.append(hit[THESE])
    assert np.mean(hits) == pytest.approx(NOMINAL, abs=4 * math.sqrt(0.05 * 0.95 / times))
    assert np.mean(naive) < 0.7  # these brands are not all brands


def test_homogeneous_brands_do_not_look_different() -> None:
    """Cochran's Q at ε = .1: about 5 % false findings; the naive Q has 79 %."""
    plan = plan_of(CLICKED)
    world = World(plan, {"clicked": 0.15}, {}, 4000, SIGMA[0.1])
    rng = np.random.default_rng(9)
    times = 150
    found = 0
    for _ in range(times):
        frame = effects(plan, world.draw(rng))
        found += frame["note"].str.contains("brands differ").sum()
    assert found / times < 0.05 + 4 * math.sqrt(0.05 * 0.95 / times)


@pytest.mark.slow
@pytest.mark.privacy
def test_intervals_are_nominal_through_the_whole_computation() -> None:
    """200 experiments at ε = 1 on the plan's own noise, against the rows of a large population.

    Brands are alike but for their open rates, and there is no effect: so the truth is 0 in all.
    """
    plan = plan_of({**CLICKED, "name": "opened", "column": "opened"}, CONVERTED, SPEND, RATIO)
    sigma = noise_multipliers(plan).statistics
    rng, noise = np.random.default_rng(21), UnsafeSeededNoise(22)
    shares = {"control": 0.5, "arm-1": 0.5}
    hits = []
    for _ in range(200):
        brands = {
            brand: sends(rng, round(8000 * size), shares, open_rate=0.25 * base)
            for brand, size, base in zip(BRANDS, SIZES, BASELINES, strict=True)
        }
        frame = effects(plan, released(plan, brands, sigma, noise))
        frame = frame[frame["scope"].ne(LIKE_THESE) & frame["decision"].ne("suppressed")]
        hit = frame["ci_low"].le(0) & frame["ci_high"].ge(0)
        hits.append(pd.DataFrame({"metric": frame["metric"], "scope": frame["scope"], "hit": hit}))
    check(pd.concat(hits), at_most=WIDER)


def agreement(sigma: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Effects through the wall, and the exact analysis of the same rows."""
    plan = plan_of(*METRICS.values(), shares=(0.5, 0.3, 0.2))
    rng = np.random.default_rng(2)
    arms = {arm.name: arm.share for arm in plan.arms}
    brands = {
        brand: sends(rng, round(20_000 * size), arms, open_rate=0.4 * base, lift=0.1)
        for brand, size, base in zip(BRANDS, SIZES, BASELINES, strict=True)
    }
    frame = effects(plan, released(plan, brands, sigma, UnsafeSeededNoise(4)))
    frame = frame[frame["scope"].ne(LIKE_THESE)].set_index(["metric", "arm", "scope"])
    exact = exact_effects(plan, brands).sort_index()
    return frame.reindex(exact.index), exact


def test_without_noise_effects_are_the_exact_ones() -> None:
    """Every metric, arm and scope, interval and estimate: only the fixed-point grid is left."""
    mine, exact = agreement(sigma=1e-8)
    assert len(mine) == 4 * 2 * 5
    error = (mine["estimate"] - exact["estimate"]).abs() / exact["se"]
    assert error.max() < 1e-3
    assert (mine["se"] / exact["se"]).to_numpy() == pytest.approx(1.0, abs=1e-3)


def test_at_a_huge_epsilon_effects_are_the_exact_ones() -> None:
    """At ε = 1,000 what is left is what the noise explains: thousandths of the standard error."""
    sigma = gaussian_multiplier(1000.0, 1e-6)
    mine, exact = agreement(sigma)
    off = (mine["estimate"] - exact["estimate"]).abs()
    assert (off < 1e-3 * exact["se"] + 4.5 * mine["se_privacy"]).all()
    pooled = exact.index.get_level_values("scope") == THESE
    assert (off / exact["se"])[pooled].max() < 0.02
    assert (mine["privacy_share"] < 1e-3).all()


def test_at_epsilon_1000_a_proportion_is_exact_to_a_thousandth_of_its_standard_error() -> None:
    """One metric over half a million people: what is left of the noise is less than that."""
    plan = plan_of(CLICKED)
    rng = np.random.default_rng(6)
    arms = {arm.name: arm.share for arm in plan.arms}
    brands = {
        brand: sends(rng, size, arms, lift=0.1)
        for brand, size in zip(BRANDS, (300_000, 200_000), strict=False)
    }
    sigma = gaussian_multiplier(1000.0, 1e-6)
    frame = effects(plan, released(plan, brands, sigma, UnsafeSeededNoise(5)))
    frame = frame[frame["scope"].ne(LIKE_THESE)].set_index(["metric", "arm", "scope"])
    exact = exact_effects(plan, brands)
    mine = frame.reindex(exact.index)
    assert len(exact) == 3
    assert ((mine["estimate"] - exact["estimate"]).abs() / exact["se"]).max() < 1e-3
    assert (mine["se"] / exact["se"]).to_numpy() == pytest.approx(1.0, abs=1e-3)
