"""The audit log: nothing is lost, nothing can be changed unnoticed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from abfed.protocol.chain import GENESIS
from abfed.protocol.errors import InputError, IntegrityError
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys

ROOT = Path(__file__).parents[2]


def _clock() -> datetime:
    return datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> SiteKeys:
    return SiteKeys.create(tmp_path / "keys", site="aurora")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path: Path, keys: SiteKeys) -> AuditLog:
    return AuditLog(path, keys, _clock)


def _filled(log: AuditLog, count: int = 4) -> AuditLog:
    for number in range(count):
        log.append("step.done", number=number, plan="ab" * 4)
    return log


def test_an_empty_log_is_whole(log: AuditLog) -> None:
    assert log.head == GENESIS
    assert list(log.entries()) == []
    assert log.verify() == (0, GENESIS)


def test_entries_come_back_in_order(log: AuditLog, path: Path) -> None:
    heads = [log.append("a.b", code="x"), log.append("c.d", good=True, number=3)]
    bodies = [entry["body"] for entry in log.entries()]
    assert bodies == [
        {"at": "2026-03-01T12:00:00.000000Z", "event": "a.b", "facts": {"code": "x"}},
        {
            "at": "2026-03-01T12:00:00.000000Z",
            "event": "c.d",
            "facts": {"good": True, "number": 3},
        },
    ]
    assert log.verify() == (2, heads[1])
    assert log.head == heads[1] != heads[0]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_goes_on_where_it_stopped(log: AuditLog, path: Path, keys: SiteKeys) -> None:
    _filled(log)
    again = AuditLog(path, keys, _clock)
    assert again.head == log.head
    again.append("x")
    assert log.verify().entries == 5


def _mutations(line: bytes) -> list[bytes]:
    entry = json.loads(line)
    changed = []
    for part in ("sequence", "previous", "body", "signature"):
        other = dict(entry)
        other[part] = {
            "sequence": entry["sequence"] + 1,
            "previous": "1" * 64,
            "body": entry["body"] | {"event": "other"},
            "signature": entry["signature"].upper(),
        }[part]
        changed.append(json.dumps(other, sort_keys=True, separators=(",", ":")).encode())
    return [*changed, b"", b"{}", b"[]", line[:-1], line + b" ", b" " + line, b"\xff"]


@pytest.mark.parametrize("number", range(4))
def test_a_mutation_of_any_line_is_found_and_named(log: AuditLog, path: Path, number: int) -> None:
    whole = _filled(log).verify().head
    lines = path.read_bytes().splitlines()
    for mutated in _mutations(lines[number]):
        path.write_bytes(b"\n".join([*lines[:number], mutated, *lines[number + 1 :]]) + b"\n")
        with pytest.raises(IntegrityError) as caught:
            log.verify()
        assert f"entry {number}" in str(caught.value)
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert log.verify().head == whole


def test_every_single_bit_flip_is_found(log: AuditLog, path: Path) -> None:
    _filled(log, 2)
    data = path.read_bytes()
    for place in range(0, 8 * len(data), 7):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        with pytest.raises(IntegrityError):
            log.verify()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda lines: lines[1:], "entry 0"),
        (lambda lines: [lines[0], *lines[2:]], "entry 1"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "entry 0"),
        (lambda lines: [*lines, lines[-1]], "entry 4"),
    ],
)
def test_removed_swapped_and_repeated_lines_are_named(
    log: AuditLog, path: Path, change: Callable[[list[bytes]], list[bytes]], named: str
) -> None:
    _filled(log)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(IntegrityError, match=named):
        log.verify()


def test_an_entry_signed_by_another_site_is_found(
    log: AuditLog, path: Path, tmp_path: Path
) -> None:
    _filled(log, 2)
    stranger = SiteKeys.create(tmp_path / "other", site="aurora")
    AuditLog(path, stranger, _clock).append("forged")
    with pytest.raises(IntegrityError, match="entry 2"):
        log.verify()


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_torn_last_line_is_removed_and_said_so(log: AuditLog, path: Path, kept: int) -> None:
    before = _filled(log, 2).head
    whole = path.read_bytes()
    log.append("lost")
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:kept])
    assert log.head == before
    with pytest.raises(IntegrityError, match="entry 2"):
        log.verify()
    log.append("next")
    events = [entry["body"]["event"] for entry in log.entries()]
    assert events == ["step.done", "step.done", "audit.torn-entry-removed", "next"]
    assert log.verify() == (4, log.head)


def test_a_torn_first_line_is_removed(log: AuditLog, path: Path) -> None:
    log.append("lost")
    path.write_bytes(path.read_bytes()[:30])
    assert log.head == GENESIS
    log.append("next")
    assert log.verify().entries == 2


def test_nothing_follows_a_last_line_that_is_no_entry(log: AuditLog, path: Path) -> None:
    _filled(log, 2)
    with path.open("ab") as file:
        file.write(b'{"sequence":"2"}\n')
    with pytest.raises(IntegrityError, match="last line"):
        log.append("next")


def test_a_log_open_to_others_is_not_trusted(log: AuditLog, path: Path) -> None:
    _filled(log)
    path.chmod(0o644)
    for read in (log.verify, lambda: log.head, lambda: list(log.entries())):
        with pytest.raises(IntegrityError, match="mode"):
            read()


WRITERS = "abcdefghij"
WRITER = """
import sys
from pathlib import Path
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys
folder = Path(sys.argv[1])
log = AuditLog(folder / "audit.jsonl", SiteKeys.open(folder / "keys"))
sys.stdin.read(1)
for number in range(25):
    log.append("written", writer=sys.argv[2], number=number)
