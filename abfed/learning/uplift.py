"""Who reacts to which arm: tables of held-out recipients, and what they tell of a model's uplift.

Uplift is the change in the chance of the outcome that an arm makes, against the control, for a
recipient: the plan's network is asked about each arm with the same features. Tables are made inside
a silo and noised there; everything below `Contrast` works on noised figures only.

1. A recipient held out stands once in each table that concerns them: `counted_once` says in how
   many, and its root is the L2 sensitivity of all tables together.
2. Bins are public and finer near 0, where uplift of e-mail lies. A bin's people are alike.
3. Silos may differ in the shares of their arms, so counts are weighted before they are added: in
   each silo, both arms of a contrast weigh as much as all of its people do. Adding plain counts
   would compare brands instead of arms.
4. Standard errors are by the delta method: people are counted as Poisson events, noise is added to
   each count. Both parts come with each figure, chance's as it would be without noise; a figure
   that noise drowns is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.learning.evaluation import SHOWN, Estimate

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_STEPS = 0.002 * np.sqrt(2.0) ** np.arange(14)  # 0.2 % to 18 %, each √2 times the one before
UPLIFT_EDGES: Floats = np.round(np.concatenate([-_STEPS[::-1], [0.0], _STEPS]), 10)
"""Inner edges of bins of the uplift (a difference of probabilities); the ends are open."""

UPLIFT_BINS = len(UPLIFT_EDGES) + 1

COLUMN_EDGES: Floats = np.arange(-7, 8) / 8.0
"""Inner edges of bins of one encoded feature column, which lies in [-1, 1]."""

COLUMN_BINS = len(COLUMN_EDGES) + 1

DECILES = 10


def counted_once(arms: int, further: int = 0) -> int:
    """Tables that one recipient can stand in: the squared L2 sensitivity of all together.

    The score histogram, that of the best single column, and the table of the policy count everybody
    once. A contrast's two tables (model and single column) count its own arm and the control; the
    control stands in all of them.

    Args:
        arms: how many there are.
        further: tables of further outcomes and of revenue (`Heads.tables`).
    """
    return 3 + 2 * (arms - 1) + further


def contrast_counts(
    scores: npt.NDArray[np.floating[Any]],
    treated: npt.NDArray[np.bool_],
    labels: npt.NDArray[Any],
    edges: Floats,
) -> Counts:
    """Count recipients of two arms by arm, outcome and bin of a score.

    Args:
        scores: one a recipient, `(recipients,)`; not NaN. Rows: sensitive.
        treated: whether each got the treated arm rather than the control.
        labels: their outcome, 0 or 1.
        edges: inner edges of the bins.

    Returns:
        `(2, 2, bins)`: control and treated, outcome false and true. Sensitive: noise must be added.
    """
    bins = len(edges) + 1
    place = np.searchsorted(edges, np.asarray(scores, dtype=np.float64), side="right")
    cell = (np.asarray(treated, dtype=np.int64) * 2 + np.asarray(labels, dtype=np.int64)) * bins
    return np.bincount(cell + place, minlength=4 * bins).reshape(2, 2, bins).astype(np.int64)


def policy_counts(
    recommended: npt.NDArray[np.integer[Any]],
    arms: npt.NDArray[np.integer[Any]],
    labels: npt.NDArray[Any],
    count: int,
) -> Counts:
    """Count recipients by recommended arm, arm that they got, and outcome: `(arms, arms, 2)`."""
    cell = (recommended.astype(np.int64) * count + arms.astype(np.int64)) * 2
    flat = np.bincount(cell + np.asarray(labels, dtype=np.int64), minlength=2 * count * count)
    return flat.reshape(count, count, 2).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Noised counts, weighted. Released.

    `a + b` pools silos.

    Attributes:
        counts: weighted counts.
        sampling: variance of each from there being only so many people. Its mean over the noise
            is the one of the people: below 0 where a noised count is.
        noise: variance of the noise on each.
    """

    counts: Floats
    sampling: Floats
    noise: Floats

    @classmethod
    def of(cls, released: Counts, noise_sd: float, weights: Floats) -> Table:
        """A silo's table.

        Args:
            released: noised counts.
            noise_sd: of the noise on each.
            weights: of each count, broadcast to them: see rule 3.
        """
        counts = released.astype(np.float64)
        squared = np.broadcast_to(np.square(weights), counts.shape)
        noise = squared * noise_sd**2
        return cls(counts * weights, squared * counts, noise)

    def __add__(self, other: Table) -> Table:
        """Pool two silos."""
        return Table(
            self.counts + other.counts, self.sampling + other.sampling, self.noise + other.noise
        )

    def drowned(self, count: Floats, noise: Floats) -> bool:
        """Whether a sum of counts is no more than a few sds of its noise (or nothing at all)."""
        return bool(count.sum() <= SHOWN * math.sqrt(float(noise.sum())))

    def estimate(self, figure: Callable[[Floats], float]) -> Estimate:
        """A smooth figure of the counts with its errors, by the delta method.

        With slopes s: Σs²w²c from chance, as the variance of a Poisson count is its mean, and
        Σs²w²σ² from noise (van der Vaart 1998, ch. 3). The first is unbiased for given slopes, as
        noised counts are not clipped; where it comes out at 0 or less, those above 0 stand for it.
        """
        slopes = np.zeros_like(self.counts)
        step = 1e-4 * max(1.0, float(np.abs(self.counts).max()))
        for place in np.ndindex(self.counts.shape):
            moved = self.counts.copy()
            moved[place] += step
            above = figure(moved)
            moved[place] -= 2 * step
            slopes[place] = (above - figure(moved)) / (2 * step)
        squares = slopes**2
        chance = float((squares * self.sampling).sum())
        if chance <= 0:
            chance = float((squares * np.clip(self.sampling, 0.0, None)).sum())
        return Estimate(
            figure(self.counts),
            math.sqrt(chance),
            math.sqrt(float((squares * self.noise).sum())),
        )


