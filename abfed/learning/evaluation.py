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
   Noise spreads what is seen, so its share is taken off the sampling part: that is what the same
   people would have shown without noise. Counts below 0 count as such, since cutting them off would
   be a bias; only where that leaves no variance at all are they cut, which errs upwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BIN_WIDTH = 0.2  # of the logit: AUC loses < .003 where it is above .6 (a test measures it)
EDGES: npt.NDArray[np.float64] = np.round(np.arange(-45, 26) * BIN_WIDTH, 10)
"""Inner bin edges from logit -9 (0.012 %) to 5 (99.3 %); the first and last bins are open.

Complaints lie at one end, opens of a loyal brand at the other. Bins that nobody is in cost next to
nothing (`ScoreHistogram.window`), people in an open one are told nothing of (decision 0212).
"""

BINS = len(EDGES) + 1
"""Bins of the score, for each of two outcomes."""

BINS_BEFORE = 32
"""Bins of releases until protocol 4: from logit -5 to 1, with an open one at either end."""
_FIRST_BEFORE = 20  # where they lie among today's

AMOUNT_EDGES: npt.NDArray[np.float64] = np.array([0.0, 0.002, 0.01, 0.05, 0.125, 0.25, 0.5])
"""Inner edges of bins of an amount as a share of its bound; the first holds nothing at all."""

AMOUNT_BINS = len(AMOUNT_EDGES) + 1

AMOUNT_NODES: npt.NDArray[np.float64] = np.append(AMOUNT_EDGES, 1.0)
"""What stands for amounts that were found: each is taken for one of the two beside it."""

MIDDLES = np.concatenate([[EDGES[0]], (EDGES[1:] + EDGES[:-1]) / 2, [EDGES[-1]]])
"""Logits that stand for the people of each bin."""
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
    predicted: npt.NDArray[np.floating[Any]],
    found: npt.NDArray[np.floating[Any]],
    uniforms: npt.NDArray[np.floating[Any]],
) -> Counts:
    """Count recipients by predicted amount and amount that was, both as shares of its bound.

    The first in bins; the second at one of the two nodes beside it, drawn so that its mean is the
    amount: a bin's middle says too much or too little, as prices have it (decision 0213).

    Args:
        predicted: `(recipients,)`, in [0, 1]. Rows: sensitive.
        found: the same.
        uniforms: draws of [0, 1), one a recipient, each on its own.

    Returns:
        `(AMOUNT_BINS, AMOUNT_BINS)`. Sensitive: noise must be added. One recipient is one count.
    """
    rows = np.searchsorted(AMOUNT_EDGES, np.asarray(predicted, dtype=np.float64), side="left")
    amounts = np.asarray(found, dtype=np.float64)
    above = np.searchsorted(AMOUNT_NODES, amounts, side="left").clip(1, AMOUNT_BINS - 1)
    low, high = AMOUNT_NODES[above - 1], AMOUNT_NODES[above]
    columns = above - 1 + (uniforms < (amounts - low) / (high - low))
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

    def above(self, other: Estimate) -> Estimate:
        """What this is more than another, of other people and under other noise."""
        return Estimate(
            self.value - other.value,
            math.hypot(self.sampling_error, other.sampling_error),
            math.hypot(self.noise_error, other.noise_error),
        )

    @property
    def noise_share(self) -> float:
        """The noise's part of the variance; NaN where there is none."""
        whole = self.standard_error
        return (self.noise_error / whole) ** 2 if whole else math.nan


def table_noise(noise: Mapping[str, float]) -> float:
    """Standard deviation of the noise on each count of the final evaluation's tables.

    A silo's gate lets no other sensitivity out than that of all tables together.
    """
    return rounded_noise(noise["noise_multiplier"] * noise.get("sensitivity", 1.0))


def rounded_noise(sd: float) -> float:
    """Standard deviation of noise of this one once it is rounded to whole counts."""
    return math.sqrt(sd**2 + ROUNDED) if sd else 0.0


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
        """From a release of a training round or of an evaluation, with its noise parameters.

        Where it has the bins of before, those that it lacks hold nobody: they are not in a window.
        """
        if counts.shape[-1] == BINS_BEFORE:
            missing = (_FIRST_BEFORE, BINS - BINS_BEFORE - _FIRST_BEFORE)
            counts = np.pad(counts, ((0, 0), missing))
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

    Sampling error after DeLong, DeLong and Clarke-Pearson (1988): Var(a)/m + Var(b)/n, of the share
    a of the n without the outcome that each of the m with it lies above, and b likewise. Both
    shares have noise of their own, whose spread is taken off. Noise error by the delta method with
    its second-order term. None where either class drowns in noise.
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
    before = np.tri(len(negative), k=-1) + np.eye(len(negative)) / 2
    sampling = (
        chance_variance(above, negative, noise_sd, (before.T - above[:, None]) / positive.sum())
        / negative.sum()
        + chance_variance(below, positive, noise_sd, (before - below[:, None]) / negative.sum())
        / positive.sum()
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
    middles = slope * MIDDLES[window] + shift
    losses = np.stack([np.logaddexp(0.0, middles), np.logaddexp(0.0, -middles)])
    mean = float((counts * losses).sum() / recipients)
    sampling = chance_variance(losses, counts, scores.noise_sd) / recipients
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


def chance_variance(
    values: Floats, counts: Floats, noise_sd: float, moved: Floats | None = None
) -> float:
    """Variance of values over the people who have them, without what noise does to it.

    With noised counts c of N people, values v and their mean m, Σc(v - m)²/N is lower by the
    mean's variance from noise, σ²Σ(v - m)²/N², and higher by what noise spreads the values, where
    these come from noised counts themselves: v + Mη spreads by σ²(Σπ|M|² - |πM|²), π = c/N. Both
    are the second-order terms of the delta method (van der Vaart 1998, ch. 3).

    Args:
        values: one a bin, `(…, bins)`.
        counts: noised people in each; they are not clipped, so that empty bins add nothing.
        noise_sd: of the noise on each count.
        moved: M: what one count more in each bin (column) adds to each value (row).

    Returns:
        The variance. Where noise leaves none (0 or less), that of the counts above 0: too much.
    """
    counts = np.broadcast_to(counts, values.shape)
    people = float(counts.sum())
    mean = float((counts * values).sum()) / people
    squares = (values - mean) ** 2
    found = (
        float((counts * squares).sum()) / people + noise_sd**2 * float(squares.sum()) / people**2
    )
    if moved is not None:
        shares = counts / people
        found -= noise_sd**2 * (float(shares @ (moved**2).sum(axis=1)) - _squares(shares @ moved))
    return found if found > 0 else _variance(values, counts)


def _variance(values: Floats, counts: Floats) -> float:
    """Variance of values that occur `counts` times, at least 0; negative counts weigh nothing."""
    weights = np.clip(counts, 0.0, None)
    mean = float((weights * values).sum() / weights.sum())
    return float((weights * (values - mean) ** 2).sum() / weights.sum())


def _squares(values: Floats) -> float:
    return float((values**2).sum())
