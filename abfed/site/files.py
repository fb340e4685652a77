"""Private files (S4): folders 0700, files 0600, replaced whole or not at all.

A site refuses to work on files that others could read: a secret that was once readable has to be
treated as known.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from abfed.protocol.errors import IntegrityError, WorkspaceError

FOLDER_MODE = 0o700
FILE_MODE = 0o600
TOGETHER = 4  # files that are flushed at once: more gained nothing on the disks that were tried
ASIDE = ".aside-"
"""Prefix of files that are being written; one that is found at rest was left by a crash."""
AT_REST = 60.0  # seconds; no file takes so long to be written


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, and with it the parents that are missing.

    Each new name is flushed: a file that is flushed in a folder that nobody finds is lost as well.

    Raises:
        WorkspaceError: there is something else of that name (a file, a device, a link to nothing),
            or a folder that is everybody's (`/tmp`): neither may be closed to others because it was
            named by mistake.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    if path not in missing and not path.is_dir():
        raise WorkspaceError("is no folder", where=str(path), do="name a folder, or a new one")
    if path not in missing and path.stat().st_mode & stat.S_ISVTX:
        raise WorkspaceError("is a folder for everybody", where=str(path), do="name a folder in it")
    for one in missing:
        if one.is_symlink():
            raise WorkspaceError("is a link to nothing", where=str(one), do="name another folder")
    for one in reversed(missing):
        one.mkdir(mode=FOLDER_MODE, exist_ok=True)
        descriptor = os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _give_to_the_folders_owner(one, descriptor)
        finally:
            os.close(descriptor)
        flush_folder(one.parent)
    path.chmod(FOLDER_MODE)


def make_own_folder(path: Path) -> None:
    """Make a folder of a site, private; one that is open to others is refused, not narrowed.

    Narrowed, nobody would ever know that others may have read or changed what lies in it (S4, S6).

    Raises:
        IntegrityError: it is there, and its mode is wider than 0700.
    """
    if path.is_dir():
        check_private(path)
    else:
        make_private_folder(path)


def check_private(path: Path) -> None:
    """Refuse a file or folder that is open to others.

    Raises:
        IntegrityError: its mode is wider than 0600, or 0700 for a folder.
        WorkspaceError: it isn't there.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError as cause:
        raise WorkspaceError("is missing", where=str(path)) from cause
    if mode & 0o077:
        wanted = FOLDER_MODE if path.is_dir() else FILE_MODE
        raise IntegrityError(
            f"its mode is {mode:04o}: others may have read or changed it",
            where=str(path),
            why=f"a site's files must be {wanted:04o}",
            do=f"find out who had access, then chmod {wanted:o}",
        )


def read_private(path: Path) -> bytes:
    """The content of a private file.

    Raises:
        IntegrityError: it is open to others.
        WorkspaceError: it isn't there.
    """
    check_private(path)
    return path.read_bytes()


def check_place(path: Path) -> None:
    """See that a file can be made somewhere, before anything is done that it is to tell of.

    Raises:
        WorkspaceError: its folder isn't there or can't be written, or its name is no file's.
    """
    try:
        folder = path.is_dir()
    except (OSError, ValueError) as cause:  # too long, or a NUL in it
        raise WorkspaceError("that is no name of a file", where=str(path)[:200]) from cause
    if folder:
        raise WorkspaceError("it is a folder, not a file", where=str(path), do="name a file in it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise WorkspaceError(
            "its folder isn't there, or can't be written",
            where=str(path),
            do="make the folder first, or name another place",
        )


def check_new(path: Path) -> None:
    """See that a file of secrets that are told once can be made, before they are made.

    Raises:
        WorkspaceError: there is one already, its folder isn't there, or it can't be written.
    """
    check_place(path)
    if path.exists() or path.is_symlink():
        raise WorkspaceError("there is a file already", where=str(path), do="name another file")


def write_private(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a mixture.

    Written aside, flushed to disk, renamed, and the folder flushed.
    """
    aside = path.with_name(f"{ASIDE}{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _give_to_the_folders_owner(aside, descriptor)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what `write_private` was killed at in this folder; it may hold a key."""
    for one in folder.glob(f"{ASIDE}*"):
        if one.is_file() and time.time() - one.lstat().st_mtime > AT_REST:
            destroy_file(one)


def _give_to_the_folders_owner(path: Path, descriptor: int) -> None:
    """Give what root made in a folder of somebody's to them.

    An administrator types a command, and a service of another user reads what it wrote: a proxy its
    certificate, a silo its policy. Root's own file would be shut to the service.
    """
    if os.geteuid() != 0:
        return
    owner = path.parent.stat()
    if owner.st_uid != 0 and not owner.st_mode & stat.S_ISVTX:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Do what follows as the user whose folder it is, where root does it.

    Sent code may run as that user. Root that works in their folder would follow the links that they
    laid there, and what it wrote would be shut to them.
    """
    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    owner = there.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def writers() -> ThreadPoolExecutor:
    """The threads that `write_private_together` takes; whoever writes often keeps them."""
    return ThreadPoolExecutor(TOGETHER, thread_name_prefix="abfed-write")


def write_private_together(
    files: Iterable[tuple[Path, Callable[[], bytes]]], pool: ThreadPoolExecutor | None = None
) -> None:
    """Write files as `write_private` does, some at a time: all are on disk when this returns.

    A flush waits for the disk, and a disk does several in the time of one. Of the contents no more
    than `TOGETHER` are held at once, however many files there are.

    Args:
        files: where, and what gives the content when it is its turn.
        pool: `writers` that are kept; some of our own where None.

    Raises:
        OSError: one could not be written; each file is whole or not there all the same.
    """
    if pool is None:
        with writers() as own:
            write_private_together(files, own)
        return
    writes = [pool.submit(_write_its_content, path, content) for path, content in files]
    try:
        for write in writes:
            write.result()
    finally:
        for write in writes:
            write.cancel()
        wait(writes)


def _write_its_content(path: Path, content: Callable[[], bytes]) -> None:
    write_private(path, content())


def destroy_file(path: Path) -> None:
    """Overwrite a file, flush it, and remove it; nothing where there is none.

    A disk that copies on write, and backups, may keep an old block all the same.
    """
    if not path.exists():
        return
    with path.open("r+b", buffering=0) as file:
        file.write(secrets.token_bytes(path.stat().st_size))
        os.fsync(file.fileno())
    path.unlink()
    flush_folder(path.parent)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Keep other processes and threads out meanwhile, by a lock that dies with its holder."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
