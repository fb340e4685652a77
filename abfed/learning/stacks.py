"""A network read as a stack of layers whose forward and backward pass are written out.

Only what is surely known is read: linear layers, embeddings, and activations that work on each
number by itself, one after another. A subclass, a hook, a shared or a half-frozen layer could
change what a layer does, so such a network is no stack and takes the general path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from abfed.learning.losses import Loss

aten = torch.ops.aten


class Kept(NamedTuple):
    """What a trainable layer leaves for its gradients. Rows: sensitive.

    Attributes:
        layer: the layer.
        inputs: what came in, `(rows, inputs)`; for a table codes, `(rows, places)`.
        signals: derivative of each row's loss by what went out, `(rows, outputs)`; for a table
            `(rows, places, outputs)`.
    """

    layer: Linear | Table
    inputs: Tensor
    signals: Tensor


class Linear(NamedTuple):
    """A linear layer; `start` is where its parameters begin among all trainable ones."""

    weight: Tensor
    bias: Tensor | None
    start: int
    trained: bool

    def forward(self, inputs: Tensor) -> Tensor:
        """What the layer makes of its inputs."""
        if self.bias is None:
            return inputs @ self.weight.t()
        return torch.addmm(self.bias, inputs, self.weight.t())

    def backward(self, signals: Tensor, inputs: Tensor, _outputs: Tensor) -> Tensor:
        """The signals of its inputs."""
        return (signals @ self.weight).view_as(inputs)


class Table(NamedTuple):
    """An embedding: the first layer of a stack, or nothing could go back through it."""

    weight: Tensor
    start: int
    trained: bool

    def forward(self, inputs: Tensor) -> Tensor:
        """A line of the table for each code."""
        return functional.embedding(inputs, self.weight)


class Pointwise(NamedTuple):
    """A layer without parameters: its two passes as functions.

    Signals are nobody else's: the way back may write over them. `over` writes over its inputs, for
    where they are a linear layer's output, which nobody needs again.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]  # signals, inputs, outputs
    over: Callable[[Tensor], Tensor] | None = None


Layer = Linear | Table | Pointwise


class Stack:
    """Layers one after another over the parameters of a network, which it shares.

    Attributes:
        size: how many numbers are trained.
        layers: from the input on.
    """

    __slots__ = ("_flattens", "_lowest", "layers", "size")

    def __init__(self, layers: tuple[Layer, ...], size: int) -> None:
        self.layers = layers
        self.size = size
        trained = [
            place
            for place, layer in enumerate(layers)
            if not isinstance(layer, Pointwise) and layer.trained
        ]
        self._lowest = min(trained, default=len(layers))
        linear = [place for place, layer in enumerate(layers) if isinstance(layer, Linear)]
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
        return cls(tuple(layers), size) if size == start else None  # shared: counted once here

    def takes(self, lines: Tensor) -> bool:
        """Whether these lines go through as `(rows, numbers)` from the first linear layer on."""
        if not isinstance(self.layers[0], Table):
            return lines.dim() == 2
        return lines.dim() == 1 or (lines.dim() == 2 and self._flattens)

    def kept(self, lines: Tensor, labels: Tensor, loss: Loss) -> list[Kept]:
        """One pass forward and one back, without autograd.

        Args:
            lines: `(rows, inputs)`, or codes for a table. Rows: sensitive; left as they are.
            labels: as the loss wants them.
            loss: its signals start the way back.

        Returns:
            What each trained layer leaves, from the last to the first. Sensitive.
        """
        passed = [lines]
        before: Layer | None = None
        for layer in self.layers:
            forward = layer.forward
            if isinstance(layer, Pointwise) and layer.over and isinstance(before, Linear):
                forward = layer.over
            passed.append(forward(passed[-1]))
            before = layer
        signals = loss.signals(passed[-1], labels)
        found: list[Kept] = []
        for place in reversed(range(self._lowest, len(self.layers))):
            layer, inputs = self.layers[place], passed[place]
            if not isinstance(layer, Pointwise) and layer.trained:
                found.append(Kept(layer, inputs, signals))
            if place > self._lowest and not isinstance(layer, Table):
                signals = layer.backward(signals, inputs, passed[place + 1])
        return found


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


def _fixed(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Callable[[Any], Pointwise]:
    return lambda _module: Pointwise(forward, backward)


def _relu_backward(signals: Tensor, _: Tensor, outputs: Tensor) -> Tensor:
    aten.threshold_backward.grad_input(signals, outputs, 0.0, grad_input=signals)
    return signals


def _leaky(module: Any) -> Pointwise:
    slope = float(module.negative_slope)
    return Pointwise(
        lambda x: functional.leaky_relu(x, slope),
        lambda g, x, _: aten.leaky_relu_backward(g, x, slope, self_is_result=False),
    )


def _elu(module: Any) -> Pointwise:
    alpha = float(module.alpha)
    return Pointwise(
        lambda x: functional.elu(x, alpha),
        lambda g, x, _: aten.elu_backward(g, alpha, 1.0, 1.0, is_result=False, self_or_result=x),
    )


def _gelu(module: Any) -> Pointwise:
    how = str(module.approximate)
    return Pointwise(
        lambda x: functional.gelu(x, approximate=how),
        lambda g, x, _: aten.gelu_backward(g, x, approximate=how),
    )


def _softplus(module: Any) -> Pointwise:
    beta, threshold = float(module.beta), float(module.threshold)
    return Pointwise(
        lambda x: functional.softplus(x, beta, threshold),
        lambda g, x, _: aten.softplus_backward(g, x, beta, threshold),
    )


def _hardtanh(module: Any) -> Pointwise:
    low, high = float(module.min_val), float(module.max_val)
    return Pointwise(
        lambda x: functional.hardtanh(x, low, high),
        lambda g, x, _: aten.hardtanh_backward(g, x, low, high),
    )


def _flatten(module: Any) -> Pointwise | None:
    if (module.start_dim, module.end_dim) != (1, -1):
        return None
    return FLATTEN


FLATTEN = Pointwise(lambda x: x.flatten(1), lambda g, x, _: g.view(x.shape))

READABLE: dict[type[nn.Module], Callable[[Any], Pointwise | None]] = {
    nn.Identity: _fixed(lambda x: x, lambda g, _x, _y: g),
    nn.ReLU: lambda _: Pointwise(torch.relu, _relu_backward, torch.relu_),
    nn.Tanh: _fixed(torch.tanh, lambda g, _, y: aten.tanh_backward(g, y)),
    nn.Sigmoid: _fixed(torch.sigmoid, lambda g, _, y: aten.sigmoid_backward(g, y)),
    nn.SiLU: _fixed(functional.silu, lambda g, x, _: aten.silu_backward(g, x)),
    nn.Mish: _fixed(functional.mish, lambda g, x, _: aten.mish_backward(g, x)),
    nn.ReLU6: _hardtanh,
    nn.Hardtanh: _hardtanh,
    nn.LeakyReLU: _leaky,
    nn.ELU: _elu,
    nn.GELU: _gelu,
    nn.Softplus: _softplus,
    nn.Flatten: _flatten,
}
"""Layers without parameters that a stack may hold; `Flatten` puts an embedding's places in line."""
