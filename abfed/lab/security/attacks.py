"""Attacks on abfed itself: what `abfed attack` runs. No brand's rows are touched.

Each attack plays the strongest honest game against the code that silos run, on people that don't
exist, and gives a lower bound on ε with its confidence (`abfed.privacy.attack`). It must stay below
what the ledger would charge; tests pass broken variants and it must rise above.

The attack on totals: in each trial every arm may hold one recipient, in or out by a fair coin, who
moves every coordinate as far as the bounds allow. The attacker takes the released totals and
projects them on that direction, which is the likelihood ratio of Gaussian noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from abfed.learning.canaries import TrainingAudit, train_one_by_one
from abfed.learning.membership import Trainer, infer_membership, with_privacy, without_privacy
from abfed.privacy.accounting import epsilon_of, gaussian_multiplier, sampled_multiplier
from abfed.privacy.attack import LowerBound, best_bound
from abfed.privacy.charges import noise_multipliers
from abfed.privacy.mechanisms import Noise, SystemNoise
from abfed.protocol.messages import Charge
from abfed.protocol.plan import Plan
from abfed.silo.permit import Computed, Permit
from abfed.silo.rows import canonical_schema
from abfed.silo.totals import compute_totals
from abfed.stats.encoding import SCALE, encode_share, encode_square
from abfed.stats.layout import Layout

CHANCE = 0.2  # four standard errors of an area over 80 members and 80 others
ARMS = 20
SENDS = 4
HIGH = 50.0
DELTA = 1e-6
_DAY = datetime(2026, 1, 1, tzinfo=UTC)

Floats = npt.NDArray[np.float64]
Compute = Callable[[Permit, Iterable[pa.Table]], Computed]


@dataclass(frozen=True, slots=True)
class Attacked:
    """What an attack found.

    Attributes:
        what: what was attacked.
        claimed: the ε that the ledger would charge for it (PLD).
        bound: what was proved.
    """

    what: str
    claimed: float
    bound: LowerBound

    @property
    def holds(self) -> bool:
        """Whether the claim stands."""
        return self.bound.epsilon <= self.claimed


def attack_all(*, effort: float = 1.0) -> list[Attacked]:
    """Attack totals and training as they are shipped.

    Args:
        effort: 1 takes some seconds; the bounds get closer to the truth with more.
    """
    trials, runs = max(20, round(400 * effort)), max(2, round(100 * effort))
    whole = TrainingAudit(gaussian_multiplier(3.0, DELTA), 1.0, 1, runs, DELTA)
    sigma = sampled_multiplier(2.0, DELTA, rate=0.1, steps=30)
    sampled = TrainingAudit(sigma, 0.1, 30, max(2, runs // 6), DELTA)
    fewer = replace(whole, runs=max(2, runs // 3))
    return [
        attack_totals(epsilon=3.0, trials=trials),
        Attacked("training, every recipient in one step", whole.claimed, whole.attack()),
        Attacked("training, 30 Poisson steps at rate 0.1", sampled.claimed, sampled.attack()),
        Attacked(
            "training of any other network, one by one",
            fewer.claimed,
            fewer.attack(train_one_by_one),
        ),
    ]


@dataclass(frozen=True, slots=True)
class Inferred:
    """How well members of a training set are told from others by a released model.

    Attributes:
        what: how the model was trained.
        loss_threshold, likelihood_ratio: areas under the attacker's curves; .5 is blind.
        most: the area that the claimed ε allows; 1 where nothing is claimed.
    """

    what: str
    loss_threshold: float
    likelihood_ratio: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether no area exceeds what is allowed by more than chance gives."""
        return max(self.loss_threshold, self.likelihood_ratio) <= self.most + CHANCE


def infer_all(*, epsilon: float = 1.0) -> list[Inferred]:
    """Membership inference against models trained on made-up people, without and with privacy."""
    found = []
    trainers: tuple[tuple[str, Trainer, float], ...] = (
        ("trained without privacy", without_privacy, 1.0),
        (f"trained with ε = {epsilon:g}", with_privacy(epsilon), most_area(epsilon)),
    )
    for what, train, most in trainers:
        seen = infer_membership(train)
        found.append(Inferred(what, seen.loss_threshold, seen.likelihood_ratio, most))
    return found


