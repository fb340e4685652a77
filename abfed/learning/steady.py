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
LARGEST = 1 << 13  # the same
CACHED = 1 << 19  # numbers of one layer that a block holds, about: 2 MiB
DRAWN = (4.0, 1.5, 0.0, -1.5)  # standard deviations from what is expected

MISSED = 1e-9
"""Chance, at most, that another order at one place is missed: `numbers_told`."""

SPREAD = 3  # powers of two: numbers that are too unlike swallow each other in any order
_COLUMNS = 4 * SMALLEST  # that are told from each other
_SEED = 20_261_125  # of numbers that are made up


def block_sizes(widest: int, rows: float = math.inf) -> tuple[int, ...]:
    """Sizes of the blocks that a network takes, the largest first; each divides by `SMALLEST`.

    Args:
        widest: the most numbers that a row has in a layer.
        rows: how many are expected at a time; known to everybody. Several sizes suit what a Poisson
            draw makes of them: few columns are added to fill a block.
    """
    largest = max(SMALLEST, min(LARGEST, CACHED // widest))
    sizes, smaller = {_fitting(largest)}, 0.85
    if rows < math.inf:
        parts = math.ceil((rows + 4.0 * math.sqrt(rows)) / largest)
        sizes = {_fitting((rows + each * math.sqrt(rows)) / parts) for each in DRAWN}
        smaller = 0.5
    while min(sizes) > SMALLEST:
        sizes.add(min(_fitting(smaller * min(sizes)), min(sizes) - SMALLEST))
    return tuple(sorted(sizes, reverse=True))


def _fitting(rows: float) -> int:
    """A size for so many rows, at most a sixteenth too large, or one of few small ones."""
    step = max(SMALLEST, (1 << max(0, math.ceil(rows) - 1).bit_length()) >> 6)
    return max(SMALLEST, step * math.ceil(rows / step))


def blocks(rows: int, sizes: Sequence[int]) -> Iterator[int]:
    """The sizes of the blocks that hold so many rows, one after another; each may be padded.

    Args:
        rows: how many.
        sizes: see `block_sizes`.
    """
    while rows > 0:
        share = math.ceil(rows / math.ceil(rows / sizes[0]))
        size = min(size for size in sizes if size >= share)
        yield size
        rows -= size


class Scratch:
    """Memory that is used again, block after block: fresh pages would cost more than the work.

    What it holds is sensitive.
    """

    __slots__ = ("_held", "_views")

    def __init__(self) -> None:
        self._held: dict[tuple[Hashable, torch.dtype], Tensor] = {}
        self._views: dict[tuple[Hashable, int, int, torch.dtype], Tensor] = {}

    def take(
        self, name: Hashable, rows: int, columns: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """`(rows, columns)` of anything, until the same name is taken again."""
        view = self._views.get((name, rows, columns, dtype))
        if view is None:
            held = self._held.get((name, dtype))
            if held is None or len(held) < rows * columns:
                held = self._held[name, dtype] = torch.empty(rows * columns, dtype=dtype)
                self._views = {  # of memory that is given back
                    key: each
                    for key, each in self._views.items()
                    if (key[0], key[3]) != (name, dtype)
                }
            view = held[: rows * columns].view(rows, columns)
            self._views[name, rows, columns, dtype] = view
        return view

    def doubled(self, name: Hashable, values: Tensor) -> Tensor:
        """A matrix in float64."""
        rows, columns = values.shape
        return self.take(name, rows, columns, torch.float64).copy_(values)


def product(weight: Tensor, values: Tensor, out: Tensor) -> Tensor:
    """A linear layer's product, forward or back.

    Args:
        weight: `(outputs, inputs)`; a bias is its last column.
        values: `(inputs, rows)`; a bias's are 1.
        out: `(outputs, rows)`, written to.
    """
    return torch.mm(weight, values, out=out)


def squares(values: Tensor, out: Tensor) -> Tensor:
    """The sum of each column's squares, `(1, rows)` float32, in whatever order torch adds.

    Args:
        values: `(numbers, rows)`.
        out: the same shape, written to.
    """
    found = torch.mul(values, values, out=out)
    return found.clone() if len(found) == 1 else found.sum(0, keepdim=True)


def pair_products(values: Tensor, together: int, out: Tensor) -> Tensor:
    """Products of each column with those that belong together with it, `(groups, columns each)²`.

    Args:
        values: `(numbers, columns)`.
        together: columns next to each other that belong together.
        out: `(together, columns)`, written to.
    """
    groups = values.shape[1] // together
    parts = values[:, : groups * together].unflatten(1, (groups, together)).permute(1, 2, 0)
    found = out.flatten()[: groups * together**2].view(groups, together, together)
    return torch.bmm(parts, parts.transpose(1, 2), out=found)


def is_steady(
    operation: Callable[[Tensor], Tensor], numbers: int, size: int, together: int = 1
) -> bool:
    """Whether an operation gives a column the same bits at each place of blocks of this size.

    Args:
        operation: from `(numbers, columns)` float32 to `(…, columns)`.
        numbers: of a column.
        size: columns of a block, at least `SMALLEST`.
        together: columns next to each other that belong together; as many as fill the block.
    """
    dice = torch.Generator().manual_seed(_SEED)
    count = max(4, _COLUMNS // together)
    columns = wild((numbers, count * together), dice)
    parts = columns.split(max(1, SMALLEST // together) * together, 1)
    known = torch.cat([operation(each.contiguous()) for each in parts], 1)
    filled = size // together * together
    for _ in range(max(3, math.ceil(numbers_told(numbers) / len(known)))):
        turn = together * int(torch.randint(count, (), generator=dice))
        found = operation(_repeated(columns, turn, size))[:, :filled]
        if not torch.equal(found, _repeated(known, turn, filled)):
            return False
    return True


def _repeated(columns: Tensor, turn: int, size: int) -> Tensor:
    """A block of these columns, again and again, from one of them on."""
    times = math.ceil(size / columns.shape[1])
    return columns.roll(-turn, 1).repeat(1, times)[:, :size].contiguous()


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


@functools.lru_cache(maxsize=1024)
def is_steady_layer(
    inputs: int, outputs: int, size: int, threads: int, *, biased: bool, back: bool
) -> bool:
    """Whether a linear layer's products and its columns' sums of squares are steady here.

    Args:
        inputs: of the layer.
        outputs: of the layer.
        size: of the blocks.
        threads: that torch has now, among whom it shares out a product.
        biased: whether the layer has a bias.
        back: whether signals go back through it.
    """
    if threads != torch.get_num_threads():
        message = f"it is tried with the threads there are: {torch.get_num_threads()}"
        raise ValueError(message)
    weight = wild((outputs, inputs + biased), torch.Generator().manual_seed(_SEED + 1))
    tried: list[tuple[Callable[[Tensor], Tensor], int]] = [
        (lambda x: product(weight, x, torch.empty(outputs, x.shape[1])), weight.shape[1]),
    ]
    tried += [
        (lambda x: squares(x, torch.empty_like(x)), each)
        for each in {weight.shape[1], outputs} - {1}
    ]
    if back:
        ways = weight[:, :inputs].t()
        tried.append((lambda x: product(ways, x, torch.empty(inputs, x.shape[1])), outputs))
    return all(is_steady(operation, numbers, size) for operation, numbers in tried)


@functools.lru_cache(maxsize=1024)
def are_steady_pairs(numbers: int, size: int, together: int, threads: int) -> bool:
    """Whether `pair_products` are steady here.

    Args:
        numbers: of a column.
        size: of the blocks.
        together: columns that belong together.
        threads: that torch has now.
    """

    def operation(values: Tensor) -> Tensor:
        found = pair_products(values, together, torch.empty(together, values.shape[1]))
        return found.transpose(0, 1).flatten(1)

    return threads == torch.get_num_threads() and is_steady(operation, numbers, size, together)
