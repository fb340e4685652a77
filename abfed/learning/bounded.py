"""Sums of products in floating point, whose rounding is bounded in whatever order they are made.

A sum of p products of float32 numbers is off by at most γ = p u / (1 - p u) of the sum of their
magnitudes, u = 2⁻²⁴, whichever are added first, with fused operations or without (Higham 2002,
section 3.1). So for recipients who add vectors no longer than C' each, B of them:

1. The products of a few rows at a time are added in float32, as one matrix product, and a few of
   those onto each other; all else is added in float64. The whole is off by at most γ B C' in L2,
   where p counts the rows and one for each product that comes on top (`Rounding.terms`).
2. The sums of two batches that differ in one recipient are at most C' (1 + 2 γ B) apart. So each
   vector is held to C' = C / (1 + 2 γ B), with the most B that is expected, as *everybody* knows
   it; p follows from it, so that `MOST_LOST` of the clip is gone at most.
3. Where vectors are made of several rows, what is lost counts by the rows' lengths. Those add up to
   less than they might, mostly: then more terms are added in float32, and lose no more (`Lost`).
4. A batch that is larger, or one for which p would be small, is added in float64: the same vectors,
   off by less. So it doesn't matter for the bound which of two neighbours is the larger one.
5. What float64 loses, and rounding to whole units, is counted for `MOST_RECIPIENTS` of a batch.

That the product of a machine's library is such a sum is tried first (`is_bounded`): numbers that
were shortened on the way, or sums and differences of rows, exceed the bound.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from abfed.learning.design_matrix import Integers
from abfed.learning.products import LINE_ALONE, has_small_kernels, width_alone, wild
from abfed.learning.shapes import UNIT_BITS
from abfed.learning.stacks import Linear, Stack
from abfed.learning.steady import LARGEST, Scratch
from abfed.learning.steady_passes import Plain

Singles = npt.NDArray[np.float32]

MOST_LOST = 1 / 30
"""Of the clip, at most, so that sums may be made in float32."""

MOST_RECIPIENTS = 1 << 22
"""Of a batch, for whom there is room in what float64 may lose; half are expected at most."""

MOST_OF_ALL = MOST_RECIPIENTS << 4
"""Of a batch: rows of recipients who have at most 16 each."""

CLIP_BITS = 20
"""A clip is 2²⁰ while products are added: far from the ends of float32."""

SINGLE = 2.0**-24  # half a rounding of float32
DOUBLE = 2.0**-53  # of float64
ROUNDED = 2.0**-30  # more than adding up lengths in float64 gains
AT_ONCE = 1 << 8  # rows of a product in float64, and such products; or of float32, added there
MOST_LENGTH = 16.0  # of the rows of a recipient with 16
ON_TOP = 8  # products that are added to each other in float32, at most
FEW = 1 << 9  # numbers of a product: with fewer, all are added in float64, as quickly
FEW_TERMS, FEW_ON_TOP = 56, 4  # with fewer terms, fewer are left for that
HELD = 1 << 17  # numbers of products that are made at a time, about: 512 KiB
MOST_TERMS = 200  # more would be divided, on the way, into parts that are added one by one
MORE_TERMS = 136, 104  # where that loses no more than fewer would have
LEAST_TERMS = 36  # with fewer, float64 is as quick
_TRIED = 3  # products
_UNLIKE = 20  # powers of two: lines of such sizes must not be mixed on the way
_SEED = 20_261_126  # of numbers that are made up


class Rounding(NamedTuple):
    """How recipients' vectors are added, and what that takes of the clip.

    Attributes:
        terms: numbers that are added in float32, at most; 0 if all are added in float64.
        most: recipients for whom float32 will do; more of them are added in float64.
        share: of the clip, to which a vector is held.
        lost: of that share, by all that is added in float32, at most.
        more: terms that were tried, too, the most first; all are more than `terms`.
    """

    terms: int
    most: float
    share: float
    lost: float = 0.0
    more: tuple[int, ...] = ()

    def terms_for(self, recipients: int) -> int:
        """The same for so many recipients as there are: 0 if they are more than expected."""
        return self.terms if recipients <= self.most else 0


class Lost:
    """What float32 loses of a batch's vectors, added block by block.

    Of a batch of `most` recipients, each as long as they may be, it is `rounding.lost` with
    `rounding.terms`. Each block may lose its part of that, and what those before it left.

    Args:
        rounding: how they are added.
        recipients: of the batch.
    """

    __slots__ = ("_left", "_rounding", "_terms")

    def __init__(self, rounding: Rounding, recipients: int) -> None:
        self._rounding = rounding
        fewest = rounding.terms_for(recipients)
        self._terms = (*rounding.more, fewest) if fewest else ()
        self._left = 0.0

    def terms(self, recipients: int, length: float) -> int:
        """How many terms of the next vectors are added in float32, at most; 0 for float64.

        Args:
            recipients: whose they are; fewer by so many are still to come.
            length: of the rows of each, in shares, added up.
        """
        self._left += self._rounding.lost * recipients / self._rounding.most
        for terms in self._terms:
            loses = _loses(terms) * length
            if loses <= self._left:
                self._left -= loses
                return terms
        return 0


def _loses(terms: int) -> float:
    """What a sum of so many terms is off by, of their magnitudes."""
    return terms * SINGLE / (1.0 - terms * SINGLE)


def rounding_for(stack: Stack, most: float, length: float = 1.0, *, made: bool = False) -> Rounding:
    """How a network's gradients are added.

    Args:
        stack: the network.
        most: recipients, as everybody knows it.
        length: of a recipient's rows' gradients, added up, in clips.
        made: whether gradients of layers with one output are made first: if there are no others,
            they are few, and added in float64.
    """
    # So many are added until they become whole numbers, which takes half a unit each time; they may
    # be of other groups, too
    double = 2 * AT_ONCE * DOUBLE * MOST_RECIPIENTS * MOST_LENGTH
    whole = math.sqrt(stack.size) * (1.0 + 2.0 * MOST_OF_ALL / LARGEST) * 2.0**-UNIT_BITS
    terms = min(MOST_TERMS, math.floor(MOST_LOST / 2 / (most * length * SINGLE)))
    shapes = [(one.weight.shape, one.bias is not None) for one in _trained(stack)]
    if made and all(outputs == 1 for (outputs, _), _ in shapes):
        shapes = []

    def are_bounded(terms: int) -> bool:
        return all(
            is_bounded(outputs, inputs + biased, terms) for (outputs, inputs), biased in shapes
        )

    if not shapes or terms < LEAST_TERMS or not are_bounded(terms):
        return Rounding(0, most, (1.0 - whole) / (1.0 + 2.0 * double))
    single = _loses(terms) * most * length * (1.0 + ROUNDED)
    share = (1.0 - whole) / (1.0 + 2.0 * (single + double))
    more = [each for each in MORE_TERMS if each > terms and length > 1.0 and are_bounded(each)]
    return Rounding(terms, most, share, single, tuple(more))


def _trained(stack: Stack) -> list[Linear]:
    return [layer for layer in stack.layers if isinstance(layer, Linear) and layer.trained]


class Sums:
    """Gradients of a stack's layers, added up block by block.

    All layers lie in one vector, so that few calls make it whole numbers.

    Args:
        stack: the network.
        scratch: to work in.
    """

    __slots__ = ("_order", "_parts", "_recent", "_rows", "_scratch", "_whole")

    def __init__(self, stack: Stack, scratch: Scratch) -> None:
        self._scratch = scratch
        recent = torch.zeros(stack.size, dtype=torch.float64)
        self._recent = recent.numpy()
        self._whole: Integers | None = None
        self._rows = 0
        self._parts: dict[int, Tensor] = {}  # a layer's, `(inputs, outputs)`, by where it starts
        self._order = np.arange(stack.size)  # where each parameter lies in that vector
        for layer in _trained(stack):
            (outputs, inputs), start = layer.weight.shape, layer.start
            stop = start + outputs * (inputs + (layer.bias is not None))
            self._parts[start] = recent[start:stop].view(-1, outputs)
            order = np.arange(start, stop).reshape(-1, outputs)
            self._order[start:stop] = np.concatenate([order[:inputs].T.ravel(), *order[inputs:]])

    def clear(self) -> None:
        """Before a batch: also of what was left where one was interrupted."""
        self._recent[:] = 0.0
        self._whole = None
        self._rows = 0

    def make_room(self, rows: int) -> None:
        """Before a block of so many rows is added."""
        if self._rows + rows > LARGEST:
            self._settle()
        self._rows += rows

    def _settle(self) -> None:
        """Add in whole numbers what was added in float64."""
        recent = self._recent
        recent *= 2.0 ** (UNIT_BITS - CLIP_BITS)
        units = np.rint(recent, out=recent).astype(np.int64)
        self._whole = units if self._whole is None else self._whole + units
        recent[:] = 0.0
        self._rows = 0

    def total(self) -> Tensor:
        """All that was added since `clear`, `(size,)` int64, in 2⁻⁴⁰ of the clip. Sensitive."""
        if self._rows:
            self._settle()
        if self._whole is None:
            return torch.zeros(len(self._recent), dtype=torch.int64)
        return torch.from_numpy(self._whole.take(self._order))

    def add(self, one: Plain, terms: int) -> None:
        """Add signals times inputs, of which one side was weighted, so that 2²⁰ is a clip.

        Args:
            one: of a block.
            terms: see `Rounding.terms_for`.
        """
        recent = self._parts[one.layer.start]
        if terms:
            add_product(recent, one.inputs, one.signals, terms, self._scratch)
        else:
            inputs = self._scratch.doubled("inputs", one.inputs).split(AT_ONCE)
            signals = self._scratch.doubled("signals", one.signals).split(AT_ONCE)
            held = self._scratch.take("doubled", recent.shape[0], recent.shape[1], torch.float64)
            for left, right in zip(inputs, signals, strict=True):
                recent.add_(torch.mm(left.t(), right, out=held))


def add_product(total: Tensor, left: Tensor, right: Tensor, terms: int, scratch: Scratch) -> None:
    """Add one matrix, turned, times another, so many terms at a time in float32.

    Args:
        total: `(m, n)` float64, added to.
        left: `(rows, m)` float32.
        right: `(rows, n)` float32.
        terms: that are added in float32, at most.
        scratch: to work in.
    """
    lines, columns = total.shape
    theirs, ours, count, numbers = left.numpy(), right.numpy(), left.shape[0], lines * columns
    on_top, rows, beside = parts(lines, columns, terms)
    for start in range(0, count, beside * rows):
        stop = min(start + beside * rows, count)
        full, rest = divmod(stop - start, rows)
        made, middle = full + (rest > 0), stop - rest
        held = scratch.take("products", made, numbers).numpy()
        if full:
            _products(theirs[start:middle], ours[start:middle], rows, held[:full])
        if rest:
            _products(theirs[middle:stop], ours[middle:stop], rest, held[full:])
        if on_top > 1:
            groups, single = divmod(made, on_top)
            some = scratch.take("sums", groups + (single > 0), numbers).numpy()
            if groups:
                parted = held[: made - single].reshape(groups, on_top, numbers)
                np.add.reduce(parted, axis=1, out=some[:groups])
            if single:
                np.add.reduce(held[made - single :], axis=0, out=some[groups])
            held = some
        added = held[0] if len(held) == 1 else np.add.reduce(held, axis=0, dtype=np.float64)
        whole = total.numpy()
        whole += added.reshape(lines, columns)


def _products(left: Singles, right: Singles, rows: int, out: Singles) -> None:
    """Products of so many rows each, `(products, m * n)`.

    By numpy's library where pieces are small enough for one thread: it takes a quarter to a third
    less than torch's for them.
    """
    count, lines, columns = len(out), left.shape[1], right.shape[1]
    width = width_alone(rows * lines, columns) if has_small_kernels() else 0
    turned = left.reshape(count, rows, lines).transpose(0, 2, 1)
    if width == columns:
        whole = out.reshape(count, lines, columns)
        np.matmul(turned, right.reshape(count, rows, columns), out=whole)
    elif width:
        pieces = right.reshape(count, rows, -1, width).transpose(0, 2, 1, 3)
        products = out.reshape(count, lines, -1, width).transpose(0, 2, 1, 3)
        np.matmul(turned[:, None], pieces, out=products)
    else:
        ours = torch.from_numpy(right.reshape(count, rows, columns))
        found = torch.from_numpy(out).view(count, lines, columns)
        torch.bmm(torch.from_numpy(turned), ours, out=found)


@functools.lru_cache(maxsize=256)
def parts(left: int, right: int, terms: int) -> tuple[int, int, int]:
    """How a sum of products is divided.

    Args:
        left: numbers of a line on one side.
        right: on the other.
        terms: that are added in float32, at most.

    Returns:
        How many products are added to each other in float32, at most; the rows of one; and how
        many are made at a time.
    """
    most = terms if right > 1 else min(terms, LINE_ALONE // left)  # a line's kernel shares out less
    on_top, rows = 1, most // 8 * 8
    if left * right > FEW or rows < LEAST_TERMS // 8 * 8:
        on_top = ON_TOP if terms >= FEW_TERMS else FEW_ON_TOP
        rows = max(8, min(most, terms - on_top) // 8 * 8)
    return on_top, rows, on_top * max(1, HELD // (left * right * on_top))


@functools.lru_cache(maxsize=256)
def is_bounded(outputs: int, inputs: int, terms: int) -> bool:
    """Whether products of this shape are off by no more than a sum's bound here.

    Args:
        outputs: of the layer.
        inputs: of the layer, with 1 for its bias.
        terms: that are added in float32.
    """
    dice = torch.Generator().manual_seed(_SEED)
    _, rows, beside = parts(inputs, outputs, terms)
    count = min(LARGEST, (beside + 3) * rows + 3)  # products of all kinds beside each other
    for _ in range(_TRIED):
        signals, values = (
            wild((count, numbers), dice)
            * torch.randint(-_UNLIKE, _UNLIKE, (numbers,), generator=dice).float().exp2()
            for numbers in (outputs, inputs)
        )
        found = torch.zeros(inputs, outputs, dtype=torch.float64)
        add_product(found, values, signals, terms, Scratch())
        off = (found - values.double().t() @ signals.double()).abs_()
        most = values.abs().double().t() @ signals.abs().double()
        if bool((off > most * (1.01 * terms * SINGLE)).any()):
            return False
    return True
