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
from abfed.learning.heads import SIZE_STEP
from abfed.learning.losses import sigmoid
from abfed.learning.networks import scores_of


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
    heads = design.heads
    outputs = under_each_arm(network, design, features)
    found = _sigmoid(_quantity(outputs, design, 0))
    if heads.shares:
        effects = heads.effects(outputs[0])
        control = found[:, [design.control]]
        found[:, list(design.treated)] = np.clip(control + effects, 0.0, 1.0)
    return found


def further_chances(
    network: nn.Module, design: Design, features: Floats
) -> dict[str, npt.NDArray[np.float64]]:
    """Chances of further outcomes, and expected revenue, under each arm, `(rows, arms)` each."""
    heads = design.heads
    if not heads.further:
        return {}
    outputs = under_each_arm(network, design, features)
    found = {
        name: _sigmoid(_quantity(outputs, design, number))
        for number, name in enumerate(heads.outcomes)
        if number
    }
    if heads.bound:
        first = len(heads.outcomes)
        buys, sizes = (_quantity(outputs, design, first + part) for part in (0, 1))
        found["revenue"] = heads.bound * revenue_share(buys, sizes)
    return found


def revenue_share(
    buys: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Expected revenue as a share of its bound, from the outputs of its two parts."""
    return _sigmoid(buys) * np.clip(SIZE_STEP * sizes, 0.0, 1.0)


def under_each_arm(
    network: nn.Module, design: Design, features: Floats
) -> list[npt.NDArray[np.float64]]:
    """For each arm all outputs, `(rows, outputs)`: had everybody got it. Rows: sensitive."""
    rows, arms = len(features), range(len(design.arms))
    if design.learner == "x":  # lines are the same whatever the arm
        return [scores_of(network, features)] * len(arms)
    lines = (design.expand(features, np.full(rows, arm, dtype=np.int8)) for arm in arms)
    return [scores_of(network, each) for each in lines]


def _quantity(
    outputs: list[npt.NDArray[np.float64]], design: Design, quantity: int
) -> npt.NDArray[np.float64]:
    """One quantity's outputs under each arm, `(rows, arms)`."""
    heads = design.heads
    each = (scores[:, heads.place(quantity, arm)] for arm, scores in enumerate(outputs))
    return np.stack(list(each), axis=1)


def _sigmoid(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    flat = sigmoid(torch.from_numpy(np.ascontiguousarray(scores).ravel()))
    return np.asarray(flat.numpy().reshape(scores.shape))


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
