"""How good a model is, from noised histograms of its scores on recipients held out.

Released figures in, estimates out; never a row. A silo counts each held-out recipient once, in the
bin of their score and the row of their outcome, so one person moves one count by one (L2
sensitivity 1). The bins are public: equal in the logit, because engagement is rare and
equal bins of probability would put nearly everybody into one or two.

1. Histograms of silos add, and so do the variances of their noise.
2. Point estimates use the noised counts as they are: a negative count is not clipped, as clipping
   would be a bias in each empty bin. Only what is *shown* by bin is clipped at 0.
3. Bins that hold nobody are noise only. Estimates are made in the window of adjacent bins whose
   noised counts outweigh their noise (`ScoreHistogram.window`); it comes from what was released
   already and costs nothing. What lies outside is left out, which costs AUC some .005 at
   little data, and halves its standard error there.
4. Each estimate has its sampling part and its noise part apart, or is None where noise drowns it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BIN_WIDTH = 0.2  # of the logit: AUC loses < .003 where it is above .6 (a test measures it)
EDGES: npt.NDArray[np.float64] = np.round(np.arange(-25, 6) * BIN_WIDTH, 10)
"""Inner bin edges from logit -5 (0.7 %) to 1 (73 %); the first and last bins are open."""

BINS = len(EDGES) + 1
"""32 bins of the score, for each of two outcomes."""

AMOUNT_EDGES: npt.NDArray[np.float64] = np.array([0.0, 0.002, 0.01, 0.05, 0.125, 0.25, 0.5])
"""Inner edges of bins of an amount as a share of its bound; the first holds nothing at all."""

AMOUNT_BINS = len(AMOUNT_EDGES) + 1

_MIDDLES = np.concatenate([[EDGES[0]], (EDGES[1:] + EDGES[:-1]) / 2, [EDGES[-1]]])
ROUNDED = 1 / 12  # variance of rounding noised counts to whole ones (Sheppard 1898)
SHOWN = 3.0  # a count below this many sds of its noise is not shown; a class below it isn't ranked

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def histogram(logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[Any]) -> Counts:
    """Count recipients by outcome (row 0: false, row 1: true) and bin of the score.

    Args:
        logits: one score a recipient, `(recipients,)`; not NaN. Rows: sensitive.
        labels: their outcome, 0 or 1, `(recipients,)`. Rows: sensitive.

    Returns:
        `(2, BINS)`. Sensitive: noise must be added. One recipient is one count.
    """
    bins = np.searchsorted(EDGES, np.asarray(logits, dtype=np.float64), side="right")
    flat = np.bincount(np.asarray(labels, dtype=np.int64) * BINS + bins, minlength=2 * BINS)
    return flat.reshape(2, BINS).astype(np.int64)


def amount_counts(
    predicted: npt.NDArray[np.floating[Any]], found: npt.NDArray[np.floating[Any]]
) -> Counts:
    """Count recipients by predicted amount and amount that was, both as shares of its bound.

    Returns:
        `(AMOUNT_BINS, AMOUNT_BINS)`. Sensitive: noise must be added. One recipient is one count.
    """
    rows, columns = (
        np.searchsorted(AMOUNT_EDGES, np.asarray(each, dtype=np.float64), side="left")
        for each in (predicted, found)
    )
    flat = np.bincount(rows * AMOUNT_BINS + columns, minlength=AMOUNT_BINS**2)
    return flat.reshape(AMOUNT_BINS, AMOUNT_BINS).astype(np.int64)


class Estimate(NamedTuple):
    """A figure with what it could be off by.

    Attributes:
        value: the estimate.
        sampling_error: standard error from there being only so many recipients.
        noise_error: standard error from the noise that protects them.
    """

    value: float
    sampling_error: float
    noise_error: float

    @property
    def standard_error(self) -> float:
        """Both parts together."""
        return math.hypot(self.sampling_error, self.noise_error)


def table_noise(noise: Mapping[str, float]) -> float:
    """Standard deviation of the noise on each count of the final evaluation's tables.

    A silo's gate lets no other sensitivity out than that of all tables together.
    """
    return rounded_noise(noise["noise_multiplier"] * noise.get("sensitivity", 1.0))


def rounded_noise(sd: float) -> float:
    """Standard deviation of noise of this one once it is rounded to whole counts."""
    return math.sqrt(sd**2 + ROUNDED) if sd else 0.0


class CalibrationBin(NamedTuple):
    """A bin of the score, for showing: what was predicted and what happened.

    Attributes:
        low, high: logits between which the scores lie; infinite at the ends.
        predicted: probability at the bin's middle.
        observed: share with the outcome, clipped to [0, 1]; None where noise drowns the bin.
        standard_error: of `observed`, noise included; None with it.
        recipients: noised count, clipped at 0.
    """

    low: float
    high: float
    predicted: float
    observed: float | None
    standard_error: float | None
    recipients: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram:
    """Noised counts by outcome and bin of the score. Released.

    `a + b` pools silos: counts add, and so do variances of noise.

    Attributes:
        counts: `(2, BINS)`; row 0 outcome false, row 1 true.
        noise_sd: standard deviation of the noise on each count, in recipients.
    """

    counts: Counts
    noise_sd: float

    @classmethod
    def of_release(cls, counts: Counts, noise: Mapping[str, float]) -> ScoreHistogram:
        """From a release of a training round or of an evaluation, with its noise parameters."""
        if "evaluation_noise_multiplier" in noise:
            return cls(counts, rounded_noise(noise["evaluation_noise_multiplier"]))
        return cls(counts, table_noise(noise))

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        """Pool two silos."""
        return ScoreHistogram(self.counts + other.counts, math.hypot(self.noise_sd, other.noise_sd))

    def window(self) -> slice:
        """The adjacent bins that outweigh their noise: the largest sum of (count - its noise sd).

        Each outcome counts by its share of all recipients. Were they alike, bins would be picked by
        the noise of the rare outcome, on which log-loss depends most: it would err upwards by what
        it was picked for. All bins where there is no noise, or nothing but noise.
        """
        if self.noise_sd == 0:
            return slice(0, BINS)
        sizes = np.clip(self.counts.sum(axis=1).astype(np.float64), 1.0, None)
        shares = sizes / sizes.sum()
        worth = shares @ self.counts - math.sqrt(_squares(shares)) * self.noise_sd
        best, chosen, running, start = 0.0, slice(0, BINS), 0.0, 0
        for place, value in enumerate(worth.tolist()):
            if running <= 0:
                running, start = 0.0, place
            running += value
            if running > best:
                best, chosen = running, slice(start, place + 1)
        return chosen


def pool(histograms: Iterable[ScoreHistogram]) -> ScoreHistogram:
    """One histogram over silos.

    Raises:
        ValueError: there is none.
    """
    first, *others = histograms
    return sum(others, start=first)


def area_under_curve(scores: ScoreHistogram) -> Estimate | None:
    """AUC: the chance that somebody with the outcome scores above somebody without; ties are half.

    Sampling error after DeLong, DeLong and Clarke-Pearson (1988); noise error by the delta method
    with its second-order term. None where either class drowns in noise.
    """
    return area_under_counts(scores.counts[:, scores.window()], scores.noise_sd)


def area_under_counts(counts: npt.NDArray[Any], noise_sd: float) -> Estimate | None:
    """AUC from counts by outcome and bin of any score, `(2, bins)`: see `area_under_curve`."""
    negative, positive = counts.astype(np.float64)
    size = math.sqrt(len(negative)) * noise_sd
    if min(negative.sum(), positive.sum()) <= SHOWN * size:
        return None
    below = (np.cumsum(negative) - negative / 2) / negative.sum()
    above = 1.0 - (np.cumsum(positive) - positive / 2) / positive.sum()
    area = float(positive @ below / positive.sum())
    sampling = (
        _variance(above, negative) / negative.sum() + _variance(below, positive) / positive.sum()
    )
    first = _squares(above - area) / negative.sum() ** 2 + _squares(below - area) / (
        positive.sum() ** 2
    )
    pairs = len(negative) * (2 * len(negative) - 1) / 4  # Σ over pairs of bins of (1, ½ or 0)²
    second = pairs * noise_sd**2 / (negative.sum() * positive.sum()) ** 2
    noise = noise_sd**2 * (first + second)
    return Estimate(area, math.sqrt(sampling), math.sqrt(noise))


def log_loss(scores: ScoreHistogram, slope: float = 1.0, shift: float = 0.0) -> Estimate | None:
    """Mean log-loss in nats, each recipient taken at the middle of their bin.

    Logits are corrected by a slope and a shift (`recalibration`) first. None where noise drowns the
    count of recipients, by which the loss is divided, or the loss itself, which can't be below 0.
    """
    window = scores.window()
    counts = scores.counts[:, window].astype(np.float64)
    recipients = float(counts.sum())
    if recipients <= 2.0 * SHOWN * scores.noise_sd * math.sqrt(counts.size):
        return None
    middles = slope * _MIDDLES[window] + shift
    losses = np.stack([np.logaddexp(0.0, middles), np.logaddexp(0.0, -middles)])
    mean = float((counts * losses).sum() / recipients)
    sampling = _variance(losses, counts) / recipients
    noise = scores.noise_sd**2 * _squares(losses - mean) / recipients**2
    if mean <= 2.0 * math.sqrt(noise):
        return None
    return Estimate(mean, math.sqrt(sampling), math.sqrt(noise))


def majority_loss(scores: ScoreHistogram) -> Estimate | None:
    """Mean log-loss in nats of giving everybody the mean chance: what a model must beat.

    None where noise drowns either class.
    """
    counts = scores.counts[:, scores.window()].astype(np.float64)
    negative, positive = counts.sum(axis=1).tolist()
    noise_sd = scores.noise_sd * math.sqrt(counts.shape[1])
    if min(negative, positive) <= SHOWN * noise_sd:
        return None
    recipients = negative + positive
    share = positive / recipients
    return Estimate(
        _entropy(share),
        _entropy_error(share, math.sqrt(share * (1 - share) / recipients)),
        _entropy_error(share, noise_sd * math.hypot(share, 1 - share) / recipients),
    )


def _entropy(share: float) -> float:
    """In nats."""
    return -share * math.log(share) - (1 - share) * math.log1p(-share)


def _entropy_error(share: float, error: float) -> float:
    """What a standard error of a share is in its entropy.

    The entropy bends so much that its slope at the share says too little: it is what two errors
    make of it, on the side where that is more.
    """
    found = _entropy(share)
    sides = (min(1 - 1e-9, max(1e-9, share + way * error)) for way in (-2.0, 2.0))
    return max(abs(_entropy(side) - found) for side in sides) / 2.0


def recalibration(scores: ScoreHistogram) -> tuple[float, float] | None:
    """Slope and shift of the logit that fit what happened best (Platt 2000).

    From released counts, so it costs nothing. A little ridge holds it at (1, 0) where there is
    little to fit by. None where noise drowns either class.
    """
    if majority_loss(scores) is None:
        return None
    window = scores.window()
    counts = np.clip(scores.counts[:, window].astype(np.float64), 0.0, None)
    people, positive, middles = counts.sum(axis=0), counts[1], _MIDDLES[window]
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


def reliability(scores: ScoreHistogram, slope: float = 1.0, shift: float = 0.0) -> float:
    """Mean distance of predicted and observed chance over the bins that noise doesn't drown.

    Weighted by recipients; logits are corrected by slope and shift first. NaN where no bin is left.
    """
    total = weight = 0.0
    for place in range(*scores.window().indices(BINS)):
        negative, positive = (float(count) for count in scores.counts[:, place])
        recipients = negative + positive
        if recipients <= max(0.0, SHOWN * math.sqrt(2) * scores.noise_sd):
            continue
        predicted = 0.5 * (1.0 + math.tanh((slope * _MIDDLES[place] + shift) / 2))
        total += abs(recipients * predicted - positive)
        weight += recipients
    return total / weight if weight else math.nan


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
    chance = 1 / (1 + np.exp(-_MIDDLES[places]))
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
    predicted = 1 / (1 + math.exp(-_MIDDLES[place]))
    return _observed(scores.counts[:, [place]], scores.noise_sd, predicted, (low, high))


def _observed(
    counts: Counts, noise_sd: float, predicted: float, ends: tuple[float, float]
) -> CalibrationBin:
    """What happened to those whose scores lie in these bins, `(2, bins)`."""
    negative, positive = counts.sum(axis=1).astype(np.float64).tolist()
    recipients, noise = negative + positive, noise_sd * math.sqrt(counts.shape[1])
    if recipients <= SHOWN * math.sqrt(2) * noise:
        return CalibrationBin(*ends, predicted, None, None, max(0.0, recipients))
    share = positive / recipients
    observed = min(1.0, max(0.0, share))
    variance = observed * (1 - observed) / recipients
    variance += noise**2 * ((1 - share) ** 2 + share**2) / recipients**2
    return CalibrationBin(*ends, predicted, observed, math.sqrt(variance), recipients)


def _variance(values: Floats, counts: Floats) -> float:
    """Variance of values that occur `counts` times, at least 0; negative counts weigh nothing."""
    weights = np.clip(counts, 0.0, None)
    mean = float((weights * values).sum() / weights.sum())
    return float((weights * (values - mean) ** 2).sum() / weights.sum())


def _squares(values: Floats) -> float:
    return float((values**2).sum())
