"""One pass forward and one back through a stack in float32, a block of rows at a time.

As fast as training without privacy, where products are steady (`abfed.learning.steady`): then what
is computed for a row is a function of the parameters and of that row, bit for bit, as on the exact
path (`abfed.learning.passes`). Between the products stand only operations that IEEE 754 rounds
correctly for each number by itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from abfed.learning.losses import Loss
from abfed.learning.stacks import FLATTEN, Linear, Pointwise, Stack, Table
from abfed.learning.steady import Scratch, block_sizes, is_steady_layer, product

WIDEST = 1 << 16
"""Numbers of a layer, at most: the bounds on what float32 may lose hold as far as that."""


class Plain(NamedTuple):
    """What a trainable layer leaves for its gradients. Rows: sensitive.

    Attributes:
        layer: the layer.
        inputs: what came in, `(inputs, rows)` float32; for a table codes, `(rows, places)`.
        signals: derivative of each row's loss by what went out, `(outputs, rows)` float32; for a
            table `(rows, places × outputs)`.
    """

    layer: Linear | Table
    inputs: Tensor
    signals: Tensor


class SteadyPasses:
    """A stack with its parameters as they are now.

    Args:
        stack: whose parameters are read, once. `sizes_for` must have found sizes for it.
        scratch: where the passes leave what they find.

    Attributes:
        stack: the same.
        is_linear: whether all trained layers are linear ones.
    """

    __slots__ = ("_first", "_own", "_scratch", "is_linear", "stack")

    def __init__(self, stack: Stack, scratch: Scratch) -> None:
        self.stack = stack
        self._scratch = scratch
        self.is_linear = not any(isinstance(each, Table) and each.trained for each in stack.layers)
        self._own = {  # memory of their own, as it was tried
            place: (layer.weight.clone(), None if layer.bias is None else layer.bias[:, None] + 0.0)
            for place, layer in enumerate(stack.layers)
            if isinstance(layer, Linear)
        }
        self._first = min(self._own)

    def kept(
        self, lines: Tensor, labels: Tensor, size: int, loss: Loss, number: int = 0
    ) -> list[Plain]:
        """One pass forward and one back.

        Args:
            lines: `(rows, inputs)` float32, or codes for a table. Left as they are. Sensitive.
            labels: as the loss wants them, for as many rows. Sensitive.
            size: of the block that they are padded to.
            loss: its signals start the way back.
            number: of the block; what it leaves stays until the number is used again.

        Returns:
            What each trained layer leaves, from the last to the first, `size` rows each; the
            signals of those that were added are 0. What isn't finite stays so. All may be written
            over. Sensitive.
        """
        rows = len(lines)
        came, went = self._forward(lines, size, number)
        scores = went[-1][:, :rows].t()
        signals = torch.zeros_like(went[-1])
        signals[:, :rows] = loss.signals(scores.double(), labels).view_as(scores).t()
        found: list[Plain] = []
        for place in reversed(range(self.stack.lowest, len(self.stack.layers))):
            layer = self.stack.layers[place]
            if isinstance(layer, Pointwise):
                if layer is not FLATTEN:
                    signals = layer.backward(signals, went[place].view_as(signals))
                continue
            if layer.trained:
                found.append(Plain(layer, came[place], signals))
            if place > self.stack.lowest and isinstance(layer, Linear):
                weight = self._own[place][0]
                room = self._scratch.take((number, "back", place), weight.shape[1], size)
                signals = product(weight.t(), None, signals, room)
                if place == self._first:
                    signals = signals[:, :rows].t().contiguous()
        return found

    def _forward(self, lines: Tensor, size: int, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """What comes into each layer, and what goes out.

        From the first linear layer on `(numbers, size)`; before it a line for each row.
        """
        values, came, went = lines, [], []
        for place, layer in enumerate(self.stack.layers):
            if place == self._first:
                values = self._block(values, size, number)
            came.append(values)
            if isinstance(layer, Table):
                values = functional.embedding(values, layer.weight)
            elif isinstance(layer, Pointwise):
                values = layer.forward(values if place else values.clone())  # may write over them
            else:
                weight, bias = self._own[place]
                room = self._scratch.take((number, "forward", place), len(weight), size)
                values = product(weight, bias, values, room)
            went.append(values)
        return came, went

    def _block(self, values: Tensor, size: int, number: int) -> Tensor:
        """Lines as columns of a block, with columns of 0 behind them."""
        flat = values.flatten(1)
        block = self._scratch.take((number, "block"), flat.shape[1], size)
        block[:, : len(flat)] = flat.t()
        block[:, len(flat) :] = 0.0
        return block


def sizes_for(stack: Stack, rows: float = math.inf) -> tuple[int, ...]:
    """Sizes of the blocks for which a stack is steady on this machine; none where it isn't.

    Args:
        stack: the network.
        rows: how many are expected at a time; known to everybody.
    """
    if stack.widest > WIDEST:
        return ()
    sizes = block_sizes(stack.widest, rows)
    for place, layer in enumerate(stack.layers):
        if isinstance(layer, Linear):
            outputs, inputs = layer.weight.shape
            biased, back = layer.bias is not None, place > stack.lowest
            threads = torch.get_num_threads()
            if not is_steady_layer(inputs, outputs, sizes, threads, biased=biased, back=back):
                return ()
    return sizes
