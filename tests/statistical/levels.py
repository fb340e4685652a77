"""Error rates of tests, and what is said across brands, over many experiments of known truth."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import special

from abfed.stats import pooling
from abfed.stats.bayes import posterior
from abfed.stats.checks import sample_ratio
from abfed.stats.encoding import Floats, Integers
from abfed.stats.estimates import Reading
from tests.statistical import worlds
from tests.statistical.cells import Cell, Z, over_brands, read_all, size_weights
from tests.statistical.worlds import World
from tests.stats.simulated import CLICKED, CONVERTED, SIGMA, plan_of


def sample_ratio_alarms(
    epsilon: float, recipients: int, shares: tuple[float, ...], times: int
) -> Iterator[Cell]:
    """How often arms of the planned shares look as if they weren't, at the 5 % level."""
    plan = plan_of(CLICKED, shares=shares)
    chances = worlds.binary_chances(np.full((4, len(shares)), 0.15))
    vectors = worlds.vectors(plan, worlds.binary_atoms("clicked"))
    world = World(plan, vectors, chances, worlds.sizes_of(recipients), SIGMA[epsilon])
    totals = world.draw(times, np.random.default_rng(4))
    alarms = []
    for one in totals.values():
        counts, sd = one.counts()
        tests = (sample_ratio(row, np.asarray(shares), sd) for row in counts)
        alarms += [test.p_value < 0.05 for test in tests]
    label = f"arms {'/'.join(f'{share:g}' for share in shares)}"
    held = float(np.mean(alarms))
    yield Cell(
        "sample ratio, alarms", label, epsilon, recipients, len(alarms), held, math.nan, 0.05
    )


def across_brands(epsilon: float, recipients: int, times: int) -> Iterator[Cell]:
    """Cochran's Q where brands are alike."""
    effects, variances = _effects_by_brand(epsilon, worlds.sizes_of(recipients), times)[:2]
    alike = [
        pooling.heterogeneity(list(effects[:, one]), list(variances[:, one])).p_value < 0.05
        for one in range(times)
    ]
    known = ("p = 0.15, four unlike brands", epsilon, recipients, times)
    yield Cell("Cochran's Q, alarms", *known, float(np.mean(alike)), math.nan, 0.05)


UNLIKE: dict[str, Callable[[int], Floats]] = {
    "alike in size": np.ones,
    "one of 10:1": lambda many: np.array([10.0] + [1.0] * (many - 1)),
    "one of 50:1": lambda many: np.array([50.0] + [1.0] * (many - 1)),
    "one of 1:50": lambda many: np.array([50.0] * (many - 1) + [1.0]),
    "from 1 to 50": lambda many: np.geomspace(1.0, 50.0, many),
}
"""Sizes of brands, by how many there are."""

APART = 3.0
"""How far brands' own effects spread, in standard errors, so that chance and noise hardly count."""

WIDE = 50
"""Experiments that a mean width is taken over: each takes as long as telling fifty p-values."""


def like_these(
    epsilon: float, smallest: int, many: int, sizes: str, tau: float, times: int
) -> Iterator[Cell]:
    """Brands like these: their effects are drawn too.

    Args:
        epsilon: of the release.
        smallest: recipients of the smallest brand.
        many: brands.
        sizes: one of `UNLIKE`.
        tau: standard deviation of brands' own effects, over the middle brand's standard error.
        times: simulated experiments.
    """
    recipients = np.rint(smallest * UNLIKE[sizes](many)).astype(np.int64)
    effects, variances, floors = _effects_by_brand(epsilon, recipients, times)
    true, rng = 0.01, np.random.default_rng(11)
    own = rng.normal(true, tau * math.sqrt(np.median(variances)), effects.shape)
    drawn = pooling.like_these((effects + own).T - true, variances.T)
    held = drawn.p_value() >= 0.05  # the interval at 95 % has zero in it
    low, high = pooling.like_these((effects + own).T[:WIDE], variances.T[:WIDE]).interval(0.05)
    widths = (high - low) / (2 * Z * floors[:WIDE])
    kind = "apart" if tau >= APART else "hardly apart"
    label = f"{many} brands, {sizes}, τ = {tau:g} se"
    known = (label, epsilon, int(recipients.mean()), times)
    yield Cell(f"brands like these, {kind}", *known, float(held.mean()), float(widths.mean()))


