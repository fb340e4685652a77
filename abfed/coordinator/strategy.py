"""Federated averaging (McMahan et al. 2017) over verified releases, driven by Flower.

Flower's `FedAvg.start` runs the rounds. What is ours:

1. Requests are signed and carry the global model; nothing travels in Flower's own records.
2. Only releases that the inbox believed are averaged, and only updates that keep the model in the
   range of float32. A silo that is left out of a round is asked again in the next.
3. Weights come from what the coordinator knows: noised sizes from the silos' totals, or all alike.
   Nothing that a silo claims in a round has weight.
4. Silos are summed in the order of their names, in float64, and rounded to float32 once: the same
   releases give the same model, bit for bit. One silo's arrays are in memory at a time, read from
   where they were put when they came: Flower's own average holds those of all silos at once.
5. Fewer silos than the plan's minimum end the run.
6. A round is closed (see rounds.py) before the next is asked for. There is one phase a round:
   evaluation travels with training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from abfed.coordinator.exchange import (
    Answers,
    Desk,
    LeftOut,
    Requests,
    judge,
    log_left_out,
    prepare,
    too_few,
)
from abfed.coordinator.inbox import Accepted
from abfed.learning.shapes import MODEL, UPDATE, prefixed
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import RunFailed
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Arrays, pack

WEIGHT = "weight"

Parameters = dict[str, npt.NDArray[Any]]
RoundClosed = Callable[[str, Answers, str, Mapping[str, float], Parameters], None]
"""Called with step, answers, incoming digest, weights and the new model, before the next round."""


def pack_model(model: Arrays) -> bytes:
    """A model as a request carries it."""
    return pack(prefixed(MODEL, model))


class VerifiedAverage(FedAvg):
    """Federated averaging over verified releases.

    Args:
        desk: who asks, what, and who judges.
        silos: who is asked.
        weights: positive weight of each silo.
        steps: the training steps that are still to do; Flower's round 1 is the first of them.
        round_closed: makes a round durable.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        silos: Sequence[str],
        weights: Mapping[str, float],
        steps: Sequence[str],
        round_closed: RoundClosed,
    ) -> None:
        super().__init__(weighted_by_key=WEIGHT)
        self._desk = desk
        self._silos = tuple(silos)
        self._weights = dict(weights)
        self._steps = tuple(steps)
        self._round_closed = round_closed
        self._model: Parameters = {}
        self._requests: Requests | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Signed requests for the next step, with the global model."""
        del config  # nothing rides along
        self._model = from_record(arrays)
        step = self._steps[server_round - 1]
        silos = drawn(self._desk.plan, step, self._silos)
        self._requests = prepare(self._desk, grid, step, pack_model(self._model), silos)
        return self._requests

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Verify the answers, average the updates, close the round.

        Raises:
            RunFailed: fewer silos than the plan's minimum answered (or the kin of it that
                `too_few` picks).
        """
        if self._requests is None:
            raise RunFailed("answers came before anything was asked")
        requests, step = self._requests, self._steps[server_round - 1]
        answers = without_overflow(judge(self._desk, requests, replies), self._model)
        log_left_out(self._desk, step, answers.left_out)
        if len(answers.accepted) < self._desk.plan.minimum_silos:
            raise too_few(self._desk.plan, step, answers)
        weights = {silo: self._weights[silo] for silo in answers.accepted}
        model = self.averaged(self._model, answers.accepted, weights)
        self._round_closed(step, answers, requests.incoming_digest, weights, model)
        return to_record(model), MetricRecord()

    def averaged(
        self, model: Arrays, accepted: Mapping[str, Accepted], weights: Mapping[str, float]
    ) -> Parameters:
        """The model after a round: the weighted mean of the silos' models.

        Args:
            model: the model that was sent; float32.
            accepted: verified training releases.
            weights: positive weight of each of these silos.
        """
        total = sum(float(weights[silo]) for silo in accepted)
        if not total > 0:
            raise RunFailed("there is nothing to average")
        mean = {name: np.zeros(array.shape, np.float64) for name, array in model.items()}
        for silo in sorted(accepted):  # one silo's arrays in memory at a time
            share = float(weights[silo]) / total
            for name, array in updated(model, accepted[silo]).items():
                mean[name] += share * array
        return {name: array.astype(np.float32) for name, array in mean.items()}

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: one phase a round."""
        del server_round, arrays, config, grid
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Nothing: one phase a round."""
        del server_round, replies
        return None


def drawn(plan: Plan, step: str, silos: Sequence[str]) -> Sequence[str]:
    """The silos that are asked in a round: all, or the plan's share of them.

    Drawn by a digest of public bytes, so that a run that is gone on with asks the same silos.
    """
    share = plan.waiting.silo_share
    if share >= 1:
        return silos
    count = max(plan.minimum_silos, math.ceil(share * len(silos)))
    order = sorted(silos, key=lambda silo: sha256_hex(f"{plan.digest} {step} {silo}".encode()))
    return sorted(order[:count])


def updated(model: Arrays, accepted: Accepted) -> Parameters:
    """A silo's model in float64: what was sent, and its noised update."""
    return {
        name: array.astype(np.float64) + accepted.arrays[UPDATE + name]
        for name, array in model.items()
    }


def without_overflow(answers: Answers, model: Arrays) -> Answers:
    """Leave out silos whose update would take the model out of the range of float32."""
    limit = float(np.finfo(np.float32).max)
    too_large = [
        silo
        for silo, one in answers.accepted.items()
        if any(np.abs(array).max(initial=0.0) > limit for array in updated(model, one).values())
    ]
    if not too_large:
        return answers
    why = LeftOut("integrity", "its update leaves the range of float32")
    return Answers(
        {silo: one for silo, one in answers.accepted.items() if silo not in too_large},
        answers.left_out | dict.fromkeys(too_large, why),
    )


def to_record(arrays: Arrays) -> ArrayRecord:
    """Named arrays as Flower's record."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in sorted(arrays.items())})


def from_record(record: ArrayRecord) -> Parameters:
    """Flower's record as named arrays."""
    return {name: array.numpy() for name, array in sorted(record.items())}
