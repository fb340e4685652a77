"""Membership inference: who was trained on, told from a released model alone.

Half of some made-up people are trained on. The attacker sees the model and everybody's rows, and
ranks people by how likely they were in:

* *loss threshold* (Yeom et al. 2018): a lower loss says "in";
* *likelihood ratio* (Carlini et al. 2022): shadow models, trained on halves that the attacker draws
  himself, tell how each person's score is distributed when they are in and when they are out.

Labels are coin flips, so all that a model can learn of them is by heart: the worst case for
privacy. The figure is the area under the attacker's curve: 0.5 is blind, 1 is certain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import train_round
from abfed.learning.networks import logits, network_for, one_thread
from abfed.learning.shapes import initial_arrays
from abfed.privacy.accounting import sampled_multiplier
from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.plan import Plan

Floats = npt.NDArray[np.float64]
Trainer = Callable[[Plan, RecipientRows], nn.Module]

FEATURES = 40
PEOPLE = 160  # half of them are trained on
SHADOWS = 12
DELTA = 1e-6


class Membership(NamedTuple):
    """Areas under the attacker's curves."""

    loss_threshold: float
    likelihood_ratio: float


def without_privacy(plan: Plan, data: RecipientRows) -> nn.Module:
    """Plain gradient descent until the labels are known by heart."""
    network = network_for(plan, initial_arrays(plan))
    lines, labels, _ = (torch.from_numpy(p) for p in data.batch(np.arange(data.recipients)))
    optimizer = torch.optim.SGD(network.parameters(), lr=2.0)
    with one_thread():
        for _ in range(200):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(network(lines).squeeze(1), labels).backward()
            optimizer.step()
    return network


def with_privacy(epsilon: float) -> Trainer:
    """DP-SGD as it is shipped, at this ε."""

    def train(plan: Plan, data: RecipientRows) -> nn.Module:
        settings = plan.schedule
        network = network_for(plan, initial_arrays(plan))
        train_round(
            network,
            data,
            settings,
            noise_multiplier=sampled_multiplier(
                epsilon, DELTA, rate=settings.sampling_rate, steps=settings.local_steps
            ),
            noise=SystemNoise(),
            expected_batch=settings.sampling_rate * PEOPLE / 2,
        )
        return network

    return train


def infer_membership(train: Trainer) -> Membership:
    """Train on half of the people, and on shadows' halves; attack."""
    plan, draw = _plan(), np.random.default_rng()  # the attacker's, not the mechanism's
    people = _people(plan, draw)
    halves = [draw.permutation(PEOPLE) < PEOPLE // 2 for _ in range(SHADOWS + 1)]
    scores = np.stack([_margins(train(plan, _some(people, half)), people) for half in halves])
    target, shadows, inside = scores[0], scores[1:], np.stack(halves[1:])
    spread = shadows.std() + 1e-9
    means = [
        np.where(chosen, shadows, 0.0).sum(axis=0) / np.maximum(chosen.sum(axis=0), 1)
        for chosen in (inside, ~inside)
    ]
    ratio = ((target - means[1]) ** 2 - (target - means[0]) ** 2) / spread**2
    return Membership(_area(target, halves[0]), _area(ratio, halves[0]))


def _margins(network: nn.Module, people: RecipientRows) -> Floats:
    """Each one's score for the label they have: the logit of their likelihood."""
    lines, labels, _ = people.batch(np.arange(people.recipients))
    return np.asarray(logits(network, lines) * (2 * labels - 1), dtype=np.float64)


def _area(scores: Floats, members: npt.NDArray[np.bool_]) -> float:
    """Chance that a member ranks above somebody who isn't one; ties count half."""
    inside, outside = scores[members][:, None], scores[~members][None, :]
    return float((inside > outside).mean() + (inside == outside).mean() / 2)


def _some(people: RecipientRows, chosen: npt.NDArray[np.bool_]) -> RecipientRows:
    return RecipientRows(
        people.design,
        people.features[chosen],
        people.arms[chosen],
        people.labels[chosen],
        np.arange(int(chosen.sum()) + 1, dtype=np.int64),
    )


def _people(plan: Plan, draw: np.random.Generator) -> RecipientRows:
    return RecipientRows(
        Design.of(plan),
        draw.uniform(-1, 1, (PEOPLE, FEATURES)).astype(np.float32),
        draw.integers(0, 2, PEOPLE).astype(np.int8),
        draw.integers(0, 2, PEOPLE).astype(np.float32),
        np.arange(PEOPLE + 1, dtype=np.int64),
    )


def _plan() -> Plan:
    names = [f"f{number}" for number in range(FEATURES)]
    split = {"statistics": 1.0, "training": 1.0, "evaluation": 1.0}
    return Plan.from_values(
        {
            "name": "membership",
            "purpose": "audit",
            "experiment": "membership",
            "silos": ["audit"],
            "arms": [{"name": "a", "share": 0.5, "control": True}, {"name": "b", "share": 0.5}],
            "metrics": [{"name": "clicked", "kind": "proportion", "column": "clicked"}],
            "primary": "clicked",
            "features": [
                {"name": name, "kind": "numeric", "low": -1.0, "high": 1.0} for name in names
            ],
            "model": {"outcome": "clicked"},
            "training": {"local_steps": 40, "sampling_rate": 0.25, "clip": 2.0},
            "privacy": {"epsilon": 3.0, "split": split},
        }
    )
