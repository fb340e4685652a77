"""One pass forward and one back through a stack, in fixed point and without autograd.

What they give for a recipient is a function of the parameters and of that recipient's rows, bit for
bit (`abfed.learning.fixedpoint`): who else is in the block, and where, changes nothing.

A column of ones rides behind the inputs of each linear layer and carries its bias; the same column
of the signals is 0. Values are whole numbers times a scale for each recipient; activations commute
with it. Where a recipient's values aren't finite they count as 0, and `alive` says so.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from abfed.learning.fixedpoint import Fixed, largest, round_rows, weights, widened
from abfed.learning.losses import Loss
from abfed.learning.stacks import FLATTEN, Linear, Pointwise, Stack, Table


class Kept(NamedTuple):
    """What a trainable layer leaves for its gradients, as whole numbers. Rows: sensitive.

    Attributes:
        layer: the layer.
        inputs: what came in, `(rows, inputs + 1)`; for a table codes, `(rows, places)`.
        signals: derivative of each row's loss by what went out, `(rows, outputs + 1)`, the last 0;
            for a table `(rows, places × outputs)`.
        scale: what a product of the two stands for, `(recipients,)`.
    """

    layer: Linear | Table
    inputs: Tensor
    signals: Tensor
    scale: Tensor


class Forward(NamedTuple):
    """What one pass forward leaves. Rows: sensitive.

    Attributes:
        scores: `(rows, outputs)` float64.
        alive: whose values are finite, `(recipients,)`.
        passed: what came into each layer, and what came out of the last.
        scales: what one stands for in them, `(recipients,)` each.
    """

    scores: Tensor
    alive: Tensor
    passed: list[Tensor]
    scales: list[Tensor]


class Passes:
    """A stack with its parameters as they are now.

    Args:
        stack: whose parameters are read, once.

    Attributes:
        stack: the same.
        finite: whether all parameters are; if not, no pass may be made.
    """

    __slots__ = ("_fixed", "finite", "stack")

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.finite = stack.is_finite()
        self._fixed: dict[int, Fixed] = {
            place: weights(layer.weight, layer.bias)
            for place, layer in enumerate(stack.layers)
            if self.finite and isinstance(layer, Linear)
        }

    def forward(self, lines: Tensor, recipients: int) -> Forward:
        """Scores of rows.

        Args:
            lines: `(rows, inputs)`, or codes for a table; each recipient's rows next to each other,
                equally many. Rows: sensitive; left as they are.
            recipients: how many.
        """
        values = lines
        if isinstance(self.stack.layers[0], Pointwise):  # it may write over them
            values = lines.to(torch.float64, copy=True)
        scale = torch.ones(recipients, dtype=torch.float64)
        alive, signed, wide = torch.ones(recipients, dtype=torch.bool), True, False
        passed, scales = [values], [scale]
        for place, layer in enumerate(self.stack.layers):
            if isinstance(layer, Table):
                values = functional.embedding(lines, layer.weight).double()
            elif isinstance(layer, Pointwise):
                values, signed = layer.forward(values), layer.signed
            else:
                if not wide:
                    values, wide = widened(values), True
                    alive = torch.isfinite(largest(values, recipients))
                    if not bool(alive.all()):
                        values.view(recipients, -1)[~alive] = 0.0
                if layer.bias is not None:
                    values.view(recipients, -1, values.shape[1])[:, :, -1] = (1.0 / scale)[:, None]
                scale = scale * round_rows(values, recipients, signed=signed)
                passed[place], scales[place] = values, scale
                fixed, signed = self._fixed[place], True
                values, scale = values @ fixed.whole.t(), scale * fixed.scale
            passed.append(values)
            scales.append(scale)
        flat = values.view(recipients, -1) * scale[:, None]
        return Forward(flat.view_as(values)[:, :-1], alive, passed, scales)

    def kept(
        self, lines: Tensor, labels: Tensor, recipients: int, loss: Loss
    ) -> tuple[list[Kept], Tensor]:
        """One pass forward and one back.

        Args:
            lines: see `forward`.
            labels: as the loss wants them.
            recipients: how many.
            loss: its signals start the way back.

        Returns:
            What each trained layer leaves, from the last to the first, and whose values are finite.
            Sensitive.
        """
        scores, alive, passed, scales = self.forward(lines, recipients)
        signals = widened(loss.signals(scores, labels).view_as(scores))
        scale = torch.ones(recipients, dtype=torch.float64)
        found: list[Kept] = []
        for place in reversed(range(self.stack.lowest, len(self.stack.layers))):
            layer, inputs = self.stack.layers[place], passed[place]
            if isinstance(layer, Pointwise):
                if layer is not FLATTEN:
                    outputs = passed[place + 1].flatten(1)[:, : signals.shape[1]]
                    signals = layer.backward(signals, outputs)
                continue
            scale = scale * round_rows(signals, recipients)
            if layer.trained:
                found.append(Kept(layer, inputs, signals, scale * scales[place]))
            if place > self.stack.lowest and isinstance(layer, Linear):
                fixed = self._fixed[place]
                signals, scale = signals @ fixed.whole, scale * fixed.scale
                if self._is_wide(place):
                    signals[:, -1] = 0.0
                else:
                    signals = signals[:, :-1].contiguous()
        return found, alive

    def _is_wide(self, place: int) -> bool:
        """Whether a linear layer comes before this one."""
        return any(isinstance(layer, Linear) for layer in self.stack.layers[:place])
