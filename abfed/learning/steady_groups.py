"""Clipped sums of recipients with several rows each, from steady passes.

As `abfed.learning.steady_sums`: a recipient adds whole multiples of 2⁻⁴⁰ of the clip, of norm at
most 2⁴⁰, that follow from the parameters and their own rows alone. In a block stand the first rows
of its recipients, then their second rows, and so on.

1. The norm is of a recipient's *summed* gradient: its square is Σ_jj' (g_j·g_j')(a_j·a_j') over
   pairs of their k rows, with inputs a (1 for the bias) and signals g (Li et al. 2022). A block
   times itself, turned by d places of k, has all pairs of rows that lie d apart, for all of its
   recipients; k/2 turns have them all. With one output the sum Σ_j g_j a_j is made instead.
2. L = Σ_j ‖g_j‖‖a_j‖ is at least the norm, and more where rows cancel each other. What float32
   loses is a share of L, whatever the order of its sums: (m + n and a few) 2⁻²⁴ L² of a layer's
   square, m and n the layer's inputs and outputs; (k + 2) 2⁻²⁴ L of a sum that is made. So much
   is added.
3. Inputs are rounded to 2⁻²⁰ of a power of two above ‖a_j‖, which moves the sum by at most
   √(m+1) 2⁻²⁰ L; scaling in float32 by 2⁻²² L. So much is added to the norm, and what rounding
   the k weighted signals may add is taken off the bound.
4. No factor is so large that L counts more than `LONGEST` clips: then each sum of products stays
   below 2⁵³, and is exact, for as many recipients as `steady_sums.Sums` has room for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from abfed.learning.bookkeeping import ROUNDED_UP, Group
from abfed.learning.fixedpoint import powers_above
from abfed.learning.losses import Loss
from abfed.learning.shapes import UNIT_BITS
from abfed.learning.stacks import Stack
from abfed.learning.steady import LARGEST, Scratch, blocks
from abfed.learning.steady_passes import Plain, SteadyPasses
from abfed.learning.steady_sums import (
    INPUT_BITS,
    Sums,
    add_products,
    at_least,
    bound_of,
    input_norms,
    silenced,
)

MOST_ROWS = 16
"""Of a recipient here: with more, pairs cost more than the exact path does."""

LONGEST = 7.5
"""Clips of a recipient's L, at most; with what rounding adds it stays below `_ROOM`."""

_ROOM = 8
_UNIT = 2.0**-24  # of float32: half a rounding


