"""One pass forward and one back through linear layers in float32, a block of rows at a time.

For stacks whose products are steady on this machine (`abfed.learning.steady`): then what is
computed for a row is a function of the parameters and of that row, bit for bit, as on the exact
path (`abfed.learning.passes`). Between the products stand only operations that IEEE 754 rounds
correctly for each number by itself.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from abfed.learning.losses import Loss
from abfed.learning.stacks import FLATTEN, Layer, Linear, Pointwise, Stack, Table
from abfed.learning.steady import Scratch, block_sizes, is_steady_layer, product

WIDEST = 1 << 16
"""Numbers of a layer, at most: the bounds on what float32 may lose hold as far as that."""


class Plain(NamedTuple):
    """What a trainable layer leaves for its gradients, in float32. Rows: sensitive.

    Attributes:
        layer: the layer.
        inputs: what came in, `(inputs, rows)`, and ones behind them if the layer has a bias.
        signals: derivative of each row's loss by what went out, `(outputs, rows)`.
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

    __slots__ = ("_own", "scratch", "stack")

    def __init__(self, stack: Stack, scratch: Scratch) -> None:
        self.stack = stack
        self.scratch = scratch
        self._own = {  # memory of their own, as it was tried
            place: layer.weight.clone()
            if layer.bias is None
            else torch.cat([layer.weight, layer.bias[:, None]], 1)
            for place, layer in enumerate(stack.layers)
            if isinstance(layer, Linear)
        }

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
        rows, layers = len(lines), self.stack.layers
        values = self._room("block", lines.shape[1], size)
        values[:, :rows] = lines.t()
        values[:, rows:] = 0.0
        passed = [values]
        for place, layer in enumerate(layers):
            if isinstance(layer, Linear):
                weight = self._own[place]
                room = self._room(("forward", place), len(weight), size)
                values = product(weight, _widened(values, weight.shape[1]), room)
            else:
                found = _pointwise(layer).forward(values)
                if found.data_ptr() != values.data_ptr():  # where there is room for the ones
                    values.copy_(found)
            passed.append(values)
        signals = torch.zeros_like(values)
        scores = values[:, :rows].t()
        signals[:, :rows] = loss.signals(scores, labels).view_as(scores).t()
        left: list[Plain] = []
        for place in reversed(range(self.stack.lowest, len(layers))):
            layer = layers[place]
            if not isinstance(layer, Linear):
                signals = _pointwise(layer).backward(signals, passed[place + 1])
                continue
            weight = self._own[place]
            if layer.trained:
                left.append(Plain(layer, _widened(passed[place], weight.shape[1]), signals))
            if place > self.stack.lowest:
                inputs = layer.weight.shape[1]
                room = self.scratch.take(("back", place), inputs, size)
                signals = product(weight[:, :inputs].t(), signals, room)
        return left

    def _room(self, name: Hashable, numbers: int, size: int) -> Tensor:
        """Room for numbers, with ones behind them."""
        room = self.scratch.take(name, numbers + 1, size)
        room[numbers] = 1.0
        return room[:numbers]


def _widened(values: Tensor, numbers: int) -> Tensor:
    """The first numbers of the room that values lie in: themselves, and maybe the ones."""
    return values.as_strided((numbers, values.shape[1]), values.stride())


def _pointwise(layer: Layer) -> Pointwise:
    """The layer, which `sizes_for` let pass.

    Raises:
        TypeError: a table, which has no blocks.
    """
    if not isinstance(layer, Pointwise):
        message = "a table doesn't go through in blocks"
        raise TypeError(message)
    return layer


def sizes_for(stack: Stack, rows: float = math.inf) -> tuple[int, ...]:
    """Sizes of the blocks for which a stack is steady on this machine; none where it isn't.

    None, too, for stacks that hold anything but linear layers and activations, and where somebody
    lets torch shorten the numbers that it multiplies.

    Args:
        stack: the network.
        rows: how many are expected at a time; known to everybody.
    """
    if torch.get_float32_matmul_precision() != "highest":
        return ()
    if stack.widest > WIDEST or any(isinstance(x, Table) or x is FLATTEN for x in stack.layers):
        return ()
    sizes = block_sizes(stack.widest, rows)
    for place, layer in enumerate(stack.layers):
        if isinstance(layer, Linear):
            outputs, inputs = layer.weight.shape
            biased, back = layer.bias is not None, place > stack.lowest
            threads = torch.get_num_threads()
            if not all(
                is_steady_layer(inputs, outputs, size, threads, biased=biased, back=back)
                for size in sizes
            ):
                return ()
    return sizes
