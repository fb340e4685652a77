"""Gradients of recipients, each bounded before they are added.

1. The protected unit is the recipient: their gradient is that of the *sum* of their rows' losses.
2. It is clipped to L2 norm `clip` over all parameters together, then summed (Abadi et al. 2016).
3. A recipient whose gradient is not finite adds nothing. An asker chooses the incoming model; one
   that overflows for a single person must not be able to turn a release into a failure.
4. A recipient's gradient is float32; norm, factor and the sum over recipients are float64, so that
   the bound holds to 1e-15 and not to 1e-7 for each row.
5. Nothing is returned beside the sum: norms, losses and counts would be releases too.

Gradients of rows come from Opacus's hooks on whole tensor batches; its optimizer, sampler and
loader stay unused (they draw from torch's global generator).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

MATERIALISED = 1 << 21  # floats: 8 MiB of per-row gradients at a time; more falls out of the cache


def clipped_sum(
    network: nn.Module, lines: Tensor, labels: Tensor, recipients: Tensor, clip: float
) -> dict[str, Tensor]:
    """The sum of recipients' clipped gradients.

    Adding or removing one recipient moves it by at most `clip` in L2.

    Args:
        network: gives one logit a row.
        lines: `(rows, width)` float32. Rows: sensitive.
        labels: 0 or 1, `(rows,)` float32.
        recipients: for each row its recipient's place in the batch, ascending from 0, `(rows,)`.
        clip: L2 bound, in the loss's unit (nats).

    Returns:
        By parameter, float64. Sensitive: noise must be added. Zeros for an empty batch.
    """
    named = dict(network.named_parameters())
    sizes = [parameter.numel() for parameter in named.values()]
    total = torch.zeros(sum(sizes), dtype=torch.float64)
    for rows in _portions(recipients, max(1, MATERIALISED // sum(sizes))):
        per_row = _row_gradients(network, lines[rows], labels[rows])
        total += _clip_and_add(per_row, recipients[rows] - recipients[rows.start], clip)
    parts = total.split(sizes)
    return {
        name: part.view_as(parameter)
        for (name, parameter), part in zip(named.items(), parts, strict=True)
    }


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


def _row_gradients(network: nn.Module, lines: Tensor, labels: Tensor) -> list[Tensor]:
    """Each row's gradient, `(rows, size)` float32 for each parameter."""
    network.train()  # Opacus's hooks sleep in evaluation mode
    hooked = GradSampleModule(network, loss_reduction="sum")
    try:
        # Module hooks want an input with a gradient; without one torch warns at each step.
        scores = hooked(lines.detach().requires_grad_()).squeeze(1)
        binary_cross_entropy_with_logits(scores, labels, reduction="sum").backward()
        # Opacus hangs them on the parameters, an attribute that torch's types don't know
        return [getattr(each, "grad_sample").flatten(1) for each in network.parameters()]  # noqa: B009
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
