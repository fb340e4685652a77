"""Canaries through the training engine: an empirical audit of DP-SGD.

Each canary is a recipient with several sends, made so that it is as visible as the bound allows: a
gradient along a coordinate of its own, many times longer than the clip and of the same direction
in each step. A fair coin puts it in the data or leaves it out; from the released updates the
attacker guesses the coins (`abfed.privacy.attack`). Nobody real is involved.

The engine is called through `train_round`'s public signature only, so what is audited is what is
shipped, and a test can pass a broken one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import train_round
from abfed.learning.networks import network_for
from abfed.learning.shapes import parameter_shapes
from abfed.privacy.accounting import epsilon_of
from abfed.privacy.attack import LowerBound, best_bound
from abfed.privacy.mechanisms import Noise, SystemNoise
from abfed.protocol.messages import Charge
from abfed.protocol.modelling import Training
from abfed.protocol.plan import Plan

Floats = npt.NDArray[np.float64]

CATEGORIES = 4
VALUES = 64
CANARIES = CATEGORIES * VALUES
"""In one run: one for each column of the features."""

SENDS = 4
"""Rows of a canary: an engine that bounds rows instead of recipients shows them all."""

LOUDNESS = 1e3
"""Length of a canary's feature vector; what is encoded from real rows has entries in [-1, 1]."""

HOPELESS = -30.0
"""The incoming bias: every canary is labelled 1 and predicted 0, so its gradient stays whole."""

EXPECTED_BATCH = 1e3
LEARNING_RATE = 1e-4  # so small that no canary is learnt: what is added stays linear


class Engine(Protocol):
    """The public face of `abfed.learning.dpsgd.train_round`."""

    def __call__(
        self,
        network: nn.Module,
        data: RecipientRows,
        settings: Training,
        *,
        noise_multiplier: float,
        noise: Noise,
        expected_batch: float,
    ) -> Any:
        """One round; the update by parameter."""
        ...


def train_one_by_one(
    network: nn.Module, data: RecipientRows, settings: Training, **rest: Any
) -> dict[str, npt.NDArray[np.float32]]:
    """`train_round` on a network of which no more is known than that Opacus accepts it."""
    network.register_forward_hook(lambda *_: None)  # which could do anything: it is no stack
    return train_round(network, data, settings, **rest)


@dataclass(frozen=True, slots=True)
class TrainingAudit:
    """What is audited, and what is claimed for it.

    Attributes:
        noise_multiplier, sampling_rate, steps: as charged.
        runs: runs with fresh coins; each adds `CANARIES`.
        delta: of the claim.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    runs: int
    delta: float

    @property
    def claimed(self) -> float:
        """ε of one run, as the ledger's events have it (PLD)."""
        charge = Charge(
            event="sampled-gaussian" if self.sampling_rate < 1 else "gaussian",
            noise_multiplier=self.noise_multiplier,
            sampling_rate=self.sampling_rate,
            count=self.steps,
        )
        return epsilon_of([charge], self.delta)

    def attack(self, engine: Engine = train_round, noise: Noise | None = None) -> LowerBound:
        """Run the engine on fresh coins and prove what can be proved.

        Args:
            engine: what is audited.
            noise: where its noise comes from; the system where none is given.
        """
        source = noise or SystemNoise()
        coins = np.random.default_rng()  # the attacker's, not the mechanism's
        included = coins.random((self.runs, CANARIES)) < 0.5
        seen = np.stack([self._run(engine, source, chosen) for chosen in included])
        return best_bound(
            {way: values.ravel() for way, values in self._scores(seen).items()},
            included.ravel(),
            delta=self.delta,
        )

    def _run(self, engine: Engine, noise: Noise, chosen: npt.NDArray[np.bool_]) -> Floats:
        """One run: what each canary's coordinate moved by in each step, in clips."""
        plan = _plan(self.sampling_rate)
        data = _rows(plan, np.flatnonzero(chosen))
        network = network_for(plan, _hopeless(plan))
        moved = np.empty((self.steps, CANARIES))
        for step in range(self.steps):
            update = engine(
                network,
                data,
                plan.schedule,
                noise_multiplier=self.noise_multiplier,
                noise=noise,
                expected_batch=EXPECTED_BATCH,
            )
            weights = np.asarray(update["output.weight"], dtype=np.float64).ravel()[:CANARIES]
            moved[step] = weights * (EXPECTED_BATCH / (LEARNING_RATE * plan.schedule.clip))
        return moved

    def _scores(self, seen: Floats) -> dict[str, Floats]:
        """Ways to guess, from `(runs, steps, canaries)`: each gives `(runs, canaries)`."""
        variance, q = self.noise_multiplier**2, self.sampling_rate
        exponent = np.clip((seen - 0.5) / variance, -500.0, 500.0)
        total = seen.sum(axis=1)
        # noise that repeats from run to run cancels
        ways = {"sum": total, "difference between runs": total - total.mean(axis=0)}
        if q < 1:  # the likelihood ratio of Poisson sampling
            ways["likelihood"] = np.log1p(q * np.expm1(exponent)).sum(axis=1)
        return ways


def _plan(rate: float) -> Plan:
    """A plan with a column for each canary, one step a round."""
    values = [f"v{number}" for number in range(VALUES)]
    names = [f"c{number}" for number in range(CATEGORIES)]
    return Plan.from_values(
        {
            "name": "audit",
            "purpose": "audit",
            "experiment": "audit",
            "silos": ["audit"],
            "arms": [{"name": "a", "share": 0.5, "control": True}, {"name": "b", "share": 0.5}],
            "metrics": [{"name": "clicked", "kind": "proportion", "column": "clicked"}],
            "primary": "clicked",
            "features": [{"name": name, "kind": "category", "values": values} for name in names],
            "model": {"outcome": "clicked"},
            "training": {
                "rounds": 1,
                "local_steps": 1,
                "sampling_rate": rate,
                "clip": 1.0,
                "learning_rate": LEARNING_RATE,
            },
            "privacy": {
                "epsilon": 3.0,
                "split": {"statistics": 1.0, "training": 1.0, "evaluation": 1.0},
            },
        }
    )


def _rows(plan: Plan, chosen: npt.NDArray[np.int64]) -> RecipientRows:
    """The canaries that are in, with all their sends."""
    design = Design.of(plan)
    owners = np.repeat(chosen, SENDS)
    features = np.zeros((len(owners), design.feature_width), dtype=np.float32)
    features[np.arange(len(owners)), owners] = LOUDNESS
    return RecipientRows(
        design,
        features,
        np.zeros(len(owners), dtype=np.int8),
        np.ones(len(owners), dtype=np.float32),
        np.arange(len(chosen) + 1, dtype=np.int64) * SENDS,
    )


def _hopeless(plan: Plan) -> dict[str, npt.NDArray[np.float32]]:
    """A model that predicts 0 for everybody, with a weight of 0 for each canary."""
    return {
        name: np.full(shape.shape, HOPELESS if name.endswith("bias") else 0.0, dtype=np.float32)
        for name, shape in parameter_shapes(plan).items()
    }
