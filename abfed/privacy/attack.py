"""How much an attack proves: lower bounds on ε from guesses, with their confidence.

The one-run audit of Steinke, Nasr and Jagielski (2023). Each of m canaries is in the data or out by
a fair coin of its own; the attacker sees the output and guesses some of the coins. Where the
mechanism is (ε, δ)-DP for each canary, v or more of r guesses are right with probability at most

    P[X ≥ v] + 2 m δ · max over i of P[v > X ≥ v − i] / i,      X ~ Binomial(r, e^ε / (1 + e^ε))

(their Theorem 5.2, simplified as in their appendix). The largest ε that this makes less likely than
1 − confidence is proved wrong, and so is every smaller one. Several runs with fresh coins are one
mechanism on all their canaries: each canary is in one run only.

An attack may be tried in several ways (which score, how many guesses). The confidence is for all of
them together: each gets its share of the error (Bonferroni).

A lower bound below the claim proves nothing good by itself; one above the claim proves a defect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
WAYS = ((0.01, True), (0.04, True), (0.03, False))
"""How many guesses are tried, of the canaries; and whether "out" is guessed as often as "in"."""

HIGHEST = 40.0  # where the search for ε ends


class LowerBound(NamedTuple):
    """What an attack proved.

    Attributes:
        epsilon: with the confidence below, the mechanism is (ε, δ)-DP for no smaller ε.
        delta: at this δ.
        confidence: over the coins and the noise, for all ways that were tried together.
        canaries: how many coins there were.
        guesses: how many were guessed in the best way.
        correct: how many of these were right.
        way: name of the best score.
    """

    epsilon: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    way: str


def p_value(epsilon: float, delta: float, *, canaries: int, guesses: int, correct: int) -> float:
    """How likely so many right guesses are at most, if the mechanism is (ε, δ)-DP."""
    chance = 1.0 / (1.0 + math.exp(-epsilon))
    tail = float(stats.binom.sf(correct - 1, guesses, chance))
    below = stats.binom.cdf(np.arange(-1, correct), guesses, chance)  # P[X ≤ −1], P[X ≤ 0], …
    spans = np.arange(1, correct + 1)
    between = below[correct] - below[correct - spans]  # P[v > X ≥ v − i]
    worst = float((between / spans).max()) if correct else 0.0
    return min(1.0, tail + 2.0 * canaries * delta * worst)


def lower_bound(
    *, canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """The largest ε that so many right guesses refute; 0 where they refute none."""

    def likely(epsilon: float) -> bool:
        found = p_value(epsilon, delta, canaries=canaries, guesses=guesses, correct=correct)
        return found >= 1.0 - confidence

    if not guesses or likely(0.0):
        return 0.0
    low, high = 0.0, HIGHEST
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if likely(middle) else (middle, high)
    return low


def best_bound(
    scores: Mapping[str, Floats],
    included: Flags,
    *,
    delta: float,
    confidence: float = CONFIDENCE,
) -> LowerBound:
    """The best that scores prove, tried in all ways at one confidence.

    Args:
        scores: by name; a higher one says "in". Each `(canaries,)`.
        included: the coins, `(canaries,)`.
        delta: of the claim.
        confidence: for all ways together.

    Returns:
        The largest of the lower bounds.
    """
    canaries = len(included)
    each = 1.0 - (1.0 - confidence) / (len(scores) * len(WAYS))
    best = LowerBound(0.0, delta, confidence, canaries, 0, 0, "none")
    for way, values in scores.items():
        order = np.argsort(values, kind="stable")
        for share, both in WAYS:
            half = max(1, round(share * canaries / (2 if both else 1)))
            correct = int(included[order[canaries - half :]].sum())
            guesses = half
            if both:
                correct += int((~included[order[:half]]).sum())
                guesses += half
            epsilon = lower_bound(
                canaries=canaries,
                guesses=guesses,
                correct=correct,
                delta=delta,
                confidence=each,
            )
            if epsilon > best.epsilon:
                best = LowerBound(epsilon, delta, confidence, canaries, guesses, correct, way)
    return best


def surest(epsilon: float) -> float:
    """How sure one can become, at most, of what was as likely as not before (δ aside).

    >>> round(surest(1.0), 4)
    0.7311
    """
    return 1.0 / (1.0 + math.exp(-min(epsilon, 700.0)))  # beyond, exp has no float


def most_found(epsilon: float, delta: float, false_alarms: float) -> float:
    """In how many cases a test for one person finds them, at most, at this rate of false alarms.

    >>> round(most_found(1.0, 1e-6, 0.01), 4)
    0.0272
    """
    return min(1.0, math.exp(min(epsilon, 700.0)) * false_alarms + delta)
