"""Operations that give a row the same bits wherever it stands, found out by trial.

A float32 product is two to three times as fast as one of whole numbers in float64
(`abfed.learning.fixedpoint`), but which sums its kernel makes in which order may depend on how many
rows there are and where each stands; and a difference in the last bit is as large as whoever chose
the weights likes. What it can't depend on are the numbers: a dense product has no branch that looks
at them. So it is settled before any recipient is read: the operations that a network needs are
tried on made-up rows, in blocks of exactly the sizes that will be used, until each place of each
size has seen many rows. If one bit differs anywhere, the network takes the exact path
(docs/decisions/0111-steady-by-trial.md).

A block is `(rows, numbers)`: a row of the data is a line, and lies `stride_of` numbers behind the
one before it. So lines go in as they were gathered, sums over rows read both sides as they lie, and
the rows of a recipient are a small matrix.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from abfed.learning.products import LINE_ALONE, laid, pair_products, product, wild

SMALLEST = 1 << 6  # rows of a block
LARGEST = 1 << 13  # the same
CACHED = 1 << 19  # numbers of one layer that a block holds, about: 2 MiB
DRAWN = (4.0, 1.5, 0.0, -1.5)  # standard deviations from what is expected

FEW_TOGETHER = 8
"""Lines of a group, whose pairs are added in one go: `added_pairs`."""

MISSED = 1e-9
"""Chance, at most, that another order at one place is missed: `numbers_told`."""

_LINES = 4 * SMALLEST  # that are told from each other
_ALIGNED = 8  # numbers: 32 bytes
_SEED = 20_261_125  # of numbers that are made up


def block_sizes(widest: int, rows: float = math.inf, together: int = 1) -> tuple[int, ...]:
    """Sizes of the blocks that a network takes, the largest first; each divides by `SMALLEST`.

    Args:
        widest: the most numbers that a row has in a layer.
        rows: how many are expected at a time, at most; known to everybody. Several sizes suit what
            a Poisson draw makes of them: few lines are added to fill a block.
        together: of each recipient. If they are several, others may have other numbers of rows, so
            that fewer are there.
    """
    largest = max(SMALLEST, min(LARGEST, CACHED // widest))
    sizes, smaller = {_fitting(largest)}, 0.75
    spread, fitting = math.sqrt(rows * together), set[int]()
    if rows < math.inf:
        parts = math.ceil((rows + 4.0 * spread) / largest)
        drawn = DRAWN if together == 1 else DRAWN[1:3]
        fitting = {_fitting((rows + each * spread) / parts) for each in drawn}
        if together == 1:
            sizes, smaller = fitting, 0.5
    while min(sizes) > SMALLEST:
        sizes.add(min(_fitting(smaller * min(sizes)), min(sizes) - SMALLEST))
    return tuple(sorted(sizes | fitting, reverse=True))


def _fitting(rows: float) -> int:
    """A size for so many rows, at most a sixteenth too large, or one of few small ones."""
    step = max(SMALLEST, (1 << max(0, math.ceil(rows) - 1).bit_length()) >> 6)
    return max(SMALLEST, step * math.ceil(rows / step))


def counts_for(sizes: Sequence[int], together: int) -> tuple[int, ...]:
    """Of how many groups of lines products are made at a time, the most first.

    Args:
        sizes: of blocks.
        together: lines of a group; no more than the smallest block has.
    """
    counts = {size // together for size in sizes}
    few = {1 << power for power in range(min(counts).bit_length())}
    return tuple(sorted(counts | few, reverse=True))


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
            if held is None or held.shape[0] < rows * columns:
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


def stride_of(numbers: int) -> int:
    """How far apart lines of so many numbers lie, with a one behind them."""
    return math.ceil((numbers + 1) / _ALIGNED) * _ALIGNED


def lengths(values: Tensor, out: Tensor) -> Tensor:
    """The norm of each line, `(rows,)` float32, its squares added in whatever order torch does.

    Args:
        values: `(rows, numbers)`.
        out: `(rows,)`, written to.
    """
    found: Tensor = torch.linalg.vector_norm(values, dim=1, out=out)
    return found


def line_norms(block: Tensor, numbers: int) -> Tensor:
    """`lengths` of lines with a one behind them, bit for bit what they are in any block.

    For that blocks of `SMALLEST` lines are measured: with those `is_steady` compares all others.

    Args:
        block: `(rows, stride_of(numbers))`.
        numbers: of a line.
    """
    rows = block.shape[0]
    found = torch.empty(rows)
    whole = rows - rows % SMALLEST
    for start in range(0, whole, SMALLEST):
        stop = start + SMALLEST
        lengths(block[start:stop, : numbers + 1], found[start:stop])
    if whole < rows:
        last = torch.zeros(SMALLEST, block.shape[1])
        last[: rows - whole] = block[whole:]
        found[whole:] = lengths(last[:, : numbers + 1], torch.empty(SMALLEST))[: rows - whole]
    return found


def line_pairs(lines: Tensor, together: int) -> Tensor:
    """Products of pairs of lines with a one behind them, bit for bit what they are in any block.

    For that, as many are made at a time as `is_steady` compares all other numbers with.

    Args:
        lines: `(rows, numbers)`; as many as fill the groups.
        together: lines next to each other that belong together.

    Returns:
        `(groups, together²)`.
    """
    rows, numbers = lines.shape
    some = max(1, SMALLEST // together)
    block = torch.zeros(some * together + 1, stride_of(numbers))[:-1, : numbers + 1]
    block[:, numbers] = 1.0
    room = torch.empty(some, (together + 1) * together)
    found = torch.empty(rows // together, together**2)
    for start in range(0, len(found), some):
        theirs = lines[start * together : (start + some) * together]
        block[: len(theirs), :numbers] = theirs
        made = pair_products(block, together, room)[: len(theirs) // together]
        found[start : start + some] = made[:, : together**2]
    return found


def sums_together(values: Tensor, weights: Tensor, together: int, out: Tensor) -> Tensor:
    """The weighted sum of lines that belong together, number by number, `(groups, numbers)`.

    Args:
        values: `(rows, numbers)`; as many as fill the groups.
        weights: of each line, `(rows, 1)`.
        together: lines next to each other that belong together; at least 2.
        out: `(groups, numbers)`, written to.
    """
    parts, each = values.unflatten(0, (-1, together)), weights.reshape(-1, 1, together)
    if together == 2:
        torch.mul(parts[:, 0], each[:, :, 0], out=out)
        return out.add_(parts[:, 1] * each[:, :, 1])
    if together * values.shape[1] <= LINE_ALONE:
        np.matmul(each.numpy(), parts.numpy(), out=out.numpy()[:, None])
        return out
    return torch.sum(parts * each.transpose(1, 2), 1, out=out)


def added(values: Tensor) -> Tensor:
    """The sum of each line, `(rows,)`, in whatever order torch adds.

    Args:
        values: `(rows, numbers)` float32, one line right behind the other.
    """
    return values.sum(1)


def added_pairs(values: Tensor, together: int) -> Tensor:
    """The sum of each group's pairs, `(groups,)`, each of which goes through few additions.

    Pairs with each line are added first, and then what comes of those, in whatever order torch
    does either; where they are few, all at once, which is quicker. `additions` says how many.

    Args:
        values: `(groups, together²)` float32, one group right behind the other.
        together: lines of a group.
    """
    if together <= FEW_TOGETHER:
        return added(values)
    return added(values.unflatten(1, (together, together)).sum(1))


def additions(together: int) -> int:
    """How many of them one of a group's pairs goes through, at most, in `added_pairs`."""
    return together**2 - 1 if together <= FEW_TOGETHER else 2 * (together - 1)


