"""Carrying a plan out from the researcher's machine.

Embedded: coordinator and silos in this process, on Flower's own types over our grid; no server, no
socket, nothing left running. The wall stands all the same: what passes between them are the bytes
that would pass over a network.

Distributed: an order goes to the coordinator's SuperLink on this machine, its server app
carries the plan out over the brands' SuperNodes, and this process follows the run's events. It may
be stopped: the run goes on, and asking for the same plan again finds it. A server app that is lost,
because it was killed or the SuperLink was away for so long that it gave it up, is started again: it
goes on after the last closed step, at no further charge.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from abfed.coordinator.app import Coordinator, Event, Progress, RunOutcome, carry_out
from abfed.coordinator.courier import make_courier
from abfed.coordinator.grid import EmbeddedGrid
from abfed.coordinator.house import FOLDER, House
from abfed.coordinator.order import Order, events_of, place_order
from abfed.protocol.errors import (
    AbfedError,
    DataError,
    InputError,
    IntegrityError,
    MappingError,
    PlanError,
    Refused,
    RunFailed,
    StorageError,
    WorkspaceError,
)
from abfed.protocol.identity import Presented
from abfed.protocol.plan import Plan
from abfed.silo.service import SiloService
from abfed.site.files import read_private

if TYPE_CHECKING:
    from abfed.coordinator.control import Control
    from abfed.lab.runs import Run
    from abfed.lab.workspace import Workspace
    from abfed.site.audit import AuditLog

_ERRORS = (
    InputError, PlanError, MappingError, DataError, WorkspaceError, IntegrityError, StorageError,
)  # fmt: skip
ERRORS = {one.kind: one for one in _ERRORS}
"""What a server app can end with beside a refusal and a run that failed, by how it is told."""

_ASKED = ("run.asked", "run.begun", "run.resumed", "run.found")
"""What a coordinator logs of a run: that totals are asked, and then what they turned out to be."""

LOOK_SECONDS = 0.5  # between looks at the events of a run
GONE_SECONDS = 300.0  # after which a SuperLink that doesn't answer is taken to be gone
STARTS = 6  # of the server app of one run, before it is left to people
STATUS_SECONDS = 3.0  # between questions to the SuperLink whether the run still goes on


def run_embedded(
    coordinator: Coordinator,
    silos: Mapping[str, Path],
    plan: Plan,
    *,
    plan_text: bytes | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Carry a plan out with silos of this machine, or find the run that already did.

    A silo that the plan names and that isn't here is left out; the plan's `minimum_silos` says
    whether the run may go on without it.

    Args:
        coordinator: who asks.
        silos: folder of each silo that is here.
        plan: what is asked.
        plan_text: the plan as it was given, kept with the run.
        progress: told of each event.

    Raises:
        InputError: the coordinator doesn't know a silo that the plan names.
        Refused, RunFailed, IntegrityError: see `coordinator.app.carry_out`.
    """
    with ExitStack() as stack:
        couriers = {}
        for name in sorted(set(plan.silos) & set(silos)):
            service = stack.enter_context(closing(SiloService(silos[name], coordinator.clock)))
            couriers[name] = make_courier(service.answer)
        grid = EmbeddedGrid(couriers)
        return carry_out(plan, grid, coordinator, progress=progress, plan_text=plan_text)


class Ended(NamedTuple):
    """How a distributed run ended: its name, whether it was found, and who is missing."""

    run: str
    found: bool
    missing: Mapping[str, str]


def run_over_federation(
    workspace: Workspace, plan: str | Path, progress: Progress | None = None
) -> Run:
    """Carry a plan out over the federation of a coordinator's workspace, for who is signed in.

    Raises:
        PlanError: the plan is malformed.
        Refused: nobody is signed in, or a policy or a budget said no.
        RunFailed: fewer silos than the plan's minimum answered, or the SuperLink doesn't.
    """
    from abfed.lab.runs import Run

    shown = workspace.session().present(Plan.load(plan))
    text = Path(plan).read_text(encoding="utf-8")
    ended = run_distributed(workspace.path, text, shown, progress=progress)
    return Run.open(
        workspace.runs_folder / ended.run,
        coordinator_key=workspace.keys.public_key,
        found=ended.found,
        missing=ended.missing,
    )


