"""What registers, policies, logs and runs say of each control: beside what the doctor looks at.

One function a control. It gives, for each thing it looked at, whether that holds, what was seen,
and the moment that this rests on. None shows content of rows, or of sealed notes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from abfed.lab.drills import FOLDER as DRILLS
from abfed.lab.offices import Office
from abfed.lab.playbook import playbooks
from abfed.lab.records import Record, records_of
from abfed.lab.responding import incidents_of, vendors_of
from abfed.lab.watching import TOLD
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import parse_canonical
from abfed.protocol.envelope import open_envelope
from abfed.silo.policy import Policy
from abfed.silo.subjects import Subjects
from abfed.site.checkups import Checkups
from abfed.site.clock import moment_of, stamp
from abfed.site.files import read_private

Told = tuple[Literal["holds", "look", "red"], str, str]

WATCHED = timedelta(days=1)
"""How long ago somebody may have looked last."""
CHECKED = timedelta(days=31)
DRILLED = timedelta(days=366)
SOON = timedelta(days=7)


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
    for site, policy in seen.policies().items():
        said = "; ".join(f"{one.name}: {', '.join(one.bases)}" for one in policy.purposes)
        yield "holds", f"{site} reads rows for {said or 'no purpose'} only", seen.at
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
            yield "red", f"{site}: {len(late)} requests of people are past their day", seen.at
        elif near:
            yield "look", f"{site}: {len(near)} requests are due within a week", seen.at
        yield "holds", f"{site}: {done} of {len(every)} requests of people are answered", seen.at


def _in_transit(seen: Seen) -> Iterator[Told]:
    if (seen.workspace.path / "federation").is_dir():
        yield "holds", "distributed: TLS, and each message signed and sealed end to end", seen.at
    else:
        yield "holds", "embedded: no message leaves this machine; each is signed", seen.at


def _checked(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        last = Checkups(office.folder, office.keys).last()
        if last is None:
            yield "red", f"{site} was never checked (`abfed doctor`)", seen.at
        elif seen.now - moment_of(last.at) > CHECKED:
            yield "red", f"{site} was last checked on {last.at[:10]}", last.at
        else:
            state: Literal["holds", "red"] = "red" if last.worst == "critical" else "holds"
            yield state, f"{site} was checked on {last.at[:10]}, worst left: {last.worst}", last.at


def _models(seen: Seen) -> Iterator[Told]:
    """Nothing that looks like an open model lies about; all runs' digests and seals hold."""
    runs = seen.workspace.runs()  # checks each signature and digest
    loose = [
        path.name
        for folder in (seen.workspace.runs_folder, *(one.folder for one in seen.offices.values()))
        for path in folder.rglob("*")
        if path.suffix in {".safetensors", ".pt", ".pth", ".pkl", ".pickle"}
    ]
    for name in loose:
        yield "red", f"{name} lies open: models are sealed", seen.at
    if not loose:
        oldest = min((run.made_at for run in runs), default=seen.at)
        yield "holds", f"{len(runs)} runs were verified; no model lies open", oldest


def _rights(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        policy = office.place().policy
        export = sorted({one.role for one in policy.rights if one.right == "model.export"})
        said = f"{site}: {len(policy.rights)} rules, all else is refused"
        yield "holds", f"{said}; models may be exported by {', '.join(export) or 'nobody'}", seen.at


def _factors(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        people = [
            " + ".join(one) for one in office.place().policy.factors if tuple(one) != ("swk",)
        ]
        yield "holds", f"{site}: people sign in by {' or '.join(people) or 'nothing'}", seen.at


def _reviewed(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        register = office.people.register()
        if not register.people:
            yield "look", f"{site} has no people: whoever holds its key acts", seen.at
            continue
        at = register.reviewed_at or seen.at
        days = (seen.now - moment_of(at)).days
        every = office.place().policy.reviews.every_days
        said = f"{site}: rights were reviewed {days} days ago; every {every} days are asked for"
        yield ("red" if days > every else "holds"), said, at


def _watched(seen: Seen) -> Iterator[Told]:
    path = seen.workspace.coordinator / TOLD
    if not path.exists():
        yield "red", "nobody has looked yet (`abfed watch`)", seen.at
        return
    looked = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    late = seen.now - looked > WATCHED
    yield (
        ("red" if late else "holds"),
        f"`abfed watch` looked last on {looked:%Y-%m-%d}",
        stamp(looked),
    )


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
        trusted = {office.keys.key_id: office.keys.public_key}
        for path in (office.folder / DRILLS).glob("*.drill"):
            content = open_envelope(read_private(path), trusted, kind="drill", where=path.name)
            found.append(parse_canonical(content.content, where=path.name))
    passed = [one for one in found if one["passed"]]
    recent = [one for one in passed if seen.now - moment_of(one["ended_at"]) < DRILLED]
    if not recent:
        yield "look", "no drill was passed within a year (`abfed incident drill`)", seen.at
        return
    last = max(recent, key=lambda one: str(one["ended_at"]))
    yield "holds", f"{last['playbook']} was drilled and passed", last["ended_at"]


def _vendors(seen: Seen) -> Iterator[Told]:
    for site, office in seen.offices.items():
        counts = Counter(vendors_of(office).standings().values())
        said = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
        yield "holds", f"{site}: {said or 'no vendor'}; only what is approved is used", seen.at


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
            yield "holds", f"{site}: {len(made)} records are made, nothing is missing", seen.at


def _gaps(made: tuple[Record, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(gap for one in made for gap in one.gaps))


EVIDENCE: Mapping[str, Callable[[Seen], Iterator[Told]]] = {
    "S1": _lawful,
    "S1b": _asked_by_people,
    "S3": _in_transit,
    "S5": _in_transit,
    "S7": _checked,
    "S8": _models,
    "S9": _rights,
    "S10": _models,
    "S11": _factors,
    "S12": _rights,
    "S13": _reviewed,
    "S14": _watched,
    "S15": _incidents,
    "S16": _vendors,
    "S17": _vendors,
    "S19": _checked,
    "S20": _trained,
    "S21": _logged,
    "S22": _on_record,
}
