"""What a model says of each arm for the same person, and the single column that it leans on most.

Counterfactual lines differ in the arm alone. The leading columns follow from the model and the plan
(both released), never from rows: choosing them costs nothing. What is said of a person follows from
their own row, bit for bit (decision 0060).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from abfed.learning.design_matrix import Design, Floats
from abfed.learning.losses import sigmoid
from abfed.learning.networks import logits


class Column(NamedTuple):
    """One column of the encoded features, with the sign that makes higher mean more.

    Attributes:
        place: which column.
        sign: 1 or -1.
    """

    place: int
    sign: int

    def scores(self, features: Floats) -> Floats:
        """Scores in [-1, 1], `(rows,)`. Rows: sensitive."""
        return features[:, self.place] * np.float32(self.sign)


class Leading(NamedTuple):
    """The single columns to compare a model with.

    Attributes:
        outcome: that moves the chance of the outcome most, over all arms.
        uplift: for each treated arm, that moves its uplift most.
    """

    outcome: Column
    uplift: tuple[Column, ...]


def chances(network: nn.Module, design: Design, features: Floats) -> npt.NDArray[np.float64]:
    """The chance of the outcome under each arm, `(rows, arms)`. Rows: sensitive."""
    rows = len(features)
    found = np.empty((rows, len(design.arms)), dtype=np.float64)
    for arm in range(len(design.arms)):
        lines = design.expand(features, np.full(rows, arm, dtype=np.int8))
        found[:, arm] = sigmoid(torch.from_numpy(logits(network, lines))).numpy()
    return found


def uplifts(chance: npt.NDArray[np.float64], design: Design) -> npt.NDArray[np.float64]:
    """What each treated arm adds to the control's chance, `(rows, arms - 1)`. Rows: sensitive."""
    return chance[:, list(design.treated)] - chance[:, [design.control]]


def leading_columns(network: nn.Module, design: Design) -> Leading:
    """The columns on which outcome and uplift depend most, seen from the middle of the features.

    Each column is moved from -1 to 1 (a category's from 0 to 1) with all others at 0, where a
    number in the middle of its bounds and an unknown category lie.
    """
    width = design.feature_width
    low = np.zeros((width, width), dtype=np.float32)
    low[np.arange(width), np.arange(width)] = np.where(design.numeric_columns, -1.0, 0.0)
    high = np.eye(width, dtype=np.float32)
    at_low, at_high = chances(network, design, low), chances(network, design, high)
    moved = uplifts(at_high, design) - uplifts(at_low, design)
    return Leading(
        _leading((at_high - at_low).mean(axis=1)),
        tuple(_leading(moved[:, arm]) for arm in range(len(design.treated))),
    )


def _leading(moves: npt.NDArray[np.float64]) -> Column:
    place = int(np.argmax(np.abs(moves)))
    return Column(place, 1 if moves[place] >= 0 else -1)