def every_like_these(epsilons: Sequence[float]) -> Iterator[Callable[[int], Iterator[Cell]]]:
    """Three to eight brands, 1:1 to 50:1, from no differences of their own to nothing else.

    Yields what simulates a row, for a number of experiments.
    """
    for epsilon, many, sizes, tau in itertools.product(
        epsilons, (3, 4, 6, 8), UNLIKE, (0.0, 0.3, 1.0, 3.0, 30.0)
    ):
        yield functools.partial(like_these, epsilon, 2000, many, sizes, tau)


@functools.lru_cache(maxsize=4)
def _drawn(epsilon: float, recipients: tuple[int, ...], times: int) -> tuple[Floats, ...]:
    """See `_effects_by_brand`."""
    many = len(recipients)
    plan = plan_of(CLICKED, silos=[f"brand-{n}" for n in range(many)])
    vectors = worlds.vectors(plan, worlds.binary_atoms("clicked"))
    base = 0.15 * np.interp(np.linspace(0, 3, many), range(4), worlds.BASELINES)
    even = worlds.binary_chances(np.stack([base, base], axis=1))
    world = World(plan, vectors, even, np.array(recipients), SIGMA[epsilon])
    totals = world.draw(times, np.random.default_rng(5))
    readings = read_all(plan, plan.metrics[0], totals)
    effects = np.stack([b.value - a.value for a, b in zip(*_pair(readings), strict=True)])
    variances = np.stack([b.variance + a.variance for a, b in zip(*_pair(readings), strict=True)])
    weights = size_weights(totals)
    return effects, variances, np.sqrt((weights**2 * variances).sum(axis=0))


def _effects_by_brand(epsilon: float, recipients: Integers, times: int) -> tuple[Floats, ...]:
    """Effects of brands without any, their variances, both (brands, times), and the standard error
    over these brands (times,)."""
    return _drawn(epsilon, tuple(int(one) for one in recipients), times)


def _pair(readings: dict[str, list[Reading]]) -> tuple[list[Reading], list[Reading]]:
    return readings["control"], readings["arm-1"]


def guardrails(epsilon: float, recipients: int, times: int) -> Iterator[Cell]:
    """How often a guardrail at its very margin is called kept: the one-sided level."""
    plan = plan_of(CONVERTED)
    rates = 0.009 * worlds.BASELINES[:, None] + np.array([0.0, 0.002])
    world = World(
        plan,
        worlds.vectors(plan, worlds.binary_atoms("converted")),
        worlds.binary_chances(rates),
        worlds.sizes_of(recipients),
        SIGMA[epsilon],
    )
    totals = world.draw(times, np.random.default_rng(9))
    readings = read_all(plan, plan.metrics[0], totals)
    weights = size_weights(totals)
    above, below = (over_brands(readings[arm], weights) for arm in ("arm-1", "control"))
    z = (above.value - below.value - 0.002) / np.sqrt(above.variance + below.variance)
    held = float((special.ndtr(z) < 0.05).mean())
    known = ("p = 0.009, harm at the margin", epsilon, recipients, times)
    yield Cell("guardrail, called kept", *known, held, math.nan, 0.05)


def credible(epsilon: float, recipients: int, times: int) -> Iterator[Cell]:
    """Posterior intervals where effects come from the prior."""
    rng = np.random.default_rng(10)
    sd = 0.01
    plan = plan_of(CLICKED)
    true = rng.normal(0.0, sd, times)
    rates = 0.15 * np.ones((4, 2))
    vectors = worlds.vectors(plan, worlds.binary_atoms("clicked"))
    world = World(
        plan, vectors, worlds.binary_chances(rates), worlds.sizes_of(recipients), SIGMA[epsilon]
    )
    totals = world.draw(times, rng)
    readings = read_all(plan, plan.metrics[0], totals)
    weights = size_weights(totals)
    above, below = (over_brands(readings[arm], weights) for arm in ("arm-1", "control"))
    effects = above.value - below.value + true
    held = []
    for one in range(times):
        whole = posterior(
            effects[one : one + 1], above.variance[one : one + 1], below.variance[one], (0.0, sd)
        )
        held.append(abs(whole.mean[0] - true[one]) <= Z * math.sqrt(whole.covariance[0, 0]))
    known = ("effects from the prior", epsilon, recipients, times)
    yield Cell("posterior interval", *known, float(np.mean(held)), math.nan)
