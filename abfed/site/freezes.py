"""What was frozen at a site, to contain an incident (S15).

A freeze is on disk, sealed and logged, before it is reported as made, and the list is read again
for each message: it takes effect at the next one. The first message that it refused is kept with
it, and so the time from the decision to the effect. People are frozen too, by `abfed.site.stops`,
which are about access in general.

What cannot be read is a no: a damaged list refuses everything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError, Refused
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

FILE = "freezes.sealed"
SHAPES = {"key": 32, "model": 64, "plan": 64}
"""Hex digits of what is named by a digest: another word would freeze nothing."""

Kind = Literal["silo", "key", "model", "plan", "vendor"]
"""What can be frozen: a site by its name, a signing key by its id, a model by its digest, a plan by
its digest, a vendor by its name in the register."""


class Freeze(Frozen):
    """Something was frozen.

    Attributes:
        kind, name: what.
        at, by, reason: when, by whom, why.
        durable_ms: how long it took until it was on disk; 0 where that was interrupted.
        refused_at: when a message was first refused for it.
    """

    kind: Kind
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    at: At
    by: str
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    durable_ms: float = 0.0
    refused_at: At | Literal[""] = ""

    @property
    def refused_after_ms(self) -> float | None:
        """Time between the freeze and the first message that was refused for it."""
        if not self.refused_at:
            return None
        return (moment_of(self.refused_at) - moment_of(self.at)).total_seconds() * 1000


class FreezeList(Frozen):
    """What the sealed file holds."""

    freezes: tuple[Freeze, ...] = ()


class Freezes:
    """What is frozen at a site.

    Args:
        folder: the site's folder.
        keys: the site's keys.
        clock: where the time comes from.
    """

    def __init__(self, folder: Path, keys: SiteKeys, clock: Clock = system_clock) -> None:
        self._file = SealedFile(folder / FILE, keys, "freezes")
        self._clock = clock

    def list(self) -> tuple[Freeze, ...]:
        """What is frozen, in the order in which it was.

        Raises:
            IntegrityError: the list was changed.
        """
        values = self._file.read()
        if values is None:
            return ()
        try:
            return parse_record(FreezeList, values, where=FILE).freezes
        except InputError as cause:
            raise IntegrityError("not a list of freezes", where=FILE) from cause

    def freeze(self, kind: Kind, name: str, audit: AuditLog, *, by: str, reason: str) -> Freeze:
        """Freeze something from the next message on; on disk when this returns.

        Raises:
            InputError: it is frozen already, or the name can't be one.
        """
        began, at = time.perf_counter(), stamp(self._clock())
        values = {"kind": kind, "name": name, "at": at, "by": by, "reason": reason}
        made = parse_record(Freeze, values, where=f"{kind} {name!r:.80}")
        expected = SHAPES.get(kind)
        if expected is not None and not re.fullmatch(f"[0-9a-f]{{{expected}}}", name):
            raise InputError(f"{name!r:.80} is no {kind}: it has {expected} hex digits")
        with self._file.alone():
            others = self.list()
            for one in others:
                if (one.kind, one.name) == (kind, name):
                    raise InputError(f"{kind} {name} is frozen already", why=f"for {one.reason}")
            audit.append("freeze.made", kind=kind, name=name, by=by)
            self._write((*others, made))
            took = round((time.perf_counter() - began) * 1000, 3)
            timed = made.model_copy(update={"durable_ms": took})
            self._write((*others, timed))
        return timed

    def lift(self, kind: Kind, name: str, audit: AuditLog, *, by: str) -> None:
        """Let it be used again.

        Raises:
            InputError: it is not frozen.
        """
        with self._file.alone():
            before = self.list()
            after = tuple(one for one in before if (one.kind, one.name) != (kind, name))
            if after == before:
                raise InputError(f"{kind} {name} is not frozen here")
            audit.append("freeze.lifted", kind=kind, name=name, by=by)
            self._write(after)

    def check(self, named: Mapping[Kind, str]) -> None:
        """Refuse what is frozen.

        Args:
            named: what a message is about, by kind.

        Raises:
            Refused: one of these is frozen; the code is `frozen`.
            IntegrityError: the list was changed.
        """
        for one in self.list():
            if named.get(one.kind) == one.name:
                self._refused(one)
                raise Refused(
                    f"{one.kind} {one.name[:16]} is frozen",
                    code="frozen",
                    do="ask the site's security officer; see `abfed incident show`",
                )

    def _refused(self, freeze: Freeze) -> None:
        """Note the first message that was refused because of a freeze."""
        if freeze.refused_at:
            return
        now = stamp(self._clock())
        with self._file.alone():
            self._write(
                tuple(
                    one.model_copy(update={"refused_at": now})
                    if (one.kind, one.name, one.at) == (freeze.kind, freeze.name, freeze.at)
                    else one
                    for one in self.list()
                )
            )

    def _write(self, freezes: tuple[Freeze, ...]) -> None:
        self._file.write(FreezeList(freezes=freezes).model_dump(mode="json"))
