"""Which operations give a row the same bits at any place, and what follows when one does not."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from abfed.learning import gradients, steady_groups
from abfed.learning.batches import Batch, InMemory
from abfed.learning.bookkeeping import Group, book_keeping_units
from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.gradients import StackSums
from abfed.learning.losses import LOGISTIC
from abfed.learning.networks import one_thread
from abfed.learning.products import pair_products, wild
from abfed.learning.shapes import LARGEST_PARAMETER
from abfed.learning.stacks import Stack
from abfed.learning.steady import (
    LARGEST,
    MISSED,
    SMALLEST,
    are_steady_pairs,
    block_sizes,
    blocks,
    is_steady,
    is_steady_layer,
    numbers_told,
)
from abfed.learning.steady_pairs import MOST_ROWS
from abfed.learning.steady_passes import WIDEST, sizes_for
from abfed.protocol.schema import NumericFeature
from tests.learning.multiplied import multiplied_lines

SIZES = (320, 256, 128, 64)
DESIGN = Design(
    tuple(NumericFeature(name=f"x{place}", low=-1.0, high=1.0) for place in range(11)),
    ("plain", "new"),
    0,
)
NUMBERS = 24
UNITS = 1 << 40
NOTICED = 1 << 10  # units: what adding in float64 may lose is less


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def _summed(values: Tensor, *, backwards: bool = False) -> Tensor:
    """A float32 sum of each line, number by number, `(rows, 1)`."""
    total = torch.zeros(len(values), 1)
    for numbers in values.flip(1).t() if backwards else values.t():
        total = total + numbers[:, None]
    return total


def _unsteady(where: Callable[[int], slice]) -> Callable[[Tensor], Tensor]:
    """Sums that are made the other way round at some places of a block."""

    def operation(values: Tensor) -> Tensor:
        found = _summed(values)
        chosen = where(len(values))
        found[chosen] = _summed(values[chosen], backwards=True)
        return found

    return operation


def test_what_is_the_same_everywhere_is_steady():
    assert all(is_steady(_summed, NUMBERS, size) for size in SIZES)


@pytest.mark.privacy
@pytest.mark.parametrize(
    "where",
    [
        lambda size: slice(size - 1, size),
        lambda _: slice(0, 1),
        lambda size: slice(size // 2, size),
        lambda size: slice(0, size if size == 128 else 0),  # one size alone
        lambda size: slice(64, size, 8),
    ],
)
def test_another_order_anywhere_is_found(where):
    assert not all(is_steady(_unsteady(where), NUMBERS, size) for size in SIZES)


@pytest.mark.privacy
@pytest.mark.parametrize(("numbers", "chance"), [(3, 0.17), (8, 0.5), (24, 0.7), (256, 0.9)])
def test_how_often_one_number_tells_another_order(numbers, chance):
    values = wild((4_000, numbers), torch.Generator().manual_seed(3))
    differ = _summed(values) != _summed(values, backwards=True)
    assert float(differ.float().mean()) > chance
    assert (1 - chance) ** numbers_told(numbers) < MISSED


@given(
    st.integers(1, 30_000), st.integers(1, 5_000), st.floats(1.0, 1e5), st.integers(1, MOST_ROWS)
)
def test_blocks_hold_all_rows_and_are_of_the_sizes_tried(rows, widest, expected, together):
    sizes = block_sizes(widest, expected, together)
    assert sizes == tuple(sorted(set(sizes), reverse=True))
    assert sizes[-1] == SMALLEST
    assert sizes[0] <= LARGEST
    taken = list(blocks(rows, sizes))
    assert set(taken) <= set(sizes)
    assert all(size % SMALLEST == 0 for size in taken)
    assert sum(taken) >= rows > sum(taken[:-1])
    assert sum(taken) < max(2 * rows, rows + 2 * SMALLEST)


def test_what_is_expected_fills_one_block():
    sizes = block_sizes(24, 4_096)
    assert list(blocks(4_096 + 250, sizes)) == [sizes[0]]
    assert sizes[0] < 1.15 * 4_096


@pytest.mark.parametrize("together", [4, 16])
def test_what_is_expected_of_several_rows_each_fills_blocks(together):
    sizes = block_sizes(256, 4_096, together)
    assert sum(blocks(4_096, sizes)) < 1.05 * 4_096
    assert all(sum(blocks(rows, sizes)) < 1.4 * rows for rows in range(500, 8_000, 7))


def test_few_sizes_are_ever_tried():
    expected = np.linspace(1.0, 1e5, 20_000)
    assert len({size for each in expected.tolist() for size in block_sizes(24, each)}) < 100


def _batch(network: nn.Sequential, people: int, seed: int) -> Batch:
    generator = np.random.default_rng(seed)
    first = network[0]
    assert isinstance(first, nn.Linear)
    lines = generator.uniform(-1, 1, (people, first.in_features)).astype(np.float32)
    labels = generator.integers(0, 2, people).astype(np.float32)
    return Batch(torch.from_numpy(lines), torch.from_numpy(labels), (Group(1, people),))


def _cancelling(*sizes: int) -> nn.Sequential:
    """Weights that an asker may choose: huge, and of both signs."""
    generator = np.random.default_rng(8)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        for each in layer.parameters():
            signs = generator.integers(-1, 2, each.shape) * LARGEST_PARAMETER
            each.data = torch.from_numpy(signs + generator.normal(size=each.shape)).float()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _people(count: int, generator: np.random.Generator) -> RecipientRows:
    """Recipients with one row each."""
    return RecipientRows(
        DESIGN,
        generator.uniform(-1, 1, (count, 11)).astype(np.float32),
        generator.integers(0, 2, count).astype(np.int8),
        generator.integers(0, 2, count).astype(np.float32),
        np.arange(count + 1, dtype=np.int64),
    )


@pytest.mark.privacy
@pytest.mark.parametrize("rows", [1, 2, 5, 13])
@pytest.mark.parametrize("sizes", [(24, 1), (24, 64, 32, 1), (33, 9, 3)])
def test_what_is_multiplied_for_a_recipient_is_the_same_whoever_is_there(sizes, rows, monkeypatch):
    stack = Stack.of(_cancelling(*sizes))
    assert stack is not None
    assert rows <= MOST_ROWS
    generator = np.random.default_rng(5)
    for people, expected in ((40, 900.0), (300, 300.0), (777, 60.0)):
        assert sizes_for(stack, expected), "this machine takes the exact path"
        batch = _batch(_cancelling(*sizes), people * rows, int(generator.integers(2**32)))
        halves = torch.full((people * rows, sizes[-1]), 0.5)  # so that no signal is 0
        batch = Batch(batch.lines, halves, (Group(rows, people),))
        place = int(generator.integers(people))
        theirs = slice(place * rows, (place + 1) * rows)
        alone = Batch(batch.lines[theirs], halves[theirs], (Group(rows, 1),))
        there, layers = multiplied_lines(monkeypatch, stack, batch, expected), len(sizes) - 1
        for number, parts in enumerate(multiplied_lines(monkeypatch, stack, alone, expected)):
            for side, part in enumerate(parts):
                whole = torch.cat([each[side] for each in there[number::layers]])
                assert number or part[:rows].any()
                for row in range(rows):
                    assert (whole == part[row]).all(1).any()


@pytest.mark.privacy
@pytest.mark.parametrize("hidden", [(), (40,), (5, 33)])
@pytest.mark.parametrize("biased", [True, False])
def test_lines_that_lie_as_in_a_block_sum_to_the_same_bits_and_stay_as_they_are(hidden, biased):
    sizes = (DESIGN.width, *hidden, 1)
    layers = [nn.Linear(a, b, bias=biased) for a, b in itertools.pairwise(sizes)]
    stack = Stack.of(nn.Sequential(*itertools.chain(*((each, nn.ReLU()) for each in layers)))[:-1])
    assert stack is not None
    generator = np.random.default_rng(11)
    for people, chosen in ((700, 300), (700, 700), (90, 1), (3, 2)):
        rows = InMemory(_people(people, generator))
        batch = rows.batch(np.sort(generator.permutation(people)[:chosen]))
        assert batch.laid is not None
        copied = Batch(batch.lines.clone(), batch.labels.clone(), batch.groups)
        with torch.no_grad():
            exact = StackSums(stack, LOGISTIC, 320.0).units(copied, 0.7)
            sums = StackSums(stack, LOGISTIC, 320.0)
            for _ in range(2):
                assert torch.equal(sums.units(batch, 0.7), exact)
        assert torch.equal(batch.lines, copied.lines)
        assert chosen < 3 or exact.any()  # one in twenty networks is dead for a person or two
    with pytest.raises(IndexError, match="beyond the 3"):
        rows.batch(np.array([3]))


@pytest.mark.privacy
def test_parameters_are_read_anew_for_each_batch():
    network = nn.Sequential(nn.Linear(24, 9), nn.ReLU(), nn.Linear(9, 1))
    stack = Stack.of(network)
    assert stack is not None
    batch = _batch(network, 60, 4)
    sums = StackSums(stack, LOGISTIC, 60.0)
    with torch.no_grad():
        first = sums.units(batch, 0.7)
        for each in network.parameters():
            each.mul_(0.5)
        found = sums.units(batch, 0.7)
        assert not torch.equal(first, found)
        assert torch.equal(found, StackSums(stack, LOGISTIC, 60.0).units(batch, 0.7))
        network[0].bias[3] = torch.inf
        assert not sums.units(batch, 0.7).any()


@pytest.mark.privacy
@pytest.mark.parametrize("unsteady", ["are_steady_pairs", "are_steady_sums"])
@pytest.mark.parametrize("rows", [2, MOST_ROWS])
def test_where_pairs_are_not_steady_recipients_with_several_rows_take_the_exact_path(
    rows, unsteady, monkeypatch
):
    stack = Stack.of(nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 1)))
    assert stack is not None
    batch = _batch(nn.Sequential(nn.Linear(24, 1)), 30 * rows, 3)
    several = batch._replace(groups=(Group(rows, 30),))
    with torch.no_grad():
        exact = book_keeping_units(stack, *several[:3], 0.7, LOGISTIC)
        steady = StackSums(stack, LOGISTIC, 30.0).units(several, 0.7)
        single = StackSums(stack, LOGISTIC, 30.0).units(batch, 0.7)
        monkeypatch.setattr(steady_groups, unsteady, lambda *_, **__: False)
        assert torch.equal(StackSums(stack, LOGISTIC, 30.0).units(several, 0.7), exact)
        assert torch.equal(StackSums(stack, LOGISTIC, 30.0).units(batch, 0.7), single)
    assert not torch.equal(steady, exact)


@pytest.mark.privacy
def test_pairs_in_another_order_at_one_place_are_found(monkeypatch):
    assert are_steady_pairs(24, 32, 4, 1)
    are_steady_pairs.cache_clear()
    product = np.matmul

    def elsewhere(a, b, out):
        product(a, b, out=out)
        if len(out) == 32:  # the last of a block of 128
            out[-1] = sum(a[-1, :, i, None] * b[-1, i] for i in reversed(range(24)))
        return out

    monkeypatch.setattr(np, "matmul", elsewhere)
    assert not are_steady_pairs(24, 32, 4, 1)
    are_steady_pairs.cache_clear()


@pytest.mark.parametrize("numbers", [1, 5, 24, 20_000])
@pytest.mark.parametrize("rows", [2, 3, 16])
def test_products_of_pairs_are_those_of_a_recipients_rows_whatever_is_behind_them(numbers, rows):
    lines = torch.randn(5 * rows + 1, numbers, generator=torch.Generator().manual_seed(1))
    lines[-1] = torch.nan
    found = pair_products(lines[:-1], rows, torch.empty(5, (rows + 1) * rows))[:, : rows**2]
    groups = lines[:-1].double().unflatten(0, (5, rows))
    exact = (groups @ groups.transpose(1, 2)).flatten(1)
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5 * numbers)


@pytest.mark.privacy
@pytest.mark.parametrize("outputs", [1, 3, 7, 9, 16])
def test_layers_with_few_outputs_are_steady_here(outputs):
    stack = Stack.of(
        nn.Sequential(nn.Linear(24, outputs), nn.ReLU(), nn.Linear(outputs, 5), nn.ReLU(),
                      nn.Linear(5, 1))
    )  # fmt: skip
    assert sizes_for(stack, 300.0)


@pytest.mark.privacy
def test_what_was_tried_with_other_threads_does_not_count():
    assert torch.get_num_threads() == 1
    with pytest.raises(ValueError, match="threads"):
        is_steady_layer(4, 1, 64, 2, biased=True, back=False, last=True)


@pytest.mark.privacy
@pytest.mark.parametrize("rows", [1, 4])
def test_a_machine_that_is_not_steady_takes_the_exact_path(rows, monkeypatch):
    network = nn.Sequential(nn.Linear(NUMBERS, 8), nn.ReLU(), nn.Linear(8, 1))
    stack, batch = Stack.of(network), _batch(network, 300, 1)
    assert stack is not None
    batch = batch._replace(groups=(Group(rows, 300 // rows),))
    exact = book_keeping_units(stack, *batch[:3], 0.7, LOGISTIC)
    tried = []

    def unsteady(*shape: object, **_: object) -> bool:
        tried.append(shape)
        return False

    monkeypatch.setattr("abfed.learning.steady_passes.is_steady_layer", unsteady)
    assert torch.equal(StackSums(stack, LOGISTIC, 9.0).units(batch, 0.7), exact)
    assert tried


@pytest.mark.privacy
def test_what_float32_can_not_bound_takes_the_exact_path():
    assert sizes_for(Stack.of(nn.Sequential(nn.Linear(WIDEST + 1, 1)))) == ()
    network = nn.Sequential(nn.Linear(4, 1))
    stack, batch = Stack.of(network), _batch(network, 10, 1)
    assert stack is not None
    wide = batch._replace(lines=batch.lines.double())
    exact = book_keeping_units(stack, *wide[:3], 0.7, LOGISTIC)
    assert torch.equal(StackSums(stack, LOGISTIC, 9.0).units(wide, 0.7), exact)


@pytest.mark.privacy
@pytest.mark.parametrize("rows", [1, 4])
def test_who_overflows_adds_nothing_and_nobody_notices(rows):
    network = _cancelling(24, 64, 1)
    stack, batch = Stack.of(network), _batch(network, 200, 2)
    assert stack is not None
    spoilt = batch.lines.clone()
    spoilt[[3, 199]] = torch.tensor([[torch.inf], [torch.nan]])
    sound = torch.ones(200 // rows, dtype=torch.bool)
    sound[[3 // rows, 199 // rows]] = False
    theirs = sound.repeat_interleave(rows)
    rest = Batch(batch.lines[theirs], batch.labels[theirs], (Group(rows, int(sound.sum())),))
    whole = Batch(spoilt, batch.labels, (Group(rows, len(sound)),))
    with torch.no_grad():
        found = StackSums(stack, LOGISTIC, 9.0).units(whole, 0.7)
        assert int((found - StackSums(stack, LOGISTIC, 9.0).units(rest, 0.7)).abs().max()) < NOTICED
    assert found.any()


@pytest.mark.privacy
@pytest.mark.parametrize("sizes", [(NUMBERS, 1), (NUMBERS, 16, 2)])
@pytest.mark.parametrize("rows", [2, 7, MOST_ROWS])
def test_rows_that_nearly_cancel_stay_within_the_clip(sizes, rows):
    """Rows millions of clips long, whose sum is short: what float32 loses of it is counted."""
    network = _cancelling(*sizes)
    for each in network[-1].parameters():
        each.data.zero_()  # so that signals are ±½
    stack = Stack.of(network)
    assert stack is not None
    people = 600  # whose first rows are much alike, so that nothing cancels before the end
    batch = _batch(network, people * rows, 5)
    lines = batch.lines.view(people, rows, -1)
    lines[:, 0] = 3e3 * (lines[0, 0] + 1e-2 * lines[:, 0])
    lines[:, 1:] = lines[:, :1] * (1.0 + 2.0**-20)
    lines[1::2] = 1e-3 * torch.rand(people // 2, rows, NUMBERS)  # whose last bits would be lost
    labels = (0.5 + 0.5 * (-1.0) ** torch.arange(rows)).repeat(people, sizes[-1], 1)
    labels = labels.transpose(1, 2).contiguous()

    def units(start: int, stop: int) -> Tensor:
        some, theirs = lines[start:stop].flatten(0, 1), labels[start:stop].flatten(0, 1)
        part = Batch(some, theirs, (Group(rows, stop - start),))
        return StackSums(stack, LOGISTIC, 1e-3).units(part, 1e-3)  # more than expected: float64

    with torch.no_grad():
        alone = units(0, 1)
        parts = [units(start, start + 3) for start in range(0, people, 3)]
        assert int((units(0, people) - sum(parts)).abs().max()) < NOTICED
    assert sum(v * v for v in alone.tolist()) <= UNITS**2


def test_two_batches_share_memory_and_nothing_else():
    network = nn.Sequential(nn.Linear(NUMBERS, 40), nn.ReLU(), nn.Linear(40, 1))
    ways = gradients.BatchGradients(network), gradients.BatchGradients(network)
    first, second = _batch(network, 900, 1), _batch(network, 70, 2)
    ways[0].clipped_units(first, 0.7)
    again = ways[0].clipped_units(second, 0.7)
    assert torch.equal(again, ways[1].clipped_units(second, 0.7))
