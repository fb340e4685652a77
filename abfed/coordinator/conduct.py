"""How a run is carried out, from the first request to the signed manifest.

1. Totals are asked of each silo that the plan names; that they are is logged first.
   Where noise is added once, keys are asked first; see `coordinator.together`.
2. They say which run this is. One that is complete is returned as it is; one that was begun goes on
   after its last closed step; else it begins.
3. For a plan with a model: its rounds, through Flower, and one evaluation of the final model.
4. The model is sealed, the manifest signed. That is the last thing written.

Stopped at any point, by Ctrl-C or worse, the run goes on when the same plan is carried out again.
"""

from __future__ import annotations

import contextlib
import difflib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flwr.serverapp import Grid

from abfed.coordinator import manifest
from abfed.coordinator.aggregation import Parameters
from abfed.coordinator.anchors import Anchors
from abfed.coordinator.desk import Desk
from abfed.coordinator.exchange import Answers, LeftOut, judge, log_left_out, prepare, too_few
from abfed.coordinator.front import Front
from abfed.coordinator.inbox import Inbox, expected_shapes
from abfed.coordinator.rounds import Closed, RunFolder
from abfed.coordinator.rounds_together import RoundsTogether
from abfed.coordinator.strategy import pack_model
from abfed.coordinator.together import asked_for, least_for, list_for, open_sums
from abfed.coordinator.training import Tellers, Training, stored_releases
from abfed.coordinator.vault import Vault
from abfed.privacy.once import steps_of, sum_of
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.modelling import training_step
from abfed.protocol.plan import Plan
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, system_clock
from abfed.site.keys import SiteKeys

STEP_SECONDS = 3600.0
"""How long silos have for one step; Flower's own default."""


Stage = Literal["ask", "answer", "left-out", "closed", "found", "resumed", "complete"]


class Event(NamedTuple):
    """Something happened; for progress bars.

    Attributes:
        stage: "ask" and "closed" are about a step; "answer" and "left-out" about a silo in it;
            "found", "resumed" and "complete" about the run.
        silo: whom it concerns; empty where the whole step or run.
        step: which step.
        n, of: the step's number, from 1, and how many steps the plan has.
    """

    stage: Stage
    silo: str
    step: str
    n: int
    of: int


Progress = Callable[[Event], None]


@dataclass(frozen=True)
class Coordinator:
    """A coordinator's site.

    Attributes:
        keys: its keys.
        audit: its audit log.
        runs: the folder of all runs.
        silos: pinned public key (32 raw bytes) of each silo it knows.
        front: who asks, judged at submit and with each message.
        clock: where the time comes from.
        boxes: pinned exchange key of each silo that requests are sealed to; empty in one process.
    """

    keys: SiteKeys
    audit: AuditLog
    runs: Path
    silos: Mapping[str, bytes]
    front: Front
    clock: Clock = system_clock
    boxes: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOutcome:
    """A run that is complete.

    Attributes:
        folder: where it lies; its name is the run's.
        manifest: what was signed.
        missing_now: silos that aren't in the run, or didn't answer this time, and why.
        found: it was complete already; nothing was asked but the totals.
        resumed_after: the last step that an earlier attempt had closed; empty for a fresh run.
    """

    folder: Path
    manifest: Mapping[str, Any]
    missing_now: Mapping[str, LeftOut]
    found: bool = False
    resumed_after: str = ""

    @property
    def run(self) -> str:
        """The run's name."""
        return self.folder.name


def step_names(plan: Plan) -> tuple[str, ...]:
    """The steps of a plan, in order."""
    first = steps_of() if plan.noise_once else ("totals",)
    if plan.model is None:
        return first
    rounds = [training_step(number) for number in range(1, plan.schedule.rounds + 1)]
    if plan.noise_once:
        rounds = [step for one in rounds for step in steps_of(sum_of(one))]
    return (*first, *rounds, "evaluate")


def _unknown(silo: str, plan: Plan, known: Iterable[str]) -> InputError:
    """The error for a silo that the coordinator knows no key of."""
    names = sorted(known)
    near = difflib.get_close_matches(silo, names, n=1)
    hint = f"did you mean {near[0]!r}? Else " if near else ""
    return InputError(
        f"silo {silo!r} is not known to this coordinator",
        where=plan.name,
        why=f"it knows: {', '.join(names) or 'none'}",
        do=f"{hint}found it with `abfed silo create {silo}`, admit it with "
        "`abfed provision admit`, or leave it out of the plan",
    )


