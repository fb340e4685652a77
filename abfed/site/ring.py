"""A site's key ring: which key-encryption key wraps the site's root secret, and which are to go.

1. One small private file, replaced whole or not at all, so that a site is under the old key or
   under the new one and never between them. Nothing in it is secret: the root is wrapped.
2. It bears a mark that only who holds the root can make. Whoever opens a site, rotates its key or
   destroys old ones checks it: a date or a name that somebody edited is found before it is acted
   on. `read_ring` alone does for showing what it says.
3. Changes happen one after another (`changing`). What a killed one left aside may be a key: whoever
   changes the ring next, or opens the site's office, overwrites and removes it (`clear_aside`).
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen, Name
from abfed.protocol.sealing import derive_key
from abfed.site.files import ASIDE, FILE_MODE, destroy_file, read_private, write_private
from abfed.site.kms import KekId, KmsSettings

FILE = "site.json"
LOCK = ".ring.lock"


class Held(Frozen):
    """A key-encryption key, and the service that holds it."""

    kek: KekId
    kms: KmsSettings
    made_at: At


class Old(Frozen):
    """A key that wraps nothing any more, and when it is destroyed."""

    held: Held
    destroy_on: At


class Ring(Frozen):
    """The ring.

    Attributes:
        site: whose it is.
        current: the key that wraps the root.
        root: the site's root secret, wrapped (hex).
        old: keys to be destroyed.
        begun: a key that a rotation is making, or was making when it was killed.
        mark: HMAC-SHA256 (hex) of all the rest, under a key derived from the root.
    """

    site: Name
    current: Held
    root: Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", repr=False)]
    old: tuple[Old, ...] = ()
    begun: Held | None = None
    mark: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$", repr=False)] = ""


Marker = Callable[[Ring], str]
"""Gives the mark that a ring of a site must bear."""


def marker_of(root: bytes) -> Marker:
    """What marks the rings of the site whose root this is."""
    key = derive_key(root, "ring")

    def mark(ring: Ring) -> str:
        content = ring.model_dump(mode="json", exclude={"mark"})
        return hmac.new(key, canonical_bytes(content), "sha256").hexdigest()

    return mark


def read_ring(folder: Path) -> Ring:
    """The ring of a site's `keys` folder.

    Raises:
        WorkspaceError: there is none.
        IntegrityError: others may read it, or it is malformed.
    """
    path = folder / FILE
    values = parse_canonical(read_private(path), where=str(path))
    try:
        return parse_record(Ring, values, where=str(path))
    except InputError as cause:
        raise IntegrityError(
            "not the key ring of a site", where=str(path), do="restore it from a backup"
        ) from cause


def hold_to(ring: Ring, marker: Marker, folder: Path) -> Ring:
    """The ring, if it bears its site's mark.

    Raises:
        IntegrityError: it was changed by somebody who doesn't hold the root, or has no mark at all.
    """
    if "mark" not in ring.model_fields_set:  # no less refused: who edits can leave it out too
        raise IntegrityError(
            "the key ring has no mark",
            where=str(folder / FILE),
            why="an earlier abfed made it, or somebody took the mark out: nothing tells which",
            do="if an earlier abfed made it, found the site anew and bring its exports in again; "
            "else restore it from a backup, and find out who wrote to it",
        )
    if not hmac.compare_digest(ring.mark, marker(ring)):
        raise IntegrityError(
            "the key ring was changed",
            where=str(folder / FILE),
            why="its mark is not the one that the site made: a date, a name or a key differs",
            do="restore it from a backup, and find out who wrote to it",
        )
    return ring


def write_ring(folder: Path, ring: Ring, marker: Marker) -> Ring:
    """Replace the ring, durably; returns it with its mark."""
    marked = ring.model_copy(update={"mark": marker(ring)})
    write_private(folder / FILE, canonical_bytes(marked.model_dump(mode="json")))
    return marked


def left_aside(folder: Path) -> list[Path]:
    """Files that a change left which was killed: a key that wraps nothing, or an old ring."""
    return sorted(folder.glob(f"{ASIDE}*"))


def clear_aside(folder: Path) -> tuple[str, ...]:
    """Destroy what killed changes left aside; only while no other change is made (`changing`)."""
    left = left_aside(folder)
    for path in left:
        destroy_file(path)
    return tuple(path.name for path in left)


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Keep others from changing the ring meanwhile."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
