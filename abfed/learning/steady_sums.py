"""Clipped sums from steady passes: float32 for the passes, whole numbers for the sum.

The sum is the same kind as `abfed.learning.bookkeeping`'s: a recipient adds whole multiples of 2⁻⁴⁰
of the clip that follow from the parameters and their own row alone, of norm at most 2⁴⁰; they are
added without rounding. It is made in fewer steps, for recipients who have one row:

1. a layer's gradient is the outer product of signal g and input a (with 1 for the bias). Its norm
   is ‖g‖‖a‖, each rounded up by more than float32's sum can lose, in whatever order it adds;
2. a becomes ã, whole numbers in units of 2⁻²⁰ of a power of two p above ‖a‖: ‖ã‖ is at most
   2²⁰‖a‖/p + ½√m, m its numbers. That is taken for the norm;
3. g × factor becomes g̃, whole in units for which g̃ × ã counts 2⁻⁴⁰ of the clip. Rounding moves it
   by ½√n at most, n its numbers, and so the product by ½√n (2²⁰ + ½√m), for each layer: taken off
   the bound beforehand;
4. each entry of g̃ × ã is at most 2⁴⁰, so 2¹³ rows are added exactly in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from abfed.learning.bookkeeping import ROUNDED_UP
from abfed.learning.fixedpoint import powers_above
from abfed.learning.losses import Loss
from abfed.learning.shapes import UNIT_BITS
from abfed.learning.stacks import Stack
from abfed.learning.steady import LARGEST, Scratch, blocks, squares
from abfed.learning.steady_passes import Plain, SteadyPasses

INPUT_BITS = 20
"""Of an input: its share of the 40 that its product with a signal has."""

_VANISHED = 2.0**-62  # of float32: what squares of smaller numbers lose, as a number


def steady_units(
    stack: Stack,
    sizes: Sequence[int],
    lines: Tensor,
    labels: Tensor,
    clip: float,
    loss: Loss,
    scratch: Scratch,
) -> Tensor:
    """The sum of clipped gradients of recipients with one row each, in one vector.

    Args:
        stack: the network.
        sizes: of blocks for which it is steady (`steady_passes.sizes_for`).
        lines: `(rows, inputs)`. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
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
    for size in blocks(len(lines), sizes):
        rows = slice(start, start + size)
        kept = passes.kept(lines[rows], labels[rows], size, loss)
        sums.make_room(size)
        _add_block(sums.recent, kept, clip, scratch)
        start = rows.stop
    sums.make_room(LARGEST)
    return total


class Sums:
    """Whole numbers in float64, as long as they stay exact there, before they are added in int64.

    Attributes:
        recent: `(size,)` float64: of at most `LARGEST` clips, each of at most 2⁴⁰.
    """

    __slots__ = ("_clips", "_total", "recent")

    def __init__(self, total: Tensor) -> None:
        self._total = total
        self._clips = 0
        self.recent = torch.zeros(len(total), dtype=torch.float64)

    def make_room(self, clips: int) -> None:
        """Before products are added whose magnitudes sum to at most so many clips."""
        if self._clips and self._clips + clips > LARGEST:
            self._total += self.recent.long()
            self.recent.zero_()
            self._clips = 0
        self._clips += clips


def _add_block(recent: Tensor, kept: list[Plain], clip: float, scratch: Scratch) -> None:
    """Add the clipped gradients of a block's recipients."""
    bound = clip * bound_of(kept)
    if bound <= 0:
        return
    inner = input_norms(kept, scratch)
    powers = powers_above(inner)
    rounded = [[math.sqrt(len(one.inputs) + 1) * 2.0 ** -(INPUT_BITS + 1)] for one in kept]
    whole = inner.div_(powers).add_(torch.tensor(rounded, dtype=torch.float64)).mul_(powers)
    lengths = whole.mul_(at_least([one.signals for one in kept], scratch)).square_()
    total = lengths[0]
    for each in lengths[1:]:
        total = total + each
    norms = total.sqrt().mul_(ROUNDED_UP)
    if not math.isfinite(float(norms.sum())):
        kept = silenced(kept, torch.isfinite(norms))
    factors = (bound * 2.0 ** (UNIT_BITS - INPUT_BITS) / clip) / norms.clamp_(min=bound)
    add_products(recent, kept, powers, factors, scratch)