def most_area(epsilon: float) -> float:
    """The largest area under the curve of a test between neighbours under (ε, 0)-DP.

    Hits are at most min(e^ε·a, 1 − e^−ε(1 − a)) at a false alarms (Kairouz, Oh and Viswanath 2015);
    the two lines meet at a = 1/(1 + e^ε).
    """
    alarms = 1.0 / (1.0 + math.exp(epsilon))
    hits = 1.0 - alarms
    return alarms * hits / 2 + (1.0 - alarms) * (hits + 1.0) / 2


def attack_totals(
    *,
    epsilon: float,
    trials: int,
    compute: Compute = compute_totals,
    noise: Noise | None = None,
) -> Attacked:
    """Tell from noised totals who is in.

    Args:
        epsilon: of the plan that is attacked.
        trials: releases; each has `ARMS` coins.
        compute: what is attacked.
        noise: where its noise comes from; the system where none is given.
    """
    plan = _plan(epsilon)
    layout = Layout.of(plan)
    charge = Charge(event="gaussian", noise_multiplier=noise_multipliers(plan).statistics)
    permit = Permit(
        plan=plan,
        step="totals",
        key="0" * 64,
        epoch="0" * 64,
        charges=(charge,),
        noise=noise or SystemNoise(),
        lawful_bases=("consent",),
        holdout_key=bytes(32),
    )
    coins = np.random.default_rng()  # the attacker's, not the mechanism's
    included = coins.random((trials, ARMS)) < 0.5
    direction = _direction(layout)
    seen = np.stack(
        [
            compute(permit, [_rows(layout, np.flatnonzero(chosen))]).arrays["totals"] @ direction
            for chosen in included
        ]
    )
    scores = {"projection": seen, "difference between releases": seen - seen.mean(axis=0)}
    bound = best_bound(
        {way: values.ravel() for way, values in scores.items()}, included.ravel(), delta=DELTA
    )
    return Attacked("totals of one plan", epsilon_of([charge], DELTA), bound)


def _direction(layout: Layout) -> Floats:
    """What the loudest recipient adds, each coordinate over its noise variance."""
    full = encode_share(np.ones(1))
    parts = [encode_square(full) if one.moments else full for one in layout.blocks]
    return np.concatenate(
        [part[0] / (SCALE * one.sd) ** 2 for part, one in zip(parts, layout.blocks, strict=True)]
    )


def _plan(epsilon: float) -> Plan:
    shares = [1.0 / ARMS] * ARMS
    return Plan.from_values(
        {
            "name": "attacked",
            "purpose": "audit",
            "experiment": "attacked",
            "silos": ["audit"],
            "arms": [
                {"name": f"a{number}", "share": share, "control": number == 0}
                for number, share in enumerate(shares)
            ],
            "metrics": [
                {"name": "clicked", "kind": "proportion", "column": "clicked"},
                {"name": "spend", "kind": "mean", "column": "revenue", "high": HIGH},
            ],
            "primary": "clicked",
            "privacy": {"epsilon": epsilon, "delta": DELTA, "split": {"statistics": epsilon}},
        }
    )


def _rows(layout: Layout, arms: npt.NDArray[np.int64]) -> pa.Table:
    """In each of these arms one recipient, with the most sends and as loud as bounds allow."""
    schema = canonical_schema(("clicked", "revenue"), {})
    owners = np.repeat(arms, SENDS)
    days = [_DAY + timedelta(days=int(day)) for day in np.tile(np.arange(SENDS), len(arms))]
    columns: dict[str, Any] = {
        "recipient": [int(owner + 1).to_bytes(16, "big") for owner in owners],
        "experiment": ["attacked"] * len(owners),
        "arm": [layout.arms[owner] for owner in owners],
        "sent_at": days,
        "basis": ["consent"] * len(owners),
        "opted_out": [False] * len(owners),
        "region": ["eu"] * len(owners),
        "clicked": [True] * len(owners),
        "revenue": [10 * HIGH] * len(owners),
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
