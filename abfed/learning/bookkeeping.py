"""Book-keeping clipping: the clipped sum from one pass forward and one back (Bu et al. 2023).

No recipient's gradient is made where its norm can be had without it:

1. One row: a linear layer's gradient is the outer product of signal g and input a, its norm
   ‖g‖‖a‖ (Goodfellow 2015); the bias belongs to an input of 1.
2. Many rows: the norm is of the recipient's *summed* gradient. Either it is the root of
   Σ_jj' (g_j·g_j')(a_j·a_j') over pairs of their rows (Li et al. 2022), or the sum itself is made,
   where that is less work.
3. An embedding is a linear layer without bias whose inputs are one-hot: a_j·a_j' is 1 where codes
   agree.
4. With the norms each layer's sum is one product of inputs and signals weighted by the factors.

Why adding or removing one recipient moves the sum by at most `clip`, exactly (decision 0060): all
of it is fixed point. A recipient adds a vector of whole multiples of 2⁻⁴⁰ of the clip that follows
from the parameters and their own rows alone; its norm is at most 2⁴⁰, as what rounding their
weighted signals may add is taken off the bound first (`_bound`) and norms are rounded up; and whole
numbers are added without rounding, in whatever order. A recipient whose values or norm aren't
finite adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from abfed.learning.fixedpoint import (
    ALONE,
    BITS,
    CACHED,
    EXACT,
    PIECE,
    largest,
    powers_above,
)
from abfed.learning.losses import Loss
from abfed.learning.passes import Kept, Passes
from abfed.learning.shapes import UNIT_BITS
from abfed.learning.stacks import Linear, Stack

ROUNDED_UP = 1 + 2.0**-40
"""More than the few dozen roundings of a norm and its factor can take away."""

WEIGHTED = EXACT - BITS - (PIECE - 1).bit_length()
"""Bits of a weighted signal: a piece's products with inputs stay exact."""


class Group(NamedTuple):
    """Recipients next to each other who own equally many rows each.

    Attributes:
        rows: of each recipient; at least 1.
        recipients: how many. Sensitive.
    """

    rows: int
    recipients: int


def book_keeping_units(
    stack: Stack, lines: Tensor, labels: Tensor, groups: Sequence[Group], clip: float, loss: Loss
) -> Tensor:
    """The sum of recipients' clipped gradients, over all trained parameters in one vector.

    Args:
        stack: the network.
        lines: `(rows, inputs)`. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
        groups: whose the rows are, in their order; together all of them.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.

    Returns:
        `(stack.size,)` int64, in 2⁻⁴⁰ of the clip. Sensitive: noise must be added.
    """
    total = torch.zeros(stack.size, dtype=torch.int64)
    passes = Passes(stack)
    if len(lines) == 0 or not passes.finite:
        return total
    start = 0
    for group in groups:
        for piece in _pieces(group, stack.widest):
            rows = slice(start, start + piece.rows * piece.recipients)
            kept, alive = passes.kept(lines[rows], labels[rows], piece.recipients, loss)
            add_kept(total, kept, alive, piece, clip)
            start = rows.stop
    return total


