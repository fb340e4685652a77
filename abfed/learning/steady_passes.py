"""One pass forward and one back through linear layers in float32, a block of rows at a time.

For stacks whose products are steady on this machine (`abfed.learning.steady`): then what is
computed for a row is a function of the parameters and of that row, bit for bit, as on the exact
path (`abfed.learning.passes`). Between the products stand only operations that IEEE 754 rounds
correctly for each number by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from abfed.learning.design_matrix import Integers
from abfed.learning.losses import Loss
from abfed.learning.parts import Part, gaps
from abfed.learning.products import is_turned, product
from abfed.learning.stacks import FLATTEN, Layer, Linear, Pointwise, Stack, Table
from abfed.learning.steady import Scratch, block_sizes, is_steady_layer, stride_of

WIDEST = 1 << 16
"""Numbers of a layer, at most: the bounds on what float32 may lose hold as far as that."""


LINE = 16
"""Numbers of a cache line: torch's own memory, on which all was tried, begins with one."""


class Plain(NamedTuple):
    """What a trainable layer leaves for its gradients, in float32. Rows: sensitive.

    Attributes:
        layer: the layer.
        inputs: what came in, `(rows, inputs)`, and ones behind them if the layer has a bias.
        signals: derivative of each row's loss by what went out, `(rows, outputs)`.
    """

    layer: Linear
    inputs: Tensor
    signals: Tensor


class Laid(NamedTuple):
    """Lines as the first layer takes them, of recipients who have one row each. Sensitive.

    Attributes:
        block: `(rows and more, stride_of(width))`, a one behind each line; what is behind the rows
            is anything. The lines of a batch are a part of it: it is never written over, but for
            what is behind the rows.
        norms: of each line with its one, as `steady.lengths` has it, `(rows,)` float32.
    """

    block: Tensor
    norms: Tensor


