"""The audit log (S21): append-only, hash-chained, signed, one line an entry.

An entry says when, what and on which plan or file, in names, digests and codes. It holds no row
value, no identifier, no count taken from rows and no secret. Each entry is on disk before what it
records takes effect elsewhere. Every signed message carries the head of its sender's log, so the
other sites can tell when a log was cut or rewritten (`anchors`).

A log may be pruned: its oldest entries give way to one signed line that says how many there were,
until when, and their head, so that what follows still verifies, and whoever kept the old entries
can still prove them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.chain import GENESIS, head_of, link, verify_chain
from abfed.protocol.envelope import signature_bytes, verify_bytes
from abfed.protocol.errors import InputError, IntegrityError
from abfed.site.clock import Clock, stamp, system_clock
from abfed.site.files import FILE_MODE, check_private, flush_folder, write_private
from abfed.site.keys import SiteKeys

Fact = str | int | bool
_TAIL = 65_536  # bytes; an entry is below: what is longer could not be found again to go on after
LONGEST_FACT = 1000  # characters; longer texts are cut, and say so
_PRUNED = b'{"pruned":'


class AuditState(NamedTuple):
    """What `verify` found: how many entries, and the head."""

    entries: int
    head: str


class Start(NamedTuple):
    """Where what is kept begins: how many entries were pruned, their head, the last one's time."""

    entries: int = 0
    head: str = GENESIS
    until: str = ""


class AuditLog:
    """A site's log.

    Args:
        path: the file; made with mode 0600 at the first entry.
        keys: the site's keys, for signing.
        clock: where the time comes from.
    """

    def __init__(self, path: Path, keys: SiteKeys, clock: Clock = system_clock) -> None:
        self._path = path
        self._keys = keys
        self._clock = clock

    def append(self, event: str, **facts: Fact) -> str:
        """Write an entry, durably.

        Args:
            event: what happened, such as `release.made`.
            facts: names, digests, codes. Never a value or a count from rows. Long texts are cut.

        Returns:
            The new head.

        Raises:
            InputError: so many facts that no entry could hold them; nothing was written.
        """
        facts = {name: _cut(value) for name, value in facts.items()}
        if len(canonical_bytes(facts)) > _TAIL // 2:
            raise InputError("is more than an entry of the log can hold", where=event)
        with self._alone() as file:
            last, torn = _last_line(file.fileno())
            if torn:
                os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - torn)
            sequence, head = _after(last, str(self._path))
            if torn:
                line, head = self._line(sequence, head, "audit.torn-entry-removed", {})
                sequence += 1
                file.write(line)
            line, head = self._line(sequence, head, event, facts)
            file.write(line)  # whole, or an error: a short write would lose the entry silently
            file.flush()
            os.fsync(file.fileno())
        if sequence == 0:
            flush_folder(self._path.parent)  # the file's own name must be durable too
        return head

    @contextmanager
    def _alone(self) -> Iterator[BinaryIO]:
        """The file, for this writer only; not one that pruning replaced meanwhile."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
            with os.fdopen(descriptor, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_ino == self._path.stat().st_ino:
                    yield file
                    return

    def _line(
        self, sequence: int, previous: str, event: str, facts: dict[str, Fact]
    ) -> tuple[bytes, str]:
        entry = link(
            previous, sequence, {"at": stamp(self._clock()), "event": event, "facts": facts}
        )
        head = head_of(entry)
        signature = self._keys.signature("audit", head.encode())
        return canonical_bytes(entry | {"signature": signature.hex()}) + b"\n", head

    @property
    def head(self) -> str:
        """The digest that stands for the whole log."""
        if not self._path.exists():
            return GENESIS
        check_private(self._path)
        with self._path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            last, _ = _last_line(file.fileno())
        return _after(last, str(self._path))[1]

    def knows(self, head: str) -> bool:
        """Whether a head is one of this log's, past or present; `GENESIS` always is."""
        if head in (GENESIS, self.head):
            return True
        if not self._path.exists():
            return False
        return f'"previous":"{head}"'.encode() in self._path.read_bytes()

    def last(self, fact: str) -> Fact | None:
        """The last value that was recorded of a fact, its entry's signature checked.

        Raises:
            IntegrityError: that entry isn't one of this site's.
        """
        if not self._path.exists():
            return None
        check_private(self._path)
        named = f'"{fact}":'.encode()
        for raw in reversed(self._path.read_bytes().splitlines()):
            if named not in raw or raw.startswith(_PRUNED):
                continue
            entry = parse_canonical(raw, where=str(self._path))
            _check_signature(entry, self._keys.public_key, str(self._path))
            facts: dict[str, Fact] = entry["body"]["facts"]
            if fact in facts:
                return facts[fact]
        return None

    def entries(self) -> Iterator[dict[str, Any]]:
        """All entries, in order, each with its signature checked.

        Raises:
            IntegrityError: a line that isn't an entry, or isn't signed by this site.
        """
        if not self._path.exists():
            return
        check_private(self._path)
        with self._path.open("rb") as file:
            for number, raw in enumerate(file):
                where = f"{self._path}, entry {number}"
                if not raw.endswith(b"\n"):
                    raise IntegrityError("the last entry is torn", where=where)
                if number == 0 and raw.startswith(_PRUNED):
                    continue
                entry = parse_canonical(raw.removesuffix(b"\n"), where=where)
                _check_signature(entry, self._keys.public_key, where)
                yield entry

    def verify(self) -> AuditState:
        """Check every signature and every link.

        Raises:
            IntegrityError: names the first entry that doesn't hold.
        """
        start = self.start()
        state = verify_chain(self.entries(), where=str(self._path), start=start[:2])
        return AuditState(*state)

    def start(self) -> Start:
        """Where what is kept begins.

        Raises:
            IntegrityError: the line that stands for what was pruned isn't one of this site's.
        """
        if not self._path.exists():
            return Start()
        check_private(self._path)
        with self._path.open("rb") as file:
            first = file.readline()
        if not first.startswith(_PRUNED):
            return Start()
        where = f"{self._path}, entry 0"
        line = parse_canonical(first.removesuffix(b"\n"), where=where)
        if set(line) != {"pruned", "signature"}:
            raise IntegrityError("not an entry of an audit log", where=where)
        signature = signature_bytes(line["signature"], where=where)
        stated = canonical_bytes({"pruned": line["pruned"]})
        if not verify_bytes(self._keys.public_key, "audit", stated, signature):
            raise IntegrityError("the signature does not hold", where=where)
        return Start(**line["pruned"])

    def prune(self, before: datetime, *, by: str, keep: str = "ledger") -> int:
        """Let go of entries that are older, all of them verified first; says so in the log.

        Args:
            before: entries from then on are kept.
            by: who does it.
            keep: the last entry that has this fact is kept, and so are those after it: it is what
                shows that the ledger is not an old one.

        Returns:
            How many entries went.

        Raises:
            IntegrityError: the log doesn't verify; nothing went then.
        """
        with self._alone():
            self.verify()
            start, entries = self.start(), list(self.entries())
            named = [n for n, one in enumerate(entries) if keep in one["body"]["facts"]]
            latest = min([len(entries) - 1, *named[-1:]])
            oldest = stamp(before)
            gone = 0
            while gone < latest and entries[gone]["body"]["at"] < oldest:
                gone += 1
            if gone:
                last = entries[gone - 1]
                after = Start(start.entries + gone, head_of(last), last["body"]["at"])
                stated = canonical_bytes({"pruned": after._asdict()})
                signed = self._keys.signature("audit", stated).hex()
                marker = canonical_bytes({"pruned": after._asdict(), "signature": signed})
                lines = [marker, *(canonical_bytes(one) for one in entries[gone:])]
                write_private(self._path, b"".join(line + b"\n" for line in lines))
        if gone:
            self.append("audit.pruned", entries=gone, until=after.until, person=by)
        return gone