class Gain(NamedTuple):
    """How well a score ranks people by what an arm does to them.

    Attributes:
        effect: of the arm on everybody held out, in outcomes a recipient.
        auuc: area under the uplift curve: mean gain over all shares of people who could be treated.
        qini: that area above the one of a random order (effect / 2); None where all people lie in
            one bin, so that nobody is ranked: it would be 0, with an error of 0.
    """

    effect: Estimate
    auuc: Estimate
    qini: Estimate | None


class Decile(NamedTuple):
    """People by tenths of a score, highest first; where a bin spans several, they are alike.

    Attributes:
        decile: 1 for the highest.
        uplift: the arm's effect among them.
    """

    decile: int
    uplift: Estimate


@dataclass(frozen=True, slots=True)
class Contrast:
    """One arm against the control, by bins of a score. Released.

    Attributes:
        table: `(2, 2, bins)`, pooled over silos.
    """

    table: Table

    def window(self) -> Contrast:
        """The adjacent bins that outweigh their noise (as `ScoreHistogram.window`)."""
        noise = np.sqrt(self.table.noise.sum(axis=(0, 1)))
        worth = self.table.counts.sum(axis=(0, 1)) - noise
        if not noise.any():
            return self
        best, chosen, running, start = 0.0, slice(None), 0.0, 0
        for place, value in enumerate(worth.tolist()):
            if running <= 0:
                running, start = 0.0, place
            running += value
            if running > best:
                best, chosen = running, slice(start, place + 1)
        parts = (self.table.counts, self.table.sampling, self.table.noise)
        return Contrast(Table(*(part[..., chosen] for part in parts)))

    def gain(self) -> Gain | None:
        """Effect, AUUC and Qini; None where noise drowns either arm."""
        shown = self.window().table
        if any(shown.drowned(shown.counts[arm], shown.noise[arm]) for arm in (0, 1)):
            return None
        qini = shown.estimate(qini_of) if shown.counts.shape[-1] > 1 else None
        return Gain(shown.estimate(_effect), shown.estimate(_auuc), qini)

    def deciles(self) -> tuple[Decile, ...]:
        """The effect by tenths of the score.

        None where noise drowns either arm in one of them, or all people lie in one bin.
        """
        shown = self.window().table
        if shown.counts.shape[-1] == 1:
            return ()
        shares = _tenths(shown.counts.sum(axis=(0, 1)))
        found = []
        for number, share in enumerate(shares, start=1):
            weighted = [(shown.counts[arm] * share, shown.noise[arm] * share**2) for arm in (0, 1)]
            if any(shown.drowned(count, noise) for count, noise in weighted):
                return ()
            found.append(Decile(number, shown.estimate(_effect_among(share))))
        return tuple(found)


