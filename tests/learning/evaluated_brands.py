"""How often intervals of an evaluation hold the truth: brands whose people's chances are known.

    python -m tests.learning.evaluated_brands

prints the table of `docs/training.md`. Noise is added to the very tables that silos release, and
read as `abfed evaluate` reads them.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from abfed.learning.calibration import calibration
from abfed.learning.evaluation import (
    Estimate,
    ScoreHistogram,
    area_under_curve,
    histogram,
    log_loss,
    majority_loss,
    pool,
    rounded_noise,
)
from abfed.learning.uplift import (
    UPLIFT_EDGES,
    Contrast,
    Table,
    arm_weights,
    contrast_counts,
    policy_counts,
    policy_value,
)

COMMON = -1.6  # where a bin of many people begins
BASE = -1.5  # the model's intercept
MANY = 400_000  # people by whom the truth is told


class Brand(NamedTuple):
    """People held out, the logit of the outcome, and the shares of the arms."""

    people: int
    base: float
    shares: tuple[float, float, float] = (0.34, 0.33, 0.33)


ALIKE = (Brand(3000, BASE), Brand(1500, BASE), Brand(800, BASE))
UNLIKE = (
    Brand(3000, -2.5, (0.6, 0.2, 0.2)),
    Brand(1500, -0.8, (0.2, 0.5, 0.3)),
    Brand(800, BASE),
)


class People(NamedTuple):
    """True chances, what the model says of each arm, the arm that each got, `(people, 3)` twice."""

    chances: np.ndarray
    model: np.ndarray
    arms: np.ndarray


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def made(random, brand: Brand, people: int) -> People:
    """People of whom half react to one arm and half to the other; the model knows most of it."""
    likes, mood = random.uniform(-1, 1, (2, people))
    zero = np.zeros(people)
    truly = np.stack([zero, 0.9 * mood + 0.1, -0.9 * mood], axis=1) + likes[:, None] + brand.base
    said = np.stack([zero, 0.6 * mood + 0.08, -0.6 * mood], axis=1) + 0.9 * likes[:, None] + BASE
    return People(sigmoid(truly), sigmoid(said), random.choice(3, p=brand.shares, size=people))


def truth(brands) -> dict[str, float]:
    """What the figures are about, person by person and without bins."""
    random = np.random.default_rng(99)
    total = sum(brand.people for brand in brands)
    parts = [made(random, brand, MANY * brand.people // total) for brand in brands]
    chances, model, arms = (np.concatenate(each) for each in zip(*parts, strict=True))
    rows = np.arange(len(arms))
    said, chance = model[rows, arms], chances[rows, arms]
    order = np.argsort(said)
    negative = np.cumsum(1 - chance[order])
    share = chance.mean()
    weights = np.concatenate(
        [np.full(len(part.arms), brand.shares[0] + brand.shares[1])
         for part, brand in zip(parts, brands, strict=True)]
    )  # fmt: skip
    weights /= weights.sum()
    order_of_uplift = np.argsort(model[:, 0] - model[:, 1])
    gained = np.cumsum((weights * (chances[:, 1] - chances[:, 0]))[order_of_uplift])
    auuc = float(weights[order_of_uplift] @ gained)
    value = float(chances[rows, model.argmax(axis=1)].mean())
    return {
        "AUC": float(chance[order] @ negative / chance.sum() / negative[-1]),
        "log-loss": float(-(chance * np.log(said) + (1 - chance) * np.log1p(-said)).mean()),
        "majority's log-loss": float(-share * np.log(share) - (1 - share) * np.log1p(-share)),
        "effect": float(gained[-1]),
        "Qini": auuc - float(gained[-1]) / 2,
        "AUUC": auuc,
        "policy's value": value,
        "gain over the best arm": value - float(chances.mean(axis=0).max()),
    }


class Counted(NamedTuple):
    """A brand's exact tables, and how many people each of its arms has."""

    histogram: np.ndarray
    contrast: np.ndarray
    policy: np.ndarray
    sizes: np.ndarray


def counted(random, brands) -> list[Counted]:
    """Tables of people who were drawn anew."""
    found = []
    for brand in brands:
        chances, model, arms = made(random, brand, brand.people)
        rows = np.arange(brand.people)
        labels = (random.random(brand.people) < chances[rows, arms]).astype(np.int64)
        said, pair = model[rows, arms], arms < 2
        uplift = (model[:, 1] - model[:, 0])[pair]
        found.append(
            Counted(
                histogram(np.log(said / (1 - said)), labels),
                contrast_counts(uplift, arms[pair] == 1, labels[pair], UPLIFT_EDGES),
                policy_counts(model.argmax(axis=1), arms, labels, 3),
                5 * np.bincount(arms, minlength=3),
            )
        )
    return found


