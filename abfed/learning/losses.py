"""Losses, as a sum over rows and as the signal that goes back from the scores.

Book-keeping clipping starts from the signal, the general path from the sum; a test holds each
loss's two sides together. A loss belongs to a row alone: none averages, none looks at two rows.
Signals are made of operations that IEEE 754 rounds correctly, so that a row's don't depend on where
it stands (decision 0060): torch's own sigmoid differs in its last bit at the end of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class Loss(Protocol):
    """What a network is trained to make small."""

    def total(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The sum of all rows' losses, for autograd. Rows: sensitive."""
        ...

    def signals(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The derivative of each row's own loss by its scores, shaped like them. Sensitive.

        Scores are float64. A tensor of its own, which may be written over.
        """
        ...


@dataclass(frozen=True, slots=True)
class LogisticLoss:
    """Cross-entropy (nats) of independent yes-or-no outcomes, one logit each.

    Scores are `(rows, outcomes)`, labels 0 or 1 in as many numbers.
    """

    def total(self, scores: Tensor, labels: Tensor) -> Tensor:
        """See `Loss.total`."""
        return binary_cross_entropy_with_logits(scores, labels.view_as(scores), reduction="sum")

    def signals(self, scores: Tensor, labels: Tensor) -> Tensor:
        """See `Loss.signals`: probability minus label."""
        return sigmoid(scores).sub_(labels.view_as(scores))


def sigmoid(scores: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ) within 2e-7, by straight lines between points that are made once.

    Args:
        scores: float64; what isn't a number counts as 0. Beyond ±`FLAT` it stays as it is there.
    """
    places = scores.nan_to_num(0.0).clamp_(-FLAT, FLAT).add_(FLAT).mul_(POINTS)
    low = places.floor()
    which = low.long()
    return places.sub_(low).mul_(_STEPS[which]).add_(_LEVELS[which])


FLAT = 32.0  # a sigmoid there is 1e-14 from 0 or 1
POINTS = 256.0  # in each unit: lines between them are off by at most .0963 / (8 · 256²) < 2e-7
_LEVELS = torch.tensor(
    [1.0 / (1.0 + math.exp(FLAT - place / POINTS)) for place in range(int(2 * FLAT * POINTS) + 2)],
    dtype=torch.float64,
)
_STEPS = _LEVELS.diff(append=_LEVELS[-1:])

LOGISTIC = LogisticLoss()
