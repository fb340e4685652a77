"""Sums in floating point: one recipient more moves them by at most the clip, whatever they lose.

What a recipient adds is theirs alone (`test_steady.py`); here is what adding does to it.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from abfed.learning import bounded, gradients
from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import Group, book_keeping_units
from abfed.learning.bounded import (
    LEAST_TERMS,
    MOST_LOST,
    MOST_TERMS,
    SINGLE,
    Lost,
    Rounding,
    Sums,
    add_product,
    is_bounded,
    parts,
    rounding_for,
)
from abfed.learning.gradients import StackSums
from abfed.learning.losses import LOGISTIC
from abfed.learning.networks import one_thread
from abfed.learning.products import ALONE, LINE_ALONE, NARROW, width_alone
from abfed.learning.stacks import Stack
from abfed.learning.steady import Scratch
from abfed.learning.steady_groups import longest, longest_beside
from tests.learning.test_alone import networks

pytestmark = pytest.mark.privacy
UNITS = 1 << 40


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def _length(units: Tensor) -> float:
    """L2 norm in clips; its square is added in whole numbers."""
    return math.sqrt(Fraction(sum(int(each) ** 2 for each in units), UNITS**2))


def _stack(*layers: nn.Module) -> Stack:
    stack = Stack.of(nn.Sequential(*layers))
    assert stack is not None
    return stack


def _numbers(generator: np.random.Generator, shape: tuple[int, int]) -> Tensor:
    """What loses most: numbers that cancel, subnormal ones, huge ones, one that dwarfs the rest."""
    values = generator.normal(size=shape)
    kind = generator.integers(5)
    if kind == 1:
        values = np.sign(values) * 1e6 * (1 + 2.0**-20 * generator.random(shape))
    elif kind == 2:
        values *= 1e-41
    elif kind == 3:
        values *= 10.0 ** generator.integers(-15, 15, shape)
    elif kind == 4:
        values[:, generator.integers(shape[1])] *= 1e12
    return torch.from_numpy(values).float()


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 20), st.integers(1, 700),
    st.sampled_from([LEAST_TERMS, 64, 200]),
)  # fmt: skip
def test_a_sum_is_off_by_no_more_than_its_bound(seed, outputs, inputs, rows, terms):
    generator = np.random.default_rng(seed)
    left, right = _numbers(generator, (rows, inputs)), _numbers(generator, (rows, outputs))
    found = torch.zeros(inputs, outputs, dtype=torch.float64)
    add_product(found, left, right, terms, Scratch())
    line, other = int(generator.integers(inputs)), int(generator.integers(outputs))
    pairs = list(zip(left[:, line].tolist(), right[:, other].tolist(), strict=True))
    exact = sum(Fraction(a) * Fraction(b) for a, b in pairs)
    most = sum(abs(Fraction(a) * Fraction(b)) for a, b in pairs)
    off = abs(Fraction(float(found[line, other])) - exact)
    vanished = rows * Fraction(2) ** -149
    assert off <= most * Fraction(terms * SINGLE / (1 - terms * SINGLE)) + vanished


@settings(deadline=None, max_examples=25)
@given(networks(), st.integers(0, 2**32), st.integers(1, 150), st.integers(1, 4), st.data())
def test_one_recipient_moves_the_sum_by_at_most_the_clip(network, seed, people, rows, data):
    """Also where they make the batch larger than what was expected."""
    generator = np.random.default_rng(seed)
    first = network[0]
    assert isinstance(first, nn.Linear)
    lines = _numbers(generator, (people * rows, first.in_features))
    if data.draw(st.booleans()):
        lines[:] = lines[:1]  # all of one direction
    labels = torch.from_numpy(generator.integers(0, 2, people * rows).astype(np.float32))
    clip = data.draw(st.sampled_from([1e-3, 0.7, 1e4]))
    expected = data.draw(st.sampled_from([math.inf, 3 * people, people / 2 + 1, 3_000.0]))
    gone, stack = int(generator.integers(people)), Stack.of(network)
    assert stack is not None

    def units(chosen: Tensor) -> Tensor:
        theirs = chosen.repeat_interleave(rows)
        batch = Batch(lines[theirs], labels[theirs], (Group(rows, int(chosen.sum())),))
        return StackSums(stack, LOGISTIC, expected).units(batch, clip)

    everybody = torch.ones(people, dtype=torch.bool)
    rest = everybody.clone()
    rest[gone] = False
    with torch.no_grad():
        assert _length(units(everybody) - units(rest)) <= 1


def _moves(count: int) -> list[float]:
    """How far one recipient moves the sum of one number, where it is clipped."""
    stack, generator = _stack(nn.Linear(1, 1, bias=False)), np.random.default_rng(4)
    found = []
    for _ in range(count):
        people = int(generator.integers(1_000, 1_300))
        lines = torch.from_numpy(generator.uniform(0.1, 1.0, (people, 1))).float()
        lines[0] = 1.0

        def units(start: int, lines: Tensor = lines, people: int = people) -> Tensor:
            batch = Batch(lines[start:], torch.ones(people - start), (Group(1, people - start),))
            return StackSums(stack, LOGISTIC, 1_200.0).units(batch, 0.2)

        with torch.no_grad():
            found.append(_length(units(0) - units(1)))
    return found


def test_without_what_is_taken_off_the_clip_it_would_be_moved_by_more(monkeypatch):
    """The bound isn't empty: the same sums of vectors as long as the clip exceed it."""
    kept = rounding_for(_stack(nn.Linear(1, 1, bias=False)), 1_340.0)
    assert kept.terms >= LEAST_TERMS
    assert max(_moves(40)) <= 1
    monkeypatch.setattr(gradients, "rounding_for", lambda *_: kept._replace(share=1.0))
    assert max(_moves(40)) > 1


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_that_is_larger_than_expected_adds_the_same_vectors(rows):
    stack = _stack(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 1))
    generator = np.random.default_rng(6)
    lines = torch.from_numpy(generator.normal(size=(600 * rows, 5))).float()
    labels = torch.from_numpy(generator.integers(0, 2, 600 * rows)).float()
    batch = Batch(lines, labels, (Group(rows, 600),))
    made: list[int] = []

    def units(rounding: Rounding) -> Tensor:
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(gradients, "rounding_for", lambda *_, **__: rounding)
            patch.setattr(bounded, "add_product", lambda *a: made.append(1) or add_product(*a))
            return StackSums(stack, LOGISTIC, 500.0).units(batch, 0.1)

    lost = 64.01 * SINGLE * 600 * 4 * math.sqrt(rows)
    single = units(Rounding(64, 600, 0.97, lost))
    assert made
    made.clear()
    double = units(Rounding(64, 599, 0.97, lost))
    assert not made
    assert _length(single - double) <= lost
    assert _length(double) > 1


