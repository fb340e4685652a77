"""The ways to a clipped sum: as trained, in fixed point throughout, one recipient at a time."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import Group, book_keeping_units
from abfed.learning.bounded import MOST_LOST
from abfed.learning.gradients import StackSums, in_losses_unit, one_by_one
from abfed.learning.losses import LOGISTIC, Loss
from abfed.learning.networks import one_thread
from abfed.learning.stacks import Stack
from tests.conformance.clipped_sums import (
    CLIP,
    GENERAL,
    OTHERS,
    SHAPES,
    STACKED,
    ClippedSums,
    batch_of,
    distance,
    expected_sum,
    network_of,
    opacus_sum,
)


def _by_book_keeping(network: nn.Module, batch: Batch, clip: float, loss: Loss) -> Tensor:
    stack = Stack.of(network)
    assert stack is not None
    assert stack.takes(batch.lines)
    return book_keeping_units(stack, batch.lines, batch.labels, batch.groups, clip, loss)


class TestBookKeeping(ClippedSums):
    way = staticmethod(_by_book_keeping)
    tolerance = 1.5e-4  # what rounding may add is taken off the bound

    @pytest.mark.parametrize("name", [*OTHERS, *GENERAL])
    def test_what_is_rounded_by_place_is_no_stack(self, name):
        assert Stack.of(network_of(name)) is None


FEW = 1e-4  # recipients expected: so next to nothing of the clip is kept back (`test_bounded.py`)


def _as_trained(network: nn.Module, batch: Batch, clip: float, loss: Loss) -> Tensor:
    stack = Stack.of(network)
    assert stack is not None
    with one_thread():
        return StackSums(stack, loss, FEW).units(batch, clip)


class TestAsTrained(ClippedSums):
    way = staticmethod(_as_trained)
    tolerance = 1.5e-4  # what rounding may add is taken off the bound
    unlike = 1 << 20  # units: 2⁻²⁰ of the clip


@pytest.mark.parametrize("name", [*STACKED, *SHAPES])
@pytest.mark.parametrize("groups", [(Group(1, 60),), (Group(4, 20),), (Group(16, 8),)])
def test_of_thousands_it_is_the_sum_that_opacus_makes_within_a_known_share_of_the_clip(
    name, groups
):
    """What adding so many may lose is taken off the clip, of each, and nothing else is (0171)."""
    network = network_of(name)
    batch, stack = batch_of(network, groups), Stack.of(network)
    with one_thread():
        sums = StackSums(stack, LOGISTIC, 4096.0)
        share = sums.share(groups[0].rows)
        found = in_losses_unit(sums.units(batch, CLIP), CLIP)
    assert 1.0 - 1.01 * MOST_LOST < share <= 1.0
    assert distance(found, opacus_sum(network, batch, share * CLIP)) < TestAsTrained.tolerance


class TestOneByOne(ClippedSums):
    way = staticmethod(one_by_one)

    @pytest.mark.parametrize("name", [*OTHERS, *GENERAL])
    def test_it_takes_any_activation_and_layer(self, name):
        network = network_of(name)
        for groups in self.each_size():
            batch = batch_of(network, groups)
            found, expected = self.sum_of(network, batch), expected_sum(network, batch, CLIP)
            assert distance(found, expected) < self.tolerance
            assert distance(found, opacus_sum(network, batch, CLIP)) < self.tolerance
