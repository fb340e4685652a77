"""Backups: a site's files in one file that only its passphrase opens (S2).

The key is derived from the passphrase by Argon2id (RFC 9106, second recommended option) with a
fresh salt. Members go through a tar stream in chunks, each sealed under its number; the last one
says that it is the last: a backup that was cut, reordered or changed does not open. Memory is
bounded by a chunk.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import struct
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from argon2.low_level import Type, hash_secret_raw

from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.sealing import KEY_BYTES, seal, unseal
from abfed.site.files import FILE_MODE, flush_folder, make_private_folder

MAGIC = b"ABFEDBACKUP1"
SALT_BYTES = 16
CHUNK = 1 << 20
SHORTEST_PASSPHRASE = 12  # characters
_LENGTH = struct.Struct(">I")


def check_passphrase(passphrase: str) -> None:
    """Refuse a passphrase that is too short.

    Raises:
        InputError: it is.
    """
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise InputError(f"a passphrase has at least {SHORTEST_PASSPHRASE} characters")


def write_archive(
    file: BinaryIO, passphrase: str, members: Iterable[tuple[str, Path | bytes]]
) -> int:
    """Write members into a sealed archive; returns how many.

    Args:
        file: where to; at its beginning.
        passphrase: at least 12 characters.
        members: names with where each is read from, or its bytes.

    Raises:
        InputError: the passphrase is too short.
    """
    check_passphrase(passphrase)
    salt = secrets.token_bytes(SALT_BYTES)
    file.write(MAGIC + salt)
    sealing = _Sealing(file, _key(passphrase, salt))
    count = 0
    with tarfile.open(fileobj=sealing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, source in members:
            count += 1
            _add(tar, name, source)
    sealing.finish()
    return count


def read_archive(file: BinaryIO, passphrase: str, folder: Path) -> int:
    """Write an archive's members into an empty folder, private; returns how many.

    All of it is on disk then, and can be renamed into its place.

    Raises:
        InputError: it isn't such a file.
        IntegrityError: another passphrase, or the file was changed or cut.
    """
    head = file.read(len(MAGIC) + SALT_BYTES)
    if not head.startswith(MAGIC) or len(head) < len(MAGIC) + SALT_BYTES:
        raise InputError("not a backup of abfed's")
    unsealing = _Unsealing(file, _key(passphrase, head[len(MAGIC) :]))
    count = 0
    with _damage_is_named(), tarfile.open(fileobj=unsealing, mode="r|") as tar:
        for member in tar:
            place = PurePosixPath(member.name)
            outside = place.is_absolute() or ".." in place.parts or not place.parts
            if outside or not member.isfile() or member.issparse():  # a hole is as large as it says
                raise IntegrityError("a member is not a plain file of the site", where="backup")
            content = tar.extractfile(member)
            if content is None:
                raise IntegrityError("a member has no content", where="backup")
            target = folder / place
            make_private_folder(target.parent)
            _write(target, content)
            count += 1
    unsealing.drain()
    for one in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        flush_folder(one)
    return count


def _write(target: Path, content: IO[bytes]) -> None:
    """Write a member, chunk by chunk; what is half written goes with the folder that it is in."""
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        shutil.copyfileobj(content, file, CHUNK)
        file.flush()
        os.fsync(file.fileno())


def _add(tar: tarfile.TarFile, name: str, source: Path | bytes) -> None:
    info = tarfile.TarInfo(name)
    info.mode = FILE_MODE
    if isinstance(source, bytes):
        info.size = len(source)
        tar.addfile(info, io.BytesIO(source))
        return
    with source.open("rb") as handle:
        info.size = source.stat().st_size
        tar.addfile(info, handle)


def _key(passphrase: str, salt: bytes) -> bytes:
    """32 bytes by Argon2id: 3 passes over 64 MiB in 4 lanes."""
    return hash_secret_raw(passphrase.encode(), salt, 3, 1 << 16, 4, KEY_BYTES, Type.ID)


def _name(number: int, *, last: bool) -> str:
    return f"backup:{number}{':last' if last else ''}"


class _Sealing(io.RawIOBase):
    """Takes bytes, writes sealed chunks."""

    def __init__(self, file: BinaryIO, key: bytes) -> None:
        super().__init__()
        self._file, self._key, self._held, self._number = file, key, bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        taken = bytes(data)  # type: ignore[call-overload]
        self._held += taken
        while len(self._held) > CHUNK:
            self._put(bytes(self._held[:CHUNK]), last=False)
            del self._held[:CHUNK]
        return len(taken)

    def finish(self) -> None:
        """Write what is held as the last chunk."""
        self._put(bytes(self._held), last=True)
        self._held.clear()

    def _put(self, chunk: bytes, *, last: bool) -> None:
        sealed = seal(self._key, chunk, name=_name(self._number, last=last))
        self._file.write(_LENGTH.pack(len(sealed)) + bytes([last]) + sealed)
        self._number += 1


class _Unsealing(io.RawIOBase):
    """Reads sealed chunks, gives bytes."""

    def __init__(self, file: BinaryIO, key: bytes) -> None:
        super().__init__()
        self._file, self._key, self._number, self._over = file, key, 0, False
        self._chunks = self._opened()
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted != 0:
            if not self._held:
                self._held = next(self._chunks, b"")
                if not self._held:
                    break
            part = self._held if wanted < 0 else self._held[:wanted]
            self._held = self._held[len(part) :]
            wanted -= len(part) if wanted > 0 else 0
            parts.append(part)
        return b"".join(parts)

    def drain(self) -> None:
        """Read to the end.

        Raises:
            IntegrityError: there is no last chunk, or something behind it.
        """
        self.read()
        if not self._over or self._file.read(1):
            raise IntegrityError("the backup was cut, or something was added", where="backup")

    def _opened(self) -> Iterator[bytes]:
        while not self._over:
            head = self._file.read(_LENGTH.size + 1)
            if len(head) < _LENGTH.size + 1:
                raise IntegrityError("the backup was cut", where="backup")
            (length,) = _LENGTH.unpack(head[: _LENGTH.size])
            self._over = head[-1] == 1
            if length > 2 * CHUNK or head[-1] > 1:
                raise IntegrityError("not a chunk of a backup", where="backup")
            name = _name(self._number, last=self._over)
            try:
                plain = unseal(self._key, self._file.read(length), name=name)
            except IntegrityError as cause:
                raise IntegrityError(
                    "the backup can't be opened",
                    where="backup",
                    why=f"{'' if self._number else 'the passphrase is another, or '}bytes of it "
                    "were changed",
                    do="give the passphrase that it was made with, or take another backup",
                ) from cause
            self._number += 1
            yield plain


@contextmanager
def _damage_is_named() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, FileExistsError, ValueError) as cause:
        raise IntegrityError("the backup is damaged", where="backup") from cause
