"""The model that a plan trains, and how: declarations only."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from abfed.protocol.metrics import BinaryOutcome
from abfed.protocol.schema import Frozen, Name

Learner = Literal["s", "t", "x"]
"""How arms share a network (Künzel et al. 2019): all columns with interactions, none, or the hidden
layers, with outputs of their own and of their effects."""


class HashedText(Frozen):
    """A text known before the send, such as a subject line, by hashes of its words.

    Don't declare a text that differs between the arms of the experiment: it would stand for the
    arm, and what the arm does would be put down to words.

    Attributes:
        name: of the column, which the silo holds as a category.
        buckets: columns that words are hashed to.
    """

    name: Name
    buckets: Annotated[int, Field(ge=8, le=1024)] = 64

    @property
    def width(self) -> int:
        """Columns it takes in the design matrix."""
        return self.buckets


class SendTime(Frozen):
    """The hour and the day of the week at which a send left.

    Attributes:
        timezone: an IANA name, such as Europe/Paris.
    """

    timezone: Annotated[str, Field(max_length=64)] = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as cause:
            message = f"{name!r} is not an IANA time zone, such as Europe/Paris"
            raise ValueError(message) from cause
        return name

    @property
    def name(self) -> str:
        """What its columns are called after."""
        return "sent_at"

    @property
    def width(self) -> int:
        """Columns it takes in the design matrix."""
        return 4


class Revenue(Frozen):
    """Revenue of a send as a model in two parts: the chance to buy, and the size given buying.

    Attributes:
        high: the largest revenue that counts; what lies above is taken for it.
    """

    high: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class Model(Frozen):
    """An engagement model: probability of `outcome` from features, arm and their interactions.

    `hidden: []` is logistic regression, the default for small data.

    Attributes:
        outcome: what is predicted for a send; arms are recommended by it.
        also: further outcomes, told by the same network and trained by the same steps.
        revenue: the revenue of a send, in two parts, by the same network too.
        learner: how arms share the network: all columns, with interactions ("s"), nothing ("t"), or
            an X-learner ("x").
        texts: texts known before the send, beside the plan's features.
        send_time: whether hour and weekday of the send are features too.
        hidden: sizes of the hidden layers.
    """

    outcome: BinaryOutcome
    kind: Literal["mlp"] = "mlp"
    learner: Learner = "s"
    texts: Annotated[tuple[HashedText, ...], Field(max_length=4)] = ()
    send_time: SendTime | None = None
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(max_length=4)] = ()
    also: Annotated[tuple[BinaryOutcome, ...], Field(max_length=6)] = ()
    revenue: Revenue | None = None

    @model_validator(mode="after")
    def _sound(self) -> Model:
        named = (self.outcome, *self.also)
        if len(set(named)) < len(named):
            message = "also: an outcome stands twice, or is the model's first"
            raise ValueError(message)
        if self.learner == "t" and len(self.hidden) > 1:
            message = "a t-learner has at most one hidden layer: a second would be shared by arms"
            raise ValueError(message)
        return self

    @model_serializer(mode="wrap")
    def _as_it_was(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what older plans don't know, so that their digests stay theirs."""
        values: dict[str, Any] = write(self)
        if not self.also:
            values.pop("also", None)
        if self.revenue is None:
            values.pop("revenue", None)
        return values

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns that labels are made of."""
        return (self.outcome, *self.also, *(("revenue",) if self.revenue is not None else ()))


Rate = Annotated[float, Field(ge=1e-6, le=1e3, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Average(Frozen):
    """FedAvg (McMahan et al. 2017): the new model is the silos' mean."""

    kind: Literal["fedavg"] = "fedavg"


class Momentum(Frozen):
    """FedAvgM (Hsu et al. 2019): the mean update is a gradient for SGD with momentum.

    Attributes:
        learning_rate: of the server.
        momentum: decay of past updates.
    """

    kind: Literal["fedavgm"]
    learning_rate: Rate = 1.0
    momentum: Decay = 0.9


