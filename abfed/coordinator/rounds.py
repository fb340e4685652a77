"""The run folder: what a run has done, kept so that it can go on, be found, and be reported from.

Rules:

1. A folder appears whole, with its plan, the totals it is bound to and the journal's beginning, or
   not at all.
2. A step is closed in this order: releases as received, sealed checkpoint, journal entry; each on
   disk before the next. A model is sent to silos only after its step is closed, because a silo
   answers each step for one model only.
3. So a run that was killed at any point goes on from its last closed step, and the step it was in
   is asked again: silos give the same release again, at no charge.
4. A run is bound to its plan and to the totals of its silos. The same plan and totals find it
   again. For a plan with a model this also holds when a silo has come or gone since: what silos
   answered for one model they don't answer for another, so a second run could not be trained.
5. A torn last line of the journal is a crash. Everything else that doesn't fit is an
   `IntegrityError`.

Layout: `plan.json`, `plan.yaml`, `journal.jsonl`, `releases/<silo>/<step>.release`,
`checkpoints/<step>.sealed`, `model.sealed`, `manifest.json`, `manifest.sig`; beside them
`report.signed` and `timings.signed`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from abfed.coordinator.beside import REPORT, TIMINGS, read_beside, write_beside
from abfed.coordinator.exchange import Answers
from abfed.coordinator.journal import Body, Journal, begin_journal, read_journal
from abfed.protocol.canonical import digest, sha256_hex
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.messages import EMPTY_DIGEST
from abfed.protocol.plan import Plan
from abfed.site.files import (
    alone,
    flush_folder,
    make_private_folder,
    read_private,
    write_private,
    write_private_together,
    writers,
)
from abfed.site.keys import SiteKeys

FORMAT = 1
KEPT_CHECKPOINTS = 2  # the last, and the one before it in case the last doesn't open


class Closed(NamedTuple):
    """A step that is done.

    Attributes:
        step: which one.
        answers: what silos answered, and who was left out.
        incoming_digest: of the model that was sent.
        weights: of each silo in the model's mean; empty where nothing was averaged.
        model_digest: of the model that came of it; empty where none did.
        checkpoint: that model, sealed.
    """

    step: str
    answers: Answers
    incoming_digest: str = EMPTY_DIGEST
    weights: Mapping[str, float] = {}
    model_digest: str = ""
    checkpoint: bytes = b""

    def body(self) -> Body:
        """What the journal keeps of it."""
        return {
            "event": "step",
            "step": self.step,
            "incoming": self.incoming_digest,
            "releases": self.answers.digests(),
            "left_out": self.answers.recorded(),
            "weights": {silo: float(weight) for silo, weight in sorted(self.weights.items())},
            "model": self.model_digest,
        }


def run_name(plan: Plan, epochs: Mapping[str, str]) -> str:
    """The name of the run of a plan on these states of the silos' data."""
    return f"{plan.name}-{digest({'plan': plan.digest, 'epochs': dict(epochs)})[:10]}"


