"""Matrix products of a layer, by numpy's library or torch's: which, follows from their shape.

What the two make is tried by `abfed.learning.steady` and `bounded`, as it is used.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

NARROW = 16
"""Columns, with fewer of which numpy's pieces take longer, and torch makes a product turned."""

ALONE = 1 << 18
"""Multiplications of a matrix product, up to which OpenBLAS makes it on the thread that asks."""

ROWS = (64, 32, 16, 8), (4, 2)
"""Of a piece of a layer's product, the latter where there is no other way: each divides blocks."""

LINE_ALONE = 9 << 10
"""The same of a matrix and one line."""

SPREAD = 3  # powers of two: numbers that are too unlike swallow each other in any order
_SEED = 20_261_127  # of numbers that are made up


def laid(weight: Tensor) -> Tensor:
    """A matrix as `product` takes it, in memory of its own.

    Args:
        weight: `(inputs, outputs)`.
    """
    if is_turned(*weight.shape):
        return weight.t().clone(memory_format=torch.contiguous_format).t()
    return weight.clone(memory_format=torch.contiguous_format)


def is_turned(inputs: int, outputs: int) -> bool:
    """Whether a layer's matrix lies turned: torch gives lines other bits at other places else."""
    return 1 < outputs < NARROW and not piece_alone(inputs, outputs)[0]


def product(values: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """A linear layer's product, forward or back.

    Args:
        values: `(rows, inputs)`; a bias's are 1.
        weight: `(inputs, outputs)`, as `laid` gives it; a bias is its last line.
        out: `(rows, outputs)`, written to.
    """
    inputs, outputs = weight.shape
    if inputs == 1:  # no sum
        return torch.mul(values, weight, out=out)
    width, rows = piece_alone(inputs, outputs)
    if width:
        np.matmul(
            values.numpy().reshape(-1, 1, rows, inputs),
            weight.numpy().reshape(inputs, -1, width).transpose(1, 0, 2),
            out=out.numpy().reshape(-1, rows, outputs // width, width).transpose(0, 2, 1, 3),
        )
        return out
    if 1 < outputs < NARROW:
        return out.copy_(torch.mm(weight.t(), values.t()).t())
    return torch.mm(values, weight, out=out)


@functools.lru_cache(maxsize=1024)
def piece_alone(inputs: int, outputs: int) -> tuple[int, int]:
    """Columns and rows of the pieces in which numpy makes a layer's product.

    No columns where torch makes it: if no piece is small enough, or numpy's library (OpenBLAS for
    processors without AVX-512) gives a line other bits where it stands elsewhere in a piece.
    """
    for some in ROWS if has_small_kernels() else ():
        width, rows = max((width_alone(rows * inputs, outputs), rows) for rows in some)
        if width:
            return (width, rows) if _is_alike(inputs, width, rows) else (0, 0)
    return 0, 0


@functools.lru_cache(maxsize=1)
def has_small_kernels() -> bool:
    """Whether numpy's library seems to have kernels for small matrices, which are quick.

    OpenBLAS has none without AVX-512: it packs each piece, takes half as long again, and gives the
    lines of this one other bits.
    """
    return _is_alike(25, 64, ROWS[0][0])


def _is_alike(inputs: int, width: int, rows: int) -> bool:
    """Whether numpy seems to give lines the same bits all over a piece. What is used is tried."""
    dice = torch.Generator().manual_seed(_SEED)
    lines, weight = wild((rows, inputs), dice).numpy(), wild((inputs, width), dice).numpy()
    found = np.matmul(lines, weight)
    return all(
        np.array_equal(np.matmul(np.roll(lines, turn, 0), weight), np.roll(found, turn, 0))
        for turn in range(1, rows)
    )


@functools.lru_cache(maxsize=1024)
def width_alone(sides: int, columns: int) -> int:
    """Columns of a piece of a matrix product, for which no library asks a second thread for help.

    Args:
        sides: the product of the other two sides.
        columns: of the whole product.

    Returns:
        A divisor of `columns`, as large as may be; 0 where a piece would be too narrow.
    """
    if columns == 1:
        return int(sides <= LINE_ALONE)
    for pieces in range(1, max(1, columns // NARROW) + 1):
        if columns % pieces == 0 and sides * (columns // pieces) <= ALONE:
            return columns // pieces
    return 0


def pair_products(values: Tensor, together: int, out: Tensor) -> Tensor:
    """Products of each line with those that belong together with it, `(groups, lines each, …)`.

    numpy's library is twice as quick as torch's where it has small kernels, and half as quick where
    it has none. A matrix times itself it makes in another way, which is slow. So the line behind a
    group is taken, too; what comes of it is left aside.

    Args:
        values: `(rows, numbers)`; memory must have one line more behind them, whatever that holds.
        together: lines next to each other that belong together.
        out: `(groups, (together + 1) * together)`, written to: the first `together²` of each.
    """
    groups, (line, one) = values.shape[0] // together, values.stride()
    numbers, apart = values.shape[1], together * line
    ours = values.as_strided((groups, numbers, together), (apart, one, line))
    found = out.view(groups, together + 1, together)
    alone = 1 < numbers <= ALONE // (together * (together + 1))
    if alone and has_small_kernels():
        theirs = values.as_strided((groups, together + 1, numbers), (apart, line, one))
        np.matmul(theirs.numpy(), ours.numpy(), out=found.numpy())
    else:
        found[:, :together] = (torch.mul if numbers == 1 else torch.bmm)(ours.transpose(1, 2), ours)
    return out


def wild(shape: tuple[int, ...], dice: torch.Generator) -> Tensor:
    """Made-up numbers of very unlike size, some of them 0, in float32."""
    sizes = torch.randint(-SPREAD, SPREAD + 1, shape, generator=dice).float().exp2()
    held = torch.rand(shape, generator=dice) < 0.9
    return torch.randn(shape, generator=dice) * sizes * held
