"""A run's journal: what is done, so that what isn't can be done later.

One line an entry, hash-chained and signed, on disk before anything is done that relies on it. (The
chain alone would not show a change in the last entry.) A crash in the middle of writing leaves a
last line without its end: that entry never counted, and it's cut off. Any other damage is an
`IntegrityError`: a journal is never repaired by guessing.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any, NamedTuple

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.chain import GENESIS, head_of, link, verify_chain
from abfed.protocol.envelope import signature_bytes, verify_bytes
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.files import check_private, write_private
from abfed.site.keys import SiteKeys

Body = dict[str, Any]


class Entries(NamedTuple):
    """What a journal holds.

    Attributes:
        bodies: of its whole entries, in order.
        head: the digest that stands for all of them.
        size: how many bytes they take.
    """

    bodies: list[Body]
    head: str
    size: int


def read_journal(path: Path, public_key: bytes) -> Entries:
    """Read a journal, every signature and every link checked.

    Raises:
        IntegrityError: a line isn't an entry, isn't signed by this key, doesn't follow the one
            before, or others can read the file.
        WorkspaceError: it isn't there.
    """
    check_private(path)
    whole, newline, _torn = path.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    entries = []
    for number, line in enumerate(lines):
        where = f"{path}, entry {number}"
        entry = parse_canonical(line, where=where)
        _check_entry(entry, public_key, where)
        entries.append(entry)
    if not entries:
        raise IntegrityError("the journal is empty", where=str(path))
    _, head = verify_chain(entries, where=str(path))
    return Entries([entry["body"] for entry in entries], head, len(whole) + 1)


def _check_entry(entry: Any, public_key: bytes, where: str) -> None:
    shape = {"sequence", "previous", "body", "signature"}
    if not isinstance(entry, dict) or set(entry) != shape:
        raise IntegrityError("not an entry of a journal", where=where)
    signature = signature_bytes(entry["signature"], where=where)
    if not verify_bytes(public_key, "journal", head_of(entry).encode(), signature):
        raise IntegrityError(
            "the signature does not hold", where=where, why="it was changed, or is not ours"
        )


def _line(keys: SiteKeys, head: str, number: int, body: Body) -> tuple[bytes, str]:
    """An entry as it is written, and the new head."""
    entry = link(head, number, body)
    head = head_of(entry)
    signature = keys.signature("journal", head.encode())
    return canonical_bytes(entry | {"signature": signature.hex()}) + b"\n", head


class Journal:
    """A journal, open for writing by this process only.

    Args:
        path: the file; it has its first entry already.
        keys: whose journal it is.

    Raises:
        WorkspaceError: another process is writing it.
        IntegrityError: it is damaged.
    """

    def __init__(self, path: Path, keys: SiteKeys) -> None:
        self._keys = keys
        check_private(path)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            entries = read_journal(path, keys.public_key)
            if os.fstat(self._file).st_size > entries.size:
                os.ftruncate(self._file, entries.size)  # an entry that a crash cut short
                os.fsync(self._file)
        except BlockingIOError as cause:
            os.close(self._file)
            raise WorkspaceError(
                "this run is being carried out by another process",
                where=str(path.parent),
                do="wait for it to end",
            ) from cause
        except BaseException:
            os.close(self._file)
            raise
        self.bodies = entries.bodies
        self.head = entries.head

    def append(self, body: Body) -> None:
        """Add an entry; it is on disk when this returns."""
        line, head = _line(self._keys, self.head, len(self.bodies), body)
        size = os.fstat(self._file).st_size
        try:
            _write(self._file, line)
        except BaseException:
            os.ftruncate(self._file, size)  # a full disk, or Ctrl-C: the entry doesn't count
            raise
        os.fsync(self._file)
        self.bodies.append(body)
        self.head = head

    def close(self) -> None:
        """Let others write it."""
        os.close(self._file)


def begin_journal(path: Path, keys: SiteKeys, bodies: list[Body]) -> None:
    """Write a journal with its first entries."""
    head, lines = GENESIS, []
    for number, body in enumerate(bodies):
        line, head = _line(keys, head, number, body)
        lines.append(line)
    write_private(path, b"".join(lines))


def _write(file: int, data: bytes) -> None:
    """Write all of it: the system may take less at once."""
    while data:
        data = data[os.write(file, data) :]
