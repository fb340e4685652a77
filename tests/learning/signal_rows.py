"""Made-up recipients with some signal, and a noise source that adds none."""

from __future__ import annotations

import numpy as np

from abfed.learning.design_matrix import Design, RecipientRows
from abfed.protocol.plan import Plan
from tests.examples import make_model_plan


class NoNoise:
    """For tests only: batches as a seeded Poisson sample, noise of zero."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self.batches: list[np.ndarray] = []

    def fork(self, number: int) -> NoNoise:
        return self

    def integers(self, values: np.ndarray, scale: float) -> np.ndarray:
        return values.copy()

    def floats(self, count: int, sigma: float) -> np.ndarray:
        return np.zeros(count)

    def poisson_batch(self, population: int, rate: float) -> np.ndarray:
        batch = np.flatnonzero(self._generator.random(population) < rate)
        self.batches.append(batch)
        return batch


def learning_plan(*hidden: int, **training: float) -> Plan:
    settings = {"rounds": 2, "local_steps": 6, "sampling_rate": 0.2} | training
    return make_model_plan(model={"outcome": "clicked", "hidden": list(hidden)}, training=settings)


def made_rows(plan: Plan, recipients: int, *, seed: int, most: int = 4) -> RecipientRows:
    """Recipients with 1 to `most` sends; the first feature tells who clicks."""
    generator = np.random.default_rng(seed)
    design = Design.of(plan)
    counts = generator.integers(1, most + 1, recipients)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = int(offsets[-1])
    features = generator.uniform(-1, 1, (rows, design.feature_width)).astype(np.float32)
    arms = np.repeat(generator.integers(0, len(design.arms), recipients), counts).astype(np.int8)
    chance = 1 / (1 + np.exp(-3 * features[:, 0]))
    labels = (generator.random(rows) < chance).astype(np.float32)
    return RecipientRows(design, features, arms, labels, offsets)