def expect_begun(runs: Path, plan: Plan, audit: AuditLog) -> None:
    """Check that a run of this plan was begun and is not complete.

    Raises:
        WorkspaceError: there is none to go on with.
    """
    complete = False
    for file in runs.glob(f"{plan.name}-*/plan.json"):
        if read_private(file) == plan.canonical_bytes():
            if not (file.parent / "manifest.sig").exists():
                return
            complete = True
    if _ended_in_totals(plan, audit):
        return
    raise WorkspaceError(
        "there is no unfinished run of this plan",
        where=str(runs),
        why="its run is complete" if complete else "it was never asked by this coordinator",
        do="run it without --resume"
        + (": it is found, at no charge, where the data are the same" if complete else ""),
    )


def _ended_in_totals(plan: Plan, audit: AuditLog) -> bool:
    """Whether silos were asked for a plan's totals last, and no folder came of it.

    A run has no folder before its totals are in, but silos may have been charged for them.
    """
    ended = False
    for entry in audit.entries():
        body = entry["body"]
        if body["event"] in _ASKED and body["facts"].get("plan") == plan.digest:
            ended = body["event"] == "run.asked"
    return ended


def run_distributed(
    workspace: Path, plan_text: str, presented: Presented, *, progress: Progress | None
) -> Ended:
    """Carry a plan out over the federation of this coordinator's workspace.

    Args:
        workspace: the coordinator's.
        plan_text: the plan's YAML.
        presented: what the person who asks shows for it.
        progress: told of each event.

    Raises:
        RunFailed: the SuperLink doesn't answer, or the run ended without a result.
        AbfedError: as the server app ended with.
    """
    from abfed.coordinator.control import control

    house = House(workspace / FOLDER)
    places = house.places
    order = Order(plan=plan_text, presented=presented)
    with control(house.settings.link_port, places.authority_certificate) as link:
        for _ in range(STARTS):
            digest = place_order(places.orders, order)  # a server app that ended took it away
            path = events_of(places.orders, digest)
            seen = path.stat().st_size if path.exists() else 0
            run_id = link.start(digest)
            for event in _follow(path, seen, link, run_id):
                if event["event"] != "end":
                    if progress is not None:
                        progress(_event(event))
                elif "run" in event:
                    return Ended(event["run"], event["found"], event["missing"])
                else:
                    raise _error(event)
            ended = next((run for run in link.runs() if run.run_id == run_id), None)
            if ended is None or not ended.lost:
                break
    stopped = ended is not None and ended.stopped
    raise RunFailed(
        "the run was stopped" if stopped else "the run ended without an outcome",
        where=f"run {run_id}",
        why="" if stopped or ended is None else ended.detail,
        do="see `abfed federation logs`; run the plan again with --resume to go on",
    )


def _follow(path: Path, position: int, link: Control, run_id: int) -> Iterator[dict[str, Any]]:
    """The events of a run as they are written, until the last, or until Flower says it's over.

    A SuperLink that doesn't answer for a while is being restarted; the run goes on meanwhile.
    """
    asked = time.monotonic()
    answered = asked
    while True:
        over = False
        if time.monotonic() - asked > STATUS_SECONDS:
            said = link.finished(run_id)
            asked = time.monotonic()
            answered = answered if said is None else asked
            over = bool(said) or asked - answered > GONE_SECONDS
        content = path.read_bytes()[position:] if path.exists() else b""
        whole, newline, _ = content.rpartition(b"\n")
        for line in whole.splitlines():
            event = json.loads(line)
            yield event
            if event["event"] == "end":
                return
        position += len(whole) + len(newline)
        if over:
            return
        time.sleep(LOOK_SECONDS)


def _event(values: Mapping[str, Any]) -> Event:
    return Event(**{name: values[name] for name in Event._fields})


def _error(values: Mapping[str, Any]) -> AbfedError:
    """The error that the server app ended with, as this process's own."""
    parts = {name: str(values.get(name, "")) for name in ("where", "why", "do")}
    what = str(values.get("what", "the run failed"))
    if values.get("error") == Refused.kind:
        return Refused(what, code=str(values.get("code", "")), **parts)
    kind = ERRORS.get(str(values.get("error")), RunFailed)
    return kind(what, **parts)
