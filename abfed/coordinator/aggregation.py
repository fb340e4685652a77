"""What comes of a round's verified updates: the plan's rule, carried out by Flower's strategies.

1. Updates are *combined* first: their weighted mean, a trimmed mean, or Multi-Krum.
2. The *server* then moves the model by the combined update: FedAvg takes it as it is; FedAvgM,
   FedAdam and FedYogi take it for a gradient and keep moments from round to round.
3. The last round's model is the mean of the last rounds' models where the plan says so.
4. Silos come in the order of their names and sums are float64; the model is rounded to float32
   once. The same releases, weights, moments and round number give the same model, bit for bit.
5. The weighted mean reads one silo's arrays at a time. Trimmed mean and Multi-Krum compare silos
   with each other, and hold all of them.

Everything here is post-processing of releases: no rule costs budget, and none can hurt privacy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, MessageType, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedYogi
from flwr.serverapp.strategy.fedopt import FedOpt
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum

from abfed.coordinator.inbox import Accepted
from abfed.learning.shapes import LARGEST_PARAMETER, UPDATE, parameter_shapes
from abfed.protocol.errors import RunFailed
from abfed.protocol.modelling import Adaptive, Momentum, MultiKrum, Training, TrimmedMean
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Arrays, Shape

Parameters = dict[str, npt.NDArray[Any]]

WEIGHT = "weight"
FIRST, SECOND = "moment1/", "moment2/"
MEAN = "mean/"  # of the models since averaging began


class Combined(NamedTuple):
    """One round's result.

    Attributes:
        model: float32, within ±`LARGEST_PARAMETER`.
        weights: of each silo in it; 0 for one that Multi-Krum set aside.
    """

    model: Parameters
    weights: dict[str, float]


def to_record(arrays: Arrays) -> ArrayRecord:
    """Named arrays as Flower's record."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in sorted(arrays.items())})


def from_record(record: ArrayRecord) -> Parameters:
    """Flower's record as named arrays."""
    return {name: array.numpy() for name, array in sorted(record.items())}


def update_of(accepted: Accepted, names: Mapping[str, object]) -> Parameters:
    """A silo's noised update in float64, by parameter."""
    arrays = accepted.arrays  # read from the spool, once
    return {name: arrays[UPDATE + name].astype(np.float64) for name in sorted(names)}


def length_of(update: Arrays) -> float:
    """L2 norm over all parameters."""
    return math.sqrt(
        sum(float(np.square(array, dtype=np.float64).sum()) for array in update.values())
    )


def moment_shapes(plan: Plan) -> dict[str, Shape]:
    """The arrays that the server keeps from round to round beside the model."""
    server = plan.schedule.server
    kinds = {Momentum: (FIRST,), Adaptive: (FIRST, SECOND)}.get(type(server), ())
    if plan.schedule.averaged_rounds:
        kinds = (*kinds, MEAN)
    shapes = parameter_shapes(plan)
    return {
        kind + name: Shape("float64", shape.shape)
        for kind in kinds
        for name, shape in shapes.items()
    }


