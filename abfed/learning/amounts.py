"""Revenue as it was predicted and as it was, from noised counts: never from rows.

A recipient is one count in a table of predicted by found amount, both in public bins of their share
of the plan's bound; the first bin holds nothing at all.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.learning.evaluation import AMOUNT_BINS, AMOUNT_EDGES, SHOWN, Estimate, chance_variance

_TOPS = np.append(AMOUNT_EDGES, 1.0)
_MIDDLES = np.append(0.0, (AMOUNT_EDGES + _TOPS[1:]) / 2)


class AmountBin(NamedTuple):
    """Recipients of whom about the same was predicted.

    Attributes:
        predicted_up_to: upper edge of the bin.
        recipients: noised count, at least 0.
        observed: mean of what they spent, each at the middle of their bin; None where noise drowns
            the count.
    """

    predicted_up_to: float
    recipients: float
    observed: Estimate | None


def amounts(counts: npt.NDArray[Any], variance: float, bound: float) -> tuple[AmountBin, ...]:
    """Each bin of what was predicted.

    Args:
        counts: `(AMOUNT_BINS, AMOUNT_BINS)`, predicted by found, noised. Released.
        variance: of the noise on each count.
        bound: the largest revenue.
    """
    found = []
    for top, line in zip(_TOPS, counts.astype(np.float64), strict=True):
        recipients = float(line.sum())
        observed = None
        if recipients > max(0.0, SHOWN * math.sqrt(AMOUNT_BINS * variance)):
            mean = float(line @ _MIDDLES) / recipients
            spread = chance_variance(_MIDDLES, line, math.sqrt(variance)) / recipients
            noise = variance * float(np.square(_MIDDLES - mean).sum()) / recipients**2
            observed = Estimate(bound * mean, bound * math.sqrt(spread), bound * math.sqrt(noise))
        found.append(AmountBin(bound * float(top), max(0.0, recipients), observed))
    return tuple(found)
