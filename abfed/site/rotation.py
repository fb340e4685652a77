"""Rotating a site's key-encryption key, and moving it to another key service (S2).

Only the root secret is wrapped by the key-encryption key, so nothing else is written anew: no row,
no ledger, no model. In this order, each on disk before the next:

1. what an earlier attempt began, or wrote aside, and did not finish is destroyed;
2. the ring says which key is being made;
3. the key is made;
4. the root is wrapped under it, and unwrapped again to see that it opens;
5. the ring names the new key, and the day on which the old one is destroyed. This is the commit.

A kill before 5 leaves the site under the old key; after it under the new one. The old key stays
until its day, so that a backup of the ring opens until then and not afterwards.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.sealing import Unseen
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.credentials import credential
from abfed.site.key_services import open_kms
from abfed.site.kms import FileKms, KeyService, Pkcs11Kms, Secret
from abfed.site.ring import (
    Held,
    Marker,
    Old,
    Ring,
    changing,
    clear_aside,
    hold_to,
    left_aside,
    marker_of,
    read_ring,
    write_ring,
)

KEPT = timedelta(days=30)
"""How long an old key is kept where nothing else is said."""

TRIED_AGAIN = timedelta(days=1)


class Note(Protocol):
    """A log that can be told of an event; `AuditLog.append` is one."""

    def __call__(self, event: str, **facts: str) -> object:
        """Write an entry."""


def new_held(kms: FileKms | Pkcs11Kms, clock: Clock) -> Held:
    """A new key's name; the key itself is still to be made."""
    return Held(kek=secrets.token_hex(8), kms=kms, made_at=stamp(clock()))


def rotate(
    folder: Path,
    *,
    to: FileKms | Pkcs11Kms | None = None,
    kept: timedelta = KEPT,
    clock: Clock = system_clock,
    secret: Secret = credential,
    new_secret: Secret | None = None,
) -> Ring:
    """Put a site's root under a new key-encryption key.

    Args:
        folder: the site's `keys` folder.
        to: another key service; the same one where it isn't given.
        kept: how long the old key is kept.
        clock: where the time comes from.
        secret: gives passphrase or PIN.
        new_secret: gives those of the new key, where they differ.

    Raises:
        WorkspaceError: a key service can't be opened.
        IntegrityError: the ring or the root is damaged. The site is as it was then.
    """
    with changing(folder):
        clear_aside(folder)  # 1
        found = read_ring(folder)
        holder = _service(found.current, folder, found.site, secret)
        root = Unseen(holder.unwrap(found.current.kek, bytes.fromhex(found.root)))
        marker = marker_of(root)
        ring = _swept(folder, hold_to(found, marker, folder), secret, marker, clock)  # 1
        made = new_held(to or ring.current.kms, clock)
        service = _service(made, folder, ring.site, new_secret or secret)
        service.holds(made.kek)  # it can be opened: else nothing is begun
        write_ring(folder, ring.model_copy(update={"begun": made}), marker)  # 2
        service.create(made.kek)  # 3
        wrapped = service.wrap(made.kek, root)  # 4
        if not secrets.compare_digest(service.unwrap(made.kek, wrapped), root):
            raise IntegrityError("the new key does not open what it wrapped", where=ring.site)
        gone = Old(held=ring.current, destroy_on=stamp(clock() + kept))
        after = Ring(
            site=ring.site, current=made, root=wrapped.hex(), old=(*ring.old, gone), begun=None
        )
        return write_ring(folder, after, marker)  # 5


def destroy_due(
    folder: Path, marker: Marker, note: Note, clock: Clock = system_clock
) -> tuple[str, ...]:
    """Destroy the old keys whose day has come, and what a killed change left aside.

    Whoever opens a site does that first.

    A key whose service can't be opened today is tried again tomorrow.

    Args:
        folder: the site's `keys` folder.
        marker: of the site's rings (`SiteKeys.ring_marker`).
        note: the site's log; told of each key before it is destroyed.
        clock: where the time comes from.

    Returns:
        Ids of those that are gone now.

    Raises:
        IntegrityError: somebody edited the ring; no key is destroyed on its word.
    """
    if not _due(read_ring(folder), clock) and not left_aside(folder):
        return ()
    gone: list[str] = []
    with changing(folder):
        for name in clear_aside(folder):
            note("keys.aside-destroyed", file=name)
        ring = hold_to(read_ring(folder), marker, folder)
        for one in _due(ring, clock):
            left = tuple(old for old in ring.old if old != one)
            try:
                note("keys.destroyed", kek=one.held.kek)
                _service(one.held, folder, ring.site, credential).destroy(one.held.kek)
                gone.append(one.held.kek)
            except WorkspaceError as cause:
                note("keys.not-destroyed", kek=one.held.kek, why=cause.what)
                again = one.model_copy(update={"destroy_on": stamp(clock() + TRIED_AGAIN)})
                left = (*left, again)
            ring = ring.model_copy(update={"old": left})
            write_ring(folder, ring, marker)
    return tuple(gone)


def _due(ring: Ring, clock: Clock) -> list[Old]:
    """Those to go; never the key in use, whatever the ring says of it."""
    return [
        one
        for one in ring.old
        if moment_of(one.destroy_on) <= clock() and one.held.kek != ring.current.kek
    ]


def renewed(name: str) -> str:
    """A passphrase or PIN of the new key: from `NAME.new` where there is one, else from `NAME`."""
    try:
        return credential(f"{name}.new")
    except WorkspaceError:
        return credential(name)


def _swept(folder: Path, ring: Ring, secret: Secret, marker: Marker, clock: Clock) -> Ring:
    """The ring without what a killed rotation left; out of reach, it is an old key that is due."""
    if ring.begun is None:
        return ring
    old = ring.old
    try:
        _service(ring.begun, folder, ring.site, secret).destroy(ring.begun.kek)
    except WorkspaceError:
        old = (*old, Old(held=ring.begun, destroy_on=stamp(clock())))
    after = ring.model_copy(update={"begun": None, "old": old})
    return write_ring(folder, after, marker)


def _service(held: Held, folder: Path, site: str, secret: Secret) -> KeyService:
    return open_kms(held.kms, folder, site, secret)
