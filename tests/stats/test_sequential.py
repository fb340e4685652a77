"""Sequential designs: published critical values, nominal error rates, and what peeking would do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.stats.effects import THESE, effects
from abfed.stats.layout import Layout
from abfed.stats.sequential import Looks, critical_values, mixture, mixture_for
from abfed.stats.totals import SiloTotals
from tests.statistical import worlds
from tests.statistical.looks import any_look
from tests.stats.simulated import CLICKED, SIGMA, plan_of

TIMES = (0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.mark.parametrize(
    ("spending", "expected"),
    [
        # Two-sided α = .05, five equal looks: Lan and DeMets (1983); Reboussin et al. (2000)
        ("obrien-fleming", (4.877, 3.357, 2.680, 2.290, 2.031)),
        ("pocock", (2.438, 2.427, 2.410, 2.397, 2.386)),
    ],
)
def test_critical_values_are_the_published_ones(spending: str, expected: tuple[float, ...]) -> None:
    found = critical_values(spending, TIMES, TIMES, 0.05)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=0.006)


def test_one_look_is_a_fixed_design() -> None:
    assert critical_values("pocock", (1.0,), (3.7,), 0.05)[0] == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_a_pilot_that_holds_next_to_nothing_leaves_the_last_look_its_level(spending: str) -> None:
    seen = {1: (0.0, 0.05, 300.0), 2: (0.001, 0.01, 100_000.0)}  # of the last look's, .02 %
    pilot = Looks.of(spending, 2, seen)  # type: ignore[arg-type]
    small = critical_values(spending, (0.5, 1.0), (0.01, 1.0), 0.05)  # type: ignore[arg-type]
    assert pilot.values(0.05) == pytest.approx(small, abs=0.01)
    assert pilot.p_value() > 0.9


def test_the_mixture_is_robbins() -> None:
    """P(any |S| ≥ √((v+ρ)·log((v+ρ)/(ρα²)))) ≤ α: its p-value at the bound is α."""
    rho = mixture_for(100.0)
    looks = Looks(
        "always-valid", (0.5,), (50.0,), (mixture(50.0, mixture_for(100.0), 0.05),), (1.0,), 2
    )
    assert looks.p_value() == pytest.approx(0.05)
    assert mixture(100.0, rho, 0.05) < min(mixture(20.0, rho, 0.05), mixture(2000.0, rho, 0.05))


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_a_p_value_is_the_level_at_which_a_look_crosses(spending: str) -> None:
    looks = Looks(spending, TIMES[:3], TIMES[:3], (1.0, 2.6, 2.2), (1.0,) * 3, 5)  # type: ignore[arg-type]
    p = looks.p_value()
    for alpha, crosses in ((p * 1.02, True), (p * 0.98, False)):
        values = critical_values(spending, TIMES[:3], TIMES[:3], alpha)  # type: ignore[arg-type]
        hit = any(z > value for z, value in zip(looks.z, values, strict=True))
        assert hit == crosses


def waves_plan(spending: str) -> Plan:
    waves = [{"name": f"w{n}", "until": f"2026-03-0{n}"} for n in range(1, 6)]
    design = {"spending": spending, "waves": waves}
    return plan_of(CLICKED, analysis={"sequential": design, "wave": 5})


def test_several_looks_at_a_fixed_horizon_are_refused_by_name() -> None:
    plan = plan_of(CLICKED)
    totals = small_world(plan).draw(1, np.random.default_rng(1))
    one = {brand: type(t)(t.layout, t.values[0], t.noise_multiplier) for brand, t in totals.items()}
    with pytest.raises(InputError, match="peeking at a fixed-horizon design"):
        effects(plan, one, earlier=[one])


def small_world(plan: Plan) -> worlds.World:
    rates = np.full((4, 2), 0.15)
    return worlds.World(
        plan,
        worlds.vectors(plan, worlds.binary_atoms("clicked")),
        worlds.binary_chances(rates),
        worlds.sizes_of(4000),
        SIGMA[0.5],
    )


def test_waves_add_up_and_say_which_look_it_is() -> None:
    plan = waves_plan("pocock")
    rng = np.random.default_rng(2)
    waves = []
    for _ in range(3):
        drawn = small_world(plan).draw(1, rng)
        waves.append(
            {b: type(t)(t.layout, t.values[0], t.noise_multiplier) for b, t in drawn.items()}
        )
    frame = effects(plan, waves[-1], earlier=waves[:-1]).set_index("scope")
    alone = effects(plan.at_wave(1), waves[0]).set_index("scope")
    row = frame.loc[THESE]
    assert row["se"] == pytest.approx(alone.loc[THESE, "se"] / math.sqrt(3), rel=0.05)
    assert "look 3 of 5, pocock" in row["note"]
    assert (row["ci_high"] - row["estimate"]) / row["se"] == pytest.approx(2.41, abs=0.02)
    assert frame.loc["brands like these", "decision"] == "not estimable"


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock", "always-valid"])
def test_error_rates_hold_over_all_looks(spending: str) -> None:
    """Five waves of unlike size at ε = .5; repeated fixed intervals would reject 14 % and more."""
    cells = {cell.interval: cell.held for cell in any_look(spending, 0.5, 400)}
    limit = 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)
    assert cells[f"{spending}, any look errs"] < limit
    assert cells["fixed intervals, any look errs"] > 0.09


def test_a_wave_that_drowned_is_told_of_these_brands_too() -> None:
    """What stands in the mean's row isn't what stands in a brand's: nobody looks there for it."""
    plan = waves_plan("pocock")
    rng = np.random.default_rng(3)
    layout = Layout.of(plan)

    def wave(small: int) -> dict[str, SiloTotals]:
        sizes = {"aurora": 5000, "borealis": small}
        rows = {name: np.array([[0.1 * n, 0.9 * n]] * 2) for name, n in sizes.items()}
        return {
            name: SiloTotals(layout, one + rng.normal(size=one.shape), 4.22)
            for name, one in rows.items()
        }

    frame = effects(plan.at_wave(2), wave(4), earlier=[wave(5000)]).set_index("scope")
    assert "borealis: without 1 wave(s) that drown in noise" in frame.loc[THESE, "note"]
    whole = effects(plan.at_wave(2), wave(5000), earlier=[wave(5000)]).set_index("scope")
    assert "drown" not in whole.loc[THESE, "note"]
