"""People who were stopped at a site, wherever they sign in (S13).

A stop is on disk, sealed and logged, before it is reported as made, and the list is read again for
each message: so it takes effect at the next one. The first message that was refused because of it
is kept too, with the time that lay between.

Who is let back is heard again from their next sign-in on: no session, token or approval of before
counts, whoever kept it. That moment is kept for good.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.site.access import TOLERANCE, Barred
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.keys import SiteKeys
from abfed.site.rights import Who
from abfed.site.sealedfile import SealedFile

FILE = "stops.sealed"


class Stop(Frozen):
    """Somebody was stopped.

    Attributes:
        at, by, reason: when, by whom, why.
        durable_ms: how long it took until it was on disk.
        refused_at: when a message of theirs was first refused for it.
    """

    at: At
    by: str
    reason: str
    durable_ms: float = 0.0
    refused_at: At | Literal[""] = ""

    @property
    def refused_after_ms(self) -> float | None:
        """Time between the stop and the first message that was refused for it."""
        if not self.refused_at:
            return None
        return (moment_of(self.refused_at) - moment_of(self.at)).total_seconds() * 1000


class StopList(Frozen):
    """What the sealed file holds: who is stopped, and from when on whoever was let back counts."""

    people: dict[Who, Stop] = Field(default_factory=dict)
    since: dict[Who, At] = Field(default_factory=dict)


class Stops:
    """The people who were stopped at a site.

    Args:
        folder: the site's folder.
        keys: the site's keys.
        clock: where the time comes from.
    """

    def __init__(self, folder: Path, keys: SiteKeys, clock: Clock = system_clock) -> None:
        self._file = SealedFile(folder / FILE, keys, "stops")
        self._site = keys.site
        self._clock = clock

    def list(self) -> dict[str, Stop]:
        """Who was stopped, when and why.

        Raises:
            IntegrityError: the list was changed.
        """
        return self._read().people

    def barred(self) -> Barred:
        """Whom the site doesn't hear, or only from a sign-in on.

        Raises:
            IntegrityError: the list was changed.
        """
        kept = self._read()
        return Barred(frozenset(kept.people), kept.since)

    def stop(self, who: str, audit: AuditLog, *, by: str, reason: str) -> Stop:
        """Stop a person from the next message on; on disk when this returns."""
        began, at = time.perf_counter(), stamp(self._clock())
        audit.append("access.revoked", person=who, by=by)
        with self._file.alone():
            self._put(who, Stop(at=at, by=by, reason=reason))
            took = round((time.perf_counter() - began) * 1000, 3)
            stop = Stop(at=at, by=by, reason=reason, durable_ms=took)
            self._put(who, stop)
        return stop

    def lift(self, who: str, audit: AuditLog, *, by: str) -> str:
        """Let a person ask again, from their next sign-in on.

        Returns:
            After which moment they must have signed in: now; for people of another site, whose
            clock may be ahead of ours, not before the stop is as old as clocks may be apart.

        Raises:
            InputError: they are not stopped.
        """
        with self._file.alone():
            kept = self._read()
            if who not in kept.people:
                raise InputError(f"{who} is not stopped here")
            since = self._clock()
            if not who.endswith(f"@{self._site}"):
                since = max(since, moment_of(kept.people[who].at) + TOLERANCE)
            audit.append("access.restored", person=who, by=by, since=stamp(since))
            people = {name: stop for name, stop in kept.people.items() if name != who}
            self._write(StopList(people=people, since=kept.since | {who: stamp(since)}))
        return stamp(since)

    def refused(self, who: str) -> None:
        """Note the first message that was refused because of a stop."""
        with self._file.alone():  # looked at within: who was let back meanwhile stays so
            stop = self.list().get(who)
            if stop is not None and not stop.refused_at:
                self._put(who, stop.model_copy(update={"refused_at": stamp(self._clock())}))

    def _put(self, who: str, stop: Stop) -> None:
        kept = self._read()
        self._write(kept.model_copy(update={"people": kept.people | {who: stop}}))

    def _read(self) -> StopList:
        values = self._file.read()
        if values is None:
            return StopList()
        try:
            return parse_record(StopList, values, where=FILE)
        except InputError as cause:
            raise IntegrityError("not a list of stopped people", where=FILE) from cause

    def _write(self, kept: StopList) -> None:
        self._file.write(kept.model_dump(mode="json"))
