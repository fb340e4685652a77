"""Gradients of recipients, each bounded before they are added.

1. The protected unit is the recipient: their gradient is that of the *sum* of their rows' losses.
2. It is clipped to L2 norm `clip` over all parameters together, then summed (Abadi et al. 2016).
3. A recipient whose gradient is not finite adds nothing. An asker chooses the incoming model; one
   that overflows for a single person must not be able to turn a release into a failure.
4. Nothing is returned beside the sum: norms, losses and counts would be releases too.
5. No generator is drawn from: a module that would (dropout) is refused.

A stack of layers takes the fast path (`abfed.learning.bookkeeping`). Any other module that Opacus
accepts takes the general one, which makes each row's gradient through Opacus's hooks; where each
recipient has one row and the network is large, Opacus's ghost clipping finds the norms instead.
Made gradients are float32; norm, factor and the sum over recipients are float64. Opacus's
optimizer, sampler and loader stay unused (they draw from torch's global generator).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from abfed.learning.batches import Batch, owners
from abfed.learning.bookkeeping import Group, book_keeping_sum
from abfed.learning.losses import LOGISTIC, Loss
from abfed.learning.stacks import Stack

GHOST_ROUNDING = 2.0**-14
"""How far a norm that Opacus sums in float32 may be too small, generously."""

GHOST = 1 << 14  # parameters: above, two backward passes cost less than writing gradients down
MATERIALISED = 1 << 21  # floats: 8 MiB of per-row gradients at a time; more falls out of the cache


def clipped_sum(
    network: nn.Module,
    lines: Tensor,
    labels: Tensor,
    recipients: Tensor,
    clip: float,
    *,
    loss: Loss = LOGISTIC,
) -> dict[str, Tensor]:
    """The sum of recipients' clipped gradients.

    Adding or removing one recipient moves it by at most `clip` in L2.

    Args:
        network: gives one line of scores a row.
        lines: `(rows, width)` float32. Rows: sensitive.
        labels: 0 or 1, `(rows,)` float32.
        recipients: for each row its recipient's place in the batch, ascending from 0, `(rows,)`.
        clip: L2 bound, in the loss's unit (nats).
        loss: what is made small.

    Returns:
        By trained parameter, float64. Sensitive: noise must be added. Zeros for an empty batch.

    Raises:
        ValueError: the network draws random numbers.
    """
    batch = _grouped(lines, labels, recipients)
    return named(network, BatchGradients(network, loss).clipped_sum(batch, clip))


def named(network: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """A vector over all trained parameters, by their names."""
    trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
    parts = vector.split([each.numel() for each in trained.values()])
    return {
        name: part.view_as(each) for (name, each), part in zip(trained.items(), parts, strict=True)
    }


class BatchGradients:
    """Clipped sums of a network's gradients, batch after batch.

    Args:
        network: read once; its parameters may change in place between batches.
        loss: what is made small.

    Raises:
        ValueError: the network draws random numbers.
    """

    __slots__ = ("_loss", "_network", "_size", "_stack")

    def __init__(self, network: nn.Module, loss: Loss = LOGISTIC) -> None:
        _refuse_dice(network)
        self._network = network
        self._loss = loss
        self._stack = Stack.of(network)
        self._size = _size(network)

    def clipped_sum(self, batch: Batch, clip: float) -> Tensor:
        """The sum of recipients' clipped gradients over all trained parameters, `(size,)`.

        Returns:
            float64. Sensitive: noise must be added. Zeros for an empty batch.
        """
        if self._stack is not None and self._stack.takes(batch.lines):
            found = book_keeping_sum(
                self._stack, batch.lines, batch.labels, batch.groups, clip, self._loss
            )
            return found.double()
        one_row = all(group.rows == 1 for group in batch.groups)
        path = ghost_sum if one_row and self._size > GHOST else materialised_sum
        return path(self._network, batch, clip, self._loss)


def _grouped(lines: Tensor, labels: Tensor, recipients: Tensor) -> Batch:
    """Rows with their owners as a batch: those of recipients with fewest rows first."""
    if len(recipients) == 0:
        return Batch(lines, labels, ())
    if int(recipients[-1]) + 1 == len(recipients):
        return Batch(lines, labels, (Group(1, len(recipients)),))
    _, counts = recipients.unique_consecutive(return_counts=True)
    order = counts.repeat_interleave(counts).argsort(stable=True)
    sizes, many = counts.unique(return_counts=True)
    groups = tuple(Group(*pair) for pair in zip(sizes.tolist(), many.tolist(), strict=True))
    return Batch(lines[order], labels[order], groups)


def _refuse_dice(network: nn.Module) -> None:
    """Refuse modules that draw from torch's global generator, which anybody may have seeded."""
    for name, module in network.named_modules():
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0  # noqa: SLF001
        if dropout or isinstance(module, nn.RReLU):
            message = f"{name or 'the network'} draws random numbers: {type(module).__name__}"
            raise ValueError(message)


