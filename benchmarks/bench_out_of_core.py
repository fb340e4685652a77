"""Private training on rows that don't fit into memory: 50 million, from a sealed cache on disk.

    python benchmarks/bench_out_of_core.py [--rows 50000000] [--rounds 7] [--quick]

One process seals the rows, as `prepare` does. Another opens them, trains 512 steps of 4,096
expected recipients (64-32, the operating system's noise) in one sweep and reads its own peak
memory; then it also takes rows into memory and both are measured in turn, in CPU seconds. Pages of
the file count as the process's memory until they are given back. No time is asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from peak import peak  # type: ignore[import-not-found]
from torch import nn

from abfed.learning.batches import InMemory, TrainingRows
from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import train_round
from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.modelling import Training
from abfed.protocol.schema import NumericFeature
from abfed.silo.feature_cache import CacheFolder, CacheName
from abfed.site.keys import SiteKeys

DESIGN = Design(
    tuple(NumericFeature(name=f"x{place}", low=-1.0, high=1.0) for place in range(11)),
    ("plain", "new"),
    0,
)  # 24 columns: 11 features, 2 arms, 11 interactions
NAME = CacheName("0" * 64, "1" * 64, "training")
PART = 1_000_000
BATCH = 4_096
IN_MEMORY = 1_000_000


def made_part(count: int, generator: np.random.Generator) -> RecipientRows:
    """Recipients with one row each."""
    return RecipientRows(
        DESIGN,
        (generator.random((count, 11), dtype=np.float32) * 2 - 1).astype(np.float16),
        generator.integers(0, 2, count, dtype=np.int8),
        generator.integers(0, 2, count).astype(np.float32),
        np.arange(count + 1, dtype=np.int64),
    )


def seal(folder: Path, rows: int) -> None:
    """Write the cache."""
    keys = SiteKeys.create(folder / "keys", site="aurora")
    generator, started = np.random.default_rng(1), time.process_time()
    writer = CacheFolder(folder, keys).write(NAME, DESIGN)
    for first in range(0, rows, PART):
        writer.add(made_part(min(PART, rows - first), generator))
    writer.finish().close()
    size = sum(path.stat().st_size for path in folder.glob("cache-*"))
    print(
        f"sealed {rows:,} rows in {size / 1e9:.2f} GB"
        f" ({time.process_time() - started:.0f} CPU s, making them included)",
        flush=True,
    )


def rate(rows: TrainingRows, steps: int) -> float:
    """Recipients per CPU second of one round."""
    settings = Training(local_steps=steps).model_copy(
        update={"sampling_rate": BATCH / rows.recipients}  # plans start at 1e-4
    )
    started = time.process_time()
    train_round(
        nn.Sequential(
            nn.Linear(DESIGN.width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        ),
        rows,
        settings,
        noise_multiplier=1.0,
        noise=SystemNoise(),
        expected_batch=BATCH,
    )
    return steps * BATCH / (time.process_time() - started)


def train(folder: Path, rounds: int, steps: int) -> None:
    """Measure memory, then rates in turn."""
    torch.set_num_threads(1)
    kept = CacheFolder(folder, SiteKeys.open(folder / "keys")).open(NAME, DESIGN)
    if kept is None:
        sys.exit("the cache is not there")
    rate(kept, steps)
    print(f"trained {kept.recipients:,} rows: peak memory {peak():.0f} MiB   bar 0.6 GB = 572 MiB")
    rows = InMemory(made_part(min(IN_MEMORY, kept.recipients), np.random.default_rng(2)))
    rate(rows, 16)
    ours, memory = [], []
    for _ in range(rounds):
        ours.append(rate(kept, steps))
        memory.append(rate(rows, steps))
    ratios = [a / b for a, b in zip(ours, memory, strict=True)]
    print(f"on disk    {statistics.median(ours) / 1e3:8,.0f} k recipients/CPU s")
    print(f"in memory  {statistics.median(memory) / 1e3:8,.0f} k recipients/CPU s")
    print(
        f"ratio      {statistics.median(ratios):8.2f}"
        f"  ({min(ratios):.2f}–{max(ratios):.2f})  bar 0.5"
    )


def main() -> None:
    """Seal in this process, train in another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="2 million rows, two rounds")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows, rounds = (2_000_000, 2) if options.quick else (options.rows, options.rounds)
    if options.train:
        train(options.train, rounds, 64 if options.quick else 512)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("ABFED_BENCH_FOLDER")) as name:
        folder = Path(name)
        folder.chmod(0o700)
        seal(folder, rows)
        command = [sys.executable, __file__, "--train", str(folder), "--rounds", str(rounds)]
        subprocess.run(command + ["--quick"] * options.quick, check=True)


if __name__ == "__main__":
    main()
