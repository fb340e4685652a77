"""Operations that give a row the same bits wherever it stands, found out by trial.

A float32 product is two to three times as fast as one of whole numbers in float64
(`abfed.learning.fixedpoint`), but which sums its kernel makes in which order may depend on how many
rows there are and where each stands; and a difference in the last bit is as large as whoever chose
the weights likes. What it can't depend on are the numbers: a dense product has no branch that looks
at them. So it is settled before any recipient is read: the operations that a network needs are
tried on made-up rows, in blocks of exactly the sizes that will be used, until each place of each
size has seen many rows. If one bit differs anywhere, the network takes the exact path
(docs/decisions/0111-steady-by-trial.md).

A block is `(numbers, rows)`: a row of the data is a column, next to others in memory. Kernels for
products whose long side lies so were steady on every machine that was tried, and sums over a
column's numbers are made for many columns at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch import Tensor

SMALLEST = 1 << 6  # rows of a block
LARGEST = 1 << 13  # the same: their exact sums of 2⁴⁰ stay within 2⁵³
CACHED = 1 << 18  # numbers of one layer that a block holds, about: 1 MiB

MISSED = 1e-9
"""Chance, at most, that another order at one place is missed: `numbers_told`."""

SPREAD = 3  # powers of two: numbers that are too unlike swallow each other in any order
_COLUMNS = 4 * SMALLEST  # that are told from each other
_SEED = 20_261_125  # of numbers that are made up


def block_sizes(widest: int, rows: float = math.inf) -> tuple[int, ...]:
    """Sizes of the blocks that a network takes, the largest first; each divides by `SMALLEST`.

    Args:
        widest: the most numbers that a row has in a layer.
        rows: how many are expected at a time; known to everybody. They, and four standard
            deviations of a Poisson draw more, fill whole blocks.
    """
    largest = max(SMALLEST, min(LARGEST, CACHED // widest))
    if rows < math.inf:
        most = rows + 4.0 * math.sqrt(rows)
        largest = min(largest, math.ceil(most / math.ceil(most / largest)))
    step = max(SMALLEST, (1 << (largest - 1).bit_length()) >> 4)  # few sizes, so few trials
    sizes = [min(LARGEST, step * math.ceil(largest / step))]
    while sizes[-1] > SMALLEST:
        sizes.append(SMALLEST * math.ceil(sizes[-1] / (3 * SMALLEST)))
    return tuple(sizes)


def blocks(rows: int, sizes: Sequence[int]) -> Iterator[int]:
    """The sizes of the blocks that hold so many rows, one after another; the last may be padded.

    Args:
        rows: how many.
        sizes: see `block_sizes`.
    """
    for _ in range(rows // sizes[0]):
        yield sizes[0]
    rest = rows % sizes[0]
    while rest > 0:
        size = min(size for size in sizes if size >= rest)
        smaller = max((one for one in sizes if one < size), default=size)
        if 2 * smaller >= rest:  # two of the smaller are less than one
            size = smaller
        yield size
        rest -= size


class Scratch:
    """Memory that is used again, block after block: fresh pages would cost more than the work.

    What it holds is sensitive.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[tuple[Hashable, torch.dtype], Tensor] = {}

    def take(
        self, name: Hashable, rows: int, columns: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """`(rows, columns)` of anything, until the same name is taken again."""
        held = self._held.get((name, dtype))
        if held is None or len(held) < rows * columns:
            held = self._held[name, dtype] = torch.empty(rows * columns, dtype=dtype)
        return held[: rows * columns].view(rows, columns)

    def doubled(self, name: Hashable, values: Tensor) -> Tensor:
        """A matrix in float64."""
        rows, columns = values.shape
        return self.take(name, rows, columns, torch.float64).copy_(values)


def product(weight: Tensor, bias: Tensor | None, values: Tensor, out: Tensor) -> Tensor:
    """A linear layer forward.

    Args:
        weight: `(outputs, inputs)`.
        bias: `(outputs, 1)`, if there is one.
        values: `(inputs, rows)`.
        out: `(outputs, rows)`, written to.
    """
    if bias is None:
        return torch.mm(weight, values, out=out)
    return torch.addmm(bias, weight, values, out=out)


def squares(values: Tensor, out: Tensor) -> Tensor:
    """The sum of each column's squares, `(1, rows)` float32, in whatever order torch adds.

    Args:
        values: `(numbers, rows)`.
        out: the same shape, written to.
    """
    return torch.mul(values, values, out=out).sum(0, keepdim=True)


def is_steady(operation: Callable[[Tensor], Tensor], numbers: int, sizes: Sequence[int]) -> bool:
    """Whether an operation gives a column the same bits at each place of blocks of these sizes.

    Args:
        operation: from `(numbers, size)` float32 to `(…, size)`.
        numbers: of a column.
        sizes: columns of a block, each at least `SMALLEST`.
    """
    dice = torch.Generator().manual_seed(_SEED)
    columns = wild((numbers, _COLUMNS), dice)
    known = torch.cat([operation(each.contiguous()) for each in columns.split(SMALLEST, 1)], 1)
    turns = max(3, math.ceil(numbers_told(numbers) / len(known)))
    for size in sizes:
        for _ in range(turns):
            which = torch.randint(_COLUMNS, (size,), generator=dice)
            if not torch.equal(operation(columns[:, which]), known[:, which]):
                return False
    return True


def numbers_told(added: int) -> int:
    """How many numbers each place must get right, so that another order is missed by `MISSED`.

    Args:
        added: how many terms a number is the sum of: the more, the likelier it tells an order
            (`tests/learning/test_steady.py`).
    """
    chance = 0.15 if added < 4 else 0.25 if added < 8 else 0.5 if added < 24 else 0.7
    return math.ceil(math.log(MISSED) / math.log(1.0 - chance))


def wild(shape: tuple[int, ...], dice: torch.Generator) -> Tensor:
    """Made-up numbers of very unlike size, some of them 0, in float32."""
    sizes = torch.randint(-SPREAD, SPREAD + 1, shape, generator=dice).float().exp2()
    held = torch.rand(shape, generator=dice) < 0.9
    return torch.randn(shape, generator=dice) * sizes * held


@functools.lru_cache(maxsize=256)
def is_steady_layer(
    inputs: int, outputs: int, sizes: tuple[int, ...], threads: int, *, biased: bool, back: bool
) -> bool:
    """Whether a linear layer's products and its columns' sums of squares are steady here.

    Args:
        inputs: of the layer.
        outputs: of the layer.
        sizes: of the blocks, see `block_sizes`.
        threads: that torch has now, among whom it shares out a product.
        biased: whether the layer has a bias.
        back: whether signals go back through it.
    """
    if threads != torch.get_num_threads():
        message = f"it is tried with the threads there are: {torch.get_num_threads()}"
        raise ValueError(message)
    dice = torch.Generator().manual_seed(_SEED + 1)
    weight = wild((outputs, inputs), dice)
    bias = wild((outputs, 1), dice) if biased else None
    tried: list[tuple[Callable[[Tensor], Tensor], int]] = [
        (lambda x: product(weight, bias, x, torch.empty(outputs, x.shape[1])), inputs),
    ]
    tried += [(lambda x: squares(x, torch.empty_like(x)), each) for each in {inputs, outputs} - {1}]
    if back:
        tried.append(
            (lambda x: product(weight.t(), None, x, torch.empty(inputs, x.shape[1])), outputs)
        )
    return all(is_steady(operation, numbers, sizes) for operation, numbers in tried)
