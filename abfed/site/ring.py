"""A site's key ring: which key-encryption key wraps the site's root secret, and which are to go.

One small private file, replaced whole or not at all, so that a site is under the old key or under
the new one and never between them. Nothing in it is secret: the root is wrapped. Changes happen one
after another (`changing`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen, Name
from abfed.site.files import FILE_MODE, read_private, write_private
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
    """

    site: Name
    current: Held
    root: Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", repr=False)]
    old: tuple[Old, ...] = ()
    begun: Held | None = None


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


def write_ring(folder: Path, ring: Ring) -> None:
    """Replace the ring, durably."""
    write_private(folder / FILE, canonical_bytes(ring.model_dump(mode="json")))


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Keep others from changing the ring meanwhile."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
