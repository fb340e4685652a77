"""Clipped sums of recipients with several rows each, from steady passes.

As `abfed.learning.steady_sums`: what a recipient adds is a sum of exact products of float32
vectors, no longer than their share of the clip, which follows from the parameters and their own
rows alone. In a block stand the first rows of its recipients, then their second rows, and so on;
or, where `adjacent`, each recipient's rows next to each other.

1. The norm is of a recipient's *summed* gradient: its square is Σ_jj' (g_j·g_j')(a_j·a_j') over
   pairs of their k rows, with inputs a (and 1 for the bias) and signals g (Li et al. 2022). A block
   times itself, turned by d places of k, has all pairs of rows that lie d apart, for all of its
   recipients; k/2 turns have them all. With one output the sum Σ_j g_j a_j is made instead. Rows
   next to each other are multiplied by pairs, a small matrix product for each recipient.
2. L = Σ_j ‖g_j‖‖a_j‖ is at least the norm, and more where rows cancel each other. What float32
   loses is a share of L, whatever the order of its sums: (m + n and a few) 2⁻²⁴ L² of a layer's
   square, m and n the layer's inputs and outputs; (k + 2) 2⁻²⁴ L of a sum that is made; 2⁻²⁴ L
   where rows are multiplied by their factor. So much is added to the norm.
3. No factor is so large that L counts more than `longest` clips: what adding loses is a share of L
   (`abfed.learning.bounded`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from abfed.learning.bookkeeping import ROUNDED_UP, Group
from abfed.learning.bounded import LEAST_TERMS, MOST_LOST, SINGLE, Sums
from abfed.learning.losses import Loss
from abfed.learning.stacks import Linear, Stack
from abfed.learning.steady import Scratch, are_steady_pairs, blocks, pair_products
from abfed.learning.steady_passes import Plain, SteadyPasses
from abfed.learning.steady_sums import (
    Way,
    add_weighted,
    added,
    at_least,
    factor,
    silenced,
    squared_lengths,
)

MOST_ROWS = 16
"""Of a recipient here: with more, pairs cost more than the exact path does."""

ADJACENT = 12  # rows of a recipient, from which small products are quicker than turns


def longest(rows: int, most: float) -> float:
    """Of a recipient's L, in clips, at most; √k of the norm is what k unlike rows have.

    Less than four times as much, but no less than twice, where sums can be in float32 by that.

    Args:
        rows: of each recipient.
        most: recipients, as everybody knows it.
    """
    if rows == 1:
        return 1.0
    length = 4.0 * math.sqrt(rows)
    least = LEAST_TERMS + 0.01
    fitting = MOST_LOST / (2.0 * least * SINGLE * most)
    return fitting if length / 2.0 <= fitting < length else length


def add_steady_group(
    sums: Sums,
    passes: SteadyPasses,
    lines: Tensor,
    labels: Tensor,
    group: Group,
    clip: float,
    loss: Loss,
    way: Way,
) -> None:
    """Add the clipped gradients of recipients with equally many rows.

    Args:
        sums: added to. Sensitive.
        passes: of the network as it is now.
        lines: `(rows, inputs)`, each recipient's next to each other. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
        group: whose the rows are; at most `MOST_ROWS` each.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.
        way: how.
    """
    terms, start = way.rounding.terms_for(group.recipients), 0
    while start < group.recipients:
        left = group.recipients - start
        size = next(blocks(left * group.rows, way.sizes))
        here = Group(group.rows, min(left, size // group.rows))
        rows = slice(start * group.rows, (start + here.recipients) * group.rows)
        theirs = lines[rows], labels[rows]
        if not way.adjacent:
            theirs = _turned(theirs[0], here), _turned(theirs[1], here)
        kept = passes.kept(*theirs, size, loss)
        sums.make_room(size)
        add_weighted(sums, *_weighted(kept, here, clip, way, passes.scratch), terms)
        start += here.recipients


def are_adjacent(stack: Stack, sizes: Sequence[int], rows: int) -> bool:
    """Whether a recipient's rows are to stand next to each other in blocks of these sizes.

    Args:
        stack: the network.
        sizes: of the blocks.
        rows: of each recipient.
    """
    shapes = [
        (layer.weight.shape[0], layer.weight.shape[1] + (layer.bias is not None))
        for layer in stack.layers
        if isinstance(layer, Linear) and layer.trained
    ]
    if rows < ADJACENT or all(outputs == 1 for outputs, _ in shapes):
        return False
    threads = torch.get_num_threads()
    return all(
        are_steady_pairs(numbers, size, rows, threads)
        for shape in shapes
        for numbers in shape
        for size in sizes
        if size >= rows
    )


def _turned(values: Tensor, group: Group) -> Tensor:
    """All first rows, then all second rows, and so on."""
    turned: Tensor = values.unflatten(0, (group.recipients, group.rows)).transpose(0, 1)
    return turned.flatten(0, 1)


def _weighted(
    kept: list[Plain], group: Group, clip: float, way: Way, scratch: Scratch
) -> tuple[list[Plain], Tensor]:
    """A block without those who aren't finite, and its columns' factors."""
    squares = squared_lengths(kept, scratch)
    lengths = squares.sqrt().mul_(ROUNDED_UP)
    squared = torch.zeros(group.recipients, dtype=torch.float64)
    whole = torch.zeros_like(squared)
    for place, one in enumerate(kept):
        length = added(_by_row(lengths[place], group, way))
        whole.addcmul_(length, length)
        if way.adjacent:
            squared.add_(_all_pairs(one, group, length, scratch).clamp_(0.0))
        elif len(one.signals) == 1:
            squared.add_(_made(one, group, length, way, scratch))
        else:
            pairs = _pairs(one, group, length, way, scratch)
            squared.add_(pairs.add_(added(_by_row(squares[place], group, way))).clamp_(0.0))
    length = whole.sqrt_().mul_(ROUNDED_UP)
    norms = squared.sqrt_().add_(length * (2.0 * SINGLE)).mul_(ROUNDED_UP)
    bound = way.rounding.share * clip
    factors = torch.minimum(bound / norms.clamp(min=bound), way.longest * bound / length)
    alive = torch.isfinite(norms)
    columns = torch.zeros(lengths.shape[1], dtype=torch.float64)
    factors = torch.where(alive, factors, 0.0).mul_(factor(clip))
    _by_row(columns, group, way).copy_(factors.expand(group.rows, -1))
    if not bool(alive.all()):
        sound = torch.ones(len(columns), dtype=torch.bool)
        _by_row(sound, group, way).copy_(alive.expand(group.rows, -1))
        kept = silenced(kept, sound)
    return kept, columns


def _made(one: Plain, group: Group, length: Tensor, way: Way, scratch: Scratch) -> Tensor:
    """The square of at least ‖Σ_j g_j a_j‖, where signals are one number, `(recipients,)`."""
    size = min(each for each in way.sizes if each >= group.recipients)
    made = scratch.take("made", len(one.inputs), size)
    made[:, group.recipients :] = 0.0
    room = scratch.take("squares", len(one.inputs), size)
    ours, more = made[:, : group.recipients], room[:, : group.recipients]
    for row in range(group.rows):
        columns = slice(row * group.recipients, (row + 1) * group.recipients)
        torch.mul(one.inputs[:, columns], one.signals[:, columns], out=more if row else ours)
        if row:
            ours.add_(more)
    norms = at_least([made], scratch)[0, : group.recipients].sqrt_()
    return norms.add_(length * ((1.05 * group.rows + 2.0) * SINGLE)).square_()


def _pairs(one: Plain, group: Group, length: Tensor, way: Way, scratch: Scratch) -> Tensor:
    """Σ (g_j·g_j')(a_j·a_j') over pairs of different rows of each recipient, `(recipients,)`.

    And what float32 may have lost of it, and of the squares.
    """
    total = _lost(one, length)
    for turn in range(1, group.rows // 2 + 1):
        inner = _by_row(_products(one.inputs, group, turn, scratch), group, way).double()
        outer = _by_row(_products(one.signals, group, turn, scratch), group, way).double()
        twice = 1.0 if 2 * turn == group.rows else 2.0  # half a turn meets each pair twice itself
        total.add_(added(inner.mul_(outer)).mul_(twice))
    return total


def _products(values: Tensor, group: Group, turn: int, scratch: Scratch) -> Tensor:
    """Each column times the one `turn` rows of its recipient later, summed, `(columns,)` float32.

    The sum is made over the whole block: that is the operation that was tried.
    """
    filled, shift = group.rows * group.recipients, turn * group.recipients
    room = scratch.take("squares", *values.shape)
    torch.mul(values[:, : filled - shift], values[:, shift:filled], out=room[:, : filled - shift])
    torch.mul(
        values[:, filled - shift : filled], values[:, :shift], out=room[:, filled - shift : filled]
    )
    room[:, filled:] = 0.0
    return room.sum(0, keepdim=True)[0]


def _all_pairs(one: Plain, group: Group, length: Tensor, scratch: Scratch) -> Tensor:
    """The same over all pairs, rows with themselves too, where rows stand next to each other."""
    found = []
    for name, side in (("inner", one.inputs), ("outer", one.signals)):
        room = scratch.take("pairs", group.rows, side.shape[1])
        pairs = pair_products(side, group.rows, room)[: group.recipients].flatten(1)
        found.append(scratch.doubled(name, pairs))
    products = found[0].mul_(found[1])
    left = group.rows**2
    while left > 1:  # number by number: one half and the other
        half = (left + 1) // 2
        products[:, : left - half].add_(products[:, half:left])
        left = half
    return _lost(one, length).add_(products[:, 0])


def _lost(one: Plain, length: Tensor) -> Tensor:
    """What float32 may lose of a layer's square."""
    numbers = len(one.inputs) + len(one.signals)
    return length * length * ((1.05 * numbers + 32.0) * SINGLE)


def _by_row(values: Tensor, group: Group, way: Way) -> Tensor:
    """A view of a block's columns by row and recipient, `(rows, recipients)`."""
    filled = values[: group.rows * group.recipients]
    if way.adjacent:
        return filled.view(group.recipients, group.rows).t()
    return filled.view(group.rows, group.recipients)
