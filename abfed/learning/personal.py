"""A head for one brand: the last layer fitted anew to the brand's own people. Sensitive: no noise.

It is a regression on what the last hidden layer says (on the design matrix itself where there is
none), held at the common model by a ridge of `PULL` people's worth, so that a small brand stays
near it. Each output is fitted to the sends that train it: chances by logistic regression, sizes and
effects by least squares. It is made when a list is scored, used there and forgotten; it has no
encoding that could leave a silo.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from abfed.learning.heads import EFFECT_STEP, ONE_OUTPUT, SIZE_STEP, Heads
from abfed.learning.networks import one_thread

PULL = 100.0
STEPS = 12

Lines = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def with_own_head(
    network: nn.Sequential, blocks: Iterable[tuple[Lines, Lines]], heads: Heads = ONE_OUTPUT
) -> nn.Sequential:
    """The network with its last layer fitted to these people, by Newton's method.

    Args:
        network: the common model; its parameters are replaced in place.
        blocks: lines of the design matrix and labels; read once. Rows: sensitive.
        heads: what the outputs stand for.

    Returns:
        The same network. Sensitive from now on.
    """
    *below, head = network
    if not isinstance(head, nn.Linear):
        message = "the last layer is not linear"
        raise TypeError(message)
    body = nn.Sequential(*below)
    with one_thread(), torch.no_grad():
        parts = [(_inner(body, lines), labels) for lines, labels in blocks]
        if not parts:
            return network
        inner = np.vstack([inner for inner, _ in parts])
        table = np.concatenate([labels for _, labels in parts]).astype(np.float64)
        table = table.reshape(len(inner), heads.labels)
        weights = np.column_stack([head.weight.double().numpy(), head.bias.double().numpy()])
        _fit_quantities(weights, inner, table, heads)
        if heads.shares:
            _fit_effects(weights, inner, table, heads)
        head.weight.copy_(torch.from_numpy(weights[:, :-1]))
        head.bias.copy_(torch.from_numpy(weights[:, -1]))
    return network


def _inner(body: nn.Sequential, lines: Lines) -> Floats:
    """What comes into the last layer, with a 1 for its bias."""
    inner = body(torch.from_numpy(lines)).double().numpy()
    return np.hstack([inner, np.ones((len(inner), 1))])


def _fit_quantities(weights: Floats, inner: Floats, table: Floats, heads: Heads) -> None:
    """Fit the outputs of outcomes and revenue, in place."""
    first = len(heads.outcomes)
    for arm in range(heads.arms if heads.by_arm else 1):
        mine = table[:, -1] == arm if heads.by_arm else np.ones(len(table), dtype=np.bool_)
        for quantity in range(heads.quantities):
            place = heads.place(quantity, arm)
            target = table[:, min(quantity, first)]
            known, step = mine & ~np.isnan(target), 0.0
            if quantity == first:
                target = (target > 0).astype(np.float64)
            elif quantity > first:
                known, step = known & (target > 0), SIZE_STEP
            weights[place] = _fitted(weights[place], inner[known], target[known], step)


def _fit_effects(weights: Floats, inner: Floats, table: Floats, heads: Heads) -> None:
    """Fit an X-learner's effects to what its outcomes say now, in place."""
    label, arms = table[:, 0], table[:, -1]

    def chance(arm: int, rows: npt.NDArray[np.bool_]) -> Floats:
        return _sigmoid(inner[rows] @ weights[heads.place(0, arm)])

    control = arms == heads.control
    for number, arm in enumerate(heads.treated):
        treated = arms == arm
        for from_control, rows, target in (
            (True, control, chance(arm, control) - label[control]),
            (False, treated, label[treated] - chance(heads.control, treated)),
        ):
            place = heads.effect(number, from_control=from_control)
            weights[place] = _fitted(weights[place], inner[rows], target, EFFECT_STEP)


def _fitted(start: Floats, inner: Floats, target: Floats, step: float) -> Floats:
    """One output's weights; a `step` of 0 stands for a logit."""
    fitted = start.copy()
    for _ in range(STEPS):
        said = step * (inner @ fitted) if step else _sigmoid(inner @ fitted)
        steep = np.full(len(said), step) if step else said * (1.0 - said)
        slope = PULL * (fitted - start) + inner.T @ (said - target)
        curve = PULL * np.eye(len(fitted)) + (inner * steep[:, None]).T @ inner
        move = np.linalg.solve(curve, slope)
        fitted -= move
        if np.abs(move).max() < 1e-8:
            break
    return fitted


def _sigmoid(scores: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(scores / 2.0)))
