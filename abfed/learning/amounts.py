"""Revenue as it was predicted and as it was, from noised counts: never from rows.

A recipient is one count in a table of predicted by found amount, as shares of the plan's bound: the
predicted in public bins, of which the first holds nothing at all, the found at one of two public
nodes beside it, drawn so that its mean is the amount. So means are those of the people.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.learning.evaluation import (
    AMOUNT_BINS,
    AMOUNT_EDGES,
    AMOUNT_NODES,
    SHOWN,
    Estimate,
    chance_variance,
)

AMOUNT_MIDDLES = np.append(0.0, (AMOUNT_EDGES + AMOUNT_NODES[1:]) / 2)
"""What stood for found amounts until protocol 4, which counted them in bins."""


class AmountBin(NamedTuple):
    """Recipients of whom about the same was predicted.

    Attributes:
        predicted_up_to: upper edge of the bin.
        recipients: noised count, at least 0.
        observed: mean of what they spent; None where noise drowns the count.
    """

    predicted_up_to: float
    recipients: float
    observed: Estimate | None


def amounts(
    counts: npt.NDArray[Any],
    variance: float,
    bound: float,
    values: npt.NDArray[np.float64] = AMOUNT_NODES,
) -> tuple[AmountBin, ...]:
    """Each bin of what was predicted.

    Args:
        counts: `(AMOUNT_BINS, AMOUNT_BINS)`, predicted by found, noised. Released.
        variance: of the noise on each count.
        bound: the largest revenue.
        values: what stands for each found amount.
    """
    found = []
    for top, line in zip(AMOUNT_NODES, counts.astype(np.float64), strict=True):
        recipients = float(line.sum())
        observed = None
        if recipients > max(0.0, SHOWN * math.sqrt(AMOUNT_BINS * variance)):
            mean = float(line @ values) / recipients
            spread = chance_variance(values, line, math.sqrt(variance)) / recipients
            noise = variance * float(np.square(values - mean).sum()) / recipients**2
            observed = Estimate(bound * mean, bound * math.sqrt(spread), bound * math.sqrt(noise))
        found.append(AmountBin(bound * float(top), max(0.0, recipients), observed))
    return tuple(found)
