"""Lists that a brand had scored, and the people in them (S1b).

They are the only files of a silo in which people stand under the names that the brand gave them. So
whoever is erased, opts out or is restricted goes from them, and whoever asks what is held about
them is shown their lines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from abfed.protocol.errors import IntegrityError
from abfed.silo.pseudonyms import HOW, SEPARATOR, Pseudonyms
from abfed.site.files import make_own_folder, read_private, write_private

FOLDER = "lists"
COLUMNS = ("recommended", "send", "chance", "expected_uplift", "explore")
"""Columns of a list behind the identifier's; behind them `expected_…` for each further outcome
and revenue of the model, under the recommended arm."""

_SPREADSHEET = ("=", "+", "-", "@", "\t", "\r")


def plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_SPREADSHEET) else text


class Lists:
    """The lists of a silo.

    Args:
        folder: the silo's.
        pseudonyms: the silo's; lists hold identifiers.
    """

    def __init__(self, folder: Path, pseudonyms: Pseudonyms) -> None:
        self._folder = folder / FOLDER
        self._pseudonyms = pseudonyms

    def make_ready(self) -> None:
        """Make the folder, before people are read for a list.

        Raises:
            IntegrityError: a link stands in its place: the list would lie outside the silo.
        """
        if self._folder.is_symlink():
            raise IntegrityError(
                "is a link: a list would be written out of the silo",
                where=str(self._folder),
                do="find out who made it, remove it, and ask again",
            )
        make_own_folder(self._folder)

    def keep(self, name: str, text: str, *, unless: Callable[[], bool]) -> Path | None:
        """Write a list, and take it back where by then it should not have been made.

        Args:
            name: of the file.
            text: the list.
            unless: asked when it is on disk: whether people were erased or barred meanwhile. Who
                erases looks at the lists after that shows, so that one of the two sees the other.
        """
        self.make_ready()
        path = self._folder / name
        write_private(path, text.encode())
        if unless():
            path.unlink()
            return None
        return path

    def leave_out(self, who: Collection[bytes]) -> int:
        """Remove people's lines, durably; how many there were.

        Raises:
            IntegrityError: a file there is open to others, or is no list.
        """
        removed = 0
        for path in self._paths():
            header, lines = self._read(path)
            kept = [line for line in lines if not self._is_about(header, line, who)]
            if len(kept) == len(lines):
                continue
            removed += len(lines) - len(kept)
            if kept:
                out = io.StringIO()
                csv.writer(out, lineterminator="\n").writerows([header, *kept])
                write_private(path, out.getvalue().encode())
            else:
                path.unlink()
        return removed

    def about(self, who: bytes) -> list[dict[str, str]]:
        """What lists say about one person. Sensitive."""
        return [
            {"list": path.name} | dict(zip(header, line, strict=True))
            for path in self._paths()
            for header, lines in [self._read(path)]
            for line in lines
            if self._is_about(header, line, {who})
        ]

    def _paths(self) -> Iterator[Path]:
        yield from sorted(self._folder.glob("*.csv"))

    def _read(self, path: Path) -> tuple[list[str], list[list[str]]]:
        try:
            header, *lines = csv.reader(io.StringIO(read_private(path).decode()))
            _identifier_columns(header)
        except (ValueError, csv.Error) as cause:
            raise IntegrityError(
                "not a list that was scored here, so nobody can be found in it",
                where=str(path),
                do="move it away, and ask again",
            ) from cause
        if any(len(line) != len(header) for line in lines):
            raise IntegrityError("a line of the list is cut", where=str(path))
        return header, lines

    def _is_about(self, header: list[str], line: list[str], who: Collection[bytes]) -> bool:
        """Whether a line is one of these people's, however the list's mapping normalises."""
        parts = line[: _identifier_columns(header)]
        shown = SEPARATOR.join(parts)
        meant = SEPARATOR.join(
            part[1:] if part.startswith("'") and plain(part[1:]) == part else part for part in parts
        )
        return any(
            self._pseudonyms.of(text, normalise=how) in who
            for text in {shown, meant}
            for how in HOW
        )


def _identifier_columns(header: list[str]) -> int:
    """How many columns the identifier has.

    Raises:
        ValueError: it is no list's header.
    """
    for place in range(1, len(header)):
        if tuple(header[place : place + len(COLUMNS)]) == COLUMNS:
            return place
    message = "no header of a list"
    raise ValueError(message)
