"""Noise: from the system only, of the right shape and size."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from abfed.privacy import mechanisms
from abfed.privacy.mechanisms import (
    MAX_MAGNITUDE,
    Noise,
    SystemNoise,
    UnsafeSeededNoise,
    _box_muller,
    _held,
    grid_for,
)

TINY = 1e-7
"""Chance of a right mechanism to fail one of the tests below."""


@pytest.fixture(params=[SystemNoise, lambda: UnsafeSeededNoise(7)], ids=["system", "seeded"])
def noise(request: pytest.FixtureRequest) -> Noise:
    made: Noise = request.param()
    return made


def test_production_noise_takes_no_seed() -> None:
    assert not inspect.signature(SystemNoise).parameters
    for name in ("integers", "floats", "poisson_batch"):
        for parameter in inspect.signature(getattr(SystemNoise, name)).parameters:
            assert parameter in {"self", "values", "scale", "count", "sigma", "population", "rate"}
    with pytest.raises(TypeError):
        SystemNoise(7)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        SystemNoise().seed = 7  # type: ignore[attr-defined]


def test_seeds_of_numpy_and_torch_change_nothing_and_are_not_used_up() -> None:
    draws = []
    for _ in range(2):
        np.random.seed(7)  # noqa: NPY002 - the global generator is what must not matter
        torch.manual_seed(7)
        before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
        noise = SystemNoise()
        draws.append(
            (
                noise.floats(8, 1.0).tolist(),
                noise.integers(np.zeros(8, dtype=np.int64), 1e6).tolist(),
                noise.poisson_batch(10_000, 0.01).tolist(),
            )
        )
        assert np.array_equal(before[0], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
        assert torch.equal(before[1], torch.get_rng_state())
    assert all(a != b for a, b in zip(*draws, strict=True))


def test_a_forked_process_does_not_draw_the_same() -> None:
    noise = SystemNoise()
    noise.floats(4, 1.0)
    script = (
        "import os, sys\n"
        "from abfed.privacy.mechanisms import SystemNoise\n"
        "noise = SystemNoise(); noise.floats(4, 1.0)\n"
        "child = os.fork()\n"
        "print(noise.floats(4, 1.0).tolist(), flush=True)\n"
        "child and os.waitpid(child, 0)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(mechanisms.__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    ).stdout.splitlines()
    assert len(found) == 2
    assert found[0] != found[1]


def test_floats_are_normal(noise: Noise) -> None:
    draws = noise.floats(200_001, 3.0) / 3.0
    assert draws.shape == (200_001,)
    assert draws.dtype == np.float64
    assert stats.kstest(draws, "norm").pvalue > TINY
    assert abs(draws.mean()) < 6 / math.sqrt(draws.size)
    assert draws.std() == pytest.approx(1.0, abs=6 / math.sqrt(2 * draws.size))
    assert abs(stats.kurtosis(draws)) < 6 * math.sqrt(24 / draws.size)
    assert abs(stats.skew(draws)) < 6 * math.sqrt(6 / draws.size)
    for cut in (2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(cut)
        found = int((np.abs(draws) > cut).sum())
        assert stats.binomtest(found, draws.size, expected).pvalue > TINY


def test_the_two_halves_of_box_and_muller_are_independent(noise: Noise) -> None:
    draws = noise.floats(100_000, 1.0).reshape(2, -1)
    for a, b in (
        (draws[0], draws[1]),
        (draws[0] ** 2, draws[1] ** 2),
        (draws[0][1:], draws[0][:-1]),
    ):
        assert abs(np.corrcoef(a, b)[0, 1]) < 6 / math.sqrt(a.size)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 65_535, 65_536, 65_537, 131_073])
def test_any_number_of_floats(noise: Noise, count: int) -> None:
    draws = noise.floats(count, 1.0)
    assert draws.shape == (count,)
    assert np.unique(draws).size == count
    assert np.isfinite(draws).all()


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_floats_without_noise_cannot_be_had(noise: Noise, sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be positive"):
        noise.floats(3, sigma)


@pytest.mark.parametrize("scale", [0.4, 1.0, 30.0, 276_824.0])
def test_integers_are_discrete_normal(scale: float) -> None:
    values = np.full((100, 80), 12_345, dtype=np.int64)
    draws = (SystemNoise().integers(values, scale) - values).ravel()
    assert draws.dtype == np.int64
    support = np.arange(-math.ceil(12 * scale), math.ceil(12 * scale) + 1)
    mass = np.exp(-(support**2) / (2 * scale**2))
    variance = float((mass * support**2).sum() / mass.sum())  # Canonne, Kamath, Steinke 2020
    assert abs(draws.mean()) < 6 * math.sqrt(variance / draws.size)
    # Var s² ≈ (μ₄ - σ⁴)/n: where nearly all draws are 0, it is six times that of a normal's
    fourth = float((mass * support.astype(float) ** 4).sum() / mass.sum())
    spread = math.sqrt((fourth - variance**2) / draws.size)
    assert draws.var() == pytest.approx(variance, abs=6 * spread)
    if scale <= 1.0:
        zeros = int((draws == 0).sum())
        assert stats.binomtest(zeros, draws.size, 1 / mass.sum()).pvalue > TINY


def test_each_coordinate_gets_its_own_noise(noise: Noise) -> None:
    values = np.zeros((50, 3), dtype=np.int64)
    draws = noise.integers(values, 1e14)  # so wide that two alike come once in 3e10 runs
    assert draws.shape == (50, 3)
    assert np.unique(draws).size == 150
    assert not values.any()
    assert not np.array_equal(draws, noise.integers(values, 1e14))


def test_integers_of_no_coordinates(noise: Noise) -> None:
    assert noise.integers(np.zeros((0, 3), dtype=np.int64), 2.0).shape == (0, 3)


def test_layout_in_memory_does_not_matter(noise: Noise) -> None:
    values = np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3) * 10**9)
    assert (np.abs(noise.integers(values, 1.0) - values) < 100).all()
    assert (np.abs(noise.integers(values[:, ::2], 1.0) - values[:, ::2]) < 100).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_integers_without_noise_cannot_be_had(noise: Noise, scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be positive"):
        noise.integers(np.zeros(2, dtype=np.int64), scale)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(2),
        np.zeros(2, dtype=np.int32),
        np.array([MAX_MAGNITUDE + 1]),
        np.array([-MAX_MAGNITUDE - 1]),
        np.array([np.iinfo(np.int64).min]),
        np.array([np.iinfo(np.int64).max]),
    ],
)
def test_what_fixed_point_cannot_hold_is_refused(noise: Noise, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"int64|too large"):
        noise.integers(values, 1.0)


@pytest.mark.parametrize(("population", "rate"), [(200, 0.05), (40, 0.5), (30, 0.9)])
def test_each_is_in_a_batch_with_the_rate(noise: Noise, population: int, rate: float) -> None:
    batches = 1500
    counts = np.zeros(population)
    sizes = np.empty(batches)
    for place in range(batches):
        batch = noise.poisson_batch(population, rate)
        assert (np.diff(batch) > 0).all()
        counts[batch] += 1
        sizes[place] = batch.size
    chance = TINY / population
    low, high = stats.binom.ppf([chance, 1 - chance], batches, rate)
    assert ((counts >= low) & (counts <= high)).all()
    # Poisson sampling is independent inclusion: the size is binomial, not fixed.
    assert sizes.mean() == pytest.approx(
        population * rate, abs=6 * math.sqrt(population * rate * (1 - rate) / batches)
    )
    variance = population * rate * (1 - rate)
    assert sizes.var() == pytest.approx(variance, rel=8 * math.sqrt(2 / batches))


@pytest.mark.parametrize("rate", [4.5 / 256, 64.25 / 256, 0.75, 1 / 64])
def test_a_rate_holds_beyond_its_first_byte(rate: float) -> None:
    """In the large, and across the parts in which people are drawn for."""
    people = 1_200_000
    batch = SystemNoise().poisson_batch(people, rate)
    assert (np.diff(batch) > 0).all()
    low, high = stats.binom.ppf([TINY, 1 - TINY], people, rate)
    assert low <= batch.size <= high
    assert stats.kstest(batch[:: max(1, batch.size // 5_000)] / people, "uniform").pvalue > TINY


def test_two_people_are_in_a_batch_independently(noise: Noise) -> None:
    together = np.zeros((2, 2))
    for _ in range(3000):
        batch = noise.poisson_batch(5, 0.4)
        together[int(0 in batch), int(4 in batch)] += 1
    assert stats.chi2_contingency(together).pvalue > TINY


@pytest.mark.parametrize("share", [0.0, 0.003, 0.06, 0.5, 1.0])
def test_who_is_in_is_found_whole_words_at_a_time(share: float) -> None:
    for count in (0, 8, 1_000, 4_096):
        inside = np.random.default_rng(count).random(count) < share
        np.testing.assert_array_equal(_held(inside), np.flatnonzero(inside))


@pytest.mark.parametrize(("population", "rate", "size"), [(0, 0.5, 0), (1, 1.0, 1), (9, 1.0, 9)])
def test_edges_of_sampling(noise: Noise, population: int, rate: float, size: int) -> None:
    batch = noise.poisson_batch(population, rate)
    assert batch.dtype == np.int64
    assert batch.tolist() == list(range(size))


def test_a_large_population_is_sampled_in_range(noise: Noise) -> None:
    batch = noise.poisson_batch(3_000_000, 0.01)
    assert 0 <= batch[0] < batch[-1] < 3_000_000
    assert batch.size == pytest.approx(30_000, abs=1200)
    assert stats.kstest(batch / 3_000_000, "uniform").pvalue > TINY


def test_a_seed_gives_the_same_again_and_another_does_not() -> None:
    def draw(seed: int) -> tuple[list[float], list[int], list[int]]:
        noise = UnsafeSeededNoise(seed)
        return (
            noise.floats(4, 1.0).tolist(),
            noise.integers(np.zeros(4, dtype=np.int64), 1e6).tolist(),
            noise.poisson_batch(100, 0.3).tolist(),
        )

    assert draw(1) == draw(1)
    assert draw(2**100) == draw(2**100)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))


@pytest.mark.parametrize("sigma", [1e-6, 0.7, 1.0, 1.5, 4.0, 1e9])
def test_the_grid_is_a_power_of_two_far_below_the_noise(sigma: float) -> None:
    grid = grid_for(sigma)
    assert math.frexp(grid)[0] == 0.5
    assert sigma / 2**21 < grid <= sigma / 2**20
    assert grid_for(sigma * 1.0) == grid


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_there_is_no_grid_without_noise(sigma: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        grid_for(sigma)


class Told:
    """A stream of uniforms that were written down."""

    def __init__(self, *parts: list[float]) -> None:
        self._parts = list(parts)

    def uniforms(self, count: int) -> np.ndarray:
        part = np.array(self._parts.pop(0))
        assert part.size == count
        return part


def test_pairs_lie_on_a_circle_at_their_angle() -> None:
    angles = np.linspace(2.0**-53, 1.0, 4_001)
    radius = math.sqrt(2 * math.log(4))
    drawn = _box_muller(Told([0.25] * 4_001 + angles.tolist()), 8_002)
    turned = 2 * np.pi * (angles - 0.5)
    expected = radius * np.concatenate([np.cos(turned), np.sin(turned)])
    assert np.abs(drawn - expected).max() < 3e-15


@pytest.mark.privacy
def test_large_draws_have_no_gaps_between_them() -> None:
    """Between radii of uniforms of 53 bits lies far more than a step of the released grid."""
    first, second = 2.0**-53, 2.0**-52
    found = [_box_muller(Told([first, 0.5], [more]), 2)[0] for more in (2.0**-53, 0.5, 1.0)]
    assert found[0] == pytest.approx(math.sqrt(2 * 106 * math.log(2)))
    assert found[0] > found[1] > found[2] == pytest.approx(math.sqrt(2 * 53 * math.log(2)))
    assert found[2] > _box_muller(Told([second, 0.5], [0.5]), 2)[0]
    plain = _box_muller(Told([0.25, 0.5]), 2)  # nothing more is drawn
    assert plain[0] == pytest.approx(math.sqrt(2 * math.log(4)))
