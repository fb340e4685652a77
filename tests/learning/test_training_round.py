"""DP-SGD: plain SGD where there is neither clip nor noise; noise that no seed outside reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from abfed.learning.dpsgd import train_round
from abfed.learning.networks import network_for, parameters_of
from abfed.learning.shapes import initial_arrays
from abfed.privacy.mechanisms import SystemNoise, UnsafeSeededNoise, grid_for
from tests.learning.signal_rows import NoNoise, learning_plan, made_rows


def _round(noise, *, seed: int = 1, hidden=(8,), multiplier: float = 1.0, **settings):
    plan = learning_plan(*hidden, **settings)
    data = made_rows(plan, 500, seed=seed)
    return train_round(
        network_for(plan, initial_arrays(plan)),
        data,
        plan.schedule,
        noise_multiplier=multiplier,
        noise=noise,
        expected_batch=100.0,
    )


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_without_noise_and_clipping_it_is_plain_sgd(hidden: tuple[int, ...]) -> None:
    plan = learning_plan(*hidden, clip=30.0)
    data = made_rows(plan, 500, seed=1)
    noise = NoNoise(5)
    ours = train_round(
        network_for(plan, initial_arrays(plan)),
        data,
        plan.schedule,
        noise_multiplier=1e-9,
        noise=noise,
        expected_batch=100.0,
    )
    network = network_for(plan, initial_arrays(plan))
    before = parameters_of(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=plan.schedule.learning_rate)
    assert len(noise.batches) == plan.schedule.local_steps
    for batch in noise.batches:
        lines, labels, _ = (torch.from_numpy(part) for part in data.batch(batch))
        optimizer.zero_grad()
        scores = network(lines).squeeze(1)
        loss = binary_cross_entropy_with_logits(scores, labels, reduction="sum") / 100.0
        loss.backward()
        optimizer.step()
    for name, after in parameters_of(network).items():
        np.testing.assert_allclose(ours[name], after - before[name], atol=5e-6)
    assert any(np.abs(part).max() > 1e-2 for part in ours.values())


@pytest.mark.privacy
def test_no_seed_reaches_production_noise() -> None:
    updates = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002 - the global generator is what must not matter
        updates.append(_round(SystemNoise()))
    assert all((updates[0][name] != updates[1][name]).any() for name in updates[0])


def test_a_simulation_gives_the_same_update_again() -> None:
    first, second = (_round(UnsafeSeededNoise(11)) for _ in range(2))
    for name, part in first.items():
        np.testing.assert_array_equal(part, second[name])


@pytest.mark.privacy
def test_the_noise_is_what_was_charged() -> None:
    """One step on nobody is noise alone: σ × clip × learning rate / expected batch."""
    plan = learning_plan(64, local_steps=1, clip=2.0, learning_rate=1.0)
    nobody = made_rows(plan, 500, seed=1)
    empty = type(nobody)(
        nobody.design,
        nobody.features[:0],
        nobody.arms[:0],
        nobody.labels[:0],
        np.zeros(1, dtype=np.int64),
    )
    update = train_round(
        network_for(plan, initial_arrays(plan)),
        empty,
        plan.schedule,
        noise_multiplier=1.5,
        noise=SystemNoise(),
        expected_batch=10.0,
    )
    drawn = np.concatenate([part.ravel() for part in update.values()])
    expected = 1.5 * 2.0 / 10.0
    assert drawn.std() == pytest.approx(expected, rel=6 / np.sqrt(2 * drawn.size))
    assert grid_for(3.0) <= 3.0 * 2.0**-20


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_a_round_without_noise_is_refused(multiplier: float) -> None:
    with pytest.raises(ValueError, match="noise multiplier"):
        _round(SystemNoise(), multiplier=multiplier)


def test_it_learns_under_noise() -> None:
    plan = learning_plan(local_steps=40, clip=4.0, learning_rate=0.5, sampling_rate=0.2)
    data = made_rows(plan, 3000, seed=2)
    network = network_for(plan, initial_arrays(plan))
    train_round(
        network,
        data,
        plan.schedule,
        noise_multiplier=1.5,
        noise=SystemNoise(),
        expected_batch=600.0,
    )
    fresh = made_rows(plan, 2000, seed=3)
    lines, labels, _ = fresh.batch(np.arange(2000))
    with torch.no_grad():
        scores = network(torch.from_numpy(lines)).squeeze(1).numpy()
    positive, negative = scores[labels == 1], scores[labels == 0]
    auc = (positive[:, None] > negative[None, ::7]).mean()
    assert auc > 0.75


@pytest.mark.privacy
def test_an_update_is_finite_whatever_the_rows_say() -> None:
    """A failure that depended on rows would be an answer nobody paid for."""
    for labels in (0.0, 1.0):
        plan = learning_plan(learning_rate=1e3, clip=1e3, local_steps=40, sampling_rate=1.0)
        data = made_rows(plan, 50, seed=1)
        data.labels[:] = labels
        start = {name: np.full_like(part, -1e6) for name, part in initial_arrays(plan).items()}
        update = train_round(
            network_for(plan, start),
            data,
            plan.schedule,
            noise_multiplier=1.0,
            noise=SystemNoise(),
            expected_batch=1.0,
        )
        assert all(np.isfinite(part).all() for part in update.values())
