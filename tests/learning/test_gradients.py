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
    assert float((found - without).abs().max()) < 1e-9 * CLIP  # what adding in float64 may lose
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
@pytest.mark.parametrize(
    "dice", [torch.nn.Dropout(0.1), torch.nn.RReLU(), torch.nn.FractionalMaxPool2d(2, 1)]
)
def test_a_network_that_throws_dice_is_refused(dice):
    """Dropout draws from torch's global generator, which anybody may have seeded."""
    with pytest.raises(ValueError, match=f"draws random numbers: {type(dice).__name__}"):
        BatchGradients(torch.nn.Sequential(torch.nn.Linear(3, 1), dice))


@pytest.mark.privacy
@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.BatchNorm1d(8),
        torch.nn.BatchNorm1d(8, affine=False),
        torch.nn.BatchNorm1d(8).requires_grad_(False),
        torch.nn.InstanceNorm1d(8, track_running_stats=True),
    ],
)
def test_a_network_that_mixes_rows_or_keeps_them_is_refused(layer):
    """What others are there would change somebody's gradient, or lie in its buffers afterwards."""
    with pytest.raises(ValueError, match="trained privately"):
        BatchGradients(torch.nn.Sequential(torch.nn.Linear(3, 8), layer))


class _OfOnesOwn(torch.nn.Linear):
    """A layer whose class tells nothing about what it does."""

    def __init__(self, act):
        super().__init__(8, 1)
        self.register_buffer("seen", torch.zeros(8))
        self.act = act

    def forward(self, lines):
        self.act(self, lines)
        return super().forward(lines)


def _adds_up(layer, lines):
    layer.seen += lines.detach().sum(0)


def _puts_another(layer, lines):
    layer.seen = lines.detach()[0]


def _takes_off_who_came_before(layer, lines):
    before = vars(layer).get("before", 0.0)  # in no buffer
    vars(layer)["before"] = lines.mean(0)
    lines -= before


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda *_: torch.rand(1), "draws random numbers"),
        (lambda _, lines: lines.add_(torch.rand(1)), "draws random numbers"),
        (_adds_up, "keeps something of the rows in seen"),
        (_puts_another, "keeps something of the rows in seen"),
        (_takes_off_who_came_before, "the same ones give it another sum"),
    ],
)
def test_a_layer_of_ones_own_is_found_out_when_it_runs(act, words):
    _, (lines, labels, owner) = batch_of(3)
    with torch.random.fork_rng(), pytest.raises(ValueError, match=words):
        clipped_sum(_OfOnesOwn(act), lines[:, :8], labels, owner, CLIP)


def test_what_is_no_stack_takes_the_general_path():
    network = torch.nn.Sequential(
        torch.nn.Linear(8, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1)
    )
    _, (lines, labels, owner) = batch_of(20)
    found = clipped_sum(network, lines, labels, owner, CLIP)
    assert set(found) == {name for name, _ in network.named_parameters()}
    assert bool(found["1.weight"].any())
