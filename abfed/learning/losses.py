"""Losses, as a sum over rows and as the signal that goes back from the scores.

Book-keeping clipping starts from the signal, the general path from the sum; a test holds each
loss's two sides together. A loss belongs to a row alone: none averages, none looks at two rows.
"""

from __future__ import annotations

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

        A tensor of its own, which may be written over.
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
        return torch.sigmoid(scores).sub_(labels.view_as(scores))


LOGISTIC = LogisticLoss()