@given(
    st.floats(50.0, 1e4), st.floats(2.0, 16.0),
    st.lists(st.tuples(st.integers(1, 400), st.floats(0.0, 1.0)), max_size=30),
)  # fmt: skip
def test_however_long_the_rows_of_each_are_no_more_is_lost_than_was_kept(most, length, blocks):
    rounding = rounding_for(_stack(nn.Linear(3, 2)), most, length)
    recipients = sum(many for many, _ in blocks)
    lost, gone = Lost(rounding, recipients), 0.0
    for many, part in blocks:
        terms = lost.terms(many, many * length * part)
        gone += terms * SINGLE / (1 - terms * SINGLE) * many * length * part
        within = rounding.terms if recipients <= most else 0
        assert terms >= within
        assert bool(terms) == bool(within)
    assert gone <= rounding.lost * (1 + 1e-12)
    assert rounding.share * (1 + 2 * rounding.lost) < 1


def test_more_is_added_in_float32_where_rows_do_not_cancel_each_other(monkeypatch):
    torch.manual_seed(3)  # with the weights of one in twenty, even these rows cancel too little
    stack, generator = _stack(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 1)), np.random.default_rng(3)
    lines = torch.from_numpy(generator.normal(size=(300, 5))).float().repeat_interleave(4, 0)
    rounding = rounding_for(stack, 1_020.0, longest(4, 1_020.0), made=True)
    assert LEAST_TERMS <= rounding.terms < min(rounding.more)
    used: list[int] = []
    monkeypatch.setattr(Sums, "add", lambda *each: used.append(each[2]))
    for labels, terms in (([1.0, 1.0, 1.0, 1.0], max(rounding.more)), ([1.0, 0.0] * 2, 36)):
        batch = Batch(lines, torch.tensor(labels).repeat(300), (Group(4, 300),))
        with torch.no_grad():
            StackSums(stack, LOGISTIC, 900.0).units(batch, 1e-3)
        assert used == [terms, terms]
        used.clear()


@settings(deadline=None)
@given(st.floats(1.0, 1e7), st.floats(1.0, 16.0))
def test_little_of_the_clip_is_taken_and_enough(most, length):
    rounding = rounding_for(_stack(nn.Linear(3, 1)), most, length)
    assert rounding.terms == 0 or rounding.terms >= LEAST_TERMS
    assert rounding.share > 1 - MOST_LOST - 1e-4
    assert rounding.share * (1 + 2 * rounding.terms * SINGLE * most * length) < 1


