"""The model that a plan trains, and how: declarations only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from abfed.protocol.metrics import BinaryOutcome
from abfed.protocol.schema import Frozen


class Model(Frozen):
    """An engagement model: probability of `outcome` from features, arm and their interactions.

    `hidden: []` is logistic regression, the default for small data.
    """

    outcome: BinaryOutcome
    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(max_length=4)] = ()


class Training(Frozen):
    """Settings of federated DP-SGD (Abadi et al. 2016) at the level of recipients.

    Attributes:
        rounds: federated rounds.
        local_steps: noisy steps in each silo and round.
        sampling_rate: chance that a recipient is in a step's batch (Poisson sampling).
        clip: L2 bound on one recipient's gradient.
        learning_rate: of the local steps.
        holdout: share of recipients, by keyed hash, kept for evaluation only.
        weighting: how silos' updates are averaged: all alike, or by noised size.
    """

    rounds: Annotated[int, Field(ge=1, le=1000)] = 6
    local_steps: Annotated[int, Field(ge=1, le=10_000)] = 20
    sampling_rate: Annotated[float, Field(ge=1e-4, le=1, allow_inf_nan=False)] = 0.05
    clip: Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False)] = 4.0
    learning_rate: Annotated[float, Field(ge=1e-6, le=1e3, allow_inf_nan=False)] = 0.5
    holdout: Annotated[float, Field(ge=0.05, le=0.5, allow_inf_nan=False)] = 0.2
    weighting: Literal["equal", "size"] = "size"
