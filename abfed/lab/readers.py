"""Keys of those who may read sealed reports, as a coordinator pinned them: name to public key, hex.

A key goes with the person: whoever leaves has none any more, and who is let back pins another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.site.files import alone, read_private, write_private

READERS = "readers.json"


def pinned_readers(coordinator: Path) -> dict[str, str]:
    """The keys that are pinned in a coordinator's folder."""
    file = coordinator / READERS
    found: dict[str, str] = {}
    if file.exists():
        found = parse_canonical(read_private(file), where=str(file))
    return found


@contextmanager
def changed_readers(coordinator: Path) -> Iterator[dict[str, str]]:
    """The pinned keys, to be changed meanwhile by nobody else; kept where no error was raised."""
    with alone(coordinator / f".{READERS}.lock"):
        pinned = pinned_readers(coordinator)
        before = dict(pinned)
        yield pinned
        if pinned != before:
            write_private(coordinator / READERS, canonical_bytes(pinned))


def forget_reader(coordinator: Path, name: str) -> None:
    """Take out the key of somebody who leaves."""
    with changed_readers(coordinator) as pinned:
        pinned.pop(name, None)
