"""The rounds of a run: those that are still to do, from the last model on.

The last model comes from its checkpoint. Where that doesn't open, it's made again from an earlier
one, or from the start, out of the stored releases, and must be the model that the journal names:
releases and plan determine it bit for bit, a checkpoint only saves time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flwr.serverapp import Grid

from abfed.coordinator.aggregation import (
    Aggregation,
    Combined,
    Parameters,
    moment_shapes,
    to_record,
)
from abfed.coordinator.desk import Desk
from abfed.coordinator.exchange import Answers
from abfed.coordinator.inbox import Accepted
from abfed.coordinator.rounds import Closed, RunFolder
from abfed.coordinator.strategy import VerifiedTraining, pack_model
from abfed.coordinator.vault import Vault, model_digest
from abfed.learning.shapes import initial_arrays, parameter_shapes
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import Refusal


@dataclass(frozen=True)
class Tellers:
    """Who is told how training goes: that a step is asked, and what came of it."""

    asking: Callable[[str], None]
    closed: Callable[[str, Answers], None]


class Training:
    """The training of one run.

    Args:
        desk: who asks, what, and who judges.
        folder: the run.
        vault: seals checkpoints.
        steps: all training steps of the plan.
        tellers: who is told.
    """

    def __init__(
        self, desk: Desk, folder: RunFolder, vault: Vault, steps: list[str], tellers: Tellers
    ) -> None:
        self._desk = desk
        self._folder = folder
        self._vault = vault
        self._tellers = tellers
        self._done = [step for step in steps if step in folder.steps]
        self._todo = [step for step in steps if step not in folder.steps]
        self._model: Parameters = {}
        self._aggregation = Aggregation(desk.plan.schedule)
        self._strategy = VerifiedTraining(
            desk,
            silos=sorted(folder.epochs),
            weights=_weights(desk, folder),
            steps=self._todo,
            first=len(self._done) + 1,
            aggregation=self._aggregation,
            round_closed=self._close,
        )

    def carry_out(self, grid: Grid, timeout: float) -> Parameters:
        """Do the rounds that are still to do; returns the final model.

        Raises:
            RunFailed: too few silos answered a round (or the kin of it that `too_few` picks).
            IntegrityError: what is stored of earlier rounds doesn't fit together.
        """
        self._model = self._last_model()
        if self._todo:
            self._tellers.asking(self._todo[0])
            self._strategy.start(
                grid=grid,
                initial_arrays=to_record(self._model),
                num_rounds=len(self._todo),
                timeout=timeout,
            )
        return self._model

    def _close(
        self,
        step: str,
        answers: Answers,
        incoming: str,
        combined: Combined,
    ) -> None:
        """Make a round durable; Flower asks for the next when this returns."""
        model = combined.model
        kept = model | self._aggregation.kept
        checkpoint = self._vault.seal(kept, name=self._folder.run, version=step)
        closed = Closed(step, answers, incoming, combined.weights, model_digest(model), checkpoint)
        self._folder.close_step(closed)
        self._model = model
        self._tellers.closed(step, answers)
        following = self._todo.index(step) + 1
        if following < len(self._todo):
            self._tellers.asking(self._todo[following])

    def _last_model(self) -> Parameters:
        """The model after the last closed round."""
        for number in range(len(self._done), 0, -1):
            model = self._from_checkpoint(self._done[number - 1])
            if model is not None:
                return self._made_again(model, number)
        return self._made_again(dict(initial_arrays(self._desk.plan)), 0)

    def _from_checkpoint(self, step: str) -> Parameters | None:
        """The model of a step's checkpoint, if it's there and opens; its moments with it."""
        sealed = self._folder.checkpoint(step)
        if sealed is None:
            return None
        shapes, moments = parameter_shapes(self._desk.plan), moment_shapes(self._desk.plan)
        try:
            kept = self._vault.open(sealed, shapes | moments, name=self._folder.run, version=step)
        except IntegrityError:
            kept = {}
        model = {name: array for name, array in kept.items() if name in shapes}
        if not model or model_digest(model) != self._folder.steps[step]["model"]:
            self._desk.audit.append("checkpoint.unusable", run=self._folder.run, step=step)
            return None
        self._aggregation.restore({name: kept[name] for name in moments})
        return model

    def _made_again(self, model: Parameters, done: int) -> Parameters:
        """The model after all closed steps, from that after the first `done` and the releases."""
        for number, step in enumerate(self._done[done:], start=done + 1):
            body = self._folder.steps[step]
            where = f"{self._folder.run}, {step}"
            if sha256_hex(pack_model(model)) != body["incoming"]:
                raise IntegrityError("the model before it is not the journal's", where=where)
            accepted = stored_releases(self._desk, self._folder, step)
            model = self._aggregation.round(model, accepted, body["weights"], number).model
            if model_digest(model) != body["model"]:
                raise IntegrityError("its releases don't give the journal's model", where=where)
        return model


def stored_releases(desk: Desk, folder: RunFolder, step: str) -> dict[str, Accepted]:
    """The releases of a closed step, verified again by every rule of the inbox.

    Raises:
        IntegrityError: one is missing or not what the journal says.
    """
    body = folder.steps[step]
    found: dict[str, Accepted] = {}
    for silo in sorted(body["releases"]):
        outcome = desk.inbox.accept(silo, step, body["incoming"], folder.release(silo, step))
        if isinstance(outcome, Refusal):
            raise IntegrityError("a refusal is kept as a release", where=f"{silo}, {step}")
        found[silo] = outcome
    return found


def _weights(desk: Desk, folder: RunFolder) -> dict[str, float]:
    """Each silo's weight: its noised number of recipients, or the same for all."""
    totals = stored_releases(desk, folder, "totals")
    if desk.plan.schedule.weighting == "equal":
        return dict.fromkeys(totals, 1.0)
    from abfed.stats.totals import Layout  # noqa: PLC0415 - brings scipy

    layout = Layout.of(desk.plan)
    # At least one: noise can take a small silo below nothing.
    return {
        silo: max(1.0, float(layout.recipients(one.arrays["totals"])))
        for silo, one in totals.items()
    }