def _pieces(group: Group, widest: int) -> list[Group]:
    """A group in pieces that stay in the cache; no recipient's rows are parted.

    One row each: no entry of a recipient's gradient exceeds its norm, 2⁴⁰, so that 2¹² of them stay
    below 2⁵³. More rows each: `WEIGHTED` bounds every row. Wide layers take fewer rows at a time:
    that changes no sum, and with 256 units half as much again is done in the same time.
    """
    most = min(ALONE, max(PIECE >> 1, CACHED // widest)) if group.rows == 1 else PIECE // group.rows
    most = max(1, most)
    full, rest = divmod(group.recipients, most)
    return [Group(group.rows, most)] * full + ([Group(group.rows, rest)] if rest else [])


def add_kept(total: Tensor, kept: list[Kept], alive: Tensor, group: Group, clip: float) -> None:
    """Add a piece's clipped gradients to the sum."""
    squares = _squares(kept[0], group)
    for one in kept[1:]:
        squares = squares + _squares(one, group)
    norms = squares.sqrt() * ROUNDED_UP
    bound = clip * _bound(len(total), group.rows)
    factors = bound / norms.clamp(min=bound) if bound > 0 else torch.zeros_like(norms)
    alive = alive & torch.isfinite(norms)
    if not bool(alive.all()):
        _silence(kept, ~alive)
    for one in kept:  # rows that cancel each other may be longer than their sum: not without end
        factors = torch.minimum(factors, _most(one, group, clip))
    factors = torch.where(alive, factors, 0.0)
    for one in kept:
        weights = factors * one.scale * (2.0**UNIT_BITS / clip)
        weights = torch.where(torch.isfinite(weights), weights, 0.0)
        _add_product(total, one, weights)


def _silence(kept: list[Kept], recipients: Tensor) -> None:
    """What isn't finite would spoil the products: 0 in its place."""
    for one in kept:
        one.signals.view(len(recipients), -1)[recipients] = 0.0
        if isinstance(one.layer, Linear):
            one.inputs.view(len(recipients), -1)[recipients] = 0.0


def _bound(size: int, rows: int) -> float:
    """The clip, in clips, without what rounding weighted signals may add to a recipient's norm.

    Each of `rows` rounds each signal by at most ½ and multiplies that by an input of at most 2¹⁸,
    for each of `size` parameters: at most rows × √size × 2¹⁷ units of 2⁻⁴⁰.
    """
    return 1.0 - rows * math.sqrt(size) * 2.0 ** (BITS - 1 - UNIT_BITS)


def _most(one: Kept, group: Group, clip: float) -> Tensor:
    """The factors at which weighted signals still have at most `WEIGHTED` bits.

    A table's are whole units already and have as many bits as a linear layer's products.
    """
    bits = WEIGHTED - max(0, (group.rows - 1).bit_length() - (PIECE - 1).bit_length())
    if not isinstance(one.layer, Linear):
        bits += BITS
    return one.scale.reciprocal() * math.ldexp(clip, bits - BITS - UNIT_BITS)


def _squares(one: Kept, group: Group) -> Tensor:
    """Squared norms of a layer's gradients by recipient, float64, never too small."""
    recipients, rows = group.recipients, group.rows
    if isinstance(one.layer, Linear):
        if rows == 1:
            inner: Tensor = torch.linalg.vector_norm(one.inputs, dim=1)
            outer: Tensor = torch.linalg.vector_norm(one.signals, dim=1)
            return (one.scale * inner * outer).square()
        forward = one.inputs.view(recipients, rows, -1)
        backward = one.signals.view(recipients, rows, -1)
        sides = forward.shape[2], backward.shape[2]
        if rows * sum(sides) > sides[0] * sides[1]:
            return _made(backward.transpose(1, 2) @ forward) * one.scale.square()
        pairs = forward @ forward.transpose(1, 2)
    else:
        codes = one.inputs.reshape(recipients, -1)
        backward = one.signals.view(recipients, codes.shape[1], -1)
        pairs = (codes[:, :, None] == codes[:, None, :]).double()
    return _by_pairs(pairs, backward @ backward.transpose(1, 2)) * one.scale.square()


def _by_pairs(inner: Tensor, outer: Tensor) -> Tensor:
    """Squared norms from products of pairs of rows, in whole numbers.

    The products of pairs are rounded to so many bits that their sum is exact; each is then off by
    less than 1, and as much is added. No product exceeds the largest of a row with itself (Cauchy
    and Schwarz).
    """
    rows = inner.shape[1]
    products = inner * outer
    powers = powers_above(products.diagonal(dim1=1, dim2=2).amax(1) * ROUNDED_UP)
    scale = powers * 2.0 ** (2 * (rows - 1).bit_length() + 1 - EXACT)
    whole = (products / scale[:, None, None]).round_()
    return (whole.sum((1, 2)).clamp(min=0.0) + rows**2) * scale


def _made(gradients: Tensor) -> Tensor:
    """Squared norms of summed gradients, rounded up to so many bits that squares add exactly."""
    flat = gradients.flatten(1)
    bits = (EXACT - (flat.shape[1] - 1).bit_length()) // 2
    scale = powers_above(largest(flat, len(flat))) * 2.0**-bits
    whole = (flat / scale[:, None]).abs_().ceil_()
    return whole.square_().sum(1) * scale.square()


def _add_product(total: Tensor, one: Kept, weights: Tensor) -> None:
    """Signals, weighted by recipient and rounded to whole units, times inputs."""
    signals = (one.signals.view(len(weights), -1) * weights[:, None]).round_()
    shape, start = one.layer.weight.shape, one.layer.start
    stop = start + shape.numel()
    ours = total[start:stop].view(shape)
    if isinstance(one.layer, Linear):
        found = (signals.view_as(one.signals).t() @ one.inputs).long()[:-1]
        ours += found[:, :-1]
        if one.layer.bias is not None:
            total[stop : stop + shape[0]] += found[:, -1]
        return
    ours.index_add_(0, one.inputs.reshape(-1), signals.view(-1, shape[1]).long())