class PolicyValue(NamedTuple):
    """What sending each recipient the arm that the model recommends is worth.

    Attributes:
        value: outcomes a recipient under the policy.
        arms: outcomes a recipient where everybody gets one arm, in the order of the arms.
        best: place of the best single arm, as released.
        gain: value less that of the best single arm. As the best is picked by the same figures, its
            value errs upwards, and the gain downwards.
        shares: of recipients that each arm is recommended to.
    """

    value: Estimate
    arms: tuple[Estimate, ...]
    best: int
    gain: Estimate
    shares: tuple[float, ...]


def policy_value(table: Table) -> PolicyValue | None:
    """The policy's value from counts by recommended arm, arm and outcome, `(arms, arms, 2)`.

    By inverse propensity within the people that an arm is recommended to: assignment is random
    there, so those who got it stand for all. Recommendations that noise drowns are left out. None
    where that is all of them, or an arm is drowned.
    """
    arms = table.counts.shape[0]
    if any(table.drowned(table.counts[:, arm], table.noise[:, arm]) for arm in range(arms)):
        return None
    kept = [
        arm
        for arm in range(arms)
        if not table.drowned(table.counts[arm, arm], table.noise[arm, arm])
    ]
    if not kept:
        return None

    def value(counts: Floats) -> float:
        groups = [counts[arm].sum() for arm in kept]
        means = [counts[arm, arm, 1] / counts[arm, arm].sum() for arm in kept]
        return float(np.dot(groups, means) / np.sum(groups))

    def alone(arm: int) -> Callable[[Floats], float]:
        return lambda counts: float(counts[:, arm, 1].sum() / counts[:, arm].sum())

    singles = tuple(table.estimate(alone(arm)) for arm in range(arms))
    best = max(range(arms), key=lambda arm: singles[arm].value)
    shares = table.counts.sum(axis=(1, 2)) / table.counts.sum()
    return PolicyValue(
        table.estimate(value),
        singles,
        best,
        table.estimate(lambda counts: value(counts) - alone(best)(counts)),
        tuple(float(min(1.0, max(0.0, share))) for share in shares),
    )


def arm_weights(sizes: Floats, arms: tuple[int, ...]) -> Floats:
    """Weights of some arms' counts in a silo, such that each of them weighs like all together.

    Args:
        sizes: noised recipients in each arm of the silo, `(arms,)`.
        arms: which of them.
    """
    chosen = np.clip(sizes[list(arms)], 1.0, None)
    return np.asarray(chosen.sum() / (len(arms) * chosen), dtype=np.float64)


def _effect(counts: Floats) -> float:
    """Difference of the arms' rates."""
    rates = counts[:, 1].sum(axis=-1) / counts.sum(axis=(1, 2))
    return float(rates[1] - rates[0])


def _effect_among(share: Floats) -> Callable[[Floats], float]:
    """The effect among a share of each bin."""
    return lambda counts: _effect(counts * share)


def _auuc(counts: Floats) -> float:
    """Area under the curve of gains, from the highest bin down, by trapezoids.

    The gain at a share of people is what treating them would add, a recipient of all: outcomes of
    the treated less those of the control, each as a share of its own arm (Radcliffe 2007).
    """
    ordered = counts[..., ::-1]
    people = ordered.sum(axis=(0, 1))
    gains = ordered[1, 1] / counts[1].sum() - ordered[0, 1] / counts[0].sum()
    reached = np.cumsum(gains)
    return float((people * (reached - gains / 2)).sum() / people.sum())


def qini_of(counts: Floats) -> float:
    """Qini of counts by arm, outcome and bin, `(2, 2, bins)`: the area above a random order's."""
    return _auuc(counts) - _effect(counts) / 2


def _tenths(people: Floats) -> list[Floats]:
    """For each tenth of the people, highest bins first, the share of each bin that is in it."""
    weights = np.clip(people, 0.0, None)[::-1]
    ends = np.cumsum(weights) / max(float(weights.sum()), 1.0)
    starts = np.concatenate([[0.0], ends[:-1]])
    width = np.where(ends > starts, ends - starts, 1.0)
    found = []
    for number in range(DECILES):
        low, high = number / DECILES, (number + 1) / DECILES
        inside = np.clip(np.minimum(ends, high) - np.maximum(starts, low), 0.0, None)
        found.append((inside / width)[::-1])
    return found
