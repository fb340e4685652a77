"""Losses, as a sum over rows and as the signal that goes back from the scores.

Book-keeping clipping starts from the signal, the general path from the sum; a test holds each
loss's two sides together. A loss belongs to a row alone: none averages, none looks at two rows.
Signals are made of operations that IEEE 754 rounds correctly, so that a row's don't depend on where
it stands (decision 0060): torch's own sigmoid differs in its last bit at the end of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss

from abfed.learning.heads import EFFECT_STEP, SIZE_STEP, Heads


class Loss(Protocol):
    """What a network is trained to make small."""

    def total(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The sum of all rows' losses, for autograd. Rows: sensitive."""
        ...

    def signals(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The derivative of each row's own loss by its scores, shaped like them. Sensitive.

        Scores are float32 or float64. A tensor of its own, which may be written over.
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
        found = sigmoid(scores)
        there = found.numpy()
        there -= labels.numpy().reshape(there.shape)
        return found


def sigmoid(scores: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ) within 3e-7, by straight lines between points that are made once.

    By numpy, whose calls take half of torch's time for a batch of one score each.

    Args:
        scores: what isn't a number counts as 0. Beyond ±`FLAT` it stays as it is there.
    """
    levels, rises = _LINES[scores.dtype]
    places = np.minimum(scores.numpy(), FLAT)
    if np.isnan(places.sum()):  # the least is finite, or below: no sum of others is none
        places[np.isnan(places)] = 0.0
    np.maximum(places, -FLAT, out=places)
    places *= POINTS  # a power of two: exact
    low = np.floor(places)
    which = low.astype(np.intp)
    places -= low
    places *= rises[which]
    places += levels[which]
    return torch.from_numpy(places)


FLAT = 32.0  # a sigmoid there is 1e-14 from 0 or 1
POINTS = 256.0  # in each unit: lines between them are off by at most .0963 / (8 · 256²) < 2e-7
_SIDE = int(FLAT * POINTS)
_LEVELS = np.array(
    [1.0 / (1.0 + math.exp(-place / POINTS)) for place in (*range(_SIDE + 2), *range(-_SIDE, 0))]
)
"""By place, from 0 on; those below 0 stand at the end, where negative indices find them."""
_RISES = np.roll(_LEVELS, -1) - _LEVELS
_RISES[_SIDE + 1] = 0.0
_LINES = {
    torch.float64: (_LEVELS, _RISES),
    torch.float32: (_LEVELS.astype(np.float32), _RISES.astype(np.float32)),
}

LOGISTIC = LogisticLoss()


@dataclass(frozen=True, slots=True)
class HeadsLoss:
    """The loss of a network with several outputs (`abfed.learning.heads`).

    Cross-entropy for outcomes and for buying; Huber's loss (1964) for the size of what is bought
    and for effects, so that one row's signal stays within ±1 in each. What effects are compared
    with (the other arm's chance, as the network has it now) is held fixed: nothing goes back
    through it. A row whose label isn't known has no loss there.

    Labels are `(rows, heads.labels)`: outcomes, revenue's share of its bound, code of the arm.
    """

    heads: Heads

    def total(self, scores: Tensor, labels: Tensor) -> Tensor:
        """See `Loss.total`."""
        sums = []
        for place, target, step, known in self._targets(scores.detach().double(), labels):
            score = scores.gather(1, place[:, None])[:, 0]
            aim = target.to(scores.dtype)
            if step:
                each = huber_loss(score * step, aim, reduction="none") / step
            else:
                each = binary_cross_entropy_with_logits(score, aim, reduction="none")
            sums.append((each * known).sum())
        return torch.stack(sums).sum()

    def signals(self, scores: Tensor, labels: Tensor) -> Tensor:
        """See `Loss.signals`: what was said minus what was so, for each output that a row has."""
        scores = scores.double()
        found = torch.zeros_like(scores)
        for place, target, step, known in self._targets(scores, labels):
            score = scores.gather(1, place[:, None])[:, 0]
            if step:
                each = (score * step).nan_to_num_(0.0).sub_(target).clamp_(-1.0, 1.0)
            else:
                each = sigmoid(score).sub_(target)
            found.scatter_(1, place[:, None], torch.where(known, each, 0.0)[:, None])
        return found

    def _targets(
        self, scores: Tensor, labels: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, float, Tensor]]:
        """For each output that rows may have: which, what it should be, step, and who has it.

        A step of 0 stands for a logit.
        """
        heads = self.heads
        table = labels.double().view(len(labels), heads.labels)
        arms = table[:, -1].long() if heads.by_arm else torch.zeros(len(table), dtype=torch.int64)
        places = [arms + quantity * heads.arms if heads.by_arm else arms + quantity
                  for quantity in range(heads.quantities)]  # fmt: skip
        first = len(heads.outcomes)
        for quantity in range(first):
            known = ~torch.isnan(table[:, quantity])
            yield places[quantity], table[:, quantity].nan_to_num(0.0), 0.0, known
        if heads.bound:
            share = table[:, first]
            known, bought = ~torch.isnan(share), share > 0.0
            yield places[first], bought.double(), 0.0, known
            yield places[first + 1], share.nan_to_num(0.0), SIZE_STEP, bought
        if not heads.shares:
            return
        label, control = table[:, 0], arms == heads.control
        for number, arm in enumerate(heads.treated):
            of_arm = sigmoid(scores[:, arm]).sub_(label)
            of_control = label - sigmoid(scores[:, heads.control])
            for from_control, aim, known in (
                (True, of_arm, control),
                (False, of_control, arms == arm),
            ):
                place = torch.full_like(arms, heads.effect(number, from_control=from_control))
                yield place, aim, EFFECT_STEP, known


def loss_of(heads: Heads) -> Loss:
    """What makes a network with these outputs learn."""
    return LOGISTIC if heads.outputs == 1 else HeadsLoss(heads)
