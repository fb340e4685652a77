"""What leaves a round: on the grid, over the expected batch, and nothing from global generators.

`test_training_round.py` compares it with plain SGD and measures its noise.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from abfed.learning.dpsgd import train_round
from abfed.learning.networks import logits, network_for
from abfed.learning.shapes import initial_arrays
from abfed.privacy.accounting import sampled_multiplier
from abfed.privacy.mechanisms import SystemNoise, UnsafeSeededNoise, grid_for
from abfed.protocol.tensors import pack
from tests.learning.signal_rows import NoNoise, learning_plan, made_rows


def round_of(plan, noise, *, multiplier=1.0, expected_batch=60.0):
    """The update of one round on 300 recipients."""
    return train_round(
        network_for(plan, initial_arrays(plan)),
        made_rows(plan, 300, seed=1),
        plan.schedule,
        noise_multiplier=multiplier,
        noise=noise,
        expected_batch=expected_batch,
    )


def numpy_state():
    """Where numpy's global generator stands."""
    return repr(np.random.get_state())  # noqa: NPY002 - the global generator is the point


@pytest.mark.privacy
def test_the_noised_sum_lies_on_a_grid_that_depends_on_the_noise_alone():
    plan = learning_plan(local_steps=1, learning_rate=1.0, clip=2.0)
    update = round_of(plan, SystemNoise(), multiplier=1.5, expected_batch=1.0)
    places = update["output.weight"].astype(np.float64) / grid_for(1.5 * 2.0)
    assert update["output.weight"].any()
    assert (places == np.rint(places)).all()


@pytest.mark.privacy
def test_the_expected_batch_divides_and_not_the_realised_one():
    plan = learning_plan(local_steps=1, clip=1e3)
    small, large = (
        round_of(plan, NoNoise(1), multiplier=1e-9, expected_batch=size) for size in (10.0, 40.0)
    )
    assert np.allclose(small["output.weight"], 4 * large["output.weight"], atol=1e-6)
    assert small["output.weight"].any()


@pytest.mark.privacy
def test_global_generators_have_no_say_and_are_not_moved():
    plan = learning_plan(4)
    updates = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is the point
        torch_before, numpy_before = torch.get_rng_state(), numpy_state()
        updates.append(pack(round_of(plan, UnsafeSeededNoise(7))))
        round_of(plan, SystemNoise())
        assert torch.equal(torch.get_rng_state(), torch_before)
        assert numpy_state() == numpy_before
    assert updates[0] == updates[1]
    assert updates[0] != pack(round_of(plan, UnsafeSeededNoise(8)))


@pytest.mark.parametrize("size", [0.5, 0.0, float("nan"), float("inf")])
def test_a_round_needs_a_sound_expected_batch(size):
    with pytest.raises(ValueError, match="expected batch"):
        round_of(learning_plan(), SystemNoise(), expected_batch=size)


def test_at_epsilon_three_it_ranks_people_that_it_has_not_seen():
    plan = learning_plan(rounds=3, local_steps=20, sampling_rate=0.1, clip=4.0, learning_rate=0.5)
    sigma = sampled_multiplier(3.0, 1e-6, rate=0.1, steps=60)
    model, data = initial_arrays(plan), made_rows(plan, 5000, seed=2)
    for _ in range(3):
        update = train_round(
            network_for(plan, model),
            data,
            plan.schedule,
            noise_multiplier=sigma,
            noise=SystemNoise(),
            expected_batch=500.0,
        )
        model = {name: model[name] + update[name] for name in model}
    fresh = made_rows(plan, 3000, seed=9, most=1)
    scores = logits(network_for(plan, model), fresh.batch(np.arange(3000))[0])
    positive, negative = scores[fresh.labels == 1], scores[fresh.labels == 0]
    assert (positive[:, None] > negative[None, :]).mean() > 0.75


def test_fedprox_pulls_each_step_towards_the_incoming_model():
    """Li et al. (2020), equation 2: the local objective has mu/2 times the squared distance."""
    rate, pull = 0.5, 0.6

    def after(steps, proximal):
        plan = learning_plan(local_steps=steps, learning_rate=rate, proximal=proximal, clip=1e3)
        return round_of(plan, NoNoise(1), multiplier=1e-9)["output.weight"].astype(np.float64)

    first = after(1, 0.0)
    assert np.array_equal(after(1, pull), first), "there is nothing to pull at the start"
    assert np.allclose(after(2, 0.0) - after(2, pull), rate * pull * first, atol=1e-6)
    assert np.abs(first).max() > 1e-3


def test_one_noisy_step_a_round_is_dp_fedsgd():
    """A round of one step moves by the noised gradient alone: what the server then optimises."""
    one = round_of(learning_plan(local_steps=1, learning_rate=0.1, clip=1e3), NoNoise(1))
    ten = round_of(learning_plan(local_steps=1, learning_rate=1.0, clip=1e3), NoNoise(1))
    assert np.allclose(10 * one["output.weight"], ten["output.weight"], atol=1e-5)
    assert ten["output.weight"].any()