"""


def test_concurrent_writers_lose_nothing(log: AuditLog, tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name], stdin=subprocess.PIPE, cwd=ROOT
        )
        for name in WRITERS
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(250) for writer in writers] == [0] * len(WRITERS)
    assert log.verify().entries == 25 * len(WRITERS)
    facts = [entry["body"]["facts"] for entry in log.entries()]
    for name in WRITERS:
        assert [f["number"] for f in facts if f["writer"] == name] == list(range(25))


def test_pruned_it_goes_on_and_verifies(log: AuditLog, path: Path, keys: SiteKeys) -> None:
    whole = _filled(log, 6).verify()
    log.append("charged", ledger="ab" * 32)
    log.append("after")
    assert log.prune(_clock(), by="olga") == 0  # nothing is older
    assert log.prune(_clock() + timedelta(days=1), by="olga") == 6  # up to the ledger's anchor
    start = log.start()
    assert (start.entries, start.head) == (6, whole.head)
    assert log.last("ledger") == "ab" * 32
    assert [entry["sequence"] for entry in log.entries()] == [6, 7, 8]
    assert log.verify() == (9, log.head)
    log.append("more")
    assert AuditLog(path, keys, _clock).verify().entries == 10
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_pruned_cannot_be_changed_afterwards(log: AuditLog, path: Path) -> None:
    _filled(log, 6)
    log.prune(_clock() + timedelta(days=1), by="olga")
    lines = path.read_bytes().splitlines(keepends=True)
    marker = json.loads(lines[0])
    for change in ({"entries": 4}, {"head": "1" * 64}, {"until": "2027-01-01T00:00:00.000000Z"}):
        forged = marker | {"pruned": marker["pruned"] | change}
        line = json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        path.write_bytes(line + b"".join(lines[1:]))
        with pytest.raises(IntegrityError, match="entry 0"):
            log.verify()
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(IntegrityError, match="entry 0 is missing"):
        log.verify()


def test_a_writer_that_waited_while_it_was_pruned_loses_nothing(
    log: AuditLog, path: Path, keys: SiteKeys
) -> None:
    _filled(log, 20)
    later = _clock() + timedelta(days=1)
    other = AuditLog(path, keys, _clock)
    heads: list[str] = []
    threads = [
        Thread(target=lambda: heads.extend(other.append("x") for _ in range(10))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.prune(later, by="olga")
    for thread in threads:
        thread.join()
    # Every head that was handed out is still in the chain, or before where it begins now.
    start = log.start().entries
    numbers = {entry["sequence"] for entry in log.entries()}
    assert log.verify().entries == start + len(numbers)
    assert sorted(heads) == sorted(set(heads))
    assert len(heads) == 30


@pytest.mark.parametrize(
    "text", ["x" * 70_000, "\u00e9" * 70_000, "\x00" * 70_000, "\U0001f600" * 70_000]
)
def test_a_long_text_is_cut_and_the_log_goes_on(log: AuditLog, text: str) -> None:
    """Else the next writer would not find where that entry begins, and nobody could write more."""
    log.append("model.exported", purpose=text)
    log.append("after", more=True)
    assert log.verify().entries == 2
    (first, _) = log.entries()
    assert first["body"]["facts"]["purpose"].endswith("… (70000 characters)")
    with pytest.raises(InputError, match="more than an entry"):
        log.append("too.many", **{f"f{number}": text for number in range(60)})
    assert log.verify().entries == 2
