"""From what a model says of each arm to what is sent: the best arm, and how often another one.

The better the best arm looks against the second, the less is explored; a share of `FLOOR` stays for
everybody, so that each arm keeps being tried on all kinds of people and the next test can tell
whether the model is right. With the chance of what was drawn, the next test is unbiased.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HALVED_BY = 0.01
"""A lead of the best arm that halves the exploration: one outcome in a hundred recipients."""

FLOOR = 0.2
"""Share of the largest exploration that nobody falls below."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Recommendation(NamedTuple):
    """For each recipient, `(recipients,)`. Rows: sensitive.

    Attributes:
        best: place of the arm with the highest chance of the outcome.
        uplift: what it adds to the chance under the control.
        explore: share of sends in which a random arm is drawn instead.
        send: the arm that was drawn.
        chance: with which it was drawn.
    """

    best: Integers
    uplift: Floats
    explore: Floats
    send: Integers
    chance: Floats


def recommend(
    chances: Floats, control: int, explore: float, uniforms: Callable[[int], Floats]
) -> Recommendation:
    """Recommend an arm to each recipient, and draw one.

    Args:
        chances: of the outcome under each arm, `(recipients, arms)`. Rows: sensitive.
        control: place of the control.
        explore: the largest share of exploration, in [0, 1].
        uniforms: draws of [0, 1), each on its own.
    """
    rows, arms = chances.shape
    best = chances.argmax(axis=1)
    ordered = np.sort(chances, axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    share = explore * np.maximum(FLOOR, 0.5 ** (lead / HALVED_BY))
    other = np.minimum((uniforms(rows) * arms).astype(np.int64), arms - 1)
    send = np.where(uniforms(rows) < share, other, best)
    chance = share / arms + np.where(send == best, 1.0 - share, 0.0)
    uplift = chances[np.arange(rows), best] - chances[:, control]
    return Recommendation(best, uplift, share, send, chance)
