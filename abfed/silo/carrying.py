"""What people asked of a silo, in a small sealed file that is kept apart from its backups (S1b).

A backup is as old as it is: put back, it would bring back who was erased since. The file says who
must not be read or come back, and which requests there are; it is written in a moment, after each
answer, and opens under the silo's own keys only, which are in the backup. Where a silo is put back
with it, all of that holds again before anything can be read. It bars and erases; it lifts nothing,
so that an old one does no harm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.silo.buckets import BucketFiles
from abfed.silo.requests import FILE, Register, Request, read_requests
from abfed.silo.rewriting import Rewriting
from abfed.silo.tombstones import STATES, State, Tombstones
from abfed.site.clock import Clock, stamp
from abfed.site.files import check_place
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

PURPOSE = "subjects-carried"
STORE = "store"  # in the silo's folder

Pseudonym = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Carried(Frozen):
    """What the file holds: when it was written, who is in which state, and all requests."""

    at: At
    people: dict[State, tuple[Pseudonym, ...]]
    requests: tuple[Request, ...]


def carry(folder: Path, keys: SiteKeys, path: Path, clock: Clock) -> int:
    """Write the file, in place of an older one; returns how many people it names.

    Args:
        folder: the silo's.
        keys: the silo's.
        path: where to: another disk than the silo's.
        clock: where the time comes from.

    Raises:
        WorkspaceError: the place can't be written.
    """
    check_place(path)
    store = folder / STORE
    held = Tombstones(store, keys).read(BucketFiles(store, keys).manifest().subjects)
    carried = Carried(
        at=stamp(clock()),
        people={state: tuple(sorted(one.hex() for one in held[state])) for state in STATES},
        requests=read_requests(SealedFile(folder / FILE, keys, "subjects")),
    )
    SealedFile(path, keys, PURPOSE).write(carried.model_dump(mode="json"))
    return len({one for those in carried.people.values() for one in those})


def take_up(folder: Path, keys: SiteKeys, path: Path) -> int:
    """Do again in a silo what a file says that people asked; returns how many people it names.

    Raises:
        WorkspaceError: there is no such file.
        IntegrityError: it is another silo's, or was changed.
    """
    values = SealedFile(path, keys, PURPOSE).read()
    if values is None:
        raise WorkspaceError("there is no such file", where=str(path))
    try:
        carried = parse_record(Carried, values, where=str(path))
    except InputError as cause:
        raise IntegrityError("not what people asked", where=str(path)) from cause
    store = Rewriting(folder / STORE, keys)
    for state, those in carried.people.items():
        people = [bytes.fromhex(one) for one in those]
        if state == "erased":
            store.erase(people)
        else:
            store.bar(people, state)
    register = SealedFile(folder / FILE, keys, "subjects")
    with register.alone():
        known = {one.receipt: one for one in read_requests(register)}
        known |= {one.receipt: one for one in carried.requests}
        register.write(Register(requests=tuple(known.values())).model_dump(mode="json"))
    return len({one for those in carried.people.values() for one in those})
