"""Matrix products of a layer, by numpy's library or torch's: which, follows from their shape.

What the two make is tried by `abfed.learning.steady` and `bounded`, as it is used.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

NARROW = 16
"""Outputs, with fewer of which, but for one, a product is made turned."""

ALONE = 1 << 18
"""Multiplications of a matrix product, up to which OpenBLAS makes it on the thread that asks."""

LINE_ALONE = 9 << 10
"""The same of a matrix and one line."""


def laid(weight: Tensor) -> Tensor:
    """A matrix as `product` takes it, in memory of its own.

    Args:
        weight: `(inputs, outputs)`.
    """
    if 1 < weight.shape[1] < NARROW:
        return weight.t().clone(memory_format=torch.contiguous_format).t()
    return weight.clone(memory_format=torch.contiguous_format)


def product(values: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """A linear layer's product, forward or back.

    Args:
        values: `(rows, inputs)`; a bias's are 1.
        weight: `(inputs, outputs)`, as `laid` gives it; a bias is its last line.
        out: `(rows, outputs)`, written to.
    """
    if weight.shape[0] == 1:  # no sum
        return torch.mul(values, weight, out=out)
    if 1 < weight.shape[1] < NARROW:
        return out.copy_(torch.mm(weight.t(), values.t()).t())
    return torch.mm(values, weight, out=out)


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

    numpy's library is twice as quick as torch's, but for a matrix times itself, which it makes in
    another way. So the line behind a group is taken, too; what comes of it is left aside.

    Args:
        values: `(rows, numbers)`; memory must have one line more behind them, whatever that holds.
        together: lines next to each other that belong together.
        out: `(groups, (together + 1) * together)`, written to: the first `together²` of each.
    """
    groups, (line, one) = values.shape[0] // together, values.stride()
    numbers, apart = values.shape[1], together * line
    ours = values.as_strided((groups, numbers, together), (apart, one, line))
    found = out.view(groups, together + 1, together)
    if 1 < numbers <= ALONE // (together * (together + 1)):
        theirs = values.as_strided((groups, together + 1, numbers), (apart, line, one))
        np.matmul(theirs.numpy(), ours.numpy(), out=found.numpy())
    else:
        found[:, :together] = (torch.mul if numbers == 1 else torch.bmm)(ours.transpose(1, 2), ours)
    return out