def _cut(value: Fact) -> Fact:
    """A fact that an entry has room for."""
    if not isinstance(value, str) or len(value) <= LONGEST_FACT:
        return value
    return f"{value[:LONGEST_FACT]}… ({len(value)} characters)"


def _check_signature(entry: Any, public_key: bytes, where: str) -> None:
    shape = {"sequence", "previous", "body", "signature"}
    if not isinstance(entry, dict) or set(entry) != shape:
        raise IntegrityError("not an entry of an audit log", where=where)
    signature = signature_bytes(entry["signature"], where=where)
    if not verify_bytes(public_key, "audit", head_of(entry).encode(), signature):
        raise IntegrityError(
            "the signature does not hold", where=where, why="the entry was changed, or is not ours"
        )


def _last_line(descriptor: int) -> tuple[bytes, int]:
    """The last whole line of a log, and how many bytes of a torn one stand behind it."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    whole, newline, torn = tail.rpartition(b"\n")
    if not newline:
        return b"", len(tail)
    return whole.rpartition(b"\n")[2], len(torn)


def _after(last: bytes, where: str) -> tuple[int, str]:
    """Sequence and head for the entry that follows the last line."""
    if not last:
        return 0, GENESIS
    entry = parse_canonical(last, where=where)
    if not isinstance(entry, dict) or not isinstance(entry.get("sequence"), int):
        raise IntegrityError("the last line is not an entry of an audit log", where=where)
    return entry["sequence"] + 1, head_of(entry)
