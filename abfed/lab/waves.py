"""Waves of an experiment: which is next, which were before, and who may look again.

A plan with waves is one design; each wave of it is a plan and a run of its own, found by the design
they share. What a design is leaves out which wave is asked for and the allocations of later waves,
which follow from earlier ones.

A plan without waves has a fixed horizon: it is read once. Asking the same question again once the
data have changed is *peeking at a fixed-horizon design*, and refused by that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.coordinator.manifest import verify
from abfed.protocol.canonical import digest
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace


def design_of(plan: Plan) -> str:
    """The digest that all waves of one design share."""
    values: dict[str, Any] = plan.model_dump(mode="json", exclude={"report"})
    values["analysis"]["wave"] = 0
    for wave in (values["analysis"]["sequential"] or {}).get("waves", ()):
        wave["shares"] = None
    return digest(values)


def earlier_folders(folder: Path, plan: Plan) -> tuple[Path, ...]:
    """The runs of all waves before a run's own, from the folder that it lies in.

    Raises:
        InputError: one of them isn't there.
    """
    if plan.analysis.sequential is None:
        return ()
    found = waves_done(folder.resolve().parent, plan)
    wanted = range(1, plan.analysis.wave)
    missing = [number for number in wanted if number not in found]
    if missing:
        raise InputError(
            f"wave {missing[0]} was not run, or its run isn't here",
            where=plan.name,
            why="looks are read in their order: each spends its part of α",
            do="run the plan again: it goes on with the first wave that is missing",
        )
    return tuple(found[number][0] for number in wanted)


def waves_done(runs: Path, plan: Plan) -> dict[int, tuple[Path, Plan]]:
    """Complete runs of a design by wave: the folder, and the plan that it carried out."""
    wanted = design_of(plan)
    found: dict[int, tuple[Path, Plan]] = {}
    for folder, stored in _complete(runs, f"{plan.name}-*"):
        if stored.analysis.wave and design_of(stored) == wanted:
            found[stored.analysis.wave] = folder, stored
    return found


def last_wave(folders: Sequence[Path]) -> Path | None:
    """The only run of these, or the last wave's where all are waves of one design."""
    if len(folders) < 2:
        return next(iter(folders), None)
    plans = {one: _plan_of(one) for one in folders}
    if len({design_of(plan) for plan in plans.values()}) > 1:
        return None
    last = max(folders, key=lambda one: plans[one].analysis.wave)
    return last if plans[last].analysis.wave else None


def _plan_of(folder: Path) -> Plan:
    return Plan.from_canonical((folder / "plan.json").read_bytes(), where=str(folder))


def _complete(runs: Path, pattern: str) -> Iterator[tuple[Path, Plan]]:
    """Complete runs and their plans."""
    for sealed in sorted(runs.glob(f"{pattern}/manifest.sig")):
        yield sealed.parent, _plan_of(sealed.parent)


def wave_to_run(runs: Path, plan: Plan, *, today: date | None = None) -> Plan:
    """The plan of the wave that comes next; of the last one where all were run.

    Raises:
        InputError: the next wave isn't over yet.
    """
    design = plan.analysis.sequential
    if design is None or plan.analysis.wave:
        return plan
    done = waves_done(runs, plan)
    numbers = range(1, len(design.waves) + 1)
    number = next((one for one in numbers if one not in done), len(design.waves))
    wave = design.waves[number - 1]
    if number not in done and (today or datetime.now(UTC).date()) < wave.until:
        raise InputError(
            f"wave {number} ({wave.name}) isn't over",
            where=plan.name,
            why=f"it takes in first sends until {wave.until}, and is read once",
            do="run the plan again then",
        )
    return done[number][1] if number in done else plan.at_wave(number)


def digests_of(plan: Plan) -> tuple[str, ...]:
    """Digests under which a plan is asked: its own, and that of each of its waves."""
    design = plan.analysis.sequential
    waves = range(1, len(design.waves) + 1) if design is not None and not plan.analysis.wave else ()
    return (plan.digest, *(plan.at_wave(number).digest for number in waves))


def refuse_peeking(workspace: Workspace, plan: Plan) -> None:
    """Refuse a second look at a fixed horizon; silos that aren't on this machine aren't asked.

    Asking again after people were erased, or objected, is no second look: no send was added.

    Raises:
        InputError: the same question was read before, and sends were added since.
    """
    from abfed.stats.effects import PEEKING

    if plan.analysis.sequential is not None:
        return
    for folder, before in _complete(workspace.runs_folder, "*"):
        if _question(before) != _question(plan):
            continue
        epochs = verify(folder, workspace.keys.public_key)["epochs"]
        changed = [silo for silo, epoch in epochs.items() if _grew(workspace, silo, epoch, before)]
        if changed:
            raise InputError(
                PEEKING,
                where=plan.name,
                why=f"run {folder.name} read it before the data of {changed[0]} changed; "
                "repeated fixed intervals find what isn't there",
                do="declare waves under analysis.sequential before the first look, "
                "or plan another experiment",
            )


def _question(plan: Plan) -> dict[str, Any]:
    """What two looks would have in common."""
    metrics = {metric.name: metric for metric in plan.metrics}
    return {
        "experiment": plan.experiment,
        "arms": [arm.model_dump() for arm in plan.arms],
        "population": [one.model_dump() for one in plan.population],
        "primary": metrics[plan.primary].model_dump(),
        "design": plan.analysis.sequential,
    }


def _grew(workspace: Workspace, silo: str, known: str, plan: Plan) -> bool:
    """Whether a silo of this machine took sends in after it released for a plan, by its own log."""
    from abfed.silo.intakes import log_if_unlogged

    if silo not in workspace.silos_here:
        return False
    with workspace.silo(silo) as service:
        if service.holdings().epoch == known:
            return False
        log_if_unlogged(service.store, service.audit)
        grew = False
        for entry in service.audit.entries():
            event, facts = entry["body"]["event"], entry["body"]["facts"]
            if event == "release.made" and facts["plan"] == plan.digest:
                grew = False
            elif event == "data.ingested":
                grew = grew or facts["changed"]
        return grew
