"""What noise costs: the exact discrete Gaussian of totals against the float noise of training.

    python benchmarks/bench_noise.py

Prints CPU seconds, median of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from abfed.privacy.mechanisms import SystemNoise
from abfed.stats.encoding import SCALE

ROUNDS = 7
SIGMA = 3.0


def timed(act: Callable[[], object]) -> float:
    spent = []
    for _ in range(ROUNDS):
        start = time.process_time()
        act()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def main() -> None:
    noise = SystemNoise()
    print("a release of totals (arms × coordinates), exact discrete Gaussian and float noise:")
    for arms, width in ((2, 2), (3, 9), (20, 60)):
        values = np.zeros((arms, width), dtype=np.int64)
        exact = timed(partial(noise.integers, values, SIGMA * SCALE))
        floats = timed(partial(noise.floats, values.size, SIGMA))
        print(
            f"  {arms:3} × {width:3}: exact {exact * 1e3:8.2f} ms, float {floats * 1e3:6.3f} ms,"
            f" {exact / floats:6.0f} times"
        )
    print("draws, millions a CPU second:")
    million = 1_000_000
    print(
        f"  AES-CTR, Box and Muller (training)   {1 / timed(lambda: noise.floats(million, 1)):7.1f}"
    )
    few = np.zeros(3_000, dtype=np.int64)
    exact = 3e-3 / timed(lambda: noise.integers(few, SIGMA * SCALE))
    print(f"  exact discrete Gaussian (totals)     {exact:7.3f}")
    print(f"  torch.normal, not cryptographic      {1 / timed(lambda: torch.randn(million)):7.1f}")
    print("a Poisson batch at rate 0.01:")
    for population in (10_000, 1_000_000, 50_000_000):
        batch = timed(partial(noise.poisson_batch, population, 0.01))
        print(f"  of {population:>10,} recipients: {batch * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
