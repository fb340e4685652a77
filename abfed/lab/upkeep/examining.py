"""What `abfed doctor` looks at in one site: files, keys, logs, policy, people, dates.

Every check gives findings with evidence, and the fix. A check that cannot be made is a finding too.
None shows content: names, modes, dates and counts of files only.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from abfed.lab.incidents.responding import incidents_of, vendors_of
from abfed.lab.models import damaged_models
from abfed.lab.offices import Office
from abfed.lab.upkeep.backups import BACKUP_DAYS, backed_up, forgotten_since
from abfed.lab.upkeep.strays import strays
from abfed.protocol.errors import AbfedError
from abfed.protocol.printable import counted
from abfed.silo.checking import check_silo
from abfed.silo.policy import Policy
from abfed.silo.requests import open_by_day
from abfed.site.certificates import expiry
from abfed.site.checkups import Finding
from abfed.site.clock import moment_of, stamp
from abfed.site.files import ASIDE, FILE_MODE, FOLDER_MODE, destroy_file
from abfed.site.rights import AccessPolicy
from abfed.site.ring import changing, read_ring

KEY_DAYS = 365
WITHDRAWN = "withdrawn"  # where a federation keeps certificates that were revoked
SOON = timedelta(days=14)
ANSWER_SOON = timedelta(days=7)
LEFT_BEHIND = timedelta(hours=1)
KEYS = "keys"  # a site's folder of keys: what is left aside there is looked at more closely
LARGEST_EPSILON = 10.0
"""A budget above this says little to a recipient; the doctor asks whether it is meant."""

OPEN = frozenset(
    {
        "audit.jsonl",
        "policy.yaml",
        "access.yaml",
        "openid.yaml",
        "silos.json",
        "site.json",
        "readers.json",
    }
)
"""Files of a site that are not sealed: signed or written by people, public, or the key itself."""
DATA = frozenset({".csv", ".tsv", ".xlsx", ".json", ".txt", ".pickle", ".pkl", ".npy"})
"""Endings of files that people put beside a site's own; none of these is sealed."""

Check = Callable[[Office, datetime], Iterator[Finding]]


