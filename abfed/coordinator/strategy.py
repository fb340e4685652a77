"""Federated training over verified releases, driven by Flower.

Flower's `FedAvg.start` runs the rounds; what comes of a round's updates, see aggregation.py. Ours:

1. Requests are signed and carry the global model; nothing travels in Flower's own records.
2. Only releases that the inbox believed count, and of these no outliers. A silo that is left out
   of a round is recorded, its charge stays, and it is asked again in the next.
3. Weights come from what the coordinator knows: noised sizes from the silos' totals, or all alike.
   Nothing that a silo claims in a round has weight.
4. Fewer silos than the plan's minimum end the run.
5. A round is closed (see rounds.py) before the next is asked for. There is one phase a round:
   evaluation travels with training.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from abfed.coordinator.aggregation import (
    WEIGHT,
    Aggregation,
    Combined,
    Parameters,
    from_record,
    length_of,
    to_record,
    update_of,
)
from abfed.coordinator.desk import Desk
from abfed.coordinator.exchange import (
    Answers,
    LeftOut,
    Requests,
    judge,
    log_left_out,
    prepare,
    too_few,
)
from abfed.learning.shapes import LARGEST_PARAMETER, MODEL, prefixed
from abfed.protocol.errors import RunFailed
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Arrays, pack

RoundClosed = Callable[[str, Answers, str, Combined], None]
"""Called with step, answers, incoming digest, and what came of them, before the next round."""


def pack_model(model: Arrays) -> bytes:
    """A model as a request carries it."""
    return pack(prefixed(MODEL, model))


class VerifiedTraining(FedAvg):
    """Federated training over verified releases.

    Args:
        desk: who asks, what, and who judges.
        silos: who is asked.
        weights: positive weight of each silo.
        steps: the training steps that are still to do; Flower's round 1 is the first of them.
        first: the number of that round in the plan, from 1.
        aggregation: makes a model of a round's updates.
        round_closed: makes a round durable.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        silos: Sequence[str],
        weights: Mapping[str, float],
        steps: Sequence[str],
        first: int,
        aggregation: Aggregation,
        round_closed: RoundClosed,
    ) -> None:
        super().__init__(weighted_by_key=WEIGHT)
        self._desk = desk
        self._silos = tuple(silos)
        self._weights = dict(weights)
        self._steps = tuple(steps)
        self._first = first
        self._aggregation = aggregation
        self._round_closed = round_closed
        self._model: Parameters = {}
        self._returned: tuple[ArrayRecord | None, Parameters] = (None, {})  # Flower gives it back
        self._requests: Requests | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Signed requests for the next step, with the global model."""
        del config  # nothing rides along
        record, model = self._returned
        self._model = model if record is arrays else from_record(arrays)
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
        settings = self._desk.plan.schedule
        answers = without_outliers(
            judge(self._desk, requests, replies), self._model, settings.largest_update
        )
        log_left_out(self._desk, step, answers.left_out)
        if len(answers.accepted) < self._desk.plan.minimum_silos:
            raise too_few(self._desk.plan, step, answers)
        weights = {silo: self._weights[silo] for silo in answers.accepted}
        number = self._first + server_round - 1
        combined = self._aggregation.round(self._model, answers.accepted, weights, number)
        self._round_closed(step, answers, requests.incoming_digest, combined)
        record = to_record(combined.model)
        self._returned = record, combined.model
        return record, MetricRecord()

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
    begun = hashlib.sha256(f"{plan.digest} {step} ".encode())  # what all silos' digests begin with

    def place(silo: str) -> bytes:
        own = begun.copy()
        own.update(silo.encode())
        return own.digest()

    return sorted(heapq.nsmallest(count, silos, key=place))


def without_outliers(answers: Answers, model: Arrays, largest_update: float | None) -> Answers:
    """Leave out silos whose update can't be an honest one.

    Honest silos keep parameters within ±`LARGEST_PARAMETER` (a little more, as update and model are
    rounded apart); what is longer than the plan's bound is an outlier by the plan's word.
    """
    limit = LARGEST_PARAMETER * (1 + 2**-20)
    why: dict[str, str] = {}
    for silo, one in answers.accepted.items():
        update = update_of(one, model)
        if any(
            np.abs(model[name] + step).max(initial=0.0) > limit for name, step in update.items()
        ):
            why[silo] = "its update leaves the range of parameters"
        elif largest_update is not None and (length := length_of(update)) > largest_update:
            bound = f"the plan's largest_update, {largest_update:g}"
            why[silo] = f"its update is longer than {bound}: {length:.3g}"
    if not why:
        return answers
    return Answers(
        {silo: one for silo, one in answers.accepted.items() if silo not in why},
        answers.left_out | {silo: LeftOut("outlier", words) for silo, words in why.items()},
    )
