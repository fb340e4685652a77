"""The doctor (S7, S18, S19): every check of a site and of the installation, on record.

A site whose keys can't be opened is examined by its files alone, and that is a finding. What is
safe to mend is mended only when asked, and then looked at again; the record says what was found and
what was fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from abfed.lab.incidents.playbook import playbooks
from abfed.lab.offices import Office
from abfed.lab.upkeep.examining import (
    FILE_CHECKS,
    LEFT_BEHIND,
    SITE_CHECKS,
    examine,
    examine_files,
    mend,
)
from abfed.lab.upkeep.strays import clear_strays, strays
from abfed.lab.upkeep.supply import advisories, lock_age, lock_drift
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import AbfedError, InputError, IntegrityError
from abfed.site.checkups import SEVERITIES, Checkups, Finding, worst_of

LAB = "lab"
LAB_CHECKS = ("lock-drift", "lock-age", "advisories", "playbooks", "unfinished")


class CheckUp(NamedTuple):
    """One place's check-up.

    Attributes:
        place: the site, or `lab` for the installation.
        checks: every check that was made.
        findings: worst first.
        record: where it is kept; None for the lab, and for a site whose keys can't be opened.
    """

    place: str
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    record: Path | None

    @property
    def worst(self) -> str:
        """The worst severity that is left."""
        return worst_of(self.findings)


def opened_for_check(path: Path, now: datetime, *, fix: bool) -> Workspace:
    """The workspace; with `fix`, also where files of it are open to others: narrowed first.

    Raises:
        WorkspaceError, IntegrityError: it can't be opened.
    """
    try:
        return Workspace(path)
    except IntegrityError:
        if not fix or not mend(path, now):
            raise
        return Workspace(path)


def check_up(workspace: Workspace, site: str, now: datetime, *, fix: bool = False) -> CheckUp:
    """Examine one site, and keep the record.

    Args:
        workspace: where it is.
        site: which.
        now: when.
        fix: whether to do what is safe.
    """
    try:
        folder = workspace.coordinator if site == "coordinator" else workspace.silo_folder(site)
    except AbfedError as error:  # it is lost: the other places are looked at all the same
        if site not in workspace.silos:
            raise
        return CheckUp(site, FILE_CHECKS, (_unopened(error),), None)
    findings = list(examine_files(folder, now))
    if fix and any(one.safe for one in findings):
        mend(folder, now)
        left = {one.what for one in examine_files(folder, now)}
        findings = [
            one.model_copy(update={"fixed": one.safe and one.what not in left}) for one in findings
        ]
    try:
        office = workspace.office(site)
    except AbfedError as error:
        findings.append(_unopened(error))
        return CheckUp(site, FILE_CHECKS, _worst_first(findings), None)
    findings += _examined(office, now, fix=fix)
    checks = (*FILE_CHECKS, *SITE_CHECKS, "access")  # the policy's check looks at access too
    return CheckUp(site, checks, _worst_first(findings), _kept(office, checks, findings, now))


def _examined(office: Office, now: datetime, *, fix: bool) -> list[Finding]:
    """What is found with the site's keys; with `fix`, what is safe is done, and looked at again."""
    found = list(examine(office, now))
    if not fix or not any(one.safe for one in found):
        return found
    clear_strays(office)
    left = {one.what for one in strays(office, now)}
    return [one.model_copy(update={"fixed": one.safe and one.what not in left}) for one in found]


def check_lab(workspace: Path, now: datetime) -> CheckUp:
    """Examine the installation, and what belongs to no site."""
    findings = [
        *lock_drift(),
        *lock_age(now.date()),
        *advisories(),
        *_playbooks(workspace, now),
        *_unfinished(workspace, now),
    ]
    return CheckUp(LAB, LAB_CHECKS, _worst_first(findings), None)


def _kept(
    office: Office, checks: Sequence[str], findings: Sequence[Finding], now: datetime
) -> Path | None:
    try:
        return Checkups(office.folder, office.keys).keep(checks, findings, office.audit, now)
    except AbfedError:
        return None  # a damaged site can't keep it; `seals` says what is damaged


def _unopened(error: AbfedError) -> Finding:
    return Finding(
        check="seals",
        severity="critical",
        what=f"the site can't be opened: {error}"[:500],
        fix=error.do[:300],
    )


def _playbooks(workspace: Path, now: datetime) -> list[Finding]:
    try:
        known = playbooks(workspace).values()
    except InputError as error:
        return [Finding(check="playbooks", severity="medium", what=error.what[:500])]
    return [
        Finding(
            check="playbooks",
            severity="medium",
            what=f"{one.name} was last reviewed on {one.reviewed_on}",
            fix=f"its owner ({one.owner}) reads it through, and drills it",
        )
        for one in known
        if one.due_on <= now.date()
    ]


def _unfinished(workspace: Path, now: datetime) -> list[Finding]:
    """Silos that were being founded or put back when that was killed: keys and rows in no place."""
    return [
        Finding(
            check="unfinished",
            severity="high",
            what=f"silos/{path.name} was left half made: keys and rows that no silo answers for",
            fix="ask again for what was interrupted, or remove the folder",
        )
        for path in sorted((workspace / "silos").glob(".*"))
        if path.is_dir()
        and now - datetime.fromtimestamp(path.stat().st_mtime, now.tzinfo) > LEFT_BEHIND
    ]


def _worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: (one.fixed, -SEVERITIES.index(one.severity))))