def steady_group_units(
    stack: Stack,
    sizes: Sequence[int],
    lines: Tensor,
    labels: Tensor,
    group: Group,
    clip: float,
    loss: Loss,
    scratch: Scratch,
) -> Tensor:
    """The sum of clipped gradients of recipients with equally many rows, in one vector.

    Args:
        stack: the network.
        sizes: of blocks for which it is steady (`steady_passes.sizes_for`).
        lines: `(rows, inputs)`, each recipient's next to each other. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
        group: whose the rows are; at most `MOST_ROWS` each.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.
        scratch: to work in.

    Returns:
        `(stack.size,)` int64, in 2⁻⁴⁰ of the clip. Sensitive: noise must be added.
    """
    total = torch.zeros(stack.size, dtype=torch.int64)
    if len(lines) == 0 or not stack.is_finite():
        return total
    passes, sums, start = SteadyPasses(stack, scratch), Sums(total), 0
    while start < group.recipients:
        left = min(group.recipients - start, LARGEST // _ROOM)
        size = next(blocks(left * group.rows, sizes))
        here = Group(group.rows, min(left, size // group.rows))
        rows = slice(start * group.rows, (start + here.recipients) * group.rows)
        kept = passes.kept(_turned(lines[rows], here), _turned(labels[rows], here), size, loss)
        sums.make_room(_ROOM * here.recipients)
        _add_block(sums.recent, kept, here, clip, sizes, scratch)
        start += here.recipients
    sums.make_room(LARGEST)
    return total


def _turned(values: Tensor, group: Group) -> Tensor:
    """All first rows, then all second rows, and so on."""
    turned: Tensor = values.unflatten(0, (group.recipients, group.rows)).transpose(0, 1)
    return turned.flatten(0, 1)


def _add_block(
    recent: Tensor,
    kept: list[Plain],
    group: Group,
    clip: float,
    sizes: Sequence[int],
    scratch: Scratch,
) -> None:
    """Add the clipped gradients of a block's recipients."""
    bound = clip * bound_of(kept, group.rows)
    if bound <= 0:
        return
    inner, outer = input_norms(kept, scratch), at_least([one.signals for one in kept], scratch)
    squared = torch.zeros(group.recipients, dtype=torch.float64)
    lost, longest = torch.zeros_like(squared), torch.zeros_like(squared)
    for place, one in enumerate(kept):
        each = _by_row(inner[place] * outer[place], group)
        length = _added(each).mul_(ROUNDED_UP)
        if len(one.signals) == 1:
            squared.add_(_made(one, group, length, sizes, scratch))
        else:
            squared.add_(_added(each * each).add_(_pairs(one, group, length, scratch)).clamp_(0.0))
        lost.add_(length * ((math.sqrt(len(one.inputs) + 1) + 1.0) * 2.0**-INPUT_BITS))
        longest = torch.maximum(longest, length)
    norms = squared.sqrt_().add_(lost).mul_(ROUNDED_UP)
    factors = torch.minimum(bound / norms.clamp(min=bound), LONGEST * clip / longest)
    alive = torch.isfinite(norms)
    columns = torch.zeros(inner.shape[1], dtype=torch.float64)
    factors = torch.where(alive, factors, 0.0).mul_(2.0 ** (UNIT_BITS - INPUT_BITS) / clip)
    _by_row(columns, group).copy_(factors.expand(group.rows, -1))
    if not bool(alive.all()):
        sound = torch.ones(len(columns), dtype=torch.bool)
        _by_row(sound, group).copy_(alive.expand(group.rows, -1))
        kept = silenced(kept, sound)
    add_products(recent, kept, powers_above(inner), columns, scratch)


def _made(
    one: Plain, group: Group, length: Tensor, sizes: Sequence[int], scratch: Scratch
) -> Tensor:
    """The square of at least ‖Σ_j g_j a_j‖, where signals are one number, `(recipients,)`."""
    size = min(each for each in sizes if each >= group.recipients)
    made = scratch.take("made", len(one.inputs), size)
    made[:, group.recipients :] = 0.0
    room = scratch.take("squares", len(one.inputs), size)
    ours, more = made[:, : group.recipients], room[:, : group.recipients]
    for row in range(group.rows):
        columns = slice(row * group.recipients, (row + 1) * group.recipients)
        torch.mul(one.inputs[:, columns], one.signals[:, columns], out=more if row else ours)
        if row:
            ours.add_(more)
    norms = at_least([made], scratch)[0, : group.recipients]
    norms.add_(length * ((1.05 * group.rows + 2.0) * _UNIT))
    if one.layer.bias is None:
        return norms.square_()
    return norms.square_().add_(_added(_by_row(one.signals[0], group).double()).square_())


def _pairs(one: Plain, group: Group, length: Tensor, scratch: Scratch) -> Tensor:
    """Σ (g_j·g_j')(a_j·a_j') over pairs of different rows of each recipient, `(recipients,)`.

    And what float32 may have lost of it, and of the squares.
    """
    biased = float(one.layer.bias is not None)
    numbers = len(one.inputs) + len(one.signals)
    total = length * length * ((1.05 * numbers + 32.0) * _UNIT)
    for turn in range(1, group.rows // 2 + 1):
        inner = _by_row(_products(one.inputs, group, turn, scratch), group).double().add_(biased)
        outer = _by_row(_products(one.signals, group, turn, scratch), group).double()
        twice = 1.0 if 2 * turn == group.rows else 2.0  # half a turn meets each pair twice itself
        total.add_(_added(inner.mul_(outer)).mul_(twice))
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


def _by_row(values: Tensor, group: Group) -> Tensor:
    """A view of a block's columns by row and recipient, `(rows, recipients)`."""
    return values[: group.rows * group.recipients].view(group.rows, group.recipients)


def _added(parts: Tensor) -> Tensor:
    """The sum of lines, one after another: each number for itself, in the same order."""
    total = parts[0].clone()
    for each in parts[1:]:
        total.add_(each)
    return total
