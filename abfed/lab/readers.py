"""Keys of those who may read sealed reports, as a coordinator pinned them: name to public key, hex.

A key goes with the person: whoever leaves has none any more, and who is let back pins another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.site.files import read_private, write_private

READERS = "readers.json"


def pinned_readers(coordinator: Path) -> dict[str, str]:
    """The keys that are pinned in a coordinator's folder."""
    file = coordinator / READERS
    found: dict[str, str] = {}
    if file.exists():
        found = parse_canonical(read_private(file), where=str(file))
    return found


def write_readers(coordinator: Path, keys: Mapping[str, str]) -> None:
    """Keep these, and no other."""
    write_private(coordinator / READERS, canonical_bytes(dict(keys)))


def forget_reader(coordinator: Path, name: str) -> None:
    """Take out the key of somebody who leaves."""
    pinned = pinned_readers(coordinator)
    if pinned.pop(name, None) is not None:
        write_readers(coordinator, pinned)
