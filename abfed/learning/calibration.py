"""Whether predicted chances happen as often as they say, from noised histograms of scores.

Released figures in, estimates out (`evaluation`). What is shown by bin is clipped at 0; what is
fitted, or summed over bins, costs nothing more, as it follows from what was released.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from abfed.learning.evaluation import (
    BINS,
    EDGES,
    MIDDLES,
    SHOWN,
    Counts,
    Estimate,
    ScoreHistogram,
    majority_loss,
)

HALF_NORMAL = math.sqrt(2 / math.pi)
"""Mean distance from 0 of a normal figure, in its standard deviations."""


class CalibrationBin(NamedTuple):
    """A bin of the score, for showing: what was predicted and what happened.

    Attributes:
        low, high: logits between which the scores lie; infinite at the ends.
        predicted: probability at the bin's middle.
        observed: share with the outcome, clipped to [0, 1]; None where noise drowns the bin.
        recipients: noised count, clipped at 0.
    """

    low: float
    high: float
    predicted: float
    observed: Estimate | None
    recipients: float


def recalibration(scores: ScoreHistogram) -> tuple[float, float] | None:
    """Slope and shift of the logit that fit what happened best (Platt 2000).

    From released counts, so it costs nothing. A little ridge holds it at (1, 0) where there is
    little to fit by. None where noise drowns either class.
    """
    if majority_loss(scores) is None:
        return None
    window = scores.window()
    counts = np.clip(scores.counts[:, window].astype(np.float64), 0.0, None)
    people, positive, middles = counts.sum(axis=0), counts[1], MIDDLES[window]
    lines = np.stack([middles, np.ones_like(middles)])
    start, fitted = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    ridge = np.eye(2)
    for _ in range(50):
        chance = 0.5 * (1 + np.tanh(fitted @ lines / 2))
        slope = lines @ (people * chance - positive) + ridge @ (fitted - start)
        curve = (lines * (people * chance * (1 - chance))) @ lines.T + ridge
        step = np.linalg.solve(curve, slope)
        fitted = fitted - step * min(1.0, 1.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(fitted[0]), float(fitted[1])


class Distance(NamedTuple):
    """How far what happened is from what was predicted, in probability.

    Attributes:
        value: mean over recipients of the distance in their bin.
        by_chance: what a model that is right would show, of so many recipients.
        by_both: the same with the noise that protects them.
    """

    value: float
    by_chance: float
    by_both: float


def reliability(scores: ScoreHistogram, slope: float = 1.0, shift: float = 0.0) -> Distance | None:
    """Mean distance of predicted and observed chance over the bins that noise doesn't drown.

    Logits are corrected by slope and shift first. A distance is never below 0, so chance and noise
    alone make some: √(2/π) of a standard deviation in each bin (the mean of a half-normal figure),
    with n p(1 - p) as the variance of n recipients' outcomes and σ²((1 - p)² + p²) as the noise's.
    None where no bin is left.
    """
    total = chance = both = weight = 0.0
    for place in range(*scores.window().indices(BINS)):
        negative, positive = (float(count) for count in scores.counts[:, place])
        recipients = negative + positive
        if recipients <= max(0.0, SHOWN * math.sqrt(2) * scores.noise_sd):
            continue
        predicted = 0.5 * (1.0 + math.tanh((slope * MIDDLES[place] + shift) / 2))
        sampling = recipients * predicted * (1 - predicted)
        noise = scores.noise_sd**2 * (predicted**2 + (1 - predicted) ** 2)
        total += abs(recipients * predicted - positive)
        chance += HALF_NORMAL * math.sqrt(sampling)
        both += HALF_NORMAL * math.sqrt(sampling + noise)
        weight += recipients
    return Distance(total / weight, chance / weight, both / weight) if weight else None


def calibration(scores: ScoreHistogram) -> tuple[CalibrationBin, ...]:
    """What was predicted and what happened, by bin of the window, for showing."""
    window = scores.window()
    bounds = np.concatenate([[-np.inf], EDGES, [np.inf]])
    return tuple(
        _calibration_bin(scores, place, float(bounds[place]), float(bounds[place + 1]))
        for place in range(*window.indices(BINS))
    )


def calibration_in_groups(scores: ScoreHistogram, most: int) -> tuple[CalibrationBin, ...]:
    """The same in at most `most` groups of adjacent bins with about as many recipients each.

    A single bin is often too small to say anything; what was predicted is the group's mean.
    """
    places = list(range(*scores.window().indices(BINS)))
    people = np.clip(scores.counts[:, places].sum(axis=0).astype(np.float64), 0.0, None)
    if not people.sum():
        return ()
    behind = np.cumsum(people) - people / 2
    numbers = np.minimum((behind / people.sum() * most).astype(int), most - 1)
    bounds = np.concatenate([[-np.inf], EDGES, [np.inf]])
    chance = 1 / (1 + np.exp(-MIDDLES[places]))
    found = []
    for number in dict.fromkeys(numbers.tolist()):
        mine = numbers == number
        if not people[mine].sum():
            continue
        chosen = [place for place, one in zip(places, mine, strict=True) if one]
        predicted = float(chance[mine] @ people[mine] / people[mine].sum())
        ends = float(bounds[chosen[0]]), float(bounds[chosen[-1] + 1])
        found.append(_observed(scores.counts[:, chosen], scores.noise_sd, predicted, ends))
    return tuple(found)


def _calibration_bin(scores: ScoreHistogram, place: int, low: float, high: float) -> CalibrationBin:
    predicted = 1 / (1 + math.exp(-MIDDLES[place]))
    return _observed(scores.counts[:, [place]], scores.noise_sd, predicted, (low, high))


def _observed(
    counts: Counts, noise_sd: float, predicted: float, ends: tuple[float, float]
) -> CalibrationBin:
    """What happened to those whose scores lie in these bins, `(2, bins)`."""
    negative, positive = counts.sum(axis=1).astype(np.float64).tolist()
    recipients, noise = negative + positive, noise_sd * math.sqrt(counts.shape[1])
    if recipients <= SHOWN * math.sqrt(2) * noise:
        return CalibrationBin(*ends, predicted, None, max(0.0, recipients))
    share = positive / recipients
    # One more with the outcome and one more without, for the error only (Agresti and Coull 1998):
    # else ten of whom nobody did would be certainty.
    # What noise drowns is as large as the noise: a count below 0 has no variance of its own.
    likely = (min(recipients - noise, max(noise, positive)) + 1) / (recipients + 2)
    return CalibrationBin(
        *ends,
        predicted,
        Estimate(
            min(1.0, max(0.0, share)),
            math.sqrt(likely * (1 - likely) / recipients),
            noise * math.hypot(1 - share, share) / recipients,
        ),
        recipients,
    )
