"""Clipped sums under stress: with overflow, and without a trace on the network.

`test_clipping.py` compares them with Opacus and autograd and measures their bound.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from abfed.learning.gradients import BatchGradients, clipped_sum
from abfed.learning.networks import network_for
from abfed.learning.shapes import initial_arrays
from tests.learning.signal_rows import learning_plan, made_rows

CLIP = 0.7


def batch_of(recipients: int):
    """A network and a batch of recipients with 1 to 4 rows."""
    plan = learning_plan(5)
    batch = made_rows(plan, recipients, seed=3).batch(np.arange(recipients))
    return network_for(plan, initial_arrays(plan)), [torch.from_numpy(part) for part in batch]


def flat(parts):
    """All parameters in one vector."""
    return torch.cat([part.flatten() for part in parts.values()])


@pytest.mark.privacy
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_recipient_whose_numbers_are_not_finite_adds_nothing(value):
    """Failing for one person would tell that they are there."""
    network, (lines, labels, owner) = batch_of(20)
    quiet = owner != 7
    lines[~quiet, 0] = value
    others = owner[quiet] - (owner[quiet] > 7).long()
    found = flat(clipped_sum(network, lines, labels, owner, CLIP))
    without = flat(clipped_sum(network, lines[quiet], labels[quiet], others, CLIP))
    assert torch.equal(found, without)
    assert bool(without.any())


@pytest.mark.privacy
def test_weights_that_are_not_finite_sum_to_zero():
    network, (lines, labels, owner) = batch_of(20)
    with torch.no_grad():
        network.get_parameter("hidden1.weight")[0, 0] = torch.inf
    assert not flat(clipped_sum(network, lines, labels, owner, CLIP)).any()


def test_the_network_and_the_rows_are_left_as_they_were():
    network, (lines, labels, owner) = batch_of(5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    clipped_sum(network, lines, labels, owner, CLIP)
    after = network.state_dict()
    assert list(after) == list(before)  # Opacus would put "_module." before names
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(each.grad is None for each in network.parameters())
    assert not any(hasattr(each, "grad_sample") for each in network.parameters())
    assert not lines.requires_grad


@pytest.mark.privacy
@pytest.mark.parametrize("dice", [torch.nn.Dropout(0.1), torch.nn.RReLU()])
def test_a_network_that_throws_dice_is_refused(dice):
    """Dropout draws from torch's global generator, which anybody may have seeded."""
    with pytest.raises(ValueError, match=r"draws random numbers: (Dropout|RReLU)"):
        BatchGradients(torch.nn.Sequential(torch.nn.Linear(3, 1), dice))


@pytest.mark.privacy
def test_a_network_that_mixes_rows_is_refused():
    """Batch normalisation: what others are there would change somebody's gradient."""
    with pytest.raises(ValueError, match="trained privately"):
        BatchGradients(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)))


def test_what_is_no_stack_takes_the_general_path():
    network = torch.nn.Sequential(
        torch.nn.Linear(8, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1)
    )
    _, (lines, labels, owner) = batch_of(20)
    found = clipped_sum(network, lines, labels, owner, CLIP)
    assert set(found) == {name for name, _ in network.named_parameters()}
    assert bool(found["1.weight"].any())
