"""What abfed's training is measured against: Opacus and torch, each used as its manual says.

A contender takes a number of steps and says how many recipients they held. Nothing here is slowed
down: all are warm, all have one thread, and Opacus's ghost clipping is measured on tensor batches
besides its own loader.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore", message="Full backward hook is firing")  # Opacus's own hooks

Steps = Callable[[int], int]  # steps to take -> recipients they held

CLIP, SIGMA, RATE = 1.0, 1.0, 0.1


def network_of(width: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """A multi-layer perceptron with one logit."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def opacus_textbook(
    lines: Tensor, labels: Tensor, hidden: tuple[int, ...], batch: int, *, ghost: bool
) -> Steps:
    """PrivacyEngine on a DataLoader, by hooks or by ghost clipping.

    Args:
        lines: `(recipients, width)`, or `(recipients, rows, width)` for ghost clipping.
        labels: `(recipients,)`, or `(recipients, rows)`.
        hidden: sizes of the hidden layers.
        batch: recipients a step.
        ghost: whether by ghost clipping.
    """
    network = network_of(lines.shape[-1], hidden)
    sequences = lines.dim() == 3
    reduction = "sum" if sequences else "mean"
    made: Any
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=RATE),
            criterion=nn.BCEWithLogitsLoss(reduction=reduction),
            data_loader=DataLoader(TensorDataset(lines, labels[..., None]), batch_size=batch),
            noise_multiplier=SIGMA,
            max_grad_norm=CLIP,
            poisson_sampling=True,
            grad_sample_mode="ghost" if ghost else "hooks",
            loss_reduction=reduction,
        )
    private, optimizer, *criterion, loader = made
    criterion = criterion[0] if criterion else nn.BCEWithLogitsLoss()
    batches = _endless(loader)

    def steps(count: int) -> int:
        held = 0
        for x, y in itertools.islice(batches, count):
            optimizer.zero_grad()
            if sequences:  # as Opacus wants them: rows one after another, and whose they are
                scores = private(x)
                loss = criterion(scores.flatten(0, 1), y.flatten(0, 1), shape=scores.shape)
            else:
                loss = criterion(private(x), y)
            loss.backward()
            optimizer.step()
            held += len(x)
        return held

    return steps


def opacus_ghost_on_tensors(
    lines: Tensor, labels: Tensor, hidden: tuple[int, ...], batch: int
) -> Steps:
    """Opacus's ghost clipping without its loader: a recipient's k rows are one sample of k.

    Args:
        lines: `(recipients, rows, width)`.
        labels: `(recipients, rows)`.
        hidden: sizes of the hidden layers.
        batch: recipients a step.
    """
    network = network_of(lines.shape[-1], hidden)
    hooked = GradSampleModuleFastGradientClipping(
        network, max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="sum"
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE / batch)

    def steps(count: int) -> int:
        for _ in range(count):
            chosen = torch.randint(len(lines), (batch,))
            scores = hooked(lines[chosen]).squeeze(-1)
            each = binary_cross_entropy_with_logits(scores, labels[chosen], reduction="none").sum(1)
            optimizer.zero_grad()
            each.sum().backward(retain_graph=True)
            optimizer.zero_grad()
            weights = hooked.get_clipping_coef()
            hooked.disable_hooks()
            (weights * each).sum().backward()
            hooked.enable_hooks()
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter.grad += torch.normal(0, SIGMA * CLIP, parameter.shape)
            optimizer.step()
        return count * batch

    return steps


def torch_on_tensors(lines: Tensor, labels: Tensor, hidden: tuple[int, ...], batch: int) -> Steps:
    """No privacy: tensor batches through autograd and SGD."""
    network = network_of(lines.shape[-1], hidden)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)

    def steps(count: int) -> int:
        for _ in range(count):
            chosen = torch.randint(len(lines), (batch,))
            optimizer.zero_grad()
            scores = network(lines[chosen]).squeeze(1)
            binary_cross_entropy_with_logits(scores, labels[chosen]).backward()
            optimizer.step()
        return count * batch

    return steps


def torch_with_loader(lines: Tensor, labels: Tensor, hidden: tuple[int, ...], batch: int) -> Steps:
    """No privacy: torch's DataLoader, shuffled."""
    network = network_of(lines.shape[-1], hidden)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    batches = _endless(DataLoader(TensorDataset(lines, labels), batch_size=batch, shuffle=True))

    def steps(count: int) -> int:
        held = 0
        for x, y in itertools.islice(batches, count):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(network(x).squeeze(1), y).backward()
            optimizer.step()
            held += len(x)
        return held

    return steps


def products_alone(lines: Tensor, hidden: tuple[int, ...], batch: int) -> Steps:
    """The matrix products of one pass forward and one back, into memory that is there already."""
    sizes = (lines.shape[-1], *hidden, 1)
    weights = [torch.randn(b, a) for a, b in itertools.pairwise(sizes)]
    values = [torch.randn(batch, size) for size in sizes]
    signals = [torch.randn(batch, size) for size in sizes]
    sums = [torch.empty_like(weight) for weight in weights]

    def steps(count: int) -> int:
        for _ in range(count):
            for place, weight in enumerate(weights):
                torch.mm(values[place], weight.t(), out=values[place + 1])
            for place in reversed(range(len(weights))):
                torch.mm(signals[place + 1].t(), values[place], out=sums[place])
                if place:
                    torch.mm(signals[place + 1], weights[place], out=signals[place])
        return count * batch

    return steps