class Adaptive(Frozen):
    """FedAdam and FedYogi (Reddi et al. 2021): the mean update is a gradient for Adam or Yogi.

    Attributes:
        learning_rate: of the server.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        tau: added to the root of the second moment: the smaller, the more adaptive.
    """

    kind: Literal["fedadam", "fedyogi"]
    learning_rate: Rate = 0.1
    beta_1: Decay = 0.9
    beta_2: Decay = 0.99
    tau: Annotated[float, Field(ge=1e-9, le=1e3, allow_inf_nan=False)] = 1e-3


Server = Annotated[Average | Momentum | Adaptive, Field(discriminator="kind")]
"""What the server makes of a round's combined update."""


class WeightedMean(Frozen):
    """All silos that answered, by their weights."""

    kind: Literal["mean"] = "mean"


class TrimmedMean(Frozen):
    """Coordinate by coordinate, without the `cut` largest and smallest (Yin et al. 2018).

    Attributes:
        cut: share of silos cut off at each end; all others count alike.
    """

    kind: Literal["trimmed-mean"]
    cut: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False)] = 0.2


class MultiKrum(Frozen):
    """The mean of the silos that lie closest together (Blanchard et al. 2017).

    Attributes:
        hostile: silos that may be so; 2 × hostile + 3 must answer each round.
        kept: silos that are averaged; all but the hostile ones where it is not given.
    """

    kind: Literal["multi-krum"]
    hostile: Annotated[int, Field(ge=1, le=1000)] = 1
    kept: Annotated[int, Field(ge=1, le=10_000)] | None = None


Combine = Annotated[WeightedMean | TrimmedMean | MultiKrum, Field(discriminator="kind")]
"""How a round's verified updates become one."""


MOST_STEPS = 100_000
"""Local steps of all rounds together, up to which their cost is told in seconds."""

LARGEST_MULTIPLIER = 2.0**18
"""Of the noise of a step: in units of 2⁻⁴⁰ clips it still fits into 63 bits."""


def training_step(number: int) -> str:
    """The name of a training round, counted from 1."""
    return f"train-{number:04d}"


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
        proximal: FedProx (Li et al. 2020): each local step also pulls towards the incoming model,
            by this factor.
        combine: how silos' updates become one.
        server: what the server makes of it.
        averaged: share of the rounds, the last ones, whose models' mean is the final model (Polyak
            and Juditsky 1992): their noise evens out, at no cost. 0 for the last model alone.
        largest_update: L2 norm above which a silo's update is an outlier and left out of the round;
            no bound where it is not given.
    """

    rounds: Annotated[int, Field(ge=1, le=1000)] = 8
    local_steps: Annotated[int, Field(ge=1, le=10_000)] = 30
    sampling_rate: Annotated[float, Field(ge=1e-4, le=1, allow_inf_nan=False)] = 0.1
    clip: Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False)] = 4.0
    learning_rate: Annotated[float, Field(ge=1e-6, le=1e3, allow_inf_nan=False)] = 1.0
    holdout: Annotated[float, Field(ge=0.05, le=0.5, allow_inf_nan=False)] = 0.2
    weighting: Literal["equal", "size"] = "size"
    proximal: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False)] = 0.0
    combine: Combine = WeightedMean()
    server: Server = Average()
    averaged: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    largest_update: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _countable(self) -> Training:
        steps = self.rounds * self.local_steps
        if steps > MOST_STEPS:
            message = f"rounds × local_steps is {steps:,}; it must be at most {MOST_STEPS:,}"
            raise ValueError(message)
        return self

    @property
    def averaged_rounds(self) -> int:
        """How many rounds' models the final one is the mean of; 0 for the last one alone."""
        many = math.ceil(self.averaged * self.rounds - 1e-9)
        return many if many > 1 else 0

    def silos_needed(self) -> int:
        """Silos that must answer each round for `combine` to mean something."""
        if isinstance(self.combine, MultiKrum):
            return max(2 * self.combine.hostile + 3, self.combine.kept or 0)
        if isinstance(self.combine, TrimmedMean):
            return math.ceil(1 / self.combine.cut)
        return 1
