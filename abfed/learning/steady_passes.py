"""One pass forward and one back through linear layers in float32, a block of rows at a time.

For stacks whose products are steady on this machine (`abfed.learning.steady`): then what is
computed for a row is a function of the parameters and of that row, bit for bit, as on the exact
path (`abfed.learning.passes`). Between the products stand only operations that IEEE 754 rounds
correctly for each number by itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from abfed.learning.losses import Loss
from abfed.learning.stacks import FLATTEN, Layer, Linear, Pointwise, Stack, Table
from abfed.learning.steady import (
    Scratch,
    block_sizes,
    is_steady_layer,
    laid,
    product,
    stride_of,
)

WIDEST = 1 << 16
"""Numbers of a layer, at most: the bounds on what float32 may lose hold as far as that."""


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


class SteadyPasses:
    """A stack with its parameters as they are now.

    Args:
        stack: whose parameters are read, once. `sizes_for` must have found sizes for it.
        scratch: where the passes leave what they find.

    Attributes:
        stack, scratch: the same.
    """

    __slots__ = ("_back", "_forward", "_last", "scratch", "stack")

    def __init__(self, stack: Stack, scratch: Scratch) -> None:
        self.stack = stack
        self.scratch = scratch
        self._forward: dict[int, Tensor] = {}  # memory of their own, as it was tried
        self._back: dict[int, Tensor] = {}
        self._last = last_linear(stack)
        for place, layer in enumerate(stack.layers):
            if isinstance(layer, Linear):
                lines = [layer.weight.t()] + ([] if layer.bias is None else [layer.bias[None]])
                self._forward[place] = laid(torch.cat(lines))
                if place > stack.lowest:
                    self._back[place] = laid(layer.weight)

    def kept(self, lines: Tensor, labels: Tensor, size: int, loss: Loss) -> list[Plain]:
        """One pass forward and one back.

        Args:
            lines: `(rows, inputs)` float32. Left as they are. Sensitive.
            labels: as the loss wants them, for as many rows. Sensitive.
            size: of the block that they are padded to.
            loss: its signals start the way back.

        Returns:
            What each trained layer leaves, from the last to the first, `size` rows each; the
            signals of those that were added are 0. What isn't finite stays so. All may be written
            over, and stays until the next pass. Sensitive.
        """
        (rows, numbers), layers = lines.shape, self.stack.layers
        room = self.scratch.take("block", size, stride_of(numbers))
        room[:rows, :numbers] = lines
        room[rows:] = 0.0
        passed = [room]
        for place, layer in enumerate(layers):
            if isinstance(layer, Linear):
                outputs, inputs = layer.weight.shape
                if layer.bias is not None:
                    room[:, inputs] = 1.0
                weight = self._forward[place]
                width = outputs if place == self._last else stride_of(outputs)
                out = self.scratch.take(("forward", place), size, width)
                product(room[:, : weight.shape[0]], weight, out[:, :outputs])
                room = out
            else:
                found = _pointwise(layer).forward(room)
                if found.data_ptr() != room.data_ptr():
                    room.copy_(found)
            passed.append(room)
        signals = self.scratch.take("signals", size, room.shape[1])
        scores = room[:rows]
        signals[:rows] = loss.signals(scores, labels).view_as(scores)
        signals[rows:] = 0.0
        left: list[Plain] = []
        for place in reversed(range(self.stack.lowest, len(layers))):
            layer = layers[place]
            if not isinstance(layer, Linear):
                signals = _pointwise(layer).backward(signals, passed[place + 1])
                continue
            outputs, inputs = layer.weight.shape
            theirs = signals[:, :outputs]
            if layer.trained:
                came = passed[place][:, : self._forward[place].shape[0]]
                left.append(Plain(layer, came, theirs))
            if place > self.stack.lowest:
                signals = self.scratch.take(("back", place), size, passed[place].shape[1])
                product(theirs, self._back[place], signals[:, :inputs])
        return left


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
