"""Private training against Opacus and torch: recipients per CPU second, as ratios.

    python benchmarks/bench_training.py [--recipients 64000] [--rounds 7] [--quick]
        [--only 64-32] [--against torch]

Every contender runs in each round, one after another; a ratio is the median over the rounds of
abfed's rate over the other's *in the same round*, and its spread is the smallest and largest of
them. Rates count CPU seconds of this process with one thread. abfed runs what a silo runs:
`train_round` with Poisson batches and noise from the operating system. A bar that is missed is
marked; no time is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from abfed.learning.batches import InMemory
from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import train_round
from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.modelling import Training
from abfed.protocol.schema import NumericFeature
from tests.learning.training_peers import (
    CLIP,
    RATE,
    SIGMA,
    Steps,
    network_of,
    opacus_ghost_on_tensors,
    opacus_textbook,
    products_alone,
    torch_on_tensors,
    torch_with_loader,
)

NETWORKS = {"logistic": (), "64-32": (64, 32), "256-128": (256, 128)}
BATCH = 4_096
DESIGN = Design(
    tuple(NumericFeature(name=f"x{place}", low=-1.0, high=1.0) for place in range(11)),
    ("plain", "new"),
    0,
)  # 24 columns: 11 features, 2 arms, 11 interactions
SECONDS = 0.25  # CPU a contender and round, about


class Bar(NamedTuple):
    """What a ratio is held against."""

    contender: str
    at_least: float | None


def made_rows(counts: np.ndarray, seed: int = 1) -> RecipientRows:
    """Recipients with so many rows each."""
    generator = np.random.default_rng(seed)
    rows = int(counts.sum())
    return RecipientRows(
        DESIGN,
        generator.uniform(-1, 1, (rows, 11)).astype(np.float32),
        np.repeat(generator.integers(0, 2, len(counts)), counts).astype(np.int8),
        generator.integers(0, 2, rows).astype(np.float32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def abfed(rows: InMemory, hidden: tuple[int, ...], batch: int) -> Steps:
    """What a silo runs: one round of so many steps."""
    network, noise = network_of(DESIGN.width, hidden), SystemNoise()
    rate = batch / rows.recipients

    def steps(count: int) -> int:
        settings = Training(local_steps=count, sampling_rate=rate, clip=CLIP, learning_rate=RATE)
        train_round(
            network, rows, settings, noise_multiplier=SIGMA, noise=noise, expected_batch=batch
        )
        return count * batch  # expected; Poisson batches are as large on average

    return steps


def among(contenders: dict[str, Steps], against: str) -> dict[str, Steps]:
    """Of these, abfed and those in whose name this is."""
    return {name: each for name, each in contenders.items() if name == "abfed" or against in name}


def measured(contenders: dict[str, Steps], rounds: int) -> dict[str, list[float]]:
    """Recipients per CPU second of each contender in each round, interleaved."""
    counts = {}
    for name, steps in contenders.items():
        steps(2)  # warm
        started = time.process_time()
        steps(2)
        one = max(1e-4, (time.process_time() - started) / 2)
        counts[name] = max(1, min(200, round(SECONDS / one)))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in order:
            started = time.process_time()
            held = contenders[name](counts[name])
            rates[name].append(held / (time.process_time() - started))
    return rates


def told(title: str, rates: dict[str, list[float]], bars: list[Bar], scale: float = 1.0) -> None:
    """Print a table of ratios with their spread and bars."""
    ours = rates["abfed"]
    print(f"\n{title}: abfed {statistics.median(ours) * scale / 1e3:,.0f} k/CPU s")
    for bar in bars:
        theirs = rates[bar.contender]
        ratios = [scale * a / b for a, b in zip(ours, theirs, strict=True)]
        middle = statistics.median(ratios)
        verdict = ""
        if bar.at_least is not None:
            met = "met" if middle >= bar.at_least else "MISSED"
            verdict = f"bar {bar.at_least:g}: {met}"
        rate = statistics.median(theirs) / 1e3
        print(
            f"  {bar.contender:28s} {rate:10,.1f} k/CPU s  abfed is {middle:7.2f} ×"
            f"  ({min(ratios):.2f}–{max(ratios):.2f})  {verdict}"
        )


def one_row(
    name: str, recipients: int, rounds: int, against: str, bars: dict[str, float | None]
) -> None:
    """One row a recipient, against everybody, or those who are named."""
    batch = BATCH
    hidden = NETWORKS[name]
    data = made_rows(np.ones(recipients, dtype=np.int64))
    lines = torch.from_numpy(DESIGN.expand(data.features, data.arms))
    labels = torch.from_numpy(data.labels)
    contenders = {
        "abfed": abfed(InMemory(data), hidden, batch),
        "Opacus textbook": opacus_textbook(lines, labels, hidden, batch, ghost=False),
        "Opacus ghost": opacus_textbook(lines, labels, hidden, batch, ghost=True),
        "Opacus ghost on tensors": opacus_ghost_on_tensors(
            lines[:, None], labels[:, None], hidden, batch
        ),
        "torch, no privacy, loader": torch_with_loader(lines, labels, hidden, batch),
        "torch, no privacy, tensors": torch_on_tensors(lines, labels, hidden, batch),
        "matrix products alone": products_alone(lines, hidden, batch),
    }
    contenders = among(contenders, against)
    told(
        f"{name}, batch {batch:,}, {recipients:,} recipients with one row",
        measured(contenders, rounds),
        [Bar(contender, bars.get(contender)) for contender in contenders if contender != "abfed"],
    )


def many_rows(name: str, rows: int, recipients: int, rounds: int) -> None:
    """`rows` rows each, against ghost clipping: the engine with its loader, and on tensors."""
    hidden, batch = NETWORKS[name], BATCH // rows
    data = made_rows(np.full(recipients // rows, rows))
    lines = torch.from_numpy(DESIGN.expand(data.features, data.arms)).unflatten(0, (-1, rows))
    labels = torch.from_numpy(data.labels).unflatten(0, (-1, rows))
    contenders = {
        "abfed": abfed(InMemory(data), hidden, batch),
        "Opacus ghost": opacus_textbook(lines, labels, hidden, batch, ghost=True),
        "Opacus ghost on tensors": opacus_ghost_on_tensors(lines, labels, hidden, batch),
    }
    told(
        f"{name}, {rows} rows a recipient",
        measured(contenders, rounds),
        [Bar("Opacus ghost", 1.7), Bar("Opacus ghost on tensors", 1.7)],
    )


def ragged(recipients: int, rounds: int) -> None:
    """1 to 8 rows each against one row each, in rows per CPU second."""
    counts = np.random.default_rng(2).integers(1, 9, round(recipients / 4.5))
    mean = float(counts.mean())
    contenders = {
        "abfed": abfed(InMemory(made_rows(counts)), NETWORKS["256-128"], round(BATCH / mean)),
        "one row each": abfed(
            InMemory(made_rows(np.ones(recipients, dtype=np.int64))), NETWORKS["256-128"], BATCH
        ),
    }
    rates = measured(contenders, rounds)
    told("256-128, 1 to 8 rows a recipient, in rows", rates, [Bar("one row each", 0.7)], mean)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=64_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="logistic only, three rounds")
    cases = (*NETWORKS, "many", "ragged")
    parser.add_argument("--only", choices=cases, help="one network with one row each, or others")
    parser.add_argument("--against", default="", help="one row each: a part of contenders' names")
    options = parser.parse_args()
    recipients, rounds = options.recipients, 3 if options.quick else options.rounds
    only = "logistic" if options.quick else options.only
    torch.set_num_threads(1)
    everywhere: dict[str, float | None] = {
        "torch, no privacy, tensors": 0.95,
        "Opacus ghost": 3.5,
        "Opacus ghost on tensors": None,
    }
    own: dict[str, dict[str, float | None]] = {
        "logistic": {"Opacus textbook": 60.0},
        "64-32": {"Opacus textbook": 18.0, "matrix products alone": 0.45},
        "256-128": {"Opacus textbook": 45.0, "matrix products alone": 0.7},
    }
    for name in NETWORKS:
        if only in (None, name):
            one_row(name, recipients, rounds, options.against, everywhere | own[name])
    if only in (None, "many"):
        for name in NETWORKS:
            for rows in (4, 16):
                many_rows(name, rows, recipients, rounds)
    if only in (None, "ragged"):
        ragged(recipients, rounds)
    print("\nspread: smallest and largest ratio of the rounds; k = 1,000 recipients")


if __name__ == "__main__":
    main()