class SteadyPasses:
    """A stack with its parameters as they were read.

    Args:
        stack: whose parameters `read` reads.
        scratch: where the passes leave what they find.

    Attributes:
        stack, scratch: the same.
    """

    __slots__ = (
        "_back",
        "_copied",
        "_forward",
        "_last",
        "_order",
        "_parameters",
        "_rooms",
        "_there",
        "scratch",
        "stack",
    )

    def __init__(self, stack: Stack, scratch: Scratch) -> None:
        self.stack = stack
        self.scratch = scratch
        self._last = last_linear(stack)
        self._forward: dict[int, Tensor] = {}  # memory of their own, as it was tried
        self._back: dict[int, Tensor] = {}
        self._rooms: dict[int, list[_Room | None]] = {}
        self._parameters: list[npt.NDArray[np.float32]] = []
        orders: list[tuple[dict[int, Tensor], int, Integers]] = []
        start = 0
        for place, layer in enumerate(stack.layers):
            if isinstance(layer, Linear):
                parts = [each for each in layer[:2] if each is not None]
                self._parameters += [each.numpy() for each in parts]
                size = layer.weight.numel()
                weight = np.arange(start, start + size).reshape(layer.weight.shape)
                start += sum(each.numel() for each in parts)
                bias = np.arange(weight[-1, -1] + 1, start).reshape(-1, weight.shape[0])
                orders.append((self._forward, place, np.concatenate([weight.T, bias])))
                if place > stack.lowest:
                    orders.append((self._back, place, weight))
        self._there = np.empty(start, dtype=np.float32)
        self._order, self._copied = _laid_at_once(orders)

    def read(self) -> bool:
        """Take the parameters as they are now, and tell whether all are finite."""
        there = self._there
        np.concatenate(self._parameters, axis=None, out=there)
        there.take(self._order, out=self._copied, mode="clip")  # without it by way of a buffer
        with np.errstate(over="ignore", invalid="ignore"):
            return math.isfinite(there.sum()) or bool(np.isfinite(there).all())

    def kept(
        self,
        lines: Tensor,
        labels: Tensor,
        size: int,
        loss: Loss,
        parts: Sequence[Part] = (),
    ) -> list[Plain]:
        """One pass forward and one back.

        Args:
            lines: `(rows, inputs)` float32. Left as they are. Sensitive.
            labels: as the loss wants them, for as many rows. Sensitive.
            size: of the block that they are padded to.
            loss: its signals start the way back.
            parts: which of the rows go where in the block; one after another, if it isn't said.

        Returns:
            What each trained layer leaves, from the last to the first, `size` rows each; the
            signals of those that were added are 0. What isn't finite stays so. Signals may be
            written over, and inputs of the stack's first layer; all stays until the next pass.
            Sensitive.
        """
        numbers = lines.shape[1]
        block = self.scratch.take("block", size + 1, stride_of(numbers))[:size]
        labels = _laid_out(block[:, :numbers], lines, labels, parts)
        block[:, numbers] = 1.0
        found = self.kept_of(block, labels, loss)
        if parts:
            _clear(found, gaps(parts, size))
        return found

    def takes_laid(self) -> bool:
        """Whether the first layer takes lines with a one behind them as they lie."""
        first = self.stack.layers[0]
        return isinstance(first, Linear) and first.bias is not None

    def kept_of(self, block: Tensor, labels: Tensor, loss: Loss) -> list[Plain]:
        """See `kept`.

        Args:
            block: `(size, stride_of(inputs))`, a one behind each line. Written over where an
                activation comes before all linear layers.
            labels: for its first rows.
            loss: its signals start the way back.

        Returns:
            As `kept`, but that no inputs may be written over.
        """
        size, rows = block.shape[0], labels.shape[0]
        room, rooms = block, self._rooms_for(size)
        passed: list[Tensor] = []  # what came out of each layer
        for layer, here in zip(self.stack.layers, rooms, strict=True):
            if here is None:
                found = _pointwise(layer).forward(room)
                if found.data_ptr() != room.data_ptr():
                    room.copy_(found)
            else:
                came = block[:, : here.weight.shape[0]] if here.came is None else here.came
                product(came, here.weight, here.found)
                room = here.room
            passed.append(room)
        signals = self.scratch.take("signals", size + 1, room.shape[1])[:size]
        there = signals.numpy()  # whose calls take half of torch's time
        there[:rows] = loss.signals(room[:rows], labels).numpy().reshape(rows, room.shape[1])
        there[rows:] = 0.0
        left: list[Plain] = []
        for place in reversed(range(self.stack.lowest, len(rooms))):
            layer, here = self.stack.layers[place], rooms[place]
            if here is None or not isinstance(layer, Linear):
                found = _pointwise(layer).backward(signals, passed[place])
                if found.data_ptr() != signals.data_ptr():
                    signals.copy_(found)  # behind whose memory is one more line
                continue
            theirs = here.signals if signals is here.back else signals[:, : layer.weight.shape[0]]
            if layer.trained:
                came = block[:, : here.weight.shape[0]] if here.came is None else here.came
                left.append(Plain(layer, came, theirs))
            if place > self.stack.lowest and here.before is not None:
                product(theirs, self._back[place], here.before.signals)
                signals = here.before.back
        return left

    def _rooms_for(self, size: int) -> list[_Room | None]:
        """For each linear layer the memory of a block of this size."""
        if size not in self._rooms:
            # first, as all sizes share its memory; and a line behind it, see `pair_products`
            most = max(size, largest_block(self.stack)) + 1
            made: list[_Room | None] = []
            before: _Room | None = None
            for place, layer in enumerate(self.stack.layers):
                if not isinstance(layer, Linear):
                    made.append(None)
                    continue
                outputs, weight = layer.weight.shape[0], self._forward[place]
                width = outputs if place == self._last else stride_of(outputs)
                whole = self.scratch.take(("forward", place), most, width)
                if place != self._last:
                    whole[:, outputs] = 1.0  # for the next layer's bias; never written over
                room = whole[:size]
                back = self.scratch.take(("back", place), most, width)[:size]
                before = _Room(
                    weight,
                    None if before is None else before.room[:, : weight.shape[0]],
                    room,
                    room[:, :outputs],
                    back,
                    back[:, :outputs],
                    before,
                )
                made.append(before)
            self._rooms[size] = made
        return self._rooms[size]


class _Room(NamedTuple):
    """A linear layer's memory for one size of blocks; made once: each view takes microseconds.

    Attributes:
        weight: as `product` takes it.
        came: what comes in; None if that is the block itself.
        room: what goes out, and what is beside it.
        found: what goes out.
        back: derivatives by what goes out, and what is beside them.
        signals: the derivatives.
        before: of the linear layer before this one.
    """

    weight: Tensor
    came: Tensor | None
    room: Tensor
    found: Tensor
    back: Tensor
    signals: Tensor
    before: _Room | None


