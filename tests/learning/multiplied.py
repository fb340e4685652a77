"""What the sums of a stack's gradients multiply, seen from outside."""

import torch
from torch import Tensor

from abfed.learning.batches import Batch
from abfed.learning.bounded import Sums
from abfed.learning.gradients import StackSums
from abfed.learning.losses import LOGISTIC
from abfed.learning.stacks import Stack


def multiplied_lines(
    monkeypatch, stack: Stack, batch: Batch, expected: float
) -> list[tuple[Tensor, ...]]:
    """Inputs and signals of each layer, one of them weighted, as they are multiplied and added."""
    found: list[tuple[Tensor, ...]] = []
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(
            Sums, "add", lambda _, one, __: found.append((one.inputs + 0.0, one.signals + 0.0))
        )
        StackSums(stack, LOGISTIC, expected).units(batch, 0.7)
    return found
