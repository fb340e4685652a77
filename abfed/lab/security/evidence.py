"""What registers, logs, runs and trials say of each control: beside what the doctor looks at.

One function a control. It gives, for each thing it looked at, whether that holds, what was seen,
and the moment that this rests on. What a policy says is not repeated as if it were seen: it is
tried (see `trials`). None shows content of rows, or of sealed notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from abfed.lab.coordination import COORDINATOR
from abfed.lab.incidents.drills import FOLDER as DRILLS
from abfed.lab.incidents.drills import read_drill
from abfed.lab.incidents.playbook import playbooks
from abfed.lab.incidents.responding import incidents_of, vendors_of
from abfed.lab.models import damaged_models, registry_of
from abfed.lab.offices import Office
from abfed.lab.records.record import Record, records_of
from abfed.lab.security.transit import standing_of_transit
from abfed.lab.security.trials import try_factors, try_rights, try_rows
from abfed.lab.security.uses import services_in_use, try_register, unusable
from abfed.lab.watch.watching import last_look
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import Refused
from abfed.protocol.printable import counted
from abfed.silo.policy import Policy
from abfed.silo.subjects import Subjects
from abfed.site.checkups import Checkups
from abfed.site.clock import moment_of, stamp

State = Literal["holds", "look", "red"]
Told = tuple[State, str, str]

WATCHED = timedelta(days=1)
"""How long ago somebody may have looked last."""
CHECKED = timedelta(days=31)
DRILLED = timedelta(days=366)
SOON = timedelta(days=7)
LEFT: Mapping[str, State] = {"critical": "red", "high": "look"}
"""What the worst that a check-up left makes of its being regular; its own control is red too."""
MIDNIGHT = "T00:00:00.000000Z"


class Seen(NamedTuple):
    """What is looked at.

    Attributes:
        workspace: whose sites.
        offices: of sites that can be opened.
        now: when.
    """

    workspace: Workspace
    offices: Mapping[str, Office]
    now: datetime

    @property
    def at(self) -> str:
        """Now, as records have it."""
        return stamp(self.now)

    def policies(self) -> dict[str, Policy]:
        """Each silo's policy."""
        return {
            site: Policy.load(office.folder / "policy.yaml")
            for site, office in self.offices.items()
            if site in self.workspace.silos
        }


def _lawful(seen: Seen) -> Iterator[Told]:
    """Made-up people who must not be read are offered to a copy of each silo's rules."""
    for site, policy in seen.policies().items():
        for one in try_rows(policy, seen.workspace.clock):
            yield ("holds" if one.as_must else "red"), one.what, seen.at
        if policy.retention_days is None:
            yield "look", f"{site} keeps sends without a time limit (retention_days)", seen.at


def _asked_by_people(seen: Seen) -> Iterator[Told]:
    for site in seen.policies():
        with seen.workspace.silo(site) as service:
            subjects = Subjects(service, lambda: seen.now)
            every, late = subjects.requests(), subjects.overdue()
        soon = stamp(seen.now + SOON)[:10]
        near = [one for one in every if not one.done_at and one.due_on <= soon]
        done = sum(bool(one.done_at) for one in every)
        if late:
            said = (
                f"{site}: {counted(len(late), 'request of people')} had to be answered before today"
            )
            yield "red", said, seen.at
        elif near:
            said = (
                f"{site}: {counted(len(near), 'request of people')} must be answered within a week"
            )
            yield "look", said, seen.at
        yield (
            "holds",
            f"{site}: of {counted(len(every), 'request of people')}, {done} answered",
            seen.at,
        )


def _in_transit(seen: Seen) -> Iterator[Told]:
    """Certificates as they are on disk; and whether each release that is kept is signed."""
    released = sum(len(steps) for run in seen.workspace.runs() for steps in run.releases.values())
    said = f"each of {released} releases kept here was opened: signed by its silo, unchanged"
    yield "holds", said, seen.at
    yield from standing_of_transit(seen.workspace, seen.now)