def silenced(kept: Sequence[Plain], alive: Tensor) -> list[Plain]:
    """What isn't finite would spoil the products: 0 in place of the columns that aren't alive."""
    return [
        one._replace(
            inputs=torch.where(alive, one.inputs, 0.0),
            signals=torch.where(alive, one.signals, 0.0),
        )
        for one in kept
    ]


def add_products(
    recent: Tensor, kept: Sequence[Plain], powers: Tensor, factors: Tensor, scratch: Scratch
) -> None:
    """Add all layers' products of inputs and signals, which are written over.

    Args:
        recent: `(size,)` whole numbers, added to.
        kept: of a block.
        powers: above the columns' inputs, `(layers, columns)`; written over.
        factors: of the columns' signals, in 2⁻²⁰ of the clip, `(columns,)`.
        scratch: to work in.
    """
    scales = _single(2.0**INPUT_BITS / powers)
    weights = _single(powers.mul_(factors))
    for place, one in enumerate(kept):
        _add_product(recent, one, scales[place], weights[place], scratch)


def _add_product(
    recent: Tensor, one: Plain, scales: Tensor, weights: Tensor, scratch: Scratch
) -> None:
    """Add a layer's products, of inputs and signals as whole numbers, which are written over."""
    whole = scratch.doubled("inputs", one.inputs.mul_(scales).round_())
    weighted = scratch.doubled("signals", one.signals.mul_(weights).round_())
    shape, start = one.layer.weight.shape, one.layer.start
    stop = start + shape.numel()
    recent[start:stop].view(shape).addmm_(weighted, whole.t())
    if one.layer.bias is not None:
        recent[stop : stop + shape[0]].addmv_(weighted, scales.double().round_())


def _single(numbers: Tensor) -> Tensor:
    """In float32; 0 for whoever adds nothing."""
    return numbers.float().nan_to_num_(0.0, 0.0, 0.0)


def input_norms(kept: Sequence[Plain], scratch: Scratch) -> Tensor:
    """Norms of columns of inputs, with the bias's 1: `(layers, columns)`, never too small."""
    biased = torch.tensor(
        [[float(one.layer.bias is not None)] for one in kept], dtype=torch.float64
    )
    norms = at_least([one.inputs for one in kept], scratch).square_().add_(biased).sqrt_()
    return norms.mul_(ROUNDED_UP)


def at_least(layers: Sequence[Tensor], scratch: Scratch) -> Tensor:
    """Norms of columns, `(layers, rows)` float64, and more than float32 can have lost.

    That is half a rounding for each square and addition, and what squares of small numbers lose
    altogether. Some more is for the roundings of what is multiplied with it later.
    """
    norms = (
        torch.cat([squares(x, scratch.take("squares", *x.shape)) for x in layers]).double().sqrt_()
    )
    more = [[1.0 + (0.51 * len(values) + 8) * 2.0**-24] for values in layers]
    lost = [[math.sqrt(len(values)) * _VANISHED] for values in layers]
    norms.mul_(torch.tensor(more, dtype=torch.float64))
    return norms.add_(torch.tensor(lost, dtype=torch.float64))


def bound_of(kept: Sequence[Plain], rows: int = 1) -> float:
    """The clip, in clips, without what rounding a recipient's weighted signals may add to a norm.

    Args:
        kept: of a block.
        rows: that each recipient has.
    """
    lost = 0.0
    for one in kept:
        inputs = 2.0**INPUT_BITS + 0.5 * math.sqrt(len(one.inputs) + 1)
        lost += 0.5 * math.sqrt(len(one.signals)) * inputs
    return 1.0 - rows * lost * 2.0**-UNIT_BITS
