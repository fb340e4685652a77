"""What privacy costs in AUC on a real e-mail test (Hillstrom 2008, visits), as four brands.

    python benchmarks/bench_utility.py [--splits 10] [--first 0] [--epsilon 1] [--file FILE]

The settings were written down in docs/decisions/0024 before a split was looked at: logistic
regression with arm interactions, one noisy step a round, clip at the public bound of a row's norm.
The last parameters count; beside them, of the same steps, the mean of the last half (0135).
The gap is the test AUC of the private model less that of pooled logistic regression without privacy
on the same split (a small ridge, to its optimum).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats
from torch import nn

from abfed.learning.batches import InMemory
from abfed.learning.design_matrix import Design, RecipientRows, encode_category, encode_numeric
from abfed.learning.dpsgd import Parameters, noised_sum
from abfed.learning.gradients import BatchGradients
from abfed.learning.networks import one_thread
from abfed.learning.uplift import contrast_counts, qini_of
from abfed.privacy.accounting import sampled_multiplier
from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.schema import CategoryFeature, NumericFeature

NUMBERS = {
    "recency": (1, 12),
    "history": (0, 3500),
    "mens": (0, 1),
    "womens": (0, 1),
    "newbie": (0, 1),
}
CHANNELS = ("Phone", "Web", "Multichannel")
ARMS = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
DESIGN = Design(
    (
        *(NumericFeature(name=name, low=low, high=high) for name, (low, high) in NUMBERS.items()),
        CategoryFeature(name="channel", values=CHANNELS),
    ),
    ARMS,
    0,
)
CLIP = (2 * (len(NUMBERS) + 1) + 1 + 1) ** 0.5  # features twice, the arm, the constant: 3.74
STEPS, RATE, LEARNING_RATE = 440, 0.1, 1.0
DELTA = 1e-6
BARS = {"own": 0.003, "own, averaged": 0.003, "once": 0.0015, "once, averaged": 0.0015}
WOMENS = ARMS.index("Womens E-Mail")

Floats = npt.NDArray[np.float64]


def read(file: Path) -> tuple[RecipientRows, npt.NDArray[np.int64]]:
    """Everybody's rows and their brand."""
    raw = pd.read_csv(file)
    blocks = [
        encode_numeric(feature, raw[feature.name].to_numpy(np.float64))
        for feature in DESIGN.features
        if isinstance(feature, NumericFeature)
    ]
    codes = np.array([CHANNELS.index(name) for name in raw["channel"]])
    channel = DESIGN.features[-1]
    assert isinstance(channel, CategoryFeature)
    features = np.hstack([*blocks, encode_category(channel, codes)])
    arms = np.array([ARMS.index(name) for name in raw["segment"]], dtype=np.int8)
    labels = raw["visit"].to_numpy(np.float32)
    places = {"Rural": 1, "Surburban": 2, "Urban": 3}
    brand = np.where(raw["channel"] == "Phone", 0, raw["zip_code"].map(places)).astype(np.int64)
    return RecipientRows(DESIGN, features, arms, labels, np.arange(len(raw) + 1)), brand


def part(data: RecipientRows, chosen: npt.NDArray[np.bool_]) -> RecipientRows:
    """Some recipients, one row each."""
    count = int(chosen.sum())
    return RecipientRows(
        DESIGN, data.features[chosen], data.arms[chosen], data.labels[chosen], np.arange(count + 1)
    )


def auc(scores: Floats, labels: npt.NDArray[np.float32]) -> float:
    """Area under the ROC curve by ranks (ties count half)."""
    ranks = stats.rankdata(scores)
    positive = labels == 1
    many, few = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * few))


def qini(uplift: Floats, held: RecipientRows) -> float:
    """Area above a random order, womens' e-mail against none, people with one score alike."""
    here = np.flatnonzero((held.arms == WOMENS) | (held.arms == DESIGN.control))
    levels = np.unique(uplift[here])
    edges = (levels[1:] + levels[:-1]) / 2
    treated = held.arms[here] == WOMENS
    counts = contrast_counts(uplift[here], treated, held.labels[here].astype(np.int64), edges)
    return qini_of(counts.astype(np.float64))


def uplift_of(weights: Floats, held: RecipientRows) -> Floats:
    """What the model says that womens' e-mail adds to the chance of a visit."""
    chance = []
    for arm in (WOMENS, DESIGN.control):
        lines = DESIGN.expand(held.features, np.full(held.recipients, arm, dtype=np.int8))
        scores = np.hstack([lines, np.ones((held.recipients, 1))]) @ weights
        chance.append(1 / (1 + np.exp(-scores)))
    return np.asarray(np.round(chance[0] - chance[1], 9))


def optimum(data: RecipientRows) -> Floats:
    """Pooled logistic regression without privacy, by Newton's method."""
    lines = np.hstack([DESIGN.expand(data.features, data.arms), np.ones((data.recipients, 1))])
    weights = np.zeros(lines.shape[1])
    for _ in range(12):
        chance = 1 / (1 + np.exp(-lines @ weights))
        slope = lines.T @ (chance - data.labels) + 1e-2 * weights
        curve = (lines * (chance * (1 - chance))[:, None]).T @ lines
        weights -= np.linalg.solve(curve + 1e-2 * np.eye(len(weights)), slope)
    return weights