def _checked(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        last = Checkups(office.folder, office.keys).last()
        if last is None:
            yield "red", f"{site} was never checked (`abfed doctor`)", ""
        elif seen.now - moment_of(last.at) > CHECKED:
            yield "red", f"{site} was last checked on {last.at[:10]}", last.at
        else:
            state: State = LEFT.get(last.worst, "holds")
            yield state, f"{site} was checked on {last.at[:10]}, worst left: {last.worst}", last.at


def _models(seen: Seen) -> Iterator[Told]:
    """No open model lies about; every run and model is opened, and is as it was signed."""
    runs = seen.workspace.runs()  # checks each signature and digest
    loose = [
        path.name
        for folder in (seen.workspace.runs_folder, *(one.folder for one in seen.offices.values()))
        for path in folder.rglob("*")
        if path.suffix in {".safetensors", ".pt", ".pth", ".pkl", ".pickle"}
    ]
    for name in loose:
        yield "red", f"{name} lies open: models are sealed", seen.at
    broken = 0
    for site, office in seen.offices.items():
        for name, what in damaged_models(office).items():
            broken += 1
            yield "red", f"{site}: {name}: {what}"[:300], seen.at
    if not loose and not broken:
        opened = f"{counted(len(runs), 'run')} and every model"
        yield "holds", f"{opened} were opened; none lies open", seen.at


def _rights(seen: Seen) -> Iterator[Told]:
    """Every right is asked for in every role, of the code that judges people."""
    for site, office in seen.offices.items():
        tried = try_rights(site, office.place().policy, seen.now)
        for one in tried.wrong:
            yield "red", f"{site}: {one}", seen.at
        refused = tried.asked - len(tried.allowed)
        yield "holds", f"{site}: tried, {refused} of {tried.asked} pairs are refused", seen.at


def _model_rights(seen: Seen) -> Iterator[Told]:
    """Who is let take a model out, as tried; and that none is given out that nobody approved."""
    for site, office in seen.offices.items():
        tried = try_rights(site, office.place().policy, seen.now)
        for one in tried.wrong:
            if "model." in one:
                yield "red", f"{site}: {one}", seen.at
        may = [role for role, right in tried.allowed if right == "model.export"]
        said = f"{site}: tried, models are let out by {', '.join(may) or 'nobody'}"
        alone = bool(may) and not office.place().policy.four_eyes.model_export
        note = ", without a second person" if alone and site == COORDINATOR else ""
        yield ("look" if note else "holds"), said + note, seen.at
    registry = registry_of(seen.workspace)
    asked = 0
    for model in registry.standings():
        if model.stage == "approved":
            continue
        asked += 1
        with suppress(Refused):
            registry.give(model.registration.label)
            yield "red", f"{model.registration.label} is {model.stage}, and is given out", seen.at
    if asked:
        said = f"{counted(asked, 'model')} not approved: asked for, and refused"
        yield "holds", said, seen.at


def _factors(seen: Seen) -> Iterator[Told]:
    """Tokens that are not good enough are shown to the code that judges them."""
    for site, office in seen.offices.items():
        tried = list(try_factors(site, office.place().policy, seen.now))
        for one in tried:
            if not one.as_must:
                yield "red", f"{site}: {one.what}", seen.at
        refused = sum("refused" in one.what for one in tried)
        let_in = [one.what.partition(":")[0] for one in tried if one.what.endswith("let in")]
        good = ", ".join(let_in) or "none"
        said = f"{site}: tried, {refused} weak tokens are refused; let in: {good}"
        yield ("holds" if let_in else "look"), said, seen.at


def _reviewed(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        register = office.people.register()
        if not register.people:
            yield "look", f"{site} has no people: whoever holds its key acts", seen.at
            continue
        at = register.reviewed_at or seen.at
        days = (seen.now - moment_of(at)).days
        every = office.place().policy.reviews.every_days
        said = f"{site}: rights were reviewed {counted(days, 'day')} ago; asked for every {every}"
        yield ("red" if days > every else "holds"), said, at


def _watched(seen: Seen) -> Iterator[Told]:
    """The last look by the time that was sealed with it, not by the file's."""
    last = last_look(seen.workspace.coordinator, seen.workspace.keys)
    if last is None or not last.looked_at:
        yield "red", "nobody has looked yet (`abfed watch`)", ""
        return
    looked = moment_of(last.looked_at)
    late = not timedelta() <= seen.now - looked <= WATCHED
    said = f"`abfed watch` looked last on {looked:%Y-%m-%d %H:%M}"
    yield ("red" if late else "holds"), said, last.looked_at
    if last.failed:
        yield "look", f"{last.failed} sinks did not take its alarms then", last.looked_at


def _incidents(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        for one in incidents_of(office).list().values():
            clock = one.clock(seen.now)
            if one.closed_at:
                said = f"{site}: {one.id} ({one.playbook}) was closed on {one.closed_at[:10]}"
                yield "holds", said, one.closed_at
            elif clock.startswith("OVERDUE"):
                yield "red", f"{site}: {one.id}, the authority was not told: {clock}", one.known_at
            else:
                yield "look", f"{site}: {one.id} ({one.playbook}) is open; {clock}", one.opened_at
    due = [
        one.name for one in playbooks(seen.workspace.path).values() if one.due_on <= seen.now.date()
    ]
    if due:
        yield "look", f"playbooks are due for review: {', '.join(sorted(due))}", seen.at
    yield from _drilled(seen)


def _drilled(seen: Seen) -> Iterator[Told]:
    found = []
    for office in seen.offices.values():
        kept = (office.folder / DRILLS).glob("*.drill")
        found += [read_drill(path, office.keys.public_key) for path in kept]
    passed = [one for one in found if one["passed"]]
    recent = [one for one in passed if seen.now - moment_of(one["ended_at"]) < DRILLED]
    if not recent:
        yield "look", "no drill was passed within a year (`abfed incident drill`)", seen.at
        return
    last = max(recent, key=lambda one: str(one["ended_at"]))
    yield "holds", f"{last['playbook']} was drilled and passed", last["ended_at"]


def _vendors(seen: Seen) -> Iterator[Told]:
    """Each service that is configured, and each vendor, asked for in a copy of the register."""
    for site, office in seen.offices.items():
        for use in services_in_use(seen.workspace, office):
            why = unusable(office, use.kind, use.address, seen.now)
            said = f"{site}: {use.kind} service {use.address} of {use.where}"
            yield ("look", f"{said} is refused: {why}", seen.at) if why else (
                "holds", f"{said} is of an approved vendor", seen.at
            )  # fmt: skip
        tried = try_register(office, seen.now)
        for one in tried:
            if not one.as_must:
                yield "red", f"{site}: {one.what}", seen.at
        refused = sum("refused" in one.what for one in tried)
        yield (
            "holds",
            f"{site}: {counted(len(tried), 'service')} asked for, {refused} refused",
            seen.at,
        )


def _agreements(seen: Seen) -> Iterator[Told]:
    """Contracts and standards of the vendors in use; and that none is used past its day."""
    for site, office in seen.offices.items():
        for name, entry in sorted(vendors_of(office).list().items()):
            if not entry.approved_by or entry.offboarded:
                continue
            ends = entry.vendor.ends_on
            used = [
                one.address
                for one in entry.vendor.services
                if not unusable(office, one.kind, one.address, moment_of(f"{ends}{MIDNIGHT}"))
            ]
            standards = ", ".join(entry.vendor.standards)
            state: State = "holds" if standards else "look"
            said = f"{site}: {name} ({standards or 'no standard is named'}) ends on {ends}"
            if used:
                yield "red", f"{said}; tried for that day, it would still be used", seen.at
            else:
                yield state, f"{said}; tried for that day, it is refused", seen.at
        if not vendors_of(office).list():
            yield "holds", f"{site} has no vendor, and every service of one is refused", seen.at


def _trained(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        asked = office.place().policy.training
        if not asked:
            yield "look", f"{site} asks no role for training (`training:` in its policy)", seen.at
            continue
        for rule in asked:
            lacking = [
                name
                for name, one in sorted(office.people.register().people.items())
                if rule.role in one.roles(seen.now)
                and not any(
                    held.module == rule.module and moment_of(held.until) > seen.now
                    for held in one.attested
                )
            ]
            if lacking:
                said = f"{site}: {', '.join(lacking)} lack {rule.module}, so have no such right"
                yield "look", said, seen.at
            else:
                yield "holds", f"{site}: every {rule.role} has passed {rule.module}", seen.at


def _logged(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        state = office.audit.verify()
        yield "holds", f"{site}: {state[0]} entries, every signature and link holds", seen.at


def _on_record(seen: Seen) -> Iterator[Told]:
    for site in seen.policies():
        with seen.workspace.silo(site) as service:
            made = records_of(service, seen.offices[site], seen.now)
        for gap in _gaps(made):
            yield "look", f"{site}: {gap}", seen.at
        if not _gaps(made):
            yield (
                "holds",
                f"{site}: {counted(len(made), 'record')} made, nothing is missing",
                seen.at,
            )


def _gaps(made: tuple[Record, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(gap for one in made for gap in one.gaps))


EVIDENCE: Mapping[str, Callable[[Seen], Iterator[Told]]] = {
    "S1": _lawful,
    "S1b": _asked_by_people,
    "S3": _in_transit,
    "S5": _in_transit,
    "S7": _checked,
    "S8": _models,
    "S9": _model_rights,
    "S10": _models,
    "S11": _factors,
    "S12": _rights,
    "S13": _reviewed,
    "S14": _watched,
    "S15": _incidents,
    "S16": _vendors,
    "S17": _agreements,
    "S19": _checked,
    "S20": _trained,
    "S21": _logged,
    "S22": _on_record,
}
