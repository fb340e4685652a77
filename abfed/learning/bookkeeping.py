"""Book-keeping clipping: the clipped sum from one pass forward and one back (Bu et al. 2023).

No recipient's gradient is made where its norm can be had without it:

1. One row: a linear layer's gradient is the outer product of signal g and input a, its squared
   norm ‖g‖²(‖a‖² + 1) (Goodfellow 2015).
2. Many rows: the norm is of the recipient's *summed* gradient. Either it is the root of
   Σ_jj' (g_j·g_j')(a_j·a_j' + 1) over pairs of their rows (Li et al. 2022), or the sum itself is
   made, where that is smaller: 2·rows² > inputs × outputs.
3. An embedding is a linear layer without bias whose inputs are one-hot: a_j·a_j' is 1 where codes
   agree.
4. With the norms each layer's sum is one product of inputs and signals weighted by the factors.

How the bound holds in float32: a norm is never taken too small. What rounding could hide, also
where a recipient's rows cancel each other, is added to it (`ROUNDING`), and what vanishes in a
square is covered by `VANISHED`. A recipient whose norm isn't finite adds nothing. The products over
a batch are rounded as well; a test measures by how much one recipient moves them beyond the clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from abfed.learning.losses import Loss
from abfed.learning.stacks import Kept, Linear, Stack

ROUNDING = 2.0**-24
"""Relative error of one float32 operation (IEEE 754, to nearest)."""

VANISHED = 2.0**-56
"""More than squares below float32's range can hide from the norm of 10⁴ numbers."""

LARGEST = 1e30
"""A pair's inputs beyond this leave too few bits to tell a norm by: counted as not finite."""

PAIRS = 1 << 22  # numbers of pairwise products at a time: 16 MiB


class Group(NamedTuple):
    """Recipients next to each other who own equally many rows each.

    Attributes:
        rows: of each recipient; at least 1.
        recipients: how many. Sensitive.
    """

    rows: int
    recipients: int


class _Made(NamedTuple):
    """Recipients' summed gradients of a linear layer, `(recipients, …)`. Sensitive."""

    layer: Linear
    weights: Tensor
    biases: Tensor | None

    def of(self, chosen: Tensor) -> _Made:
        biases = None if self.biases is None else self.biases[chosen]
        return _Made(self.layer, self.weights[chosen], biases)


class _Part(NamedTuple):
    """A layer's share of a group: squared norms, and the summed gradients where they were made."""

    squares: Tensor
    made: _Made | None


def book_keeping_sum(
    stack: Stack, lines: Tensor, labels: Tensor, groups: Sequence[Group], clip: float, loss: Loss
) -> Tensor:
    """The sum of recipients' clipped gradients, over all trained parameters in one vector.

    Args:
        stack: the network.
        lines: `(rows, inputs)`. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
        groups: whose the rows are, in their order; together all of them.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.

    Returns:
        `(stack.size,)` float32. Sensitive: noise must be added.
    """
    total = torch.zeros(stack.size)
    if len(lines) == 0:
        return total
    kept = stack.kept(lines, labels, loss)
    start = 0
    for group in groups:
        for piece in _pieces(group):
            stop = start + piece.rows * piece.recipients
            part = [
                Kept(one.layer, one.inputs[start:stop], one.signals[start:stop]) for one in kept
            ]
            _add(total, part, piece, clip)
            start = stop
    return total