def private(silos: list[RecipientRows], multiplier: float, *, once: bool) -> tuple[Floats, Floats]:
    """One noisy step a round over all silos; noise by each silo, or once over all.

    Returns:
        The last parameters, and the mean of those of the last half of the steps.
    """
    network = nn.Sequential(nn.Linear(DESIGN.width, 1))
    nn.init.zeros_(network[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(network[0].bias)  # type: ignore[arg-type]
    noise, sources = SystemNoise(), [InMemory(each) for each in silos]
    expected = RATE * sum(each.recipients for each in silos)
    with one_thread(), torch.no_grad():
        parameters, gradients = Parameters(network), BatchGradients(network)
        mean = torch.zeros(len(parameters.vector), dtype=torch.float64)
        for step in range(STEPS):
            units = torch.zeros(len(parameters.vector), dtype=torch.int64)
            total = torch.zeros(len(parameters.vector), dtype=torch.float64)
            for source in sources:
                batch = source.batch(noise.poisson_batch(source.recipients, RATE))
                found = gradients.clipped_units(batch, CLIP)
                if once:
                    units += found
                else:
                    total += noised_sum(found, CLIP, multiplier, noise)
            if once:
                total = noised_sum(units, CLIP, multiplier, noise)
            parameters.step(total, LEARNING_RATE / expected)
            if step >= STEPS // 2:
                mean += parameters.vector / (STEPS - STEPS // 2)
    return parameters.vector.double().numpy(), mean.numpy()


def at_least(least: int) -> Callable[[str], int]:
    """For argparse: a whole number from there on."""

    def whole(text: str) -> int:
        if (number := int(text)) < least:
            message = f"must be at least {least}"
            raise argparse.ArgumentTypeError(message)
        return number

    return whole


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("ABFED_HILLSTROM") or str(
        Path(__file__).resolve().parents[2] / "shared/data/hillstrom.csv"
    )
    parser.add_argument("--file", type=Path, default=Path(default))
    parser.add_argument("--splits", type=at_least(2), default=10, help="an sd takes two")
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument("--epsilon", type=float, default=1.0)
    options = parser.parse_args()
    if not options.file.is_file():
        print("Hillstrom's data set is not here; set ABFED_HILLSTROM")
        return
    data, brand = read(options.file)
    multiplier = sampled_multiplier(options.epsilon, DELTA, rate=RATE, steps=STEPS)
    print(
        f"ε = {options.epsilon:g}, σ = {multiplier:.3f}, {STEPS} steps at {RATE:g}, C = {CLIP:.2f}"
    )
    found: dict[str, list[float]] = {name: [] for name in ("none", *BARS)}
    ranked: dict[str, list[float]] = {name: [] for name in (*found, "column", "random")}
    for split in range(options.first, options.first + options.splits):
        test = np.random.default_rng(split).random(data.recipients) < 0.3
        silos = [part(data, ~test & (brand == number)) for number in range(4)]
        held = part(data, test)
        lines = np.hstack([DESIGN.expand(held.features, held.arms), np.ones((held.recipients, 1))])
        weights = {"none": optimum(part(data, ~test))}
        for name in ("own", "once"):
            last, mean = private(silos, multiplier, once=name == "once")
            weights |= {name: last, f"{name}, averaged": mean}
        for name, each in weights.items():
            found[name].append(auc(lines @ each, held.labels))
            ranked[name].append(qini(uplift_of(each, held), held))
        single = list(NUMBERS).index("womens")
        ranked["column"].append(qini(held.features[:, single].astype(np.float64), held))
        ranked["random"].append(qini(np.random.default_rng(split).random(held.recipients), held))
    print(
        f"without privacy, pooled: AUC {np.mean(found['none']):.4f} (split sd"
        f" {np.std(found['none'], ddof=1):.4f})"
    )
    for name, bar in BARS.items():
        gaps = np.subtract(found[name], found["none"])
        verdict = "met" if -gaps.mean() <= bar else "MISSED"
        error = gaps.std(ddof=1) / len(gaps) ** 0.5
        print(
            f"four silos, noise {name:14s}: gap {gaps.mean():+.4f} ± {error:.4f}"
            f"   bar {bar}: {verdict}"
        )
    show_qini(ranked)


def show_qini(ranked: dict[str, list[float]]) -> None:
    """Qini of womens' e-mail: private models beside the pooled one, one column and chance."""
    spread = float(np.std(ranked["none"], ddof=1))
    print(f"Qini, womens' e-mail on visits: pooled {np.mean(ranked['none']):.5f} (sd {spread:.5f})")
    for name in BARS:
        gap = float(np.mean(ranked[name]) - np.mean(ranked["none"]))
        verdict = "met" if -gap <= spread else "MISSED"
        print(f"  noise {name:16s} {np.mean(ranked[name]):.5f}   gap {gap:+.5f}: {verdict}")
    for name, words in (("column", "single column womens"), ("random", "random order")):
        print(f"  {words:22s} {np.mean(ranked[name]):.5f}")


if __name__ == "__main__":
    main()
