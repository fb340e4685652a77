"""Noise once: totals that are opened over all brands together, and how they are read.

Where brands planned or got unlike shares of an arm, a plain sum takes brands for arms: an arm that
one brand sent more of looks like that brand (Simpson). So each brand weighs its recipients of an
arm by what makes its arms alike, before anything is added:

    w = (least share of that arm among the brands) / (its own share of that arm) ≤ 1

A recipient's vector only gets shorter, so the noise needn't change. An arm's weighted sums then
hold every brand in proportion to its recipients, whatever its shares, and their means are those of
"these brands" elsewhere. The weights follow from the brands' noised counts, which all of them have
signed and seen: they cost nothing.

How sure such a mean is. Let brand s have the share W of an arm's weighted sum n, recipients n_s in
that arm that vary by v_s about its own mean, and x_s = (its mean − the mean)². All recipients
together vary by v = ΣW(v_s + x_s), which is what the sums tell. The mean's variance has two parts:
ΣWwv_s/n by sampling, and Σ(W·c/n_s)²x_s because n_s is known with noise of sd c only, so that a
brand stands a little higher in one arm than in another. As W = wn_s/n, both together are

    ΣW[w·v_s + (wc²/n_s)·x_s] / n  ≤  max w·max(1, c²/n_s) · v/n

so v/n times that maximum is never too small. It is v/n where every brand has more than c²
recipients in an arm (180 at ε = 1), and then contains the differences between brands, which no
weighing by brand removes.

Where the plan promises that every brand keeps its shares (`privacy.shares: planned`), all weights
are one: who is in which arm is chance alone, and v/n holds that chance, differences between brands
included. A + B counts the arm, so that counts need only tell a brand of nobody. Whether arms have
their shares over all brands is checked (sample ratio).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction

import numpy as np

from abfed.privacy.charges import noise_multipliers
from abfed.privacy.once import KEY_ROWS, SEALED_BYTES, SHARE_BYTES, role_of, split, sum_of
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Shape
from abfed.stats.encoding import SCALE, Integers
from abfed.stats.layout import Layout
from abfed.stats.suppression import SUPPRESS_BELOW
from abfed.stats.totals import Mixture, SiloTotals

TOGETHER = "these brands"
"""The one scope there is."""

NOTE = "noise once: nothing by brand, nor whether brands differ"


def once_shapes(plan: Plan, step: str) -> dict[str, Shape]:
    """The arrays of a step of a plan with noise once, but for those of training."""
    silos, arms = len(plan.silos), len(plan.arms)
    keys = {"keys": Shape("uint8", (KEY_ROWS, 32))}
    shapes = {
        "keys": keys if sum_of(step) else keys | {"counts": Shape("int64", (arms,))},
        "shares": {"shares": Shape("uint8", (silos, SEALED_BYTES))},
        "masked": {"masked": Shape("int64", Layout.of(plan).shape)},
        "answered": {"answered": Shape("uint8", (silos,))},
        "opening": {
            "kinds": Shape("uint8", (silos,)),
            "shares": Shape("uint8", (silos, SHARE_BYTES)),
        },
    }
    return shapes[role_of(step)]


def note_of(plan: Plan) -> str:
    """What is said of each effect."""
    if plan.privacy.shares == "counted":
        return NOTE
    return f"{NOTE}; rests on every brand having kept the planned shares"


def weights_of(plan: Plan, counts: Mapping[str, Integers]) -> dict[str, Integers]:
    """What each silo multiplies its recipients of each arm with, in units of 1/`SCALE`.

    In whole numbers, so that all silos find the same. One where the plan promises its shares: they
    are those of every brand, so that nothing needs to be made alike.

    Args:
        plan: what was asked.
        counts: noised recipients by arm, in units of 1/`SCALE`, of each silo in the sum.
    """
    if plan.privacy.shares == "planned":
        return {silo: np.full(len(one), SCALE, dtype=np.int64) for silo, one in counts.items()}
    known = {silo: [max(1, int(one)) for one in arms] for silo, arms in sorted(counts.items())}
    shares = {silo: [Fraction(one, sum(arms)) for one in arms] for silo, arms in known.items()}
    least = [min(column) for column in zip(*shares.values(), strict=True)]
    return {
        silo: np.array(
            [int(SCALE * low / own) for low, own in zip(least, shares[silo], strict=True)],
            dtype=np.int64,
        )
        for silo in known
    }


def weighed(encoded: Integers, arms: Integers, weights: Integers) -> Integers:
    """Everybody's vector times the weight of their arm, rounded down: never longer than before.

    Args:
        encoded: (recipients, width), none negative.
        arms: the number of each recipient's arm; that behind the last for any other.
        weights: by arm, in units of 1/`SCALE`, at most `SCALE`.
    """
    by_person = np.append(weights, 0)[arms]
    return np.asarray((encoded * by_person[:, None]) // SCALE)


def too_small(plan: Plan, counts: Integers) -> bool:
    """Whether a silo's noised counts are so small that its weights would be noise."""
    if plan.privacy.shares == "planned":
        return False
    noise = split(plan, noise_multipliers(plan).statistics)[0]
    return bool(counts.min() < SUPPRESS_BELOW * noise * SCALE)


def pooled_totals(
    plan: Plan,
    opened: Integers,
    counts: Mapping[str, Integers],
    answered: Collection[str],
    noise: float,
) -> SiloTotals:
    """What was opened, for reading.

    Args:
        plan: with noise once.
        opened: weighted sums over those who answered, noised, (arms, coordinates).
        counts: noised recipients by arm, in units of 1/`SCALE`, of all who agreed on weights.
        answered: those in the sum.
        noise: noise multiplier of the sum.
    """
    whole = SiloTotals.of(plan, opened, noise)
    if plan.privacy.shares == "planned":
        arms = len(plan.arms)
        mixture = Mixture(sampling=np.ones(arms), doubt=np.zeros(arms))
        return SiloTotals(whole.layout, whole.values, noise, None, mixture)
    weights = weights_of(plan, counts)
    parts = [(weights[silo] / SCALE, counts[silo] / SCALE) for silo in sorted(answered)]
    factors = np.stack([one for one, _ in parts])
    people = np.maximum(np.stack([many for _, many in parts]), 1.0)
    count_noise = split(plan, noise_multipliers(plan).statistics)[0]
    heaviest = factors.max(axis=0)
    doubtful = (factors * np.maximum(1.0, count_noise**2 / people)).max(axis=0)
    mixture = Mixture(sampling=heaviest, doubt=doubtful - heaviest)
    counted = np.stack([many for _, many in parts]).sum(axis=0)
    noised = count_noise * float(np.sqrt(len(parts)))
    return SiloTotals(whole.layout, whole.values, noise, (counted, noised), mixture)
