"""The files of a store on disk (S4): written aside, read whole, compared with their digests.

1. A file is private, regular and named by the manifest, or it is refused.
2. A reader opens all files of one manifest before it reads: a writer that removes them afterwards
   takes nothing away from it.
3. What is checked is what is used: a file's bytes are read once, digested, and handed on.
4. One writer at a time, by a lock that the operating system drops when a process dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.silo.manifest import (
    BUCKET_PREFIX,
    CACHE_PREFIX,
    MANIFEST,
    SUBJECTS_PREFIX,
    BucketFile,
    Manifest,
    read_manifest,
    write_manifest,
)
from abfed.site.files import ASIDE, FILE_MODE, check_private, flush_folder
from abfed.site.keys import SiteKeys

LOCK = "lock"
SNAPSHOT_TRIES = 20  # how often a reader may lose the race against a committing writer

Opened = list[tuple[BucketFile, BinaryIO]]


class BucketFiles:
    """The bucket files in a store's folder."""

    __slots__ = ("_keys", "folder")

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        self.folder = folder
        self._keys = keys

    def manifest(self) -> Manifest:
        """The manifest as it is now.

        Raises:
            WorkspaceError: there is none.
            IntegrityError: open to others, changed, or of another site.
        """
        return read_manifest(self.folder, self._keys)

    def write(self, bucket: int, data: bytes, sends: int) -> BucketFile:
        """Write a bucket to a new file, durably; nothing names it yet."""
        name = f"{BUCKET_PREFIX}{bucket:04d}-{secrets.token_hex(8)}.parquet"
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return BucketFile(
            bucket=bucket, name=name, sha256=sha256_hex(data), size=len(data), sends=sends
        )

    def commit(
        self, before: Manifest, written: Mapping[int, BucketFile | None], *, renewed: bool
    ) -> Manifest:
        """Make new files the store, and remove those that they replace. Lock held.

        Args:
            before: the state that is replaced, with what else changes in it.
            written: the new file of each bucket that changed; None for one that is empty now.
            renewed: whether what can be read changed: then it is another state of the data.

        Returns:
            What the store is from now on.
        """
        flush_folder(self.folder)  # their names must be durable before the manifest's
        files = {file.bucket: file for file in before.files} | dict(written)
        after = before.model_copy(
            update={
                "epoch": secrets.token_hex(32) if renewed else before.epoch,
                "generation": before.generation + 1,
                "files": tuple(one for bucket in sorted(files) if (one := files[bucket])),
            }
        )
        write_manifest(self.folder, self._keys, after)
        self.sweep()
        return after

    def sweep(self) -> None:
        """Remove bucket files that the manifest doesn't name, and what lies aside. Lock held.

        With them goes what was made of the rows of another state of the data.
        """
        for path in self.strays():
            path.unlink(missing_ok=True)

    def strays(self) -> list[Path]:
        """Files that no state of the data needs, or that were left half written. Lock held."""
        manifest = self.manifest()
        named = {file.name for file in manifest.files}
        if manifest.subjects is not None:
            named.add(manifest.subjects.name)
        current = f"{CACHE_PREFIX}{manifest.epoch[:24]}"
        found = []
        for path in sorted(self.folder.iterdir()):
            ours = path.name.startswith((BUCKET_PREFIX, SUBJECTS_PREFIX))
            stray = ours and path.name not in named
            stale = path.name.startswith(CACHE_PREFIX) and not path.name.startswith(current)
            if stray or stale or path.name.startswith(ASIDE):
                found.append(path)
        return found

    def foreign(self) -> list[Path]:
        """What lies in the folder and is no file of a store."""
        prefixes = (BUCKET_PREFIX, SUBJECTS_PREFIX, CACHE_PREFIX, ASIDE)
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.name not in (MANIFEST, LOCK) and not path.name.startswith(prefixes)
        ]

    @contextmanager
    def exclusive(self, *, wait: bool) -> Iterator[bool]:
        """Hold the writers' lock; False where it is taken and `wait` is off."""
        path = self.folder / LOCK
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        try:
            held = True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                held = False
            yield held
        finally:
            os.close(descriptor)

    @contextmanager
    def snapshot(self) -> Iterator[tuple[Manifest, Opened]]:
        """The manifest as it is now and all of its files, opened.

        Raises:
            IntegrityError: a file is missing, a link, or open to others.
        """
        for _ in range(SNAPSHOT_TRIES):
            manifest = self.manifest()
            with ExitStack() as stack:
                try:
                    opened = [(one, stack.enter_context(self._open(one))) for one in manifest.files]
                except FileNotFoundError as cause:
                    if self.manifest() == manifest:
                        raise _broken("a file of the store is missing", cause.filename) from None
                    continue  # a writer committed in between
                yield manifest, opened
                return
        raise WorkspaceError("the store changes faster than it can be read", where=str(self.folder))

    def content(self, file: BucketFile, handle: BinaryIO) -> bytes:
        """The whole file, if it is what the manifest says. Encrypted.

        Raises:
            IntegrityError: it was changed.
        """
        handle.seek(0)
        data = handle.read()
        if sha256_hex(data) != file.sha256:
            raise _broken("a file of the store was changed", self.folder / file.name)
        return data

    def _open(self, file: BucketFile) -> BinaryIO:
        """A file of the store, opened, if it is a private regular file."""
        path = self.folder / file.name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as cause:
            if cause.errno == errno.ELOOP:
                raise _broken("a file of the store is a link", path) from cause
            raise
        handle = os.fdopen(descriptor, "rb")
        facts = os.fstat(descriptor)
        mode = facts.st_mode
        if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
            handle.close()
            check_private(path)
            raise _broken("a file of the store is not a regular file", path)
        if facts.st_size != file.size:  # cheap, so it is seen by whoever opens the store
            handle.close()
            raise _broken("a file of the store has another length", path)
        return handle


def _broken(what: str, path: Path | str) -> IntegrityError:
    return IntegrityError(
        what,
        where=str(path),
        why="the sealed manifest says otherwise",
        do="restore the store from a backup, or find out who changed it",
    )
