"""The ways to a clipped sum: book-keeping, Opacus's hooks, Opacus's ghost clipping."""

from __future__ import annotations

from typing import ClassVar

import pytest
from torch import Tensor, nn

from abfed.learning import bookkeeping
from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import Group, book_keeping_sum
from abfed.learning.gradients import ghost_sum, materialised_sum
from abfed.learning.losses import Loss
from abfed.learning.stacks import Stack
from tests.conformance.clipped_sums import (
    ACTIVATIONS,
    CLIP,
    SHAPES,
    ClippedSums,
    batch_of,
    distance,
    expected_sum,
    network_of,
)


def _by_book_keeping(network: nn.Module, batch: Batch, clip: float, loss: Loss) -> Tensor:
    stack = Stack.of(network)
    assert stack is not None
    assert stack.takes(batch.lines)
    lines, labels, groups = batch
    return book_keeping_sum(stack, lines, labels, groups, clip, loss).double()


class TestBookKeeping(ClippedSums):
    way = staticmethod(_by_book_keeping)
    tolerance = 5e-4  # what rounding could hide is taken off the bound: the next test goes without

    @pytest.mark.parametrize("name", [*ACTIVATIONS, *SHAPES])
    def test_apart_from_that_it_agrees_to_single_precision(self, name, monkeypatch):
        monkeypatch.setattr(bookkeeping, "ROUNDING", 0.0)
        network = network_of(name)
        for groups in self.each_size():
            batch = batch_of(network, groups)
            found, expected = self.sum_of(network, batch), expected_sum(network, batch, CLIP)
            assert distance(found, expected) < 2e-6


class TestMaterialised(ClippedSums):
    way = staticmethod(materialised_sum)


class TestGhost(ClippedSums):
    way = staticmethod(ghost_sum)
    groups: ClassVar[dict[str, tuple[Group, ...]]] = {"one": (Group(1, 60),)}
    tolerance = 2e-4  # GHOST_ROUNDING is taken off the bound