class RunFolder:
    """A run's folder, open for this process only.

    Args:
        path: the folder.
        plan: the plan it must be a run of.
        keys: the coordinator's, which sign its journal.

    Raises:
        WorkspaceError: another process is carrying the run out.
        IntegrityError: it isn't a run of this plan, or something in it was changed.
    """

    def __init__(self, path: Path, plan: Plan, keys: SiteKeys) -> None:
        self.path = path
        self.plan = plan
        self._keys = keys
        self._writers = writers()
        self._let_go = 0  # steps of training whose checkpoints we have removed; we begin with none
        if read_private(path / "plan.json") != plan.canonical_bytes():
            raise IntegrityError("it is the run of another plan", where=str(path))
        self.journal = Journal(path / "journal.jsonl", keys)
        try:
            begin = self.journal.bodies[0]
            found = (begin.get("event"), begin.get("plan"), begin.get("run"))
            if found != ("begin", plan.digest, path.name):
                raise IntegrityError("the journal is of another run", where=str(path))
            self.epochs: dict[str, str] = dict(begin["epochs"])
            self.steps = _steps(self.journal.bodies)
            for step, body in self.steps.items():
                for silo in body["releases"]:
                    self.release(silo, step)
        except BaseException:
            self.journal.close()
            raise

    @classmethod
    def open_or_create(
        cls,
        runs: Path,
        plan: Plan,
        totals: Answers,
        keys: SiteKeys,
        *,
        plan_text: bytes | None = None,
    ) -> RunFolder:
        """Find the run that these totals belong to, or begin it.

        Args:
            runs: the folder of all runs.
            plan: the plan.
            totals: verified totals of at least one silo.
            keys: the coordinator's.
            plan_text: the plan as it was given, kept for people.

        Raises:
            WorkspaceError: another process is carrying the run out.
            IntegrityError: the folder is damaged, or a silo answered the same question in another
                way than before.
        """
        make_private_folder(runs)
        with alone(runs / ".lock"):
            _sweep(runs)
            path = runs / run_name(plan, totals.epochs())
            if not path.exists():
                path = _begun_before(runs, plan, totals.digests(), keys) or path
            if not path.exists():
                _begin(path, plan, Closed(plan.first_step, totals), keys, plan_text)
            folder = cls(path, plan, keys)
        try:
            folder._check_same(totals)
            folder._keep_report()
        except BaseException:
            folder.close()
            raise
        return folder

    def __enter__(self) -> Self:
        """Hold the folder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let other processes have it."""
        self.close()

    def close(self) -> None:
        """Let other processes have it."""
        self.journal.close()
        self._writers.shutdown()

    @property
    def run(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def complete(self) -> bool:
        """Whether its manifest is signed: the last thing that is written."""
        return (self.path / "manifest.sig").exists()

    def release(self, silo: str, step: str) -> bytes:
        """A release of a closed step, as it was received.

        Raises:
            IntegrityError: it is missing or was changed.
        """
        path = self._release_path(silo, step)
        try:
            envelope = read_private(path)
        except WorkspaceError as cause:
            raise IntegrityError(
                "a release that the journal names is missing", where=str(path)
            ) from cause
        if sha256_hex(envelope) != self.steps[step]["releases"].get(silo):
            raise IntegrityError("the release is not the one that was received", where=str(path))
        return envelope

    def close_step(self, closed: Closed) -> None:
        """Record a step that is done; on disk when this returns."""
        releases = (
            (self._release_path(silo, closed.step), partial(getattr, one, "envelope"))
            for silo, one in closed.answers.accepted.items()
        )
        write_private_together(releases, self._writers)
        if closed.checkpoint:
            write_private(self._checkpoint_path(closed.step), closed.checkpoint)
        body = closed.body()
        self.journal.append(body)
        self.steps[closed.step] = body
        trained = [step for step in self.steps if step.startswith("train-")]
        for step in trained[self._let_go : -KEPT_CHECKPOINTS]:
            self._checkpoint_path(step).unlink(missing_ok=True)
        self._let_go = max(0, len(trained) - KEPT_CHECKPOINTS)

    def checkpoint(self, step: str) -> bytes | None:
        """The sealed model that came of a step, if it is still kept."""
        path = self._checkpoint_path(step)
        return read_private(path) if path.exists() else None

    def write_timings(self, seconds: Mapping[str, float]) -> None:
        """Keep how long each step took: wall-clock, not part of the question."""
        write_beside(self.path / TIMINGS, self._keys, self.run, dict(seconds))

    def timings(self) -> dict[str, float]:
        """Seconds of each step in earlier attempts.

        Raises:
            IntegrityError: they were changed.
        """
        found: dict[str, float] = read_beside(self.path / TIMINGS, self._keys.public_key) or {}
        return found

    def write(self, name: str, data: bytes) -> None:
        """Write one of the run's own files."""
        write_private(self.path / name, data)

    def _release_path(self, silo: str, step: str) -> Path:
        return self.path / "releases" / silo / f"{step}.release"

    def _checkpoint_path(self, step: str) -> Path:
        return self.path / "checkpoints" / f"{step}.sealed"

    def _check_same(self, totals: Answers) -> None:
        known = self.steps[self.plan.first_step]["releases"]
        for silo, received in totals.digests().items():
            if known.get(silo, received) != received:
                raise IntegrityError(
                    "the silo answered the same question on the same data in another way",
                    where=f"{silo}, {self.run}",
                    why="a silo gives the same release again unless it lost what it gave",
                    do="ask the silo; its ledger or its releases may have been restored",
                )

    def _keep_report(self) -> None:
        """How the run is shown isn't part of the question: the latest wish counts."""
        wanted = self.plan.report.model_dump(mode="json")
        write_beside(self.path / REPORT, self._keys, self.run, wanted)


def _steps(bodies: list[Body]) -> dict[str, Body]:
    """The closed steps of a journal, in order."""
    return {body["step"]: body for body in bodies if body["event"] == "step"}


def _sweep(runs: Path) -> None:
    """Remove what a killed process had begun and not put in its place. Lock of all runs held."""
    for left in runs.glob(".*.new"):
        shutil.rmtree(left)


def _begin(path: Path, plan: Plan, totals: Closed, keys: SiteKeys, plan_text: bytes | None) -> None:
    """Make a run's folder aside, and put it in its place whole."""
    aside = path.with_name(f".{path.name}.new")  # `_sweep` removes what a crash leaves of it
    try:
        _write_beginning(aside, path.name, plan, totals, keys, plan_text)
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)  # a full disk, say: room is what is wanted now
        raise
    flush_folder(path.parent)


def _write_beginning(
    aside: Path, run: str, plan: Plan, totals: Closed, keys: SiteKeys, plan_text: bytes | None
) -> None:
    make_private_folder(aside)
    write_private(aside / "plan.json", plan.canonical_bytes())
    if plan_text is not None:
        write_private(aside / "plan.yaml", plan_text)
    make_private_folder(aside / "releases")
    for silo in totals.answers.accepted:
        make_private_folder(aside / "releases" / silo)
    write_private_together(
        (aside / "releases" / silo / f"{totals.step}.release", partial(getattr, one, "envelope"))
        for silo, one in totals.answers.accepted.items()
    )
    make_private_folder(aside / "checkpoints")
    flush_folder(aside / "releases")
    begin = {
        "event": "begin",
        "format": FORMAT,
        "run": run,
        "plan": plan.digest,
        "epochs": totals.answers.epochs(),
    }
    begin_journal(aside / "journal.jsonl", keys, [begin, totals.body()])


def _begun_before(runs: Path, plan: Plan, totals: Mapping[str, str], keys: SiteKeys) -> Path | None:
    """The run that rule 4 binds these totals to, if there is one under another name."""
    found: list[tuple[int, str, Path]] = []
    for path in sorted(runs.glob(f"{plan.name}-*")):
        stored = path / "plan.json"
        if not stored.exists() or read_private(stored) != plan.canonical_bytes():
            continue
        bodies = read_journal(path / "journal.jsonl", keys.public_key).bodies
        if bodies[0].get("run") != path.name:
            continue  # a copy under another name is no run
        steps = _steps(bodies)
        known = steps[plan.first_step]["releases"]
        common = set(known) & set(totals)
        same = bool(common) and all(known[silo] == totals[silo] for silo in common)
        begun = (plan.model is not None or plan.noise_once) and len(steps) > 1
        if same and (begun or set(totals) <= set(known)):
            found.append((len(steps), path.name, path))
    return max(found)[2] if found else None
