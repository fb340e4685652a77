"""A head for one brand: the last layer fitted anew to the brand's own people. Sensitive: no noise.

It is logistic regression on what the last hidden layer says (on the design matrix itself where
there is none), held at the common model by a ridge of `PULL` people's worth, so that a small brand
stays near it. It is made when a list is scored, used there and forgotten; it has no encoding that
could leave a silo.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from abfed.learning.networks import one_thread

PULL = 100.0
STEPS = 12

Lines = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def with_own_head(network: nn.Sequential, blocks: Iterable[tuple[Lines, Lines]]) -> nn.Sequential:
    """The network with its last layer fitted to these people, by Newton's method.

    Args:
        network: the common model; its parameters are replaced in place.
        blocks: lines of the design matrix and labels; read once for each step. Rows: sensitive.

    Returns:
        The same network. Sensitive from now on.
    """
    *below, head = network
    if not isinstance(head, nn.Linear):
        message = "the last layer is not linear"
        raise TypeError(message)
    body = nn.Sequential(*below)
    kept = list(blocks)
    start = np.append(head.weight.detach().double().numpy()[0], head.bias.detach().numpy()[0])
    fitted = start.copy()
    with one_thread(), torch.no_grad():
        for _ in range(STEPS):
            slope, curve = PULL * (fitted - start), PULL * np.eye(len(fitted))
            for lines, labels in kept:
                inner = body(torch.from_numpy(lines)).double().numpy()
                inner = np.hstack([inner, np.ones((len(inner), 1))])
                chance = 0.5 * (1.0 + np.tanh(inner @ fitted / 2.0))
                slope += inner.T @ (chance - labels)
                curve += (inner * (chance * (1.0 - chance))[:, None]).T @ inner
            step = np.linalg.solve(curve, slope)
            fitted -= step
            if np.abs(step).max() < 1e-8:
                break
        head.weight.copy_(torch.from_numpy(fitted[None, :-1]))
        head.bias.copy_(torch.from_numpy(fitted[-1:]))
    return network
