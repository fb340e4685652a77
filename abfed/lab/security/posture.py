"""How each control stands at the sites of a workspace: from facts, with evidence, date and owner.

1. A control *holds* only where something was checked and nothing was found; what was not checked
   is red, and says so. Nobody can type a state in.
2. Red is what is not so. *Look* is what holds today and won't for long, or was decided loosely.
3. The facts are the doctor's last record at each site, and what policies, registers, logs and runs
   say now. Reading them changes nothing but for one line in the coordinator's log.
4. The whole is kept, signed by the coordinator; the security review's page is made from it alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

from abfed.lab.offices import Office
from abfed.lab.security.controls import CONTROLS, Control
from abfed.lab.security.evidence import EVIDENCE, Seen
from abfed.lab.upkeep.doctor import LAB, LAB_CHECKS, CheckUp
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import AbfedError, WorkspaceError
from abfed.site.checkups import Checkups
from abfed.site.clock import moment_of, stamp
from abfed.site.files import make_private_folder, read_private, write_private

State = Literal["holds", "look", "red"]
STATES: tuple[State, ...] = ("holds", "look", "red")
FOLDER, SUFFIX = "reviews", ".posture"
OLDEST = timedelta(days=31)
"""A check-up older than this shows nothing; nor does one that lies in the future."""
HOUR = timedelta(hours=1)
PLACE = re.compile(r"(?<![^\s(])/(?:[^\s/()]+/)*(?=[^\s/()])")
"""Where a file lies on this machine: a page says which file, not where; it would be withheld."""


class Standing(NamedTuple):
    """How one control stands.

    Attributes:
        id, asked, owner: the control, and the people who answer for it.
        state: whether it holds.
        evidence: what was seen, in lines; the reason first where it doesn't hold.
        on: the day of the oldest thing that it rests on; empty where a part was never checked.
    """

    id: str
    asked: str
    owner: str
    state: State
    evidence: tuple[str, ...]
    on: str


class Posture(NamedTuple):
    """A review.

    Attributes:
        at: when.
        sites: of which.
        standings: each control's.
    """

    at: str
    sites: tuple[str, ...]
    standings: tuple[Standing, ...]

    @property
    def red(self) -> tuple[str, ...]:
        """Controls that don't hold."""
        return tuple(one.id for one in self.standings if one.state == "red")


def assess(
    workspace: Workspace, lab: CheckUp, now: datetime, controls: Sequence[Control] = CONTROLS
) -> Posture:
    """See how each control stands.

    Args:
        workspace: whose sites.
        lab: the installation's check-up, made just now (`doctor.check_lab`).
        now: when.
        controls: which; all where left out.
    """
    sites = ("coordinator", *workspace.silos)
    offices, gone = _offices(workspace, sites, now)
    seen = Seen(workspace, offices, now)
    owners = {one.owner: _owners(offices, one.owner, now) for one in controls}
    standings = []
    for control in controls:
        told = [*gone, *_of_evidence(control, seen)]
        told += [*_of_checkups(control, offices, now), *_of_lab(control, lab, now)]
        if not owners[control.owner]:
            words = control.owner.replace("-", " ")
            told.append(("look", f"nobody here is {words}, who answers for it", stamp(now)))
        standings.append(_standing(control, told, owners[control.owner]))
    return Posture(stamp(now), sites, tuple(standings))


def keep(workspace: Workspace, posture: Posture, *, by: str) -> Path:
    """Keep a review, signed; returns its file."""
    folder = workspace.coordinator / FOLDER
    make_private_folder(folder)
    path = folder / f"{posture.at[:19].replace(':', '')}{SUFFIX}"
    write_private(path, workspace.keys.sign("posture", canonical_bytes(as_values(posture))))
    workspace.audit.append("security.reviewed", red=len(posture.red), by=by)
    return path


def as_values(posture: Posture) -> dict[str, Any]:
    """A review as plain values."""
    return {
        "at": posture.at,
        "sites": list(posture.sites),
        "controls": [
            {**one._asdict(), "evidence": list(one.evidence)} for one in posture.standings
        ],
    }


def newest(workspace: Workspace) -> Path:
    """The newest review that is kept here.

    Raises:
        WorkspaceError: there is none.
    """
    found = sorted((workspace.coordinator / FOLDER).glob(f"*{SUFFIX}"))
    if not found:
        raise WorkspaceError(
            "no review was made yet", where=str(workspace.path), do="run `abfed review`"
        )
    return found[-1]