def _modes(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """A folder and all in it, links as such; but not what is gone since it was listed.

    A site that answers meanwhile writes files aside and renames them.
    """
    for path in (folder, *sorted(folder.rglob("*"))):
        with suppress(FileNotFoundError):
            yield path, path.lstat()


def permissions(folder: Path) -> Iterator[Finding]:
    """Files and folders of a site that others can read or write (S4)."""
    for path, state in _modes(folder):
        if stat.S_ISLNK(state.st_mode):
            yield Finding(
                check="permissions",
                severity="high",
                what=f"{_place(folder, path)} is a link to somewhere else",
                fix="find out who made it",
            )
            continue
        mode = stat.S_IMODE(state.st_mode)
        if mode & 0o077:
            wanted = FOLDER_MODE if stat.S_ISDIR(state.st_mode) else FILE_MODE
            yield Finding(
                check="permissions",
                severity="critical",
                what=f"{_place(folder, path)}: mode {mode:04o}, others may have read or changed it",
                fix=f"chmod {wanted:o}, and find out who had access",
                safe=True,
            )


def leftovers(folder: Path, now: datetime) -> Iterator[Finding]:
    """Files that a crash left behind, and files that nobody knows."""
    for path, state in _modes(folder):
        inside = any(one.startswith(ASIDE) for one in path.relative_to(folder).parts[:-1])
        aside = path.name.startswith(ASIDE)
        is_folder = stat.S_ISDIR(state.st_mode)
        if path == folder or inside or not (stat.S_ISREG(state.st_mode) or (aside and is_folder)):
            continue
        if aside:
            age = now - datetime.fromtimestamp(state.st_mtime, now.tzinfo)
            if path.parent.name == KEYS:
                yield Finding(
                    check="leftovers",
                    severity="medium",
                    what=f"{_place(folder, path)} was left by a killed change of keys: may be one",
                    fix="it is overwritten and removed when somebody next acts at the site",
                    safe=True,
                )
            elif age > LEFT_BEHIND:
                yield Finding(
                    check="leftovers",
                    severity="low",
                    what=f"{_place(folder, path)} was left by a crash {age.days} days ago",
                    fix="remove it",
                    safe=True,
                )
        elif path.suffix.lower() in DATA and path.name not in OPEN:
            yield Finding(
                check="leftovers",
                severity="high",
                what=f"{_place(folder, path)} is not a file of abfed's, and not sealed",
                fix="move it away, or find out what it is",
            )


def seals(office: Office, now: datetime) -> Iterator[Finding]:
    """Everything sealed, signed or chained, opened and checked."""
    del now
    try:
        office.audit.verify()
        incidents_of(office).list()
        vendors_of(office).list()
        office.stops.list()
        office.people.register()
    except AbfedError as error:
        yield Finding(check="seals", severity="critical", what=str(error)[:500])
    if not _is_silo(office.folder):
        return
    for part in check_silo(office.folder):
        if not part.holds:
            yield Finding(
                check="seals",
                severity="critical",
                what=f"{part.part}: {part.what}"[:500],
                fix="restore what is named from a backup, or find out who changed it",
            )


def keys(office: Office, now: datetime) -> Iterator[Finding]:
    """How old the site's keys are."""
    ring = read_ring(office.folder / "keys")
    days = (now - moment_of(ring.current.made_at)).days
    if days > KEY_DAYS:
        yield Finding(
            check="keys",
            severity="medium",
            what=f"the key-encryption key is {days} days old",
            fix="`abfed keys rotate`",
        )


def certificates(office: Office, now: datetime) -> Iterator[Finding]:
    """Certificates that run out soon: of a coordinator's whole workspace, nodes of its silos too.

    What lies beside a silo elsewhere is nobody's to look through.
    """
    home = office.folder if _is_silo(office.folder) else office.folder.parent
    for path in sorted((*home.rglob("*.pem"), *home.rglob("*.crt"))):
        if path.parent.name == WITHDRAWN:
            continue
        try:
            ends = expiry(path.read_bytes())  # whatever its mode: it is public
        except ValueError:
            continue  # a request or a key: not a certificate
        if ends - now < SOON:
            gone = ends < now
            yield Finding(
                check="certificates",
                severity="high" if gone else "medium",
                what=f"{path.name} {'ran' if gone else 'runs'} out on {ends:%Y-%m-%d}",
                fix="`abfed provision renew`",
            )


def policy(office: Office, now: datetime) -> Iterator[Finding]:
    """Holes in a silo's policy."""
    del now
    path = office.folder / "policy.yaml"
    if not path.exists():
        yield from access(office.place().policy, synthetic=False)
        return
    try:
        held = Policy.load(path)
    except AbfedError as error:
        yield Finding(
            check="policy", severity="critical", what=error.what[:500], fix=error.do[:300]
        )
        return
    yield from access(held.access, synthetic=held.synthetic)
    checks = {
        f"the budget is ε = {held.budget.epsilon:g}": held.budget.epsilon > LARGEST_EPSILON,
        "one plan may spend the whole budget": held.per_plan.epsilon >= held.budget.epsilon,
        "cells of fewer than 10 recipients are released": held.minimum_recipients < 10,
        "no purpose is allowed, so nothing can be asked": not held.purposes,
        "no coordinator is heard, so nothing can be asked": not held.coordinators,
        "no ε is kept for re-runs after an erasure": held.rerun_reserve == 0,
        "no check-up is required for runs": held.checkup_within_days is None,
    }
    high = {"one plan may spend the whole budget", "cells of fewer than 10 recipients are released"}
    for what, wrong in checks.items():
        if wrong and not (held.synthetic and what not in high):
            severity = "high" if what in high else "low"
            yield Finding.model_validate(
                {"check": "policy", "severity": severity, "what": what, "fix": "edit policy.yaml"}
            )


def access(held: AccessPolicy, *, synthetic: bool) -> Iterator[Finding]:
    """Holes in who may do what."""
    if held.development_people and not synthetic:
        yield Finding(
            check="access",
            severity="high",
            what="made-up people, whose secrets lie in files, are heard",
            fix="development_people: false",
        )
    if not held.rights:
        yield Finding(check="access", severity="medium", what="nobody may do anything")
    if ("swk",) in held.factors and len(held.factors) == 1:
        yield Finding(check="access", severity="high", what="a key alone suffices to sign in")
    asked = held.four_eyes
    if asked.epsilon_above is None and asked.settled_purposes is None:
        yield Finding(
            check="access",
            severity="low",
            what="no plan needs a second person",
            fix="four_eyes: in the policy",
        )


def people(office: Office, now: datetime) -> Iterator[Finding]:
    """Reviews that are late, grants that ran out, people who are locked out."""
    late = office.alert_overdue()
    if late > 0:
        yield Finding(
            check="people",
            severity="high",
            what=f"the access review is {late} days late",
            fix="`abfed access review`",
        )
    for name, one in sorted(office.people.register().people.items()):
        gone = [grant.role for grant in one.grants if moment_of(grant.expires_at) < now]
        if gone and not one.stopped_at and one.kind != "provider":  # theirs end with each session
            yield Finding(
                check="people",
                severity="low",
                what=f"{name}: the grant of {', '.join(gone)} has run out and is still listed",
                fix="`abfed access review`",
            )


def vendors(office: Office, now: datetime) -> Iterator[Finding]:
    """Vendors whose review or agreement ends."""
    del now
    for name in vendors_of(office).overdue(SOON.days):
        yield Finding(
            check="vendors",
            severity="medium",
            what=f"the review or agreement of {name} ends within {SOON.days} days, or has ended",
            fix="review it, propose and approve it anew",
        )


def requests(office: Office, now: datetime) -> Iterator[Finding]:
    """People's requests that had to be answered, or must be within a week (S1b)."""
    today, horizon = stamp(now)[:10], stamp(now + ANSWER_SOON)[:10]
    for day, count in open_by_day(office.folder, office.keys).items():
        late = day < today
        if day <= horizon:
            must = "had to" if late else "must"
            yield Finding(
                check="requests",
                severity="high" if late else "medium",
                what=f"{counted(count, 'request of people')} {must} be answered by {day}",
                fix="`abfed silo subject due`, and answer them",
            )


def backups(office: Office, now: datetime) -> Iterator[Finding]:
    """How old a silo's newest backup is, and what one that was put back forgot, by its own log."""
    since = forgotten_since(office.audit)
    if since is not None:
        yield Finding(
            check="backups",
            severity="high",
            what=f"put back from a backup of {since:%Y-%m-%d}: what people asked since is undone",
            fix="carry out again what was asked since (`abfed silo subject`), then back up anew",
        )
    at, ever = backed_up(office.audit)
    if not _is_silo(office.folder) or at is None or now - at <= timedelta(days=BACKUP_DAYS):
        return
    days = (now - at).days
    yield Finding(
        check="backups",
        severity="medium",
        what=f"the newest backup is {days} days old" if ever else f"no backup for {days} days",
        fix="`abfed silo backup`",
    )


def models(office: Office, now: datetime) -> Iterator[Finding]:
    """Every model of a registry, or kept in a silo, opened and checked (S10)."""
    del now
    for name, what in damaged_models(office).items():
        yield Finding(
            check="models",
            severity="critical",
            what=f"{name}: {what}"[:500],
            fix="train it again, or restore it; find out who changed it",
        )


FILE_CHECKS = ("permissions", "leftovers")
SITE_CHECKS: dict[str, Check] = {
    "seals": seals,
    "strays": strays,
    "keys": keys,
    "certificates": certificates,
    "policy": policy,
    "people": people,
    "vendors": vendors,
    "requests": requests,
    "backups": backups,
    "models": models,
}


def examine_files(folder: Path, now: datetime) -> Iterator[Finding]:
    """What can be seen of a site without its keys."""
    yield from permissions(folder)
    yield from leftovers(folder, now)


def examine(office: Office, now: datetime) -> Iterator[Finding]:
    """What can be seen of a site with its keys; a check that can't be made is a finding."""
    for name, check in SITE_CHECKS.items():
        try:
            yield from check(office, now)
        except (AbfedError, OSError) as error:
            what = error.what if isinstance(error, AbfedError) else str(error.strerror)
            yield Finding(check=name, severity="high", what=f"could not be checked: {what}"[:500])


def mend(folder: Path, now: datetime) -> int:
    """Do what is safe: narrow modes, remove what crashes left. Returns how many were mended."""
    mended = 0
    for path, state in _modes(folder):
        if not stat.S_ISLNK(state.st_mode) and stat.S_IMODE(state.st_mode) & 0o077:
            path.chmod(FOLDER_MODE if stat.S_ISDIR(state.st_mode) else FILE_MODE)
            mended += 1
    for path, state in _modes(folder):
        if not path.name.startswith(ASIDE) or stat.S_ISLNK(state.st_mode):
            continue
        age = now - datetime.fromtimestamp(state.st_mtime, now.tzinfo)
        if path.parent.name == KEYS and stat.S_ISREG(state.st_mode):
            with changing(path.parent):  # not one that is being written at this moment
                destroy_file(path)
        elif age <= LEFT_BEHIND:
            continue
        elif stat.S_ISDIR(state.st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
        mended += 1
    return mended


def _is_silo(folder: Path) -> bool:
    """Whether a site is a silo, or what is left of one; else it is a coordinator."""
    return any((folder / name).exists() for name in ("ledger.db", "policy.yaml", "store"))


def _place(folder: Path, path: Path) -> str:
    """A file by its place in the site; the site's own folder by its name."""
    inside = path.relative_to(folder)
    return str(inside) if inside.parts else folder.name