@pytest.mark.parametrize("expected", [math.inf, bounded.MOST_RECIPIENTS / 2 + 1])
def test_where_nobody_knows_how_many_or_too_many_are_expected_all_is_exact(expected):
    stack = _stack(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    lines = torch.from_numpy(np.random.default_rng(2).normal(size=(90, 3))).float()
    batch = Batch(lines, torch.ones(90), (Group(3, 30),))
    with torch.no_grad():
        found = StackSums(stack, LOGISTIC, expected).units(batch, 0.7)
        assert torch.equal(found, book_keeping_units(stack, *batch[:3], 0.7, LOGISTIC))
        assert not torch.equal(found, StackSums(stack, LOGISTIC, 30.0).units(batch, 0.7))


@given(st.integers(2, 16), st.floats(1.0, 1e6))
def test_rows_may_be_shorter_together_only_for_sums_in_float32(rows, most):
    length = longest(rows, most)
    assert 2 * math.sqrt(rows) <= length <= 4 * math.sqrt(rows) <= bounded.MOST_LENGTH
    if length < 4 * math.sqrt(rows):
        assert rounding_for(_stack(nn.Linear(3, 1)), most, length).terms >= LEAST_TERMS


@given(st.integers(2, 16), st.integers(2, 16), st.floats(1.0, 1e6))
def test_recipients_who_are_added_together_are_held_to_the_share_of_the_longest(one, other, most):
    stack = _stack(nn.Linear(3, 2))
    ours, theirs = (
        rounding_for(stack, most, longest_beside(each, most), made=True) for each in (one, other)
    )
    if ours != theirs:  # then float64 is to add one of them
        assert 0 in (ours.terms, theirs.terms)
        return
    for rows in (one, other):
        length = longest(rows, most)
        assert ours.share * (1 + 2 * ours.terms * SINGLE * most * length) < 1


def test_what_is_made_first_takes_nothing_of_the_clip_for_float32():
    several, most = _stack(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), 1_000.0
    assert rounding_for(_stack(nn.Linear(3, 1)), most, 4.0).terms
    assert rounding_for(several, most, 4.0, made=True).terms
    made = rounding_for(_stack(nn.Linear(3, 1)), most, 8.0, made=True)
    assert made.terms == 0
    assert made.share > 1 - 1e-5


def _shortened(product):
    """Products of numbers that were cut to eight bits, as some libraries may do to save time."""

    def cut(values: np.ndarray) -> np.ndarray:
        return torch.from_numpy(values.copy()).bfloat16().float().numpy()

    return lambda a, b, out: product(cut(a), cut(b), out=out)


def _of_differences(product):
    """Products by sums and differences of rows, as Strassen's are: small rows beside large ones."""

    def operation(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        first = a[..., :1, :]
        out[:] = product(a + first, b) - product(first, b)

    return operation


@pytest.mark.parametrize("another", [_shortened, _of_differences])
def test_products_that_lose_more_than_a_sum_are_found(another, monkeypatch):
    is_bounded.cache_clear()
    stack = _stack(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2))
    assert rounding_for(stack, 100.0).terms
    is_bounded.cache_clear()
    monkeypatch.setattr(bounded, "has_small_kernels", lambda: True)
    monkeypatch.setattr(np, "matmul", another(np.matmul))
    assert rounding_for(stack, 100.0).terms == 0
    is_bounded.cache_clear()


@given(st.integers(1, 3_000), st.integers(1, 3_000), st.integers(LEAST_TERMS, MOST_TERMS))
def test_a_sum_has_no_more_terms_than_it_may_and_stays_on_its_thread(inputs, outputs, terms):
    on_top, rows, beside = parts(inputs, outputs, terms)
    assert on_top - 1 + rows <= terms
    assert on_top * rows >= 32  # so that few are added in float64
    assert beside % on_top == 0
    width, most = width_alone(rows * inputs, outputs), ALONE if outputs > 1 else LINE_ALONE
    widths = {outputs} | {each for each in range(NARROW, outputs) if outputs % each == 0}
    assert width == max((each for each in widths if rows * inputs * each <= most), default=0)


@pytest.mark.parametrize(("inputs", "outputs"), [(40, 37), (300, 131), (1_200, 1), (300, 160)])
def test_wide_sums_are_within_the_bound_too(inputs, outputs):
    """Some by torch, some by numpy in pieces of a line."""
    generator = np.random.default_rng(3)
    left, right = _numbers(generator, (700, inputs)), _numbers(generator, (700, outputs))
    found = torch.zeros(inputs, outputs, dtype=torch.float64)
    add_product(found, left, right, 64, Scratch())
    off = (found - left.double().t() @ right.double()).abs()
    most = left.double().abs().t() @ right.double().abs()
    assert bool((off <= most * (64.1 * SINGLE) + 700 * 2.0**-149).all())


def test_the_same_batch_gives_the_same_sum():
    stack = _stack(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 1))
    lines = torch.from_numpy(np.random.default_rng(1).normal(size=(900, 20))).float()
    batch = Batch(lines, torch.ones(900), (Group(1, 900),))
    with torch.no_grad():
        found = [StackSums(stack, LOGISTIC, 900.0).units(batch, 0.7) for _ in range(3)]
    assert all(torch.equal(found[0], each) for each in found)
