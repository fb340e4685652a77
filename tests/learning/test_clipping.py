"""Clipped sums: those of Opacus, those of plain autograd, and bounded for each recipient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch.nn.functional import binary_cross_entropy_with_logits

from abfed.learning.gradients import clipped_sum
from abfed.learning.networks import network_for
from abfed.learning.shapes import initial_arrays
from tests.learning.signal_rows import learning_plan, made_rows

CLIP = 0.7
NETWORKS = [(), (8,), (6, 5)]


def _batch(hidden: tuple[int, ...], recipients: int, most: int):
    plan = learning_plan(*hidden)
    data = made_rows(plan, recipients, seed=3, most=most)
    lines, labels, owners = data.batch(np.arange(recipients))
    network = network_for(plan, initial_arrays(plan))
    return network, torch.from_numpy(lines), torch.from_numpy(labels), torch.from_numpy(owners)


def _flat(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten().double() for part in parts.values()])


@pytest.mark.parametrize("hidden", NETWORKS)
def test_one_row_each_gives_the_clipped_sum_of_opacus(hidden: tuple[int, ...]) -> None:
    network, lines, labels, owners = _batch(hidden, 200, most=1)
    ours = _flat(clipped_sum(network, lines, labels, owners, CLIP))

    wrapped = GradSampleModule(network, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    scores = wrapped(lines.clone().requires_grad_()).squeeze(1)
    binary_cross_entropy_with_logits(scores, labels, reduction="sum").backward()
    optimizer.clip_and_accumulate()
    theirs = torch.cat([each.summed_grad.flatten().double() for each in wrapped.parameters()])
    assert torch.linalg.vector_norm(ours - theirs) < 1e-5 * torch.linalg.vector_norm(theirs)


@pytest.mark.parametrize("hidden", NETWORKS)
def test_many_rows_each_give_the_clipped_gradients_of_summed_losses(
    hidden: tuple[int, ...],
) -> None:
    network, lines, labels, owners = _batch(hidden, 60, most=5)
    ours = _flat(clipped_sum(network, lines, labels, owners, CLIP))
    expected = torch.zeros_like(ours)
    clipped = 0
    for recipient in range(60):
        mine = owners == recipient
        network.zero_grad()
        scores = network(lines[mine]).squeeze(1)
        binary_cross_entropy_with_logits(scores, labels[mine], reduction="sum").backward()
        gradient = torch.cat([each.grad.flatten().double() for each in network.parameters()])
        norm = float(torch.linalg.vector_norm(gradient))
        clipped += norm > CLIP
        expected += gradient * min(1.0, CLIP / norm)
    assert clipped > 0  # else the test says nothing about clipping
    # Norms are counted with all that float32 may lose of pairs of rows
    assert torch.linalg.vector_norm(ours - expected) < 1e-4 * torch.linalg.vector_norm(expected)


@pytest.mark.privacy
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_a_recipient_moves_the_sum_by_at_most_the_clip(scale: float) -> None:
    network, lines, labels, owners = _batch((8,), 40, most=5)
    lines = lines.clone()
    lines[owners == 17] *= scale
    everybody = _flat(clipped_sum(network, lines, labels, owners, CLIP))
    others = owners != 17
    renumbered = torch.unique(owners[others], return_inverse=True)[1]
    without = _flat(clipped_sum(network, lines[others], labels[others], renumbered, CLIP))
    assert torch.isfinite(everybody).all()
    assert torch.linalg.vector_norm(everybody - without) <= CLIP * (1 + 1e-6)


def test_an_empty_batch_sums_to_zero() -> None:
    network, lines, labels, owners = _batch((8,), 3, most=2)
    none = clipped_sum(network, lines[:0], labels[:0], owners[:0], CLIP)
    assert all(not part.any() for part in none.values())
