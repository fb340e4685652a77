"""A head for one brand: the last layer fitted anew to the brand's own people. Sensitive: no noise.

It is a regression on what the last hidden layer says (on the design matrix itself where there is
none), held at the common model by a ridge of `PULL` people's worth, so that a small brand stays
near it. Each output is fitted to the sends that train it: chances by logistic regression, sizes and
effects by least squares. It is made when a list is scored, used there and forgotten; it has no
encoding that could leave a silo. Rows are read in passes, a block at a time: a brand of many
millions of sends takes longer for it, and no more memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from abfed.learning.heads import EFFECT_STEP, ONE_OUTPUT, SIZE_STEP, Heads
from abfed.learning.networks import one_thread

PULL = 100.0
STEPS = 12  # passes over the rows, at most

Lines = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Blocks = Callable[[], Iterable[tuple[Lines, Lines]]]
"""Lines of the design matrix and labels, block by block; the same each time it is called."""


class _Output(NamedTuple):
    """One output of the head, and what it is fitted to.

    Attributes:
        place: which output.
        step: what a score of 1 stands for; 0 for a logit.
        aims: of what comes in and the labels, which rows train it and what it should say of those.
    """

    place: int
    step: float
    aims: Callable[[Floats, Floats], tuple[npt.NDArray[np.bool_], Floats]]


def with_own_head(
    network: nn.Sequential, blocks: Blocks, heads: Heads = ONE_OUTPUT
) -> nn.Sequential:
    """The network with its last layer fitted to these people, by Newton's method.

    Args:
        network: the common model; its parameters are replaced in place.
        blocks: gives the rows, once for each pass. Rows: sensitive.
        heads: what the outputs stand for.

    Returns:
        The same network. Sensitive from now on.
    """
    *below, head = network
    if not isinstance(head, nn.Linear):
        message = "the last layer is not linear"
        raise TypeError(message)
    body = nn.Sequential(*below)

    def rows() -> Iterator[tuple[Floats, Floats]]:
        for lines, labels in blocks():
            inner = body(torch.from_numpy(lines)).double().numpy()
            table = labels.astype(np.float64).reshape(len(inner), heads.labels)
            yield np.hstack([inner, np.ones((len(inner), 1))]), table  # a 1 for the bias

    with one_thread(), torch.no_grad():
        weights = np.column_stack([head.weight.double().numpy(), head.bias.double().numpy()])
        _fit(weights, _quantities(heads), rows)
        if heads.shares:
            _fit(weights, _effects(heads, weights), rows)
        head.weight.copy_(torch.from_numpy(weights[:, :-1]))
        head.bias.copy_(torch.from_numpy(weights[:, -1]))
    return network


def _quantities(heads: Heads) -> list[_Output]:
    """The outputs of outcomes and revenue."""
    first = len(heads.outcomes)

    def output(quantity: int, arm: int) -> _Output:
        def aims(_: Floats, table: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
            target = table[:, min(quantity, first)]
            known = ~np.isnan(target)
            if heads.by_arm:
                known &= table[:, -1] == arm
            if quantity == first:
                target = (target > 0).astype(np.float64)
            elif quantity > first:
                known &= target > 0
            return known, target[known]

        return _Output(heads.place(quantity, arm), SIZE_STEP if quantity > first else 0.0, aims)

    arms = range(heads.arms if heads.by_arm else 1)
    return [output(quantity, arm) for arm in arms for quantity in range(heads.quantities)]


def _effects(heads: Heads, weights: Floats) -> list[_Output]:
    """An X-learner's effects, fitted to what its outcomes say now."""

    def output(number: int, arm: int, *, from_control: bool) -> _Output:
        other = arm if from_control else heads.control

        def aims(inner: Floats, table: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
            mine = table[:, -1] == (heads.control if from_control else arm)
            chance = _sigmoid(inner[mine] @ weights[heads.place(0, other)])
            label = table[mine, 0]
            return mine, chance - label if from_control else label - chance

        return _Output(heads.effect(number, from_control=from_control), EFFECT_STEP, aims)

    return [
        output(number, arm, from_control=from_control)
        for number, arm in enumerate(heads.treated)
        for from_control in (True, False)
    ]


def _fit(
    weights: Floats, outputs: Sequence[_Output], rows: Callable[[], Iterable[tuple[Floats, Floats]]]
) -> None:
    """Fit some outputs' weights in place, all in the same passes."""
    start, left = weights.copy(), list(outputs)
    ridge = PULL * np.eye(weights.shape[1])
    for _ in range(STEPS):
        slopes = {one.place: PULL * (weights[one.place] - start[one.place]) for one in left}
        curves = {one.place: ridge.copy() for one in left}
        for inner, table in rows():
            for one in left:
                known, target = one.aims(inner, table)
                mine = inner[known]
                said, steep = _said(mine @ weights[one.place], one.step)
                slopes[one.place] += mine.T @ (said - target)
                curves[one.place] += (mine * steep[:, None]).T @ mine
        moving = []
        for one in left:
            move = np.linalg.solve(curves[one.place], slopes[one.place])
            weights[one.place] -= move
            if np.abs(move).max() >= 1e-8:
                moving.append(one)
        left = moving
        if not left:
            return


def _said(scores: Floats, step: float) -> tuple[Floats, Floats]:
    """What an output says, and how steeply that grows with its score."""
    if step:
        return step * scores, np.full(len(scores), step)
    chance = _sigmoid(scores)
    return chance, chance * (1.0 - chance)


def _sigmoid(scores: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(scores / 2.0)))
