"""The register of incidents at a site (S15): what happened, what was done, who must know.

An incident is opened once, goes on as long as it needs, and is closed with a summary. What is
written here is sealed: notes may name what a log must not. The audit log has the acts, in names and
codes. Where personal data is concerned the clock of GDPR Art. 33 runs from when the site came to
know of it: 72 hours to tell the authority.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import At, Hex64
from abfed.protocol.schema import Frozen, Name
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

FILE = "incidents.sealed"
AUTHORITY_HOURS = 72
"""GDPR Art. 33(1): hours from becoming aware of a breach to telling the authority."""

Severity = Literal["low", "medium", "high", "critical"]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Id = Annotated[str, Field(pattern=r"^inc-[0-9]{4}-[0-9]{3,6}$")]


class Note(Frozen):
    """Something that was found or done."""

    at: At
    by: str
    text: Text


class Containment(Frozen):
    """Something that was frozen because of an incident; `person` too.

    Attributes:
        kind, name: what.
        at, by: when, by whom.
        durable_ms: how long it took until it was on disk, and so in effect.
        lifted_at: when it was let go again; empty while it holds.
        site: where it is frozen, and lifted; empty in older records, which didn't say.
    """

    kind: str
    name: str
    at: At
    by: str
    durable_ms: float
    lifted_at: At | Literal[""] = ""
    site: str = ""


class Evidence(Frozen):
    """A bundle that was written: when, by whom, and the digest of its bytes."""

    at: At
    by: str
    digest: Hex64


class Notice(Frozen):
    """Somebody was told: an authority, or the people concerned.

    Attributes:
        at, by: when, and by whom it was recorded.
        to: whom, or why nobody had to be.
        reference: theirs.
        authority: whether it answers GDPR Art. 33. What people are told (Art. 34) doesn't.
    """

    at: At
    by: str
    to: Text
    reference: Annotated[str, Field(max_length=200)] = ""
    authority: bool = True


class Incident(Frozen):
    """One incident.

    Attributes:
        id: `inc-<year>-<number>`.
        title, severity, playbook: what it is, how bad, and which playbook is followed.
        personal_data: whether personal data is or may be concerned.
        known_at: when the site came to know of it; the clock runs from here.
        opened_at, opened_by: when it was written down, by whom.
        notes, contained, evidence, notices: what was done.
        closed_at, closed_by, summary: how it ended; empty while it goes on.
    """

    id: Id
    title: Annotated[str, Field(min_length=1, max_length=200)]
    severity: Severity
    playbook: Name
    personal_data: bool
    known_at: At
    opened_at: At
    opened_by: str
    notes: tuple[Note, ...] = ()
    contained: tuple[Containment, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    notices: tuple[Notice, ...] = ()
    closed_at: At | Literal[""] = ""
    closed_by: str = ""
    summary: Annotated[str, Field(max_length=4000)] = ""

    @property
    def deadline(self) -> datetime:
        """When the authority must know, where personal data is concerned."""
        return moment_of(self.known_at) + timedelta(hours=AUTHORITY_HOURS)

    @property
    def authority_told(self) -> tuple[Notice, ...]:
        """What the authority was told, or why it had not to be."""
        return tuple(one for one in self.notices if one.authority)

    def story(self) -> list[tuple[str, str, str]]:
        """What was found and done, in the order in which it was: when, by whom, what."""
        told = [(one.at, one.by, one.text) for one in self.notes]
        for held in self.contained:
            what, took = f"{held.kind} {held.name}", f"{held.durable_ms:.1f} ms"
            where = f" at {held.site}" if held.site else ""
            told.append((held.at, held.by, f"froze {what}{where}: on disk after {took}"))
            if held.lifted_at:
                told.append((held.lifted_at, "", f"{what} was let go{where}"))
        told += [(one.at, one.by, f"wrote evidence, SHA-256 {one.digest}") for one in self.evidence]
        for one in self.notices:
            whom = "the authority" if one.authority else "the people concerned"
            reference = f", reference {one.reference}" if one.reference else ""
            told.append((one.at, one.by, f"told {whom}: {one.to}{reference}"))
        if self.closed_at:
            told.append((self.closed_at, self.closed_by, f"closed: {self.summary}"))
        return sorted(told)

    def clock(self, now: datetime) -> str:
        """How the 72 hours stand, in words."""
        if not self.personal_data:
            return "no personal data concerned"
        if self.authority_told:
            told = min(moment_of(one.at) for one in self.authority_told)
            late = " (late)" if told > self.deadline else ""
            return f"told {_hours(told - moment_of(self.known_at))} after it was known{late}"
        if now > self.deadline:
            return f"OVERDUE by {_hours(now - self.deadline)}"
        return f"{_hours(self.deadline - now)} left of {AUTHORITY_HOURS} h"


class Register(Frozen):
    """What the sealed file holds."""

    incidents: dict[Id, Incident] = Field(default_factory=dict)


class Incidents:
    """A site's incidents.

    Args:
        folder: the site's folder.
        keys: the site's keys.
        audit: the site's log.
        clock: where the time comes from.
    """

    def __init__(
        self, folder: Path, keys: SiteKeys, audit: AuditLog, clock: Clock = system_clock
    ) -> None:
        self._file = SealedFile(folder / FILE, keys, "incidents")
        self._audit = audit
        self._clock = clock

    def list(self) -> dict[str, Incident]:
        """All incidents by id.

        Raises:
            IntegrityError: the register was changed.
        """
        values = self._file.read()
        if values is None:
            return {}
        try:
            return dict(parse_record(Register, values, where=FILE).incidents)
        except InputError as cause:
            raise IntegrityError("not a register of incidents", where=FILE) from cause

    def find(self, name: str) -> Incident:
        """One incident.

        Raises:
            InputError: there is none of this id.
        """
        incidents = self.list()
        if name not in incidents:
            known = ", ".join(incidents) or "none"
            raise InputError(
                f"there is no incident {name!r:.60}",
                why=f"here are: {known}",
                do="see `abfed incident show`",
            )
        return incidents[name]

    def find_open(self, name: str) -> Incident:
        """An incident that isn't closed.

        Raises:
            InputError: there is none of this id, or it is closed.
        """
        incident = self.find(name)
        if incident.closed_at:
            raise InputError("the incident is closed", where=name, do="open a new one")
        return incident

    def open(
        self,
        title: str,
        *,
        by: str,
        playbook: str,
        severity: Severity = "high",
        personal_data: bool = True,
        known_at: datetime | None = None,
    ) -> Incident:
        """Write a new incident down.

        Raises:
            InputError: a word of it is malformed, or it is to be known in the future.
        """
        now = self._clock()
        known = known_at or now
        if known > now:
            raise InputError("an incident can't be known in the future", where="known_at")
        with self._file.alone():
            incidents = self.list()
            number = 1 + sum(name.startswith(f"inc-{now.year}-") for name in incidents)
            values = {
                "id": f"inc-{now.year}-{number:03d}",
                "title": title,
                "severity": severity,
                "playbook": playbook,
                "personal_data": personal_data,
                "known_at": stamp(known),
                "opened_at": stamp(now),
                "opened_by": by,
            }
            incident = parse_record(Incident, values, where="incident")
            self._audit.append(
                "incident.opened", incident=incident.id, playbook=playbook, severity=severity, by=by
            )
            self._write(incidents | {incident.id: incident})
        return incident

    def note(self, name: str, text: str, *, by: str) -> Incident:
        """Add a note."""
        made = parse_record(Note, {"at": self._now(), "by": by, "text": text}, where=name)
        return self._change(
            name, "incident.noted", by, lambda one: {"notes": (*one.notes, made)}, {}
        )

    def contained(
        self, name: str, kind: str, what: str, *, site: str, by: str, durable_ms: float
    ) -> Incident:
        """Record that something was frozen at a site."""
        made = Containment(
            kind=kind, name=what, at=self._now(), by=by, durable_ms=durable_ms, site=site
        )
        return self._change(
            name,
            "incident.contained",
            by,
            lambda one: {"contained": (*one.contained, made)},
            {"kind": kind, "name": what},
        )

    def lifted(self, name: str, kind: str, what: str, *, site: str, by: str) -> Incident:
        """Record that something was let go at a site; also after the incident was closed."""
        now = self._now()

        def change(one: Incident) -> dict[str, object]:
            return {
                "contained": tuple(
                    each.model_copy(update={"lifted_at": now})
                    if (each.kind, each.name, each.lifted_at) == (kind, what, "")
                    and each.site in (site, "")
                    else each
                    for each in one.contained
                )
            }

        facts = {"kind": kind, "name": what}
        return self._change(name, "incident.lifted", by, change, facts, afterwards=True)

    def bundled(self, name: str, digest: str, *, by: str) -> Incident:
        """Record that evidence was written; also after the incident was closed."""
        made = Evidence(at=self._now(), by=by, digest=digest)
        return self._change(
            name,
            "incident.evidence",
            by,
            lambda one: {"evidence": (*one.evidence, made)},
            {"digest": digest},
            afterwards=True,
        )

    def told(
        self, name: str, to: str, reference: str, *, by: str, authority: bool = True
    ) -> Incident:
        """Record that an authority, or the people concerned, were told.

        Args:
            name: the incident.
            to: whom, or why nobody had to be.
            reference: theirs.
            by: who says so.
            authority: whether it was the authority: only that stops its clock.
        """
        values = {
            "at": self._now(), "by": by, "to": to, "reference": reference, "authority": authority
        }  # fmt: skip
        made = parse_record(Notice, values, where=name)
        return self._change(
            name, "incident.told", by, lambda one: {"notices": (*one.notices, made)}, {}
        )

    def close(self, name: str, summary: str, *, by: str) -> Incident:
        """End an incident. What is frozen stays so: a key that others know is never used again.

        Raises:
            InputError: there is no summary, or nobody was told and personal data is concerned.
        """
        if not summary.strip():
            raise InputError("an incident is closed with a summary", where=name)
        incident = self.find(name)
        if incident.personal_data and not incident.authority_told:
            whom = "the authority was not told" if incident.notices else "nobody was told"
            raise InputError(
                f"{whom}, and personal data is concerned",
                where=name,
                do="`abfed incident told`, also to record why no notice was due",
            )
        now = self._now()
        return self._change(
            name,
            "incident.closed",
            by,
            lambda _: {"closed_at": now, "closed_by": by, "summary": summary},
            {},
        )

    def _now(self) -> str:
        return stamp(self._clock())

    def _change(
        self,
        name: str,
        event: str,
        by: str,
        change: Callable[[Incident], dict[str, object]],
        facts: dict[str, str],
        *,
        afterwards: bool = False,
    ) -> Incident:
        with self._file.alone():
            incidents = self.list()
            incident = self.find(name) if afterwards else self.find_open(name)
            changed = incident.model_copy(update=change(incident))
            self._audit.append(event, incident=name, by=by, **facts)
            self._write(incidents | {name: changed})
        return changed

    def _write(self, incidents: dict[str, Incident]) -> None:
        self._file.write(Register(incidents=incidents).model_dump(mode="json"))


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} h"
