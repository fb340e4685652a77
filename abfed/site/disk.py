"""Disks that are full, read-only or failing: told as what they are, wherever they are met.

A site promises that what it wrote is durable. Where the disk can't hold it, nothing was changed in
part (files are replaced whole), but nothing may go on either.
"""

from __future__ import annotations

import errno
import sqlite3

from abfed.protocol.errors import AbfedError, StorageError

TOLD = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file became larger than the disk allows",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "the disk, or its owner's permissions, forbid it",
    errno.EPERM: "the operating system forbids it",
    errno.EIO: "the disk is full or failing: it could not be read or written",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
}
_ROOM = "make room, or move the workspace, and run it again: nothing is charged twice"
_DO = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM}
_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}


def storage_error(error: BaseException) -> StorageError | None:
    """The error as one of the disk's; None where it is something else.

    The file that it concerns is named: paths hold no row value.
    """
    number, where = _number(error)
    if number not in TOLD:
        return None
    do = _DO.get(number, "see that the disk has room and can be written, and run it again")
    why = "what a site writes must be durable before it goes on; files are replaced whole"
    return StorageError(TOLD[number], where=where, why=why, do=do)


def named(error: Exception) -> dict[str, str]:
    """What a log may say of an error: its type's name, and what it says where it is one of ours.

    A full disk is one of ours, also where a database met it. The texts of others may hold anything.
    """
    told = storage_error(error) or error
    return {
        "kind": type(told).__name__,
        "what": told.what if isinstance(told, AbfedError) else "",
    }


def _number(error: BaseException) -> tuple[int, str]:
    """The number of an operating system's error, and the file."""
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
        return _SQLITE.get(code, 0), "a database of the site"
    if isinstance(error, OSError):
        return error.errno or 0, str(error.filename or "")
    return 0, ""
