"""Which markup this package's own sections and cards made: what they say is left to their maker.

They know what their numbers count. Whoever writes a box that looks like theirs doesn't get their
trust: the kernel notes the digest of each section and card that code of this package asked for, in
its private folder, as `overhearing` notes pictures; the gate, outside, judges everything else. It
holds against accident, not against a notebook that sets out to lie (decision 198).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE = "vouched.jsonl"
"""In a kernel's private folder: the length and the digest of each, a line of JSON."""
MOST_TOLD = 8 << 20  # bytes: a report of a hundred sections tells ten thousand
_BOX = re.compile(r"<(/?)(section|div)\b[^<>]*>", re.IGNORECASE)
_told: list[Path] = []


def begin(folder: Path) -> None:
    """From now on, note what sections and cards of this process say."""
    _told[:] = [folder / FILE]


def vouched(markup: str) -> str:
    """The same markup, noted if the caller of the one who calls this is code of this package."""
    asked = str(sys._getframe(2).f_globals.get("__name__", ""))  # noqa: SLF001 - as `warnings` does
    if _told and asked.startswith("abfed."):
        with _told[0].open("ab") as file:
            file.write(json.dumps([len(markup), _digest(markup)]).encode() + b"\n")
    return markup


def _digest(markup: str) -> str:
    return hashlib.sha256(markup.encode(errors="replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a kernel noted: the length and the digest of each section and card."""

    known: frozenset[tuple[int, str]] = frozenset()

    @classmethod
    def read(cls, file: Path) -> Vouched:
        """A line that makes no sense vouches for nothing."""
        known: set[tuple[int, str]] = set()
        if not file.is_file() or file.stat().st_size > MOST_TOLD:
            return cls()
        for line in file.read_bytes().splitlines():
            try:
                length, digest = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue
            if isinstance(length, int) and isinstance(digest, str):
                known.add((length, digest))
        return cls(frozenset(known))

    def parted(self, markup: str) -> Iterator[tuple[bool, str]]:
        """Markup in parts, each with whether it is a section or a card of this package."""
        at = 0
        for start, end in self._spans(markup) if self.known else ():
            if start >= at:
                yield False, markup[at:start]
                yield True, markup[start:end]
                at = end
        yield False, markup[at:]

    def _spans(self, markup: str) -> list[tuple[int, int]]:
        """Where they stand, the outer before the inner; each place is hashed for a known length."""
        lengths = {length for length, _ in self.known}
        opened: list[tuple[str, int]] = []
        found = []
        for box in _BOX.finditer(markup):
            name = box[2].lower()
            if not box[1]:
                opened.append((name, box.start()))
            elif opened and opened[-1][0] == name:
                _, start = opened.pop()
                if box.end() - start in lengths:
                    said = _digest(markup[start : box.end()])
                    if (box.end() - start, said) in self.known:
                        found.append((start, box.end()))
        return sorted(found)
