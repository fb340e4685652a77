"""Backing a silo up, and putting it back without putting its budget back.

A backup is consistent: the log first, then the ledger (which may only be newer), then the store
under its writers' lock. It is sealed under a passphrase, keys included. The log says that one was
begun before anything is written, and that there is one (`silo.backed-up`) when it is whole on disk:
one that was interrupted counts for nobody, and its place can be used again.

Restoring an old backup would forget what was charged since. So whoever restores shows what a
coordinator saw of the silo (`abfed audit anchors`, signed by a coordinator that the backup's own
policy trusts), and a backup whose log lacks one of these heads is refused. That holds also where
files are copied by hand: each request names the newest head that the coordinator saw, and a silo
that lacks it refuses (see `coordinator/anchors.py`).

An old backup also forgets who was erased since. What people asked is carried in a file of its own
(`silo/carrying`) and done again before the silo has its place. Where it is left out, the doctor
says so until the silo is backed up anew.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from abfed.lab.coordination import pin_silo
from abfed.lab.upkeep.auditing import read_anchors, seen_here
from abfed.lab.workspace import LOCK, Workspace
from abfed.protocol.documents import is_file
from abfed.protocol.errors import AbfedError, IntegrityError, WorkspaceError
from abfed.silo.buckets import BucketFiles
from abfed.silo.carrying import take_up
from abfed.silo.checking import check_silo
from abfed.silo.policy import Policy
from abfed.silo.service import SiloPaths
from abfed.site.anchors import Anchor, verify_against
from abfed.site.archive import check_passphrase, read_archive, write_archive
from abfed.site.audit import AuditLog
from abfed.site.clock import moment_of
from abfed.site.files import ASIDE, FILE_MODE, alone, check_place, flush_folder, make_private_folder
from abfed.site.keys import SiteKeys

RESTORED = "silo.restored"
BACKED_UP = "silo.backed-up"
LEFT_OUT = (ASIDE, "cache-", ".")
LEDGER = ("ledger.db", "ledger.db-wal", "ledger.db-shm")
BACKUP_DAYS = 31
"""How old the newest backup of a silo may be before the doctor and the watch say so."""


class BackUp(NamedTuple):
    """A backup that was made."""

    silo: str
    files: int
    size: int


def back_up(workspace: Workspace, silo: str, path: Path, passphrase: str, *, by: str) -> BackUp:
    """Write a silo into one sealed file.

    Raises:
        WorkspaceError: there is a file already.
        InputError: the passphrase is too short.
        IntegrityError: the silo is damaged: mend it first.
    """
    if path.exists():
        raise WorkspaceError("there is a file already", where=str(path), do="name another one")
    check_place(path)
    folder = workspace.silo_folder(silo)
    check_passphrase(passphrase)
    _refuse_damaged(folder)
    paths = SiloPaths(folder)
    keys = SiteKeys.open(paths.keys)
    audit = AuditLog(paths.audit, keys, workspace.clock)
    audit.append("silo.backup-begun", by=by)
    log = paths.audit.read_bytes()
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=ASIDE) as scratch,
            BucketFiles(paths.store, keys).exclusive(wait=True),
            _written_anew(aside) as file,
        ):
            ledger = Path(scratch) / "ledger.db"
            _copy_ledger(paths.ledger, ledger)
            members = _members(folder, log[: log.rindex(b"\n") + 1], ledger)
            count = write_archive(file, passphrase, members)
            file.flush()
            os.fsync(file.fileno())
            aside.replace(path)
            flush_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)
    audit.append(BACKED_UP, by=by)
    return BackUp(silo, count, path.stat().st_size)


@contextmanager
def _written_anew(aside: Path) -> Iterator[BinaryIO]:
    """A file for this writer alone; what a killed one left of it is removed."""
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        yield file


def backed_up(audit: AuditLog) -> tuple[datetime | None, bool]:
    """When a silo was backed up last, by its own signed log.

    Returns:
        The moment, and True; where it never was, the moment from which its log is kept, and False.
        No moment where the log is empty.
    """
    first: datetime | None = None
    last: datetime | None = None
    for entry in audit.entries():
        at = moment_of(entry["body"]["at"])
        first = first or at
        if entry["body"]["event"] == BACKED_UP:
            last = at
    return (first, False) if last is None else (last, True)


def forgotten_since(audit: AuditLog) -> datetime | None:
    """Until when a silo that was put back knows what people asked; None where it knows all.

    By its own log: it was put back without what people asked since, and not backed up anew yet.
    """
    before: datetime | None = None
    since: datetime | None = None
    for entry in audit.entries():
        body = entry["body"]
        if body["event"] == RESTORED:
            since = None if body["facts"].get("subjects") else since or before
        elif body["event"] == BACKED_UP:
            since = None
        before = moment_of(body["at"])
    return since


def restore(
    workspace: Workspace,
    silo: str,
    path: Path,
    passphrase: str,
    *,
    by: str,
    anchors: Path | None = None,
    subjects: Path | None = None,
) -> int:
    """Put a silo back from a backup, under its own name; returns how many files.

    Its place is where `abfed.yaml` lists it, or under `silos` where it is not listed.

    Args:
        workspace: where to; nothing may lie in the silo's place.
        silo: whose backup it is.
        path: the backup.
        passphrase: that it was made with.
        by: who restores.
        anchors: what a coordinator saw of the silo, signed; this workspace's own where left out.
        subjects: what people asked of it until it was lost (`abfed silo subject carry`).

    Raises:
        WorkspaceError: there is such a silo, the backup is another's, or the coordinator has
            another key pinned for this name.
        IntegrityError: the backup is damaged, or older than what the silo released since.
    """
    if not is_file(path):
        raise WorkspaceError("there is no such backup", where=str(path), do="check the path")
    target = _place(workspace, silo)
    with alone(workspace.path / LOCK):  # two at once would share what lies aside
        aside = target.with_name(f".{silo}.restoring")
        if aside.exists():
            shutil.rmtree(aside)  # a killed process left it
        make_private_folder(aside)
        try:
            with path.open("rb") as file:
                count = read_archive(file, passphrase, aside)
            keys = SiteKeys.open(aside / "keys")
            if keys.site != silo:
                raise WorkspaceError(f"the backup is of silo {keys.site!r}", where=str(path))
            (aside / "releases").mkdir(mode=0o700, exist_ok=True)
            if _is_there_already(workspace, target, aside, keys):
                if subjects is not None:
                    take_up(target, keys, subjects)  # it may have been left out before
            else:
                _refuse_damaged(aside)
                _refuse_older(workspace, aside, keys, anchors)
                if subjects is not None:
                    take_up(aside, keys, subjects)
                AuditLog(aside / "audit.jsonl", keys, workspace.clock).append(
                    RESTORED, by=by, subjects=subjects is not None
                )
                pin_silo(workspace.coordinator, workspace.audit, silo, keys.public_key, by=by)
                aside.rename(target)
                flush_folder(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    if silo not in workspace.silos:
        workspace.take_in(silo)
    return count


def _place(workspace: Workspace, silo: str) -> Path:
    """Where a silo is put back.

    Raises:
        WorkspaceError: the folder that holds its place is not there.
    """
    target = workspace.place_of(silo)
    if not target.parent.is_dir():
        raise WorkspaceError(
            f"the folder that silo {silo!r} would be put back into is not there",
            where=str(target.parent),
            why="abfed.yaml lists the silo in it, and its disk may only not be mounted",
            do="mount it, or correct the silo's folder in abfed.yaml",
        )
    return target


def _is_there_already(workspace: Workspace, target: Path, aside: Path, keys: SiteKeys) -> bool:
    """Whether a restoring of this backup that was killed left the silo in its place.

    Raises:
        WorkspaceError: something else lies there.
    """
    if not target.exists():
        return False
    if keys.site in workspace.silos:
        do = "move it away if it is damaged: only then it can be put back"
    else:
        do = "move it away, or name it under silos in abfed.yaml"
    with suppress(AbfedError):
        held = SiteKeys.open(target / "keys")
        last = list(AuditLog(target / "audit.jsonl", held).entries())[-1]
        head = AuditLog(aside / "audit.jsonl", keys).verify().head
        if (held.public_key, last["body"]["event"], last["previous"]) == (
            keys.public_key, RESTORED, head,
        ):  # fmt: skip
            return True
    raise WorkspaceError(
        f"a folder lies where silo {keys.site!r} would be put back: is it there already?",
        where=str(target),
        why="it is no restoring of this backup that was interrupted",
        do=do,
    )


def _refuse_damaged(folder: Path) -> None:
    broken = [f"{part.part}: {part.what}" for part in check_silo(folder) if not part.holds]
    if broken:
        raise IntegrityError("the silo is damaged", where=str(folder), why="; ".join(broken))


def _refuse_older(workspace: Workspace, folder: Path, keys: SiteKeys, file: Path | None) -> None:
    """Refuse a silo whose log lacks a head that was shown to a coordinator of its policy."""
    trusted = [one.public_key for one in Policy.load(folder / "policy.yaml").coordinators]
    if file is not None:
        anchors = _anchors_in(file, trusted)
    elif workspace.keys.public_key.hex() in trusted:
        anchors = list(seen_here(workspace))
    else:
        raise IntegrityError(
            "nobody says what this silo showed since the backup",
            why="an old backup would forget what was charged since",
            do="ask its coordinator for 'abfed audit anchors', and name the file with --anchors",
        )
    own = [one for one in anchors if one.of == keys.site]
    log = AuditLog(folder / "audit.jsonl", keys)
    try:
        verify_against(log, own, where=f"the backup of {keys.site}")
    except IntegrityError as older:
        raise IntegrityError(
            "the backup is older than what the silo has shown since",
            where=keys.site,
            why=f"{older.why}: its ledger would forget what that cost",
            do="restore a newer backup; without one this silo's budget can't be trusted again",
        ) from older


def _anchors_in(file: Path, trusted: list[str]) -> list[Anchor]:
    """Anchors from a file that one of the policy's coordinators signed."""
    for key in trusted:
        with suppress(IntegrityError):
            return read_anchors(file, key)
    raise IntegrityError("no coordinator of the backup's policy signed it", where=str(file))


def _copy_ledger(source: Path, target: Path) -> None:
    """A consistent copy of the ledger, while others may write."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as held,
        closing(sqlite3.connect(target)) as copy,
    ):
        held.backup(copy)


def _members(folder: Path, log: bytes, ledger: Path) -> Iterator[tuple[str, Path | bytes]]:
    yield "audit.jsonl", log
    yield "ledger.db", ledger
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.is_symlink() or name in ("audit.jsonl", *LEDGER):
            continue
        if not any(part.startswith(LEFT_OUT) for part in path.relative_to(folder).parts):
            yield name, path
