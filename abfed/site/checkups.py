"""Dated records of a site's check-ups (S7, S19): what `abfed doctor` found, when, by which version.

Each record is kept, signed by the site. The last one is also in a small sealed file that a silo's
gate reads: where the policy says `checkup_within_days`, a silo whose last check-up is older, or
found something critical, answers nothing until it is looked after.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from abfed import __version__
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.declared import parse_record
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import Refused
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.site.alarms import Severity
from abfed.site.audit import AuditLog
from abfed.site.clock import moment_of, stamp
from abfed.site.files import make_own_folder, read_private, write_private
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

FOLDER = "checkups"
LAST = "checkup-last.sealed"
CLOCKS_DIFFER = timedelta(minutes=5)
Worst = Severity | Literal["none"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


class Finding(Frozen):
    """Something that a check found.

    Attributes:
        check: which one.
        severity: how bad.
        what: what is so, with evidence: names, dates, modes; never content.
        fix: what to do.
        safe: whether `--fix` can do it without losing anything.
        fixed: whether it did.
    """

    check: Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$")]
    severity: Severity
    what: Annotated[str, Field(max_length=500)]
    fix: Annotated[str, Field(max_length=300)] = ""
    safe: bool = False
    fixed: bool = False


class Last(Frozen):
    """The last check-up: when, and the worst that it left."""

    at: At
    worst: Worst


def worst_of(findings: Sequence[Finding]) -> Worst:
    """The worst severity that is left."""
    left = [one.severity for one in findings if not one.fixed]
    return max(left, key=SEVERITIES.index) if left else "none"


class Checkups:
    """A site's check-ups.

    Args:
        folder: the site's folder.
        keys: the site's keys.
    """

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        self._folder = folder
        self._keys = keys
        self._last = SealedFile(folder / LAST, keys, "checkup")

    def keep(
        self, checks: Sequence[str], findings: Sequence[Finding], audit: AuditLog, now: datetime
    ) -> Path:
        """Keep a record, signed; returns its file.

        Args:
            checks: every check that was made, whether it found something or not.
            findings: what they found.
            audit: the site's log.
            now: when.
        """
        record = {
            "site": self._keys.site,
            "at": stamp(now),
            "abfed": __version__,
            "checks": list(checks),
            "worst": worst_of(findings),
            "findings": [one.model_dump(mode="json") for one in findings],
        }
        folder = self._folder / FOLDER
        make_own_folder(folder)
        path = folder / f"{stamp(now)[:19].replace(':', '')}.checkup"
        write_private(path, self._keys.sign("checkup", canonical_bytes(record)))
        audit.append("checkup.done", worst=worst_of(findings), findings=len(findings))
        last = Last(at=stamp(now), worst=worst_of(findings))
        self._last.write(last.model_dump(mode="json"))
        return path

    def records(self) -> list[dict[str, Any]]:
        """All records, oldest first, each one's signature checked.

        Raises:
            IntegrityError: one was changed.
        """
        trusted = {self._keys.key_id: self._keys.public_key}
        found = []
        for path in sorted((self._folder / FOLDER).glob("*.checkup")):
            content = open_envelope(
                read_private(path), trusted, kind="checkup", where=path.name
            ).content
            found.append(parse_canonical(content, where=path.name))
        return found

    def last(self) -> Last | None:
        """The last check-up; None where there was none."""
        values = self._last.read()
        return None if values is None else parse_record(Last, values, where=LAST)

    def require(self, days: int | None, now: datetime) -> None:
        """Refuse where the policy asks for a check-up and the last one does not do.

        Raises:
            Refused: there is none, it is too old, or it left something critical.
        """
        if days is None:
            return
        last = self.last()
        if last is None or now - moment_of(last.at) > timedelta(days=days):
            raise Refused("the last check-up is too old", code="checkup", do="`abfed doctor`")
        if moment_of(last.at) - now > CLOCKS_DIFFER:  # else it would never be too old
            raise Refused(
                "the last check-up lies in the future",
                code="checkup",
                why="the site's clock went back",
                do="see to its time service; then `abfed doctor`",
            )
        if last.worst == "critical":
            raise Refused("the last check-up left something critical", code="checkup")


def read_record(path: Path, public_key: bytes) -> dict[str, Any]:
    """A record of another site, its signature checked.

    Raises:
        IntegrityError: it was changed, or is not of that site.
    """
    trusted = {key_id(public_key): public_key}
    content = open_envelope(read_private(path), trusted, kind="checkup", where=path.name).content
    record: dict[str, Any] = parse_canonical(content, where=path.name)
    return record