def _pieces(group: Group) -> list[Group]:
    """A group in pieces whose pairs of rows fit into memory."""
    most = max(1, PAIRS // group.rows**2) if group.rows > 1 else group.recipients
    full, rest = divmod(group.recipients, max(1, most))
    return [Group(group.rows, most)] * full + ([Group(group.rows, rest)] if rest else [])


def _add(total: Tensor, part: list[Kept], group: Group, clip: float) -> None:
    """Add a group's clipped gradients to the sum."""
    found = [_squares(one, group) for one in part]
    squares = found[0].squares
    for each in found[1:]:
        squares += each.squares
    factors = (clip / squares.sqrt().clamp_(min=clip)).float()
    if not math.isfinite(float(squares.sum())):
        finite = torch.isfinite(squares)
        rows = finite.repeat_interleave(group.rows)
        part = [Kept(one.layer, one.inputs[rows], one.signals[rows]) for one in part]
        found = [_Part(each.squares, each.made and each.made.of(finite)) for each in found]
        factors = factors[finite]
    weights = factors if group.rows == 1 else factors.repeat_interleave(group.rows)
    for one, each in zip(part, found, strict=True):
        if each.made is not None:
            _add_made(total, each.made, factors)
        else:
            _add_product(total, one, weights)


def _squares(one: Kept, group: Group) -> _Part:
    """Squared norms of a layer's gradients by recipient, float64, never too small."""
    inputs, signals = one.inputs, one.signals
    if isinstance(one.layer, Linear):
        biased = one.layer.bias is not None
        if group.rows == 1:
            return _Part(_one_row(inputs, signals, biased=biased), None)
        if 2 * group.rows**2 > inputs.shape[1] * signals.shape[1]:
            return _summed(one.layer, inputs, signals, group)
        by_recipient = inputs.view(group.recipients, group.rows, -1)
        pairs = by_recipient @ by_recipient.transpose(1, 2)
        if biased:
            pairs += 1.0
    else:
        codes = inputs.reshape(group.recipients, -1)
        if codes.shape[1] == 1:
            norms = _norms(signals.reshape(group.recipients, -1))
            return _Part(norms.square() * (1 + _error(signals.shape[-1])), None)
        pairs = (codes[:, :, None] == codes[:, None, :]).float()
    backward = signals.reshape(group.recipients, pairs.shape[1], -1)
    return _Part(_by_pairs(pairs, backward @ backward.transpose(1, 2), inputs, signals), None)


def _one_row(inputs: Tensor, signals: Tensor, *, biased: bool) -> Tensor:
    """A linear layer's squared norms for one row a recipient."""
    inner = _norms(inputs).square_()
    if biased:
        inner += 1.0
    outer = _norms(signals).square_()
    outer *= 1 + _error(inputs.shape[1] + signals.shape[1])
    return outer.mul_(inner)


def _norms(values: Tensor) -> Tensor:
    """Norms of rows, float64, and what a square too small for float32 may have hidden."""
    if values.shape[1] == 1:
        return values.squeeze(1).abs().double()
    norms: Tensor = torch.linalg.vector_norm(values, dim=1).double()
    return norms.add_(VANISHED)


def _by_pairs(inner: Tensor, outer: Tensor, inputs: Tensor, signals: Tensor) -> Tensor:
    """Squared norms from products of pairs of rows, and what may be lost where rows cancel.

    Every product of a pair is off by at most `_error` of the two rows' norms, so their sum by that
    of (Σ_j ‖g_j‖‖a_j‖)², which is at most rows × Σ_j ‖g_j‖²‖a_j‖².
    """
    largest = inner.diagonal(dim1=1, dim2=2).amax(1)
    products = inner.mul_(outer)
    alone = products.diagonal(dim1=1, dim2=2).sum(1, dtype=torch.float64)
    lost = alone * (products.shape[1] * _error(inputs.shape[-1] + signals.shape[-1]))
    squares = products.sum((1, 2), dtype=torch.float64).clamp_(min=0.0) + lost
    return squares.masked_fill_(~(largest < LARGEST), torch.inf)


def _summed(layer: Linear, inputs: Tensor, signals: Tensor, group: Group) -> _Part:
    """Summed gradients, made: they are what is added later, so that their norm is exact."""
    forward = inputs.view(group.recipients, group.rows, -1)
    backward = signals.view(group.recipients, group.rows, -1)
    weights = backward.transpose(1, 2) @ forward
    squares = torch.linalg.vector_norm(weights, dim=(1, 2)).double().square_()
    biases = None if layer.bias is None else backward.sum(1)
    if biases is not None:
        squares += torch.linalg.vector_norm(biases, dim=1).double().square_()
    return _Part(squares * (1 + _error(weights[0].numel())), _Made(layer, weights, biases))


def _error(terms: int) -> float:
    """Relative error of a squared norm made of sums of so many products, and of what follows."""
    return 2.0 * (terms + 16) * ROUNDING


def _add_made(total: Tensor, made: _Made, factors: Tensor) -> None:
    """Summed gradients, weighted by recipient."""
    weight, bias = _views(total, made.layer)
    weight.view(-1).addmv_(made.weights.flatten(1).t(), factors)
    if bias is not None and made.biases is not None:
        bias.addmv_(made.biases.t(), factors)


def _add_product(total: Tensor, one: Kept, weights: Tensor) -> None:
    """Signals, weighted by recipient, times inputs."""
    if isinstance(one.layer, Linear):
        ours, bias = _views(total, one.layer)
        if bias is not None:
            bias.addmv_(one.signals.t(), weights)
        if one.inputs.shape[1] < one.signals.shape[1]:  # weigh the narrower side
            ours.addmm_(one.signals.t(), one.inputs * weights[:, None])
        else:
            ours.addmm_(one.signals.mul_(weights[:, None]).t(), one.inputs)
        return
    size = one.layer.weight.numel()
    table = total[one.layer.start : one.layer.start + size].view_as(one.layer.weight)
    places = one.inputs.numel() // max(1, len(weights))
    signals = one.signals.reshape(-1, table.shape[1]) * weights.repeat_interleave(places)[:, None]
    table.index_add_(0, one.inputs.reshape(-1), signals)


def _views(total: Tensor, layer: Linear) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias within the sum."""
    stop = layer.start + layer.weight.numel()
    weight = total[layer.start : stop].view_as(layer.weight)
    return weight, None if layer.bias is None else total[stop : stop + len(layer.bias)]
