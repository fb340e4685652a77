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
from abfed.learning.steady import Scratch, block_sizes, is_steady_layer, product

WIDEST = 1 << 16
"""Numbers of a layer, at most: the bounds on what float32 may lose hold as far as that."""


class Plain(NamedTuple):
    """What a trainable layer leaves for its gradients, in float32. Rows: sensitive.

    Attributes:
        layer: the layer.
        inputs: what came in, `(inputs, rows)`.
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
        stack: the same.
    """

    __slots__ = ("_own", "_scratch", "stack")

    def __init__(self, stack: Stack, scratch: Scratch) -> None:
        self.stack = stack
        self._scratch = scratch
        self._own = {  # memory of their own, as it was tried
            place: (layer.weight.clone(), None if layer.bias is None else layer.bias[:, None] + 0.0)
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
        passed = [self._block(lines, size)]
        for place, layer in enumerate(layers):
            if isinstance(layer, Linear):
                weight, bias = self._own[place]
                room = self._scratch.take(("forward", place), len(weight), size)
                passed.append(product(weight, bias, passed[-1], room))
            else:
                passed.append(_pointwise(layer).forward(passed[-1]))
        scores = passed[-1][:, :rows].t()
        signals = torch.zeros_like(passed[-1])
        signals[:, :rows] = loss.signals(scores.double(), labels).view_as(scores).t()
        found: list[Plain] = []
        for place in reversed(range(self.stack.lowest, len(layers))):
            layer = layers[place]
            if not isinstance(layer, Linear):
                signals = _pointwise(layer).backward(signals, passed[place + 1])
                continue
            if layer.trained:
                found.append(Plain(layer, passed[place], signals))
            if place > self.stack.lowest:
                weight = self._own[place][0]
                room = self._scratch.take(("back", place), weight.shape[1], size)
                signals = product(weight.t(), None, signals, room)
        return found

    def _block(self, lines: Tensor, size: int) -> Tensor:
        """Lines as columns of a block, with columns of 0 behind them."""
        block = self._scratch.take("block", lines.shape[1], size)
        block[:, : len(lines)] = lines.t()
        block[:, len(lines) :] = 0.0
        return block


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

    None, too, for stacks that hold anything but linear layers and activations.

    Args:
        stack: the network.
        rows: how many are expected at a time; known to everybody.
    """
    if stack.widest > WIDEST or any(isinstance(x, Table) or x is FLATTEN for x in stack.layers):
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