class Conduct:
    """Carries out one plan.

    Args:
        plan: what is asked.
        coordinator: who asks.
        timeout: seconds that silos have for one step.
        progress: told of each event.
        plan_text: the plan as it was given, kept with the run.

    Raises:
        InputError: the plan names a silo whose key isn't pinned.
    """

    def __init__(
        self,
        plan: Plan,
        coordinator: Coordinator,
        *,
        timeout: float = STEP_SECONDS,
        progress: Progress | None = None,
        plan_text: bytes | None = None,
    ) -> None:
        for silo in plan.silos:
            if silo not in coordinator.silos:
                raise _unknown(silo, plan, coordinator.silos)
        self._plan = plan
        self._site = coordinator
        self._vault = Vault(coordinator.keys)
        self._timeout = timeout
        self._progress = progress
        self._plan_text = plan_text
        self._steps = step_names(plan)
        self._seconds: dict[str, float] = {}
        self._started = 0.0
        self._person = ""
        inbox = Inbox(coordinator.silos, plan, lambda step: expected_shapes(plan, step))
        self._desk = Desk(
            plan,
            coordinator.keys,
            coordinator.audit,
            inbox,
            coordinator.front,
            coordinator.clock,
            coordinator.boxes,
            Anchors(coordinator.runs),
        )

    def run(self, grid: Grid) -> RunOutcome:
        """Carry the plan out, or find its run.

        Raises:
            Refused: nobody who may ask is signed in.
            Refused, RunFailed: too few silos answered.
            IntegrityError: too few were believed, or the run's folder is damaged.
            WorkspaceError: another process is carrying it out.
        """
        self._person = self._site.front.admit(self._plan)[1].who
        # From here on silos may be charged, and there is no folder yet that would say so.
        self._site.audit.append("run.asked", plan=self._plan.digest, person=self._person)
        totals = self._ask(grid, self._steps[0], b"", self._plan.silos)
        with RunFolder.open_or_create(
            self._site.runs, self._plan, totals, self._site.keys, plan_text=self._plan_text
        ) as folder:
            self._tell("closed", "", self._steps[0])
            missing = dict(totals.left_out)
            for silo in set(totals.accepted) - set(folder.epochs):
                missing[silo] = LeftOut("not-in-run", "its model was begun without it")
            if folder.complete:
                bound = manifest.verify(folder.path, self._site.keys.public_key)
                self._site.audit.append("run.found", run=folder.run, plan=self._plan.digest)
                self._tell("found", "", self._steps[-1])
                return RunOutcome(folder.path, bound, missing, found=True)
            before = folder.timings()
            try:
                resumed = self._go_on(grid, folder)
            finally:
                folder.write_timings(before | self._seconds)
            bound = manifest.verify(folder.path, self._site.keys.public_key)
            self._tell("complete", "", self._steps[-1])
            return RunOutcome(folder.path, bound, missing, resumed_after=resumed)

    def _go_on(self, grid: Grid, folder: RunFolder) -> str:
        """Do what is still to do; returns the step it went on after."""
        self._desk.inbox.bind(folder.epochs)
        done = list(folder.steps)
        resumed = done[-1] if len(done) > 1 else ""
        if resumed:
            self._tell("resumed", "", resumed)
        event = "run.resumed" if resumed else "run.begun"
        self._site.audit.append(
            event, run=folder.run, plan=self._plan.digest, step=done[-1], person=self._person
        )
        sealed = b""
        if self._plan.noise_once:
            self._together(grid, folder)
            stored = {step: stored_releases(self._desk, folder, step) for step in steps_of()}
            with self._sum_refused(steps_of()[-1]):
                open_sums(self._plan, stored)  # what doesn't open isn't signed
        if self._plan.model is not None:
            model = self._train(grid, folder)
            self._evaluate(grid, folder, model)
            sealed = self._vault.seal(model, name=folder.run, version="final")
            folder.write("model.sealed", sealed)
        self._finish(folder, sealed)
        return resumed

    def _train(self, grid: Grid, folder: RunFolder) -> Parameters:
        """The rounds that are still to do; returns the final model."""
        if self._plan.noise_once:
            return self._train_together(grid, folder)

        def closed(step: str, answers: Answers) -> None:
            self._lap(step)
            self._tell_answers(step, answers)
            self._tell("closed", "", step)

        steps = [step for step in self._steps if step.startswith("train-")]
        tellers = Tellers(self._asking, closed)
        training = Training(self._desk, folder, self._vault, steps, tellers)
        return training.carry_out(grid, self._timeout)

    def _together(self, grid: Grid, folder: RunFolder) -> None:
        """The steps of the totals' sum that are still to do."""
        for step in steps_of():
            if step not in folder.steps:
                self._close_together(folder, step, *self._ask_together(grid, folder, step))

    def _ask_together(
        self, grid: Grid, folder: RunFolder, step: str, model: bytes = b""
    ) -> tuple[bytes, Answers]:
        """What was told with a step of a sum, and what was answered."""
        told, silos = list_for(folder, step, model), asked_for(folder, step)
        return told, self._ask(grid, step, told, silos, least_for(folder, step))

    def _close_together(
        self, folder: RunFolder, step: str, told: bytes, answers: Answers, model_digest: str = ""
    ) -> None:
        folder.close_step(Closed(step, answers, sha256_hex(told), model_digest=model_digest))
        self._tell("closed", "", step)

    def _train_together(self, grid: Grid, folder: RunFolder) -> Parameters:
        """Rounds of training whose noise is added once, one after the other."""
        rounds = RoundsTogether(self._plan)
        for number in rounds.numbers:
            *before, last = steps_of(number)
            told = pack_model(rounds.model)
            for step in before:
                if step not in folder.steps:
                    asked = self._ask_together(grid, folder, step, told)
                    self._close_together(folder, step, *asked)
            known = ("keys", *before, last)
            stored = {
                step: stored_releases(self._desk, folder, step)
                for step in known
                if step in folder.steps
            }
            if last in folder.steps:
                rounds.step(stored, number, expected=folder.steps[last]["model"])
                continue
            opening, answers = self._ask_together(grid, folder, last)
            with self._sum_refused(last):
                made = rounds.step(stored | {last: answers.accepted}, number)
            self._close_together(folder, last, opening, answers, made)
        return rounds.model

    @contextlib.contextmanager
    def _sum_refused(self, step: str) -> Iterator[None]:
        """Write into the audit log that a sum of all silos doesn't open, or can't be theirs."""
        try:
            yield
        except IntegrityError as error:
            facts = {"plan": self._plan.digest, "step": step, "about": error.where}
            self._site.audit.append("sum.refused", **facts, why=error.what[:200])
            raise

    def _evaluate(self, grid: Grid, folder: RunFolder, model: Parameters) -> None:
        """One evaluation of the final model."""
        if "evaluate" in folder.steps:
            return
        incoming = pack_model(model)
        answers = self._ask(grid, "evaluate", incoming, sorted(folder.epochs))
        folder.close_step(Closed("evaluate", answers, sha256_hex(incoming)))
        self._tell("closed", "", "evaluate")

    def _finish(self, folder: RunFolder, sealed_model: bytes) -> None:
        """Sign what the run binds together."""
        heads = self._heads(folder) | {self._site.keys.site: self._site.audit.head}
        content = manifest.build(
            folder,
            silos={silo: self._site.silos[silo] for silo in self._plan.silos},
            coordinator=self._site.keys.public_key,
            heads=heads,
            sealed_model=sealed_model,
            asked_by=self._person,
            now=self._site.clock(),
        )
        self._site.audit.append("run.completed", run=folder.run, manifest=sha256_hex(content))
        folder.write("manifest.json", content)
        folder.write("manifest.sig", self._site.keys.sign("manifest", content))

    def _ask(
        self, grid: Grid, step: str, incoming: bytes, silos: Sequence[str], least: int = 0
    ) -> Answers:
        """One step outside Flower's strategy: ask, verify, count."""
        least = least or self._plan.minimum_silos
        self._asking(step)
        requests = prepare(self._desk, grid, step, incoming, silos)
        answers = judge(
            self._desk, requests, grid.send_and_receive(requests, timeout=self._timeout)
        )
        log_left_out(self._desk, step, answers.left_out)
        self._tell_answers(step, answers)
        self._lap(step)
        if len(answers.accepted) < least:
            raise too_few(self._plan, step, answers, least)
        return answers

    def _heads(self, folder: RunFolder) -> dict[str, str]:
        """The audit head that each silo last signed."""
        heads: dict[str, str] = {}
        for step in folder.steps:
            releases = stored_releases(self._desk, folder, step)
            heads |= {silo: one.release.head for silo, one in releases.items()}
        return heads

    def _asking(self, step: str) -> None:
        self._lap("")
        self._tell("ask", "", step)

    def _tell(self, stage: Stage, silo: str, step: str) -> None:
        if self._progress is not None:
            number = self._steps.index(step) + 1
            self._progress(Event(stage, silo, step, number, len(self._steps)))

    def _tell_answers(self, step: str, answers: Answers) -> None:
        for silo in answers.accepted:
            self._tell("answer", silo, step)
        for silo in answers.left_out:
            self._tell("left-out", silo, step)

    def _lap(self, step: str) -> None:
        """Seconds since the last lap, as those of a step; wall-clock, not part of the question."""
        now = time.monotonic()
        if step:
            self._seconds[step] = round(now - self._started, 3)
        self._started = now