def is_steady(
    operation: Callable[[Tensor], Tensor],
    numbers: int,
    size: int,
    together: int = 1,
    *,
    tight: bool = False,
    terms: int | None = None,
) -> bool:
    """Whether an operation gives a line the same bits at each place of blocks of this size.

    Args:
        operation: from `(lines, numbers)` float32 to `(lines, …)` or `(groups, …)`.
        numbers: of a line.
        size: lines of a block, at least `SMALLEST`.
        together: lines next to each other that belong together; as many as fill the block.
        tight: whether lines lie right behind each other.
        terms: that a number is the sum of; as many as a line has, if it isn't said.
    """
    placed = functools.partial(_placed, tight=tight)
    dice = torch.Generator().manual_seed(_SEED)
    count = max(4, _LINES // together)
    lines = wild((count * together, numbers), dice)
    parts = lines.split(max(1, SMALLEST // together) * together)
    known = torch.cat([operation(placed(each)) for each in parts])
    told = known[0].numel()
    for _ in range(max(3, math.ceil(numbers_told(terms or numbers) / told))):
        turn = int(torch.randint(count, (), generator=dice))
        found = operation(placed(_repeated(lines, turn * together, size)))
        if not torch.equal(found, _repeated(known, turn, size // together)):
            return False
    return True


def _repeated(lines: Tensor, turn: int, size: int) -> Tensor:
    """A block of these lines, again and again, from one of them on."""
    order = torch.arange(turn, turn + size).remainder_(len(lines))
    return lines.index_select(0, order)


def _placed(lines: Tensor, *, tight: bool) -> Tensor:
    """The same lines as far apart as they lie in a block, with room for one more behind them."""
    count, numbers = lines.shape
    room = torch.zeros(count + 1, numbers if tight else stride_of(numbers))[:count, :numbers]
    return room.copy_(lines)


def numbers_told(added: int) -> int:
    """How many numbers each place must get right, so that another order is missed by `MISSED`.

    Args:
        added: how many terms a number is the sum of: the more, the likelier it tells an order
            (`tests/learning/test_steady.py`).
    """
    chance = 0.15 if added < 4 else 0.25 if added < 8 else 0.5 if added < 24 else 0.7
    return math.ceil(math.log(MISSED) / math.log(1.0 - chance))


@functools.lru_cache(maxsize=1024)
def is_steady_layer(
    inputs: int, outputs: int, size: int, threads: int, *, biased: bool, back: bool, last: bool
) -> bool:
    """Whether a linear layer's products and the norms of its lines are steady here.

    Args:
        inputs: of the layer.
        outputs: of the layer.
        size: of the blocks.
        threads: that torch has now, among whom it shares out a product.
        biased: whether the layer has a bias.
        back: whether signals go back through it.
        last: whether no other comes behind it: then its outputs lie right behind each other.
    """
    if threads != torch.get_num_threads():
        message = f"it is tried with the threads there are: {torch.get_num_threads()}"
        raise ValueError(message)
    weight = wild((inputs + biased, outputs), torch.Generator().manual_seed(_SEED + 1))
    forward, ways = laid(weight), laid(weight[:inputs].t())

    def room(rows: int, numbers: int, *, tight: bool) -> Tensor:
        return torch.zeros(rows, numbers if tight else stride_of(numbers))[:, :numbers]

    def is_measured(numbers: int, *, tight: bool) -> bool:
        return is_steady(lambda x: lengths(x, torch.empty(len(x))), numbers, size, tight=tight)

    return (
        is_steady(
            lambda x: product(x, forward, room(len(x), outputs, tight=last)), len(weight), size
        )
        and is_measured(len(weight), tight=False)
        and is_measured(outputs, tight=last)
        and not (
            back
            and not is_steady(
                lambda x: product(x, ways, room(len(x), inputs, tight=False)),
                outputs,
                size,
                tight=last,
            )
        )
    )


@functools.lru_cache(maxsize=4096)
def are_steady_pairs(
    numbers: int, count: int, together: int, threads: int, *, tight: bool = False
) -> bool:
    """Whether `products.pair_products`, and sums of as many numbers, are steady here.

    Args:
        numbers: of a line.
        count: of groups.
        together: lines that belong together.
        threads: that torch has now.
        tight: whether lines lie right behind each other.
    """

    def operation(values: Tensor) -> Tensor:
        room = torch.empty(len(values) // together, (together + 1) * together)
        found = pair_products(values, together, room)[:, : together**2].contiguous()
        diagonal = found[:, :: together + 1].contiguous()
        sums = torch.stack([added_pairs(found, together), added(diagonal)], 1)
        return torch.cat([found, sums], 1)

    return threads == torch.get_num_threads() and is_steady(
        operation, numbers, count * together, together, tight=tight
    )


@functools.lru_cache(maxsize=4096)
def are_steady_sums(numbers: int, count: int, together: int, threads: int) -> bool:
    """Whether `sums_together` is steady here.

    Args:
        numbers: of a line.
        count: of groups.
        together: lines that belong together.
        threads: that torch has now.
    """

    def operation(values: Tensor) -> Tensor:
        groups = len(values) // together
        room = torch.zeros(groups, stride_of(numbers))[:, :numbers]
        lines = values[: groups * together]
        return sums_together(lines, lines[:, :1].contiguous(), together, room)

    return threads == torch.get_num_threads() and is_steady(
        operation, numbers, count * together, together, terms=together
    )