class Aggregation:
    """A plan's rule, and what it keeps from round to round.

    Args:
        settings: of the training.
    """

    def __init__(self, settings: Training) -> None:
        self._settings = settings
        self._moments: Parameters = {}
        self._mean: Parameters = {}

    @property
    def kept(self) -> Parameters:
        """What a checkpoint must keep beside the model (`moment_shapes`)."""
        return self._moments | {MEAN + name: array for name, array in self._mean.items()}

    def restore(self, kept: Arrays) -> None:
        """Go on from what a checkpoint kept."""
        found = {name: np.asarray(array) for name, array in kept.items()}
        self._mean = {
            name.removeprefix(MEAN): array for name, array in found.items() if name.startswith(MEAN)
        }
        self._moments = {n: array for n, array in found.items() if not n.startswith(MEAN)}

    def round(
        self,
        model: Arrays,
        accepted: Mapping[str, Accepted],
        weights: Mapping[str, float],
        number: int,
    ) -> Combined:
        """The model after a round; moments and the mean are moved on.

        Args:
            model: the model that was sent; float32.
            accepted: verified training releases, by silo.
            weights: weight of each of these silos; not all 0.
            number: of the round, from 1.

        Raises:
            RunFailed: there is nothing to combine.
        """
        update, used = self._combined(model, accepted, weights)
        return Combined(self.moved(model, update, number), used)

    def moved(self, model: Arrays, update: Arrays, number: int) -> Parameters:
        """The model that the server makes of a combined update; moments are moved on.

        Args:
            model: the model that was sent; float32.
            update: float64, by parameter.
            number: of the round, from 1.
        """
        start = {name: array.astype(np.float64) for name, array in sorted(model.items())}
        target = {name: start[name] + update[name] for name in start}
        limit = LARGEST_PARAMETER
        served = self._served(start, target, number)
        moved = {name: np.clip(array, -limit, limit) for name, array in served.items()}
        last = self._averaged(moved, number)
        return {name: array.astype(np.float32) for name, array in last.items()}

    def _averaged(self, model: Parameters, number: int) -> Parameters:
        """The model, or after the last round the mean of the last rounds' models."""
        many = self._settings.averaged_rounds
        if not many:
            return model
        seen = number - (self._settings.rounds - many)
        if not self._mean:
            self._mean = {name: np.zeros(array.shape) for name, array in model.items()}
        if seen >= 1:
            self._mean = {
                name: mean + (model[name] - mean) / seen for name, mean in self._mean.items()
            }
        return self._mean if number == self._settings.rounds else model

    def _combined(
        self, model: Arrays, accepted: Mapping[str, Accepted], weights: Mapping[str, float]
    ) -> tuple[Parameters, dict[str, float]]:
        """The update that the silos make together, and the weight of each in it."""
        rule = self._settings.combine
        silos = sorted(accepted)
        if isinstance(rule, TrimmedMean):
            if not silos:
                raise RunFailed("there is nothing to average")
            updates = [update_of(accepted[silo], model) for silo in silos]
            trimmed = {
                name: trim_mean(np.stack([one[name] for one in updates]), rule.cut)
                for name in sorted(model)
            }
            return trimmed, dict.fromkeys(silos, 1.0)
        used = {silo: float(weights[silo]) for silo in silos}
        if isinstance(rule, MultiKrum):
            chosen = _closest(model, accepted, rule)
            used = {silo: weight if silo in chosen else 0.0 for silo, weight in used.items()}
        total = sum(used.values())
        if not total > 0:
            raise RunFailed("there is nothing to average")
        mean = {name: np.zeros(array.shape, np.float64) for name, array in sorted(model.items())}
        for silo in silos:  # one silo's arrays in memory at a time
            if used[silo] > 0:
                for name, array in update_of(accepted[silo], model).items():
                    mean[name] += used[silo] / total * array
        return mean, used

    def _served(self, start: Parameters, target: Parameters, number: int) -> Parameters:
        """What the server makes of it: Flower's rule on one reply that holds the combined model."""
        server = self._settings.server
        if isinstance(server, Momentum):
            return self._with_momentum(server, start, target, number)
        if isinstance(server, Adaptive):
            return self._adapted(server, start, target, number)
        return target

    def _with_momentum(
        self, server: Momentum, start: Parameters, target: Parameters, number: int
    ) -> Parameters:
        rule = FedAvgM(
            weighted_by_key=WEIGHT,
            server_learning_rate=server.learning_rate,
            server_momentum=server.momentum,
        )
        rule.current_arrays = to_record(start)
        if self._moments:
            rule.momentum_vector = [self._moments[FIRST + name] for name in start]
        moved = _by(rule, target, number)
        vector = rule.momentum_vector
        if vector is not None:  # without momentum there is none to keep
            self._moments = {FIRST + name: one for name, one in zip(start, vector, strict=True)}
        return moved

    def _adapted(
        self, server: Adaptive, start: Parameters, target: Parameters, number: int
    ) -> Parameters:
        kind: type[FedOpt] = FedAdam if server.kind == "fedadam" else FedYogi
        rule = kind(
            weighted_by_key=WEIGHT,
            eta=server.learning_rate,
            beta_1=server.beta_1,
            beta_2=server.beta_2,
            tau=server.tau,
        )
        rule.current_arrays = start
        if self._moments:
            rule.m_t = {name: self._moments[FIRST + name] for name in start}
            rule.v_t = {name: self._moments[SECOND + name] for name in start}
        moved = _by(rule, target, number)
        kept = ((FIRST, rule.m_t), (SECOND, rule.v_t))
        self._moments = {
            place + name: one for place, moment in kept for name, one in (moment or {}).items()
        }
        return moved


def _by(rule: FedAvg, target: Parameters, number: int) -> Parameters:
    """The model that one of Flower's strategies makes of a round."""
    nobody = Metadata(0, "combined", 0, 0, "", "", 0.0, 1.0, MessageType.TRAIN)
    moved, _ = rule.aggregate_train(number, [make_message(nobody, content=_content(target))])
    return from_record(cast("ArrayRecord", moved))


def _content(arrays: Arrays) -> RecordDict:
    return RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord({WEIGHT: 1.0})})


def _closest(model: Arrays, accepted: Mapping[str, Accepted], rule: MultiKrum) -> set[str]:
    """The silos that Multi-Krum keeps."""
    silos = sorted(accepted)
    contents = [_content(update_of(accepted[silo], model)) for silo in silos]
    kept = rule.kept or len(silos) - rule.hostile
    chosen = select_multikrum(contents, rule.hostile, kept)
    return {
        silo for silo, one in zip(silos, contents, strict=True) if any(one is c for c in chosen)
    }
