"""Default settings of training: the AUC that private training loses, by schedule.

    python benchmarks/bench_defaults.py [--splits 5] [--epsilon 1] [--file hillstrom.csv]

Four silos, logistic regression with arm interactions, each silo with noise of its own; against
pooled logistic regression without privacy on the same split. Made-up brands have strong effects,
Hillstrom's e-mail test weak ones: defaults must do for both.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import numpy.typing as npt
import torch
from bench_utility import (  # type: ignore[import-not-found]  # it lies beside
    CHANNELS,
    CLIP,
    DELTA,
    DESIGN,
    NUMBERS,
    Floats,
    at_least,
    auc,
    optimum,
    part,
    read,
)
from torch import nn

from abfed.learning.design_matrix import RecipientRows, encode_category, encode_numeric
from abfed.learning.dpsgd import train_round
from abfed.learning.networks import parameters_of
from abfed.privacy.accounting import sampled_multiplier
from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.modelling import Training
from abfed.protocol.schema import CategoryFeature, NumericFeature


class Schedule(NamedTuple):
    """Settings to compare."""

    rounds: int
    local_steps: int
    rate: float
    learning_rate: float


SCHEDULES = (
    Schedule(6, 20, 0.05, 0.5),
    Schedule(8, 30, 0.1, 1.0),
    Schedule(8, 30, 0.1, 2.0),
)


def made_up(seed: int, count: int = 64_000) -> tuple[RecipientRows, npt.NDArray[np.int64]]:
    """Recipients with Hillstrom's columns, strong effects, and a brand each."""
    drawn = np.random.default_rng(seed)
    values = {
        "recency": drawn.integers(1, 13, count),
        "history": np.minimum(drawn.lognormal(5, 1, count), 3500),
        "mens": (drawn.random(count) < 0.55).astype(float),
        "womens": (drawn.random(count) < 0.55).astype(float),
        "newbie": (drawn.random(count) < 0.5).astype(float),
    }
    channels = drawn.choice(3, count, p=[0.44, 0.44, 0.12])
    blocks = [
        encode_numeric(feature, np.asarray(values[feature.name], np.float64))
        for feature in DESIGN.features
        if isinstance(feature, NumericFeature)
    ]
    channel = DESIGN.features[-1]
    assert isinstance(channel, CategoryFeature)
    features = np.hstack([*blocks, encode_category(channel, channels)])
    arms = drawn.integers(0, 3, count).astype(np.int8)
    scaled = np.stack([(one - one.mean()) / one.std() for one in values.values()], axis=1)
    between = drawn.normal(0, 0.3, (3, len(NUMBERS)))
    between[0] = 0.0
    score = -2.0 + scaled @ drawn.normal(0, 0.35, len(NUMBERS)) + (scaled * between[arms]).sum(1)
    score += np.array([0.0, *drawn.normal(0.4, 0.2, 2)])[arms]
    score += drawn.normal(0, 0.3, len(CHANNELS))[channels]
    labels = (drawn.random(count) < 1 / (1 + np.exp(-score))).astype(np.float32)
    rows = RecipientRows(DESIGN, features, arms, labels, np.arange(count + 1))
    return rows, drawn.integers(0, 4, count)


def models(silos: list[RecipientRows], asked: Schedule, multiplier: float) -> list[Floats]:
    """The federated model after each round, the constant last."""
    network = nn.Sequential(nn.Linear(DESIGN.width, 1))
    nn.init.zeros_(network[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(network[0].bias)  # type: ignore[arg-type]
    settings = Training(
        rounds=asked.rounds,
        local_steps=asked.local_steps,
        sampling_rate=asked.rate,
        clip=CLIP,
        learning_rate=asked.learning_rate,
    )
    everybody, noise = sum(each.recipients for each in silos), SystemNoise()
    model, found = parameters_of(network), []
    for _ in range(asked.rounds):
        mean = {name: array.astype(np.float64) for name, array in model.items()}
        for each in silos:
            network.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in model.items()})
            update = train_round(
                network,
                each,
                settings,
                noise_multiplier=multiplier,
                noise=noise,
                expected_batch=asked.rate * each.recipients,
            )
            for name, array in update.items():
                mean[name] += each.recipients / everybody * array
        model = {name: array.astype(np.float32) for name, array in mean.items()}
        found.append(np.concatenate([mean["0.weight"].ravel(), mean["0.bias"]]))
    return found


def told(gaps: list[float]) -> str:
    """Their mean and its standard error, which one split alone doesn't have."""
    if len(gaps) < 2:
        return f"{np.mean(gaps):+.4f} (one split: no standard error)"
    return f"{np.mean(gaps):+.4f} ± {np.std(gaps, ddof=1) / len(gaps) ** 0.5:.4f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("ABFED_HILLSTROM") or str(
        Path(__file__).resolve().parents[2] / "shared/data/hillstrom.csv"
    )
    parser.add_argument("--file", type=Path, default=Path(default))
    parser.add_argument("--splits", type=at_least(1), default=5)
    parser.add_argument("--epsilon", type=float, default=1.0)
    options = parser.parse_args()
    for name in ("made-up brands", "Hillstrom"):
        if name == "Hillstrom" and not options.file.is_file():
            print("Hillstrom's data set is not here; set ABFED_HILLSTROM")
            continue
        lost: dict[tuple[Schedule, str], list[float]] = {}
        pooled: list[float] = []
        for split in range(options.splits):
            data, brand = made_up(100 + split) if name != "Hillstrom" else read(options.file)
            test = np.random.default_rng(1000 + split).random(data.recipients) < 0.3
            silos = [part(data, ~test & (brand == number)) for number in range(4)]
            held = part(data, test)
            lines = np.hstack(
                [DESIGN.expand(held.features, held.arms), np.ones((held.recipients, 1))]
            )
            pooled.append(auc(lines @ optimum(part(data, ~test)), held.labels))
            for asked in SCHEDULES:
                steps = asked.rounds * asked.local_steps
                sigma = sampled_multiplier(options.epsilon, DELTA, rate=asked.rate, steps=steps)
                found = models(silos, asked, sigma)
                half = np.mean(found[-(asked.rounds // 2) :], axis=0)
                for kind, weights in (("last", found[-1]), ("averaged .5", half)):
                    gap = auc(lines @ weights, held.labels) - pooled[-1]
                    lost.setdefault((asked, kind), []).append(gap)
        print(f"\n{name}, ε = {options.epsilon:g}: pooled AUC {np.mean(pooled):.4f}")
        for (asked, kind), gaps in lost.items():
            print(
                f"  {asked.rounds:2d} × {asked.local_steps}, rate {asked.rate:g}, learning rate"
                f" {asked.learning_rate:g}, {kind:12s} {told(gaps)}"
            )


if __name__ == "__main__":
    main()