def materialised_sum(network: nn.Module, batch: Batch, clip: float, loss: Loss) -> Tensor:
    """The clipped sum from each row's gradient: any module that Opacus accepts.

    Returns:
        `(size,)` float64. Sensitive.
    """
    recipients = owners(batch.groups)
    total = torch.zeros(_size(network), dtype=torch.float64)
    for rows in _portions(recipients, max(1, MATERIALISED // len(total))):
        per_row = _row_gradients(network, batch.lines[rows], batch.labels[rows], loss)
        total += _clip_and_add(per_row, recipients[rows] - recipients[rows.start], clip)
    return total


def ghost_sum(network: nn.Module, batch: Batch, clip: float, loss: Loss) -> Tensor:
    """The clipped sum by ghost clipping (Li et al. 2022): norms first, then a weighted loss.

    Args:
        network: a module that Opacus accepts.
        batch: one row a recipient.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.

    Returns:
        `(size,)` float64. Sensitive.
    """
    from opacus.grad_sample import GradSampleModuleFastGradientClipping  # noqa: PLC0415 - as below

    total = torch.zeros(_size(network), dtype=torch.float64)
    if len(batch.lines) == 0:
        return total
    network.train()  # Opacus's hooks sleep in evaluation mode
    hooked = GradSampleModuleFastGradientClipping(network, loss_reduction="sum")
    try:
        with torch.enable_grad():
            scores = hooked(_with_gradient(batch.lines))
        signals = loss.signals(scores.detach(), batch.labels)
        scores.backward(signals, retain_graph=True)
        norms = hooked.get_norm_sample().double() * (1 + GHOST_ROUNDING)
        hooked.disable_hooks()
        network.zero_grad(set_to_none=True)
        finite = torch.isfinite(norms)
        if bool(finite.all()):
            scores.backward(signals * (clip / norms.clamp(min=clip)).float()[:, None])
            grads = [each.grad for each in _trained(network) if each.grad is not None]
            return torch.cat([grad.flatten() for grad in grads]).double()
    finally:
        hooked.cleanup()
        network.zero_grad(set_to_none=True)
    rest = Batch(batch.lines[finite], batch.labels[finite], (Group(1, int(finite.sum())),))
    return ghost_sum(network, rest, clip, loss)


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [each for each in network.parameters() if each.requires_grad]


def _size(network: nn.Module) -> int:
    return sum(each.numel() for each in _trained(network))


def _with_gradient(lines: Tensor) -> Tensor:
    """Lines that want a gradient: without one torch warns of Opacus's hooks at each step."""
    return lines.detach().requires_grad_() if lines.is_floating_point() else lines


def _portions(recipients: Tensor, size: int) -> Iterator[slice]:
    """Slices of about `size` rows that never part a recipient's rows."""
    rows, start = len(recipients), 0
    while start < rows:
        stop = start + size
        if stop < rows:
            last = recipients[stop]
            first = int(torch.searchsorted(recipients, last))
            stop = first if first > start else int(torch.searchsorted(recipients, last, right=True))
        yield slice(start, min(stop, rows))
        start = stop


def _row_gradients(network: nn.Module, lines: Tensor, labels: Tensor, loss: Loss) -> list[Tensor]:
    """Each row's gradient, `(rows, size)` float32 for each trained parameter."""
    from opacus.grad_sample import GradSampleModule  # noqa: PLC0415 - 100 MB that a stack is spared

    network.train()  # Opacus's hooks sleep in evaluation mode
    trained = _trained(network)
    hooked = GradSampleModule(network, loss_reduction="sum")
    try:
        with torch.enable_grad():
            loss.total(hooked(_with_gradient(lines)), labels).backward()
        # Opacus hangs them on the parameters, an attribute that torch's types don't know
        return [getattr(each, "grad_sample").flatten(1) for each in trained]  # noqa: B009
    finally:
        hooked.cleanup()
        network.zero_grad(set_to_none=True)


def _clip_and_add(per_row: list[Tensor], recipients: Tensor, clip: float) -> Tensor:
    """Rows to recipients, recipients to the bound, and the sum over them, `(parameters,)`."""
    count = int(recipients[-1]) + 1
    gradients = [_by_recipient(part, recipients, count).double() for part in per_row]
    norms = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(part, dim=1) for part in gradients]), dim=0
    )
    finite = torch.isfinite(norms)
    if not bool(finite.all()):
        for part in gradients:
            part[~finite] = 0.0
        norms[~finite] = 0.0
    factors = clip / norms.clamp(min=clip)
    return torch.cat([factors @ part for part in gradients])


def _by_recipient(part: Tensor, recipients: Tensor, count: int) -> Tensor:
    """Sums of each recipient's rows, `(count, size)`."""
    if count == len(part):
        return part
    return torch.zeros(count, part.shape[1]).index_add_(0, recipients, part)
