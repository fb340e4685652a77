"""A network read as a stack of layers whose forward and backward pass are written out.

Only what is surely known is read: linear layers, embeddings, and activations that work on each
number by itself and commute with scaling (ReLU and its like), one after another. A subclass, a
hook, a shared or a half-frozen layer could change what a layer does, so such a network is no stack
and takes the general path. So does one with another activation: an exponential isn't rounded
correctly, and torch makes it otherwise at the end of a block than within (decision 0060).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

aten = torch.ops.aten


class Linear(NamedTuple):
    """A linear layer; `start` is where its parameters begin among all trainable ones."""

    weight: Tensor
    bias: Tensor | None
    start: int
    trained: bool


class Table(NamedTuple):
    """An embedding: the first layer of a stack, or nothing could go back through it."""

    weight: Tensor
    start: int
    trained: bool


class Pointwise(NamedTuple):
    """A layer without parameters: its two passes, which may write over what they are given.

    `backward` takes signals and outputs. What goes out is negative only where `signed`.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    signed: bool


Layer = Linear | Table | Pointwise


class Stack:
    """Layers one after another over the parameters of a network, which it shares.

    Attributes:
        size: how many numbers are trained.
        layers: from the input on; at least one is linear.
        lowest: place of the first trained layer.
        widest: the most numbers that a row has before or after a linear layer.
    """

    __slots__ = ("_flattens", "layers", "lowest", "size", "widest")

    def __init__(self, layers: tuple[Layer, ...], size: int) -> None:
        self.layers = layers
        self.size = size
        trained = [
            place
            for place, layer in enumerate(layers)
            if not isinstance(layer, Pointwise) and layer.trained
        ]
        self.lowest = min(trained, default=len(layers))
        linear = [place for place, layer in enumerate(layers) if isinstance(layer, Linear)]
        self.widest = max(
            (max(layer.weight.shape) for layer in layers if isinstance(layer, Linear)), default=1
        )
        before = layers[: min(linear, default=len(layers))]
        self._flattens = any(layer is FLATTEN for layer in before)

    @classmethod
    def of(cls, network: nn.Module) -> Stack | None:
        """The network as a stack; None where it isn't surely one."""
        layers: list[Layer] = []
        start = 0
        for module in _flat(network):
            if not _is_plain(module):
                return None
            layer = _read(module, start, first=not layers)
            if layer is None:
                return None
            layers.append(layer)
            if not isinstance(layer, Pointwise) and layer.trained:
                start += sum(each.numel() for each in module.parameters())
        named = [each for each in network.parameters() if each.requires_grad]
        size = sum(each.numel() for each in named)
        if size != start:  # a shared layer: counted once here
            return None
        return cls(tuple(layers), size) if any(isinstance(x, Linear) for x in layers) else None

    def is_finite(self) -> bool:
        """Whether all parameters of the linear layers are finite now."""
        linear = [layer for layer in self.layers if isinstance(layer, Linear)]
        parameters = [each for layer in linear for each in layer[:2] if each is not None]
        return all(
            math.isfinite(float(each.sum())) or bool(torch.isfinite(each).all())
            for each in parameters
        )

    def takes(self, lines: Tensor) -> bool:
        """Whether these lines go through as `(rows, numbers)` from the first linear layer on."""
        if not isinstance(self.layers[0], Table):
            return lines.dim() == 2
        return lines.dim() == 1 or (lines.dim() == 2 and self._flattens)


def _flat(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of nested sequences, in the order in which they are called."""
    if type(network) is nn.Sequential and _is_plain(network):
        for child in network:
            yield from _flat(child)
    else:
        yield network


def _is_plain(module: nn.Module) -> bool:
    """Whether the module does what its class says: no hooks, float32."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not any(getattr(module, name) for name in hooks) and all(
        each.dtype is torch.float32 for each in module.parameters()
    )


def _read(module: nn.Module, start: int, *, first: bool) -> Layer | None:
    """A module as a layer; None for all that isn't listed here."""
    needed = {each.requires_grad for each in module.parameters()}
    if len(needed) > 1:
        return None
    trained = True in needed
    if type(module) is nn.Linear:
        bias = None if module._parameters["bias"] is None else module.bias.detach()  # noqa: SLF001
        return Linear(module.weight.detach(), bias, start, trained)
    if type(module) is nn.Embedding:
        plain = module.padding_idx is None and module.max_norm is None and not module.sparse
        if not (first and plain) or module.scale_grad_by_freq:
            return None
        return Table(module.weight.detach(), start, trained)
    reading = READABLE.get(type(module))
    return None if reading is None else reading(module)


def _relu_backward(signals: Tensor, outputs: Tensor) -> Tensor:
    aten.threshold_backward.grad_input(signals, outputs, 0.0, grad_input=signals)
    return signals


def _leaky(module: Any) -> Pointwise | None:
    slope = float(module.negative_slope)
    if slope < 0:  # the sign of an output would no longer tell that of its input
        return None
    return Pointwise(
        lambda x: functional.leaky_relu_(x, slope),
        lambda g, y: aten.leaky_relu_backward(g, y, slope, self_is_result=True),
        signed=True,
    )


def _flatten(module: Any) -> Pointwise | None:
    return FLATTEN if (module.start_dim, module.end_dim) == (1, -1) else None


FLATTEN = Pointwise(lambda x: x.flatten(1), lambda g, _: g, signed=True)
IDENTITY = Pointwise(lambda x: x, lambda g, _: g, signed=True)
RELU = Pointwise(torch.relu_, _relu_backward, signed=False)

READABLE: dict[type[nn.Module], Callable[[Any], Pointwise | None]] = {
    nn.Identity: lambda _: IDENTITY,
    nn.ReLU: lambda _: RELU,
    nn.LeakyReLU: _leaky,
    nn.Flatten: _flatten,
}
"""Layers without parameters that a stack may hold; `Flatten` puts an embedding's places in line."""
