"""Recipients with several rows each: laid out in blocks together, and each as if alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from abfed.learning import steady
from abfed.learning.batches import Batch, InMemory
from abfed.learning.bookkeeping import Group
from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.gradients import StackSums
from abfed.learning.losses import LOGISTIC
from abfed.learning.networks import one_thread
from abfed.learning.parts import START, filled, gaps
from abfed.learning.stacks import Stack
from abfed.learning.steady import are_steady_sums, block_sizes, counts_for, sums_together
from abfed.learning.steady_pairs import MOST_ROWS
from abfed.protocol.schema import NumericFeature
from tests.learning.multiplied import multiplied_lines

UNITS = 1 << 40
DESIGN = Design(
    tuple(NumericFeature(name=f"x{place}", low=-1.0, high=1.0) for place in range(11)),
    ("a", "b"),
    0,
)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def _stack(*sizes: int) -> Stack:
    dice = torch.Generator().manual_seed(4)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        for each in layer.parameters():
            each.data = torch.randn(each.shape, generator=dice) / math.sqrt(inputs)
        layers += [layer, nn.ReLU()]
    found = Stack.of(nn.Sequential(*layers[:-1]))
    assert found is not None
    return found


def _batch(stack: Stack, groups: tuple[Group, ...], outputs: int, seed: int = 7) -> Batch:
    generator = np.random.default_rng(seed)
    rows = sum(group.rows * group.recipients for group in groups)
    inputs = stack.layers[0].weight.shape[1]
    lines = torch.from_numpy(generator.normal(size=(rows, inputs))).float()
    return Batch(lines, torch.full((rows, outputs), 0.5), groups)


@pytest.mark.privacy
def test_sums_in_another_order_at_one_place_are_found(monkeypatch):
    assert are_steady_sums(3, 32, 4, 1)
    are_steady_sums.cache_clear()
    product = np.matmul

    def elsewhere(weights, parts, out):
        product(weights, parts, out=out)
        if len(out) == 32:
            out[-1] = sum(weights[-1, 0, each] * parts[-1, each] for each in (3, 2, 1, 0))
        return out

    monkeypatch.setattr(np, "matmul", elsewhere)
    assert not are_steady_sums(3, 32, 4, 1)
    are_steady_sums.cache_clear()


@pytest.mark.parametrize("numbers", [1, 24, 5_000])
@pytest.mark.parametrize("rows", [2, 3, 16])
def test_weighted_sums_of_lines_that_belong_together(numbers, rows):
    dice = torch.Generator().manual_seed(2)
    lines, weights = (torch.randn(5 * rows, each, generator=dice) for each in (numbers, 1))
    found = sums_together(lines, weights, rows, torch.empty(5, numbers))
    exact = (lines.double() * weights.double()).unflatten(0, (5, rows)).sum(1)
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.privacy
@pytest.mark.parametrize("rows", [9, 13])
def test_what_stands_in_other_lines_is_added_after_a_lines_own_pairs(rows):
    """Two huge numbers that cancel swallow a one of another line, if that comes between them."""
    places = list(itertools.product(range(rows), repeat=2))
    pairs = torch.zeros(len(places), len(places), rows, rows)
    for turn, (line, ones) in enumerate(places):
        for other, (first, second) in enumerate(places):
            pairs[turn, other, first, line] += 2.0**60
            pairs[turn, other, second, line] -= 2.0**60
            pairs[turn, other, ones, line - 1] = 1.0
    assert bool((steady.added_pairs(pairs.flatten(2).flatten(0, 1), rows) == 1.0).all())


@pytest.mark.privacy
@pytest.mark.parametrize("sizes", [(24, 1), (24, 64, 2), (9, 12, 1)])
def test_recipients_with_unlike_numbers_of_rows_share_blocks_and_nothing_else(sizes, monkeypatch):
    """What is added for each is what it would be alone, whoever has other numbers of rows."""
    stack, generator = _stack(*sizes), np.random.default_rng(11)
    for expected in (60.0, 900.0):
        groups = tuple(Group(k, int(generator.integers(1, 60))) for k in (2, 3, 5, 13, 16))
        batch, end = _batch(stack, groups, sizes[-1]), 0
        there = multiplied_lines(monkeypatch, stack, batch, expected)
        for group in groups:
            end += group.rows * group.recipients
            theirs = slice(end - group.rows, end)  # of the last
            alone = Batch(batch.lines[theirs], batch.labels[theirs], (Group(group.rows, 1),))
            layers = len(sizes) - 1
            for number, parts in enumerate(multiplied_lines(monkeypatch, stack, alone, expected)):
                lines = torch.cat([torch.cat(each, 1) for each in there[number::layers]])
                mine = torch.cat(parts, 1)[parts[1].any(1)]  # signals or a weight: else nobody's
                assert len(mine) in (1, group.rows)
                for row in mine:
                    assert (lines == row).all(1).any()


@pytest.mark.privacy
@pytest.mark.parametrize(("hidden", "biased"), [((), True), ((5, 33), True), ((9,), False)])
def test_pairs_of_lines_that_were_made_before_are_the_same_to_the_last_bit(
    hidden, biased, monkeypatch
):
    monkeypatch.setattr(steady, "CACHED", 1 << 13)  # so groups are divided among blocks
    generator, sizes = np.random.default_rng(8), (DESIGN.width, *hidden, 2)
    layers = [nn.Linear(a, b, bias=biased) for a, b in itertools.pairwise(sizes)]
    stack = Stack.of(nn.Sequential(*[x for each in layers for x in (each, nn.ReLU())][:-1]))
    assert stack is not None
    counts = generator.choice([1, 3, 7, MOST_ROWS, MOST_ROWS + 1], 300)
    rows = InMemory(
        RecipientRows(
            DESIGN,
            generator.uniform(-1, 1, (counts.sum(), 11)).astype(np.float32),
            np.repeat(generator.integers(0, 2, 300), counts).astype(np.int8),
            generator.integers(0, 2, counts.sum()).astype(np.float32),
            np.concatenate([[0], np.cumsum(counts)]),
        )
    )
    for many in (280, 30):
        batch = rows.batch(np.sort(generator.permutation(300)[:many]))
        batch = batch._replace(labels=batch.labels[:, None].repeat(1, 2))
        known = [group.rows for group, each in zip(batch.groups, batch.pairs, strict=True)
                 if each is not None]  # fmt: skip
        assert known == [each.rows for each in batch.groups if 2 <= each.rows <= MOST_ROWS]
        with torch.no_grad():
            found = StackSums(stack, LOGISTIC, 280.0).units(batch, 0.3)
            made = StackSums(stack, LOGISTIC, 280.0).units(batch._replace(pairs=()), 0.3)
        assert torch.equal(found, made)
        assert found.any()


@pytest.mark.privacy
@pytest.mark.parametrize("sizes", [(24, 1), (24, 32, 2), (9, 12, 1)])
def test_one_recipient_of_any_number_of_rows_moves_the_sum_by_at_most_the_clip(sizes):
    stack = _stack(*sizes)
    groups = tuple(Group(k, 70 - 4 * k) for k in (1, 2, 3, 7, MOST_ROWS))
    batch = _batch(stack, groups, sizes[-1])
    sums, start = StackSums(stack, LOGISTIC, 600.0), 0
    with torch.no_grad():
        whole = sums.units(batch, 1e-2)
        for place, group in enumerate(groups):
            theirs = torch.ones(len(batch.lines), dtype=torch.bool)
            theirs[start : start + group.rows] = False
            start += group.rows * group.recipients
            fewer = list(groups)
            fewer[place] = Group(group.rows, group.recipients - 1)
            rest = Batch(batch.lines[theirs], batch.labels[theirs], tuple(fewer))
            moved = whole - sums.units(rest, 1e-2)
            length = math.isqrt(sum(each * each for each in moved.tolist()))
            assert 0.9 * UNITS < length < UNITS


@pytest.mark.privacy
def test_recipients_whose_gradients_are_huge_are_clipped_like_others():
    """Squared norms of 2¹⁸⁰: float32 holds products of pairs, but not products of two of those."""
    layers = [nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)]
    for layer, size in zip(layers, (2.0**28, 2.0**-20, 2.0**30), strict=True):
        layer.weight.data = torch.full(layer.weight.shape, size)
    stack = Stack.of(nn.Sequential(*[x for each in layers for x in (each, nn.ReLU())][:-1]))
    assert stack is not None
    batch = Batch(torch.full((21, 3), 2.0**30), torch.full((21, 2), 0.5), (Group(3, 7),))
    with torch.no_grad():
        found = StackSums(stack, LOGISTIC, 7.0).units(batch, 0.7)
    assert 6.5 * UNITS < float(found.double().norm()) < 7 * UNITS


def test_lines_of_nobody_for_whom_the_network_overflows_spoil_nothing():
    layers = [nn.Linear(2, 2), *(nn.Linear(2, 2, bias=False) for _ in range(3)), nn.Linear(2, 2)]
    layers[0].weight.data = -torch.ones(2, 2)  # nothing comes of lines of 1, much of those of 0
    layers[0].bias.data = torch.ones(2)
    for layer in layers[1:-1]:
        layer.weight.data = torch.full((2, 2), 1e15)
    stack = Stack.of(nn.Sequential(*[x for each in layers for x in (each, nn.ReLU())][:-1]))
    assert stack is not None
    batch = Batch(torch.ones(15, 2), torch.zeros(15, 2), (Group(3, 5),))
    with torch.no_grad():
        found = StackSums(stack, LOGISTIC, 5.0).units(batch, 0.7)
    assert 4.8 * UNITS < float(found.double().norm()) < 5 * UNITS


def _laid_out(groups: list[tuple[int, int]], sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Whose rows are where, by what `filled` says: (row of the batch, line), in all blocks."""
    some = [Group(*group) for group in groups]
    counts = [counts_for(sizes, group.rows) for group in some]
    found: list[tuple[int, int]] = []
    held, before = 0, 0
    for size, parts in filled(some, sizes, counts):
        assert size in sizes
        assert parts[0].first == 0
        for part, after in itertools.pairwise([*parts, None]):
            assert part is not None
            assert part.tried in counts[part.group]
            assert part.tried >= part.recipients
            assert part.start % START == 0
            assert part.lines_tried.stop <= size
            if after is not None:
                assert after.start >= part.lines_there.stop
                assert after.first == part.first + part.recipients
            lines = range(part.lines_there.start, part.lines_there.stop)
            rows = range(part.rows_taken.start, part.rows_taken.stop)
            found += [(row, before + line) for row, line in zip(rows, lines, strict=True)]
            held += part.rows * part.recipients
        empty = sum(gap.stop - gap.start for gap in gaps(parts, size))
        assert empty == size - sum(part.rows * part.recipients for part in parts)
        before += size
    return found


@given(
    st.lists(st.integers(1, 900), min_size=15, max_size=15),
    st.sets(st.integers(2, MOST_ROWS), min_size=1),
    st.integers(1, 5_000),
)
def test_blocks_hold_each_row_of_each_recipient_once(many, numbers, widest):
    groups = list(zip(sorted(numbers), many, strict=False))
    found = _laid_out(groups, block_sizes(widest))
    assert [row for row, _ in found] == list(range(sum(k * count for k, count in groups)))
    assert [line for _, line in found] == sorted({line for _, line in found})