def released(random, tables: list[Counted], noise_sd: float) -> dict[str, Estimate | None]:
    """One run's figures, from noised tables."""
    sd = rounded_noise(noise_sd)

    def noised(counts):
        return counts + np.rint(random.normal(0, noise_sd, counts.shape)).astype(np.int64)

    histograms, contrasts, policies = [], [], []
    for one in tables:
        sizes = one.sizes + random.normal(0, 2 * noise_sd, 3)
        weights = arm_weights(sizes, (0, 1))[:, None, None]
        histograms.append(ScoreHistogram(noised(one.histogram), sd))
        contrasts.append(Table.of(noised(one.contrast), sd, weights))
        policy = noised(one.policy)
        policies.append(Table.of(policy, sd, arm_weights(sizes, (0, 1, 2))[:, None]))
    scores = pool(histograms)
    common = max(calibration(scores), key=lambda one: -abs(one.low - COMMON))
    gain = Contrast(sum(contrasts[1:], start=contrasts[0])).gain()
    policy = policy_value(sum(policies[1:], start=policies[0]))
    return {
        "AUC": area_under_curve(scores),
        "log-loss": log_loss(scores),
        "majority's log-loss": majority_loss(scores),
        "share in a bin": common.observed,
        "effect": gain and gain.effect,
        "Qini": gain and gain.qini,
        "AUUC": gain and gain.auuc,
        "policy's value": policy and policy.value,
        "gain over the best arm": policy and policy.gain,
    }


class Parts(NamedTuple):
    """How a figure's parts compare with what they are of: told sd / seen sd."""

    chance: float
    noise: float
    whole: float


def parts(brands, noise_sd: float, runs: int, seed: int = 1) -> dict[str, Parts]:
    """Each part of a figure's error, under noise, beside what draws of that part alone show.

    Chance alone: other people each time, and no noise. Noise alone: the same people each time.
    """
    random = np.random.default_rng(seed)
    same = counted(random, brands)
    told: dict[str, list[Estimate]] = defaultdict(list)
    seen: dict[str, list[list[float]]] = defaultdict(lambda: [[], [], []])
    for _ in range(runs):
        anew = counted(random, brands)
        draws = (released(random, anew, 0.0), released(random, same, noise_sd),
                 released(random, anew, noise_sd))  # fmt: skip
        for number, draw in enumerate(draws):
            for name, figure in draw.items():
                if figure is not None:
                    seen[name][number].append(figure.value)
                    told[name] += [figure] * (number == 2)

    def ratio(errors, values):
        return math.sqrt(float(np.mean(np.square(errors)))) / float(np.std(values))

    return {
        name: Parts(
            ratio([one.sampling_error for one in figures], seen[name][0]),
            ratio([one.noise_error for one in figures], seen[name][1]),
            ratio([one.standard_error for one in figures], seen[name][2]),
        )
        for name, figures in told.items()
    }


class Held(NamedTuple):
    """How a figure's intervals did: share that held the truth, mean of (figure - truth) / error."""

    cover: float
    bias: float
    shown: float


def covered(brands, noise_sd: float, runs: int, seed: int = 1) -> dict[str, Held]:
    """How often 95 % intervals held the truth."""
    true, random = truth(brands), np.random.default_rng(seed)
    off: dict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        for name, figure in released(random, counted(random, brands), noise_sd).items():
            if figure is not None and name in true:
                off[name].append((figure.value - true[name]) / figure.standard_error)
    return {
        name: Held(float(np.mean(np.abs(each) <= 1.96)), float(np.mean(each)), len(each) / runs)
        for name, each in off.items()
    }


if __name__ == "__main__":
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    worlds = [(b, sd) for b in ("ALIKE", "UNLIKE") for sd in (0.0, 8.0, 25.0)]
    tables = [covered(globals()[brands], sd, runs) for brands, sd in worlds]
    sys.stdout.write(" | ".join(["", *(f"{brands} {sd:g}" for brands, sd in worlds)]) + "\n")
    for name in tables[0]:
        cells = [f"{each[name].cover:.3f}" if name in each else "-" for each in tables]
        sys.stdout.write(" | ".join([name, *cells]) + "\n")
    sys.stdout.write(f"{runs} runs: a share is sure to {2 * math.sqrt(0.95 * 0.05 / runs):.3f}\n")
    split = [parts(globals()[brands], sd, runs) for brands, sd in worlds if sd]
    named = [f"{brands} {sd:g}" for brands, sd in worlds if sd]
    sys.stdout.write(" | ".join(["told / seen: chance, noise, both", *named]) + "\n")
    for name in split[0]:
        cells = [", ".join(f"{part:.2f}" for part in each[name]) for each in split]
        sys.stdout.write(" | ".join([name, *cells]) + "\n")
