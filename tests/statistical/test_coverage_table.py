"""The coverage table holds: every interval within 93.5 and 97.5 %, every test at its level."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from abfed.stats.contrasts import Contrast, relative_lift
from abfed.stats.effects import THESE, effects
from abfed.stats.estimates import Estimate
from abfed.stats.totals import SiloTotals
from tests.statistical import cells, levels, looks, worlds
from tests.statistical.coverage_table import every_cell, every_kind, is_nominal, noised_once
from tests.statistical.widths import PUBLISHED
from tests.statistical.worlds import FIVE, TWO, Brands, Setting
from tests.stats.simulated import CLICKED

ONE = Brands(np.array([0.6]), np.array([0.75]))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_row_of_the_table_is_nominal() -> None:
    rows = list(every_cell(2000))
    assert len({cell.interval for cell in rows}) >= 15
    assert [cell for cell in rows if not is_nominal(cell)] == []


def test_each_kind_of_interval_is_nominal_at_a_middling_epsilon() -> None:
    """One world of each kind, quickly; the slow test above has them all."""
    rows = [
        *every_kind(Setting(0.5, 64_000), 2000),
        *every_kind(Setting(0.1, 16_000, (0.9, 0.1), TWO), 2000),
        *levels.credible(0.5, 16_000, 2000),
        *levels.guardrails(0.5, 64_000, 2000),
        *levels.across_brands(0.5, 16_000, 2000),
        *levels.sample_ratio_alarms(0.1, 2000, (0.8, 0.1, 0.1), 1000),
        *looks.any_finding(0.1, 16_000, 2000),
        *noised_once(PUBLISHED[0], Setting(0.1, 16_000), 2000),
        *noised_once(PUBLISHED[3], Setting(0.1, 16_000, (0.9, 0.1), TWO), 2000),
    ]
    assert [cell for cell in rows if not is_nominal(cell)] == []


@pytest.mark.parametrize("at", [Setting(0.5, 16_000), Setting(1.0, 16_000, (0.9, 0.1), FIVE)])
def test_the_tables_intervals_are_those_of_effects(at: Setting) -> None:
    """The table reads many releases at once; what people get is read one by one."""
    plan = at.plan(CLICKED)
    rates = 0.15 * at.brands.baselines[:, None] * np.array([1.0, 1.1])
    atoms = worlds.vectors(plan, worlds.binary_atoms("clicked"))
    world = worlds.World(plan, atoms, worlds.binary_chances(rates), at.people, at.sigma)
    totals = world.draw(3, np.random.default_rng(1))
    readings = cells.read_all(plan, plan.metrics[0], totals)
    weights = cells.size_weights(totals)
    above, below = (cells.over_brands(readings[arm], weights) for arm in ("arm-1", "control"))
    low, high, bounded = cells.fieller(above, below)
    assert bounded.all()
    for one in range(3):
        alone = {
            brand: SiloTotals(found.layout, found.values[one], found.noise_multiplier)
            for brand, found in totals.items()
        }
        row = effects(plan, alone).set_index("scope").loc[THESE]
        assert row["estimate"] == pytest.approx(above.value[one] - below.value[one])
        half = cells.Z * math.sqrt(above.variance[one] + below.variance[one])
        assert row["ci_high"] - row["estimate"] == pytest.approx(half)
        assert (row["rel_low"], row["rel_high"]) == pytest.approx((low[one], high[one]))


def test_a_relative_lift_is_nominal_where_noise_puts_an_arm_below_zero() -> None:
    """In one of fourteen experiments it does; without those .984 of the rest held the truth."""
    rows = {
        cell.interval: cell for cell in cells.spend(Setting(0.5, 16_000, (0.9, 0.1), TWO), 10_000)
    }
    assert rows["relative lift"].read > 0.99
    assert 0.94 <= rows["relative lift"].held <= 0.968


@pytest.mark.parametrize("odds", [1.0, 0.2])
def test_the_tables_relative_lift_is_that_of_effects(odds: float) -> None:
    """Also where the arm came out below zero, far below, or the control can't be told from zero."""
    rng = np.random.default_rng(2)
    arms = cells.Many(rng.normal(0.5, 1.0, 300), np.full(300, 0.02), np.full(300, 0.09))
    controls = cells.Many(rng.normal(1.5, 1.0, 300), np.full(300, 0.02), np.full(300, 0.16))
    low, high, bounded = cells.fieller(arms, controls, odds)
    kinds = set()
    for one in range(300):
        arm, control = (
            Estimate(both.value[one], 0.02, both.variance[one] - 0.02, 1000.0)
            for both in (arms, controls)
        )
        found = relative_lift(Contrast(arm, control, odds=odds), cells.Z)
        assert np.isfinite(found.high) == bounded[one]
        if bounded[one]:
            assert (found.low, found.high) == pytest.approx((low[one], high[one]))
        assert bool(found.reason) == math.isnan(found.value)
        kinds.add((bool(bounded[one]), bool(arm.value < 0), found.reason))
    assert len(kinds) >= 5


def test_intervals_are_nominal_also_where_noise_hides_most_of_them() -> None:
    """Who is read is decided by what the error of an effect doesn't touch (decisions 152, 153).

    When it was decided by noised sizes, and by the control alone, these were .908, .929 and .917.
    """
    hard = Setting(0.1, 16_000, (0.9, 0.1), TWO)
    rows = [
        next(cells.in_segments(hard._replace(brands=ONE), 12_000)),
        next(cells.time_to_open(hard, 12_000)),
        next(one for one in spent(12_000) if one.interval == "relative lift"),
    ]
    assert [0.1 < one.read < 0.3 for one in rows] == [True] * 3
    assert [one for one in rows if not 0.94 <= one.held <= 0.97] == []


def spent(times: int) -> Iterator[cells.Cell]:
    """Of two brands whose control can hardly be told from zero."""
    return cells.spend(Setting(0.1, 16_000, brands=TWO), times)


@pytest.mark.parametrize("sizes", list(levels.UNLIKE))
def test_brands_like_these_are_covered_whatever_their_sizes(sizes: str) -> None:
    """Hartung and Knapp's interval covers .63 to .9 in these worlds (decision 0065)."""
    rows = [
        *levels.like_these(3.0, 2000, 3, sizes, 1.0, 2000),
        *levels.like_these(3.0, 2000, 6, sizes, 0.3, 2000),
        *levels.like_these(3.0, 2000, 4, sizes, 30.0, 2000),
    ]
    if sizes != "alike in size":  # hardest: with Student's own t .99 of these
        rows += levels.like_these(3.0, 2000, 3, sizes, 0.0, 20_000)
    assert [cell for cell in rows if not is_nominal(cell)] == []