def read_posture(path: Path, public_key: bytes) -> dict[str, Any]:
    """A review's values, its signature checked.

    Raises:
        IntegrityError: it was changed, or another's.
    """
    content = open_envelope(
        read_private(path), {key_id(public_key): public_key}, kind="posture", where=path.name
    ).content
    values: dict[str, Any] = parse_canonical(content, where=path.name)
    return values


Told = tuple[State, str, str]
"""A state, why, and the moment of what it rests on."""


def _standing(control: Control, told: Sequence[Told], owner: str) -> Standing:
    """The worst that was told, worst first; red where nothing was."""
    if not told:
        return Standing(control.id, control.asked, owner, "red", ("it was never checked",), "")
    ordered = sorted(told, key=lambda one: -STATES.index(one[0]))
    return Standing(
        id=control.id,
        asked=control.asked,
        owner=owner,
        state=ordered[0][0],
        evidence=tuple(dict.fromkeys(PLACE.sub("", what) for _, what, _ in ordered)),
        on=min(at for _, _, at in told)[:10],
    )


def _offices(
    workspace: Workspace, sites: Iterable[str], now: datetime
) -> tuple[dict[str, Office], list[Told]]:
    """Sites that can be opened, with their people; and, for every control, which can't."""
    offices: dict[str, Office] = {}
    gone: list[Told] = []
    for site in sites:
        try:
            office = workspace.office(site)
            office.people.register()  # who answers for a control is read in it
            offices[site] = office
        except AbfedError as error:
            gone.append(("red", f"{site} can't be opened: {error.what}", stamp(now)))
    return offices, gone


def _owners(offices: dict[str, Office], role: str, now: datetime) -> str:
    return ", ".join(
        f"{name}@{site}"
        for site, office in offices.items()
        for name, one in sorted(office.people.register().people.items())
        if role in one.roles(now) and not one.stopped_at
    )


def _of_checkups(control: Control, offices: dict[str, Office], now: datetime) -> Iterator[Told]:
    """What the doctor's last record at each site says of the control's checks."""
    wanted = set(control.checks) - set(LAB_CHECKS)
    if not wanted:
        return
    clean = []
    for site, office in offices.items():
        try:
            records = Checkups(office.folder, office.keys).records()
        except AbfedError as error:
            what = f"{site}: a record of its check-ups can't be read: {error.what}"
            yield "red", what, stamp(now)
            continue
        if not records:
            yield "red", f"{site} was never checked (`abfed doctor`)", ""
            continue
        last = records[-1]
        if not -HOUR <= now - moment_of(last["at"]) <= OLDEST:
            what = f"{site} was not checked within {OLDEST.days} days (`abfed doctor`)"
            yield "red", what, last["at"]
            continue
        if unmade := sorted(wanted - set(last["checks"])):
            what = f"{site}: the last check-up did not look at {', '.join(unmade)}"
            yield "red", what, last["at"]
            continue
        found = [one for one in last["findings"] if one["check"] in wanted and not one.get("fixed")]
        for one in found:
            yield _state_of(one["severity"]), f"{site}: {one['what']}", last["at"]
        if not found:
            clean.append((site, last["at"]))
    if clean:
        where = ", ".join(site for site, _ in clean)
        checks = ", ".join(sorted(wanted))
        yield "holds", f"doctor ({checks}): nothing found at {where}", min(at for _, at in clean)


def _of_lab(control: Control, lab: CheckUp, now: datetime) -> Iterator[Told]:
    wanted = set(control.checks) & set(lab.checks)
    if not wanted:
        return
    found = [one for one in lab.findings if one.check in wanted]
    for one in found:
        yield _state_of(one.severity), f"{LAB}: {one.what}", stamp(now)
    if clean := wanted - {one.check for one in found}:
        yield "holds", f"{LAB} ({', '.join(sorted(clean))}): nothing found", stamp(now)


def _of_evidence(control: Control, seen: Seen) -> Iterator[Told]:
    """What registers, policies, logs and runs say; what can't be read is red."""
    look = EVIDENCE.get(control.id)
    if look is None:
        return
    try:
        yield from look(seen)
    except AbfedError as error:
        yield "red", f"could not be checked: {error.what}", stamp(seen.now)


def _state_of(severity: str) -> State:
    return {"critical": "red", "high": "red", "medium": "look"}.get(severity, "holds")  # type: ignore[return-value]
