"""What silos say to one another, carried by a coordinator: lists of signed envelopes.

For noise once, silos need each other's keys and shares. They have no line of their own: what one of
them released travels to the others inside requests, as it was signed. A list is bytes like any
model that comes with a request, so its digest names it, and two silos that answer for the same
digest saw the same list.

Nothing here is believed because it is here: each envelope is verified by who reads it, against the
keys that its own policy pins.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.errors import IntegrityError

Lists = Mapping[str, Mapping[str, bytes]]
"""Envelopes by step and silo."""

_LENGTH = struct.Struct(">I")
MAX_INDEX = 1 << 20  # bytes


def pack_lists(lists: Lists) -> bytes:
    """Lists as bytes; the same lists give the same bytes."""
    index = [
        [step, silo, len(envelope)]
        for step, silos in sorted(lists.items())
        for silo, envelope in sorted(silos.items())
    ]
    head = canonical_bytes(index)
    bodies = [silos[silo] for _, silos in sorted(lists.items()) for silo in sorted(silos)]
    return _LENGTH.pack(len(head)) + head + b"".join(bodies)


def unpack_lists(data: bytes, steps: tuple[str, ...], *, where: str) -> dict[str, dict[str, bytes]]:
    """Read lists of exactly these steps.

    Raises:
        IntegrityError: they are others, or not in the one form that `pack_lists` gives.
    """
    start = _LENGTH.size
    if len(data) < start:
        raise IntegrityError("not lists of envelopes", where=where)
    (length,) = _LENGTH.unpack(data[:start])
    if length > MAX_INDEX or len(data) < start + length:
        raise IntegrityError("the lists are cut short", where=where)
    index = parse_canonical(data[start : start + length], where=where)
    found: dict[str, dict[str, bytes]] = {step: {} for step in steps}
    place = start + length
    if not isinstance(index, list):
        raise IntegrityError("the lists have another form", where=where)
    for entry in index:
        step, silo, size = _entry(entry, where)
        if step not in found:
            raise IntegrityError("the lists are of other steps", where=where)
        found[step][silo] = data[place : place + size]
        place += size
    if pack_lists(found) != data:
        raise IntegrityError("the lists have another form", where=where)
    return found


def _entry(entry: object, where: str) -> tuple[str, str, int]:
    """A line of the index: step, silo and length."""
    if isinstance(entry, list) and len(entry) == 3:
        step, silo, size = entry
        if isinstance(step, str) and isinstance(silo, str) and type(size) is int and size >= 0:
            return step, silo, size
    raise IntegrityError("the lists have another form", where=where)
