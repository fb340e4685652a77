"""The newest audit head that each silo showed, named to it in each request (S21).

A silo's log, ledger and store can be put back as a whole from an old backup, and nothing inside it
would tell: its charges since then would be forgotten. Somebody outside has to remember. Each
release carries the head of its silo's log; the coordinator keeps every one it sees for the first
time and names the newest in each request. A silo whose log doesn't hold that head refuses to
answer. What the heads prove against a whole log is in `site/anchors.py`.

1. A step costs what its own answers cost, however many silos and steps there were: their heads are
   one line at the end of a file, flushed.
2. Of heads that are not the newest, only the first `MARK` bytes are held, and of each silo the last
   `KEPT`: they tell an answer that was given before from a new one.
3. A line that a crash cut short never counted: its answers are asked again.
4. A file that has grown long is written anew, with what is held.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.chain import GENESIS
from abfed.protocol.errors import IntegrityError
from abfed.site.files import FILE_MODE, alone, check_private, make_private_folder, write_private

FILE = "anchors.jsonl"  # beside the runs
BEFORE = "anchors.json"  # of releases that wrote all heads anew with each step
KEPT = 1000  # heads a silo; the newest matter most
MARK = 8  # bytes of a head


class Anchors:
    """The heads that a coordinator saw.

    Args:
        runs: the folder of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._path = runs / FILE
        self._newest: dict[str, str] = {}
        self._seen: dict[str, bytearray] = {}
        self._made = b""  # the file's first line, another one each time that it is written anew
        self._read_to = 0
        self._lines = 0  # heads in the file since it was written anew
        if self._path.exists():
            self._catch_up()
        elif (runs / BEFORE).exists():
            self._take_over(runs / BEFORE)

    def newest(self, silo: str) -> str:
        """The newest head of a silo; `GENESIS` where none was seen."""
        return self._newest.get(silo, GENESIS)

    def note(self, heads: Mapping[str, str]) -> None:
        """Keep heads that are new, durably."""
        if not self._new(heads):
            return
        if not self._path.parent.is_dir():
            make_private_folder(self._path.parent)
        with alone(self._path.with_name(f".{FILE}.lock")):
            first = not self._path.exists()
            if first:
                self._write_anew()  # what was taken over, or nothing
            self._catch_up()  # what other runs have noted meanwhile
            new = self._new(heads)
            if new:
                self._append(canonical_bytes({"heads": new}) + b"\n")
                self._catch_up()
            if self._lines > KEPT * max(1, len(self._newest)):
                self._write_anew()

    def _new(self, heads: Mapping[str, str]) -> dict[str, str]:
        """Those of these heads that were not seen before."""
        return {silo: head for silo, head in sorted(heads.items()) if not self._knows(silo, head)}

    def _knows(self, silo: str, head: str) -> bool:
        return bytes.fromhex(head)[:MARK] in self._seen.get(silo, b"")

    def _take(self, silo: str, head: str) -> None:
        if not self._knows(silo, head):
            seen = self._seen.setdefault(silo, bytearray())
            seen += bytes.fromhex(head)[:MARK]
            del seen[: -MARK * KEPT]
            self._newest[silo] = head

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY, FILE_MODE)
        try:
            os.ftruncate(descriptor, self._read_to)  # what a crash cut short
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.seek(self._read_to)
                file.write(line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _catch_up(self) -> None:
        """Read what is new in the file; all of it where another run wrote it anew."""
        check_private(self._path)
        with self._path.open("rb") as file:
            made = file.readline()
            if made != self._made:
                self._made, self._read_to, self._lines = made, len(made), 0
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read_line(parse_canonical(line[:-1], where=str(self._path)))
                self._read_to += len(line)

    def _read_line(self, entry: Any) -> None:
        try:
            if "heads" in entry:
                for silo, head in entry["heads"].items():
                    self._take(silo, head)
                self._lines += len(entry["heads"])
            else:
                silo = entry["silo"]
                self._newest[silo] = entry["newest"]
                self._seen[silo] = bytearray.fromhex(entry["seen"])
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            raise IntegrityError("not a line of heads", where=str(self._path)) from cause

    def _write_anew(self) -> None:
        made = canonical_bytes({"made": secrets.token_hex(8)}) + b"\n"
        lines = [made] + [
            canonical_bytes({"newest": head, "seen": self._seen[silo].hex(), "silo": silo}) + b"\n"
            for silo, head in sorted(self._newest.items())
        ]
        content = b"".join(lines)
        write_private(self._path, content)
        self._made, self._read_to, self._lines = made, len(content), 0

    def _take_over(self, path: Path) -> None:
        check_private(path)
        found: dict[str, list[str]] = parse_canonical(path.read_bytes(), where=str(path))
        for silo, heads in found.items():
            for head in heads:
                self._take(silo, head)