def _laid_at_once(
    orders: list[tuple[dict[int, Tensor], int, Integers]],
) -> tuple[Integers, npt.NDArray[np.float32]]:
    """Memory for all matrices that `products.product` takes, each as `products.laid` lays it.

    Args:
        orders: where each is put, and which parameters it holds, `(inputs, outputs)`.

    Returns:
        Which parameter goes where, and that memory.
    """
    turned = [is_turned(*each.shape) for _, _, each in orders]
    parts, starts, end = list[Integers](), list[int](), 0
    for (_, _, each), turn in zip(orders, turned, strict=True):
        flat = (each.T if turn else each).ravel()
        starts.append(end)
        parts += [flat, np.zeros(-flat.size % LINE, dtype=np.int64)]
        end += flat.size + parts[-1].size
    memory = torch.empty(end)
    for (into, place, each), turn, start in zip(orders, turned, starts, strict=True):
        matrix = memory[start : start + each.size].view(each.shape[::-1] if turn else each.shape)
        into[place] = matrix.t() if turn else matrix
    return np.concatenate(parts), memory.numpy()


def largest_block(stack: Stack) -> int:
    """Rows of the largest block, however many are expected."""
    return block_sizes(stack.widest)[0]


def _laid_out(room: Tensor, lines: Tensor, labels: Tensor, parts: Sequence[Part]) -> Tensor:
    """Put rows where they belong in a block, 0 elsewhere, and labels where theirs are."""
    if not parts:
        rows = lines.shape[0]
        room[:rows] = lines
        room[rows:] = 0.0
        return labels
    if len(parts) == 1 and parts[0].start == 0:
        theirs = parts[0].rows_taken
        return _laid_out(room, lines[theirs], labels[theirs], ())
    size = room.shape[0]
    aims = labels.new_zeros((size, *labels.shape[1:]))
    for part in parts:
        room[part.lines_there] = lines[part.rows_taken]
        aims[part.lines_there] = labels[part.rows_taken]
    for gap in gaps(parts, size):
        room[gap] = 0.0
    return aims


def _clear(kept: Sequence[Plain], lines: Sequence[slice]) -> None:
    """Leave nothing in lines that are nobody's: the network may overflow for them, too."""
    for one in kept:
        if one.signals.shape[1] > 1:
            for gap in lines:
                one.inputs[gap, : one.layer.weight.shape[1]] = 0.0
                one.signals[gap] = 0.0


def last_linear(stack: Stack) -> int:
    """Place of the last linear layer."""
    return max(place for place, layer in enumerate(stack.layers) if isinstance(layer, Linear))


def _pointwise(layer: Layer) -> Pointwise:
    """The layer, which `sizes_for` let pass.

    Raises:
        TypeError: a table, which has no blocks.
    """
    if not isinstance(layer, Pointwise):
        message = "a table doesn't go through in blocks"
        raise TypeError(message)
    return layer


def sizes_for(stack: Stack, rows: float = math.inf, together: int = 1) -> tuple[int, ...]:
    """Sizes of the blocks for which a stack is steady on this machine; none where it isn't.

    None, too, for stacks that hold anything but linear layers and activations, and where somebody
    lets torch shorten the numbers that it multiplies.

    Args:
        stack: the network.
        rows: how many are expected at a time, at most; known to everybody.
        together: of each recipient.
    """
    if torch.get_float32_matmul_precision() != "highest":
        return ()
    if stack.widest > WIDEST or any(isinstance(x, Table) or x is FLATTEN for x in stack.layers):
        return ()
    sizes = block_sizes(stack.widest, rows, together)
    for place, layer in enumerate(stack.layers):
        if isinstance(layer, Linear):
            outputs, inputs = layer.weight.shape
            biased, back = layer.bias is not None, place > stack.lowest
            last = place == last_linear(stack)
            threads = torch.get_num_threads()
            if not all(
                is_steady_layer(inputs, outputs, size, threads, biased=biased, back=back, last=last)
                for size in sizes
            ):
                return ()
    return sizes
