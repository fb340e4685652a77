"""Hash-chained entries: what an append-only log is made of. Pure functions, no file.

An entry names the digest of the entry before it, so that a change, a swap or a removal in the
middle breaks every later link, and the digest of the last entry (the *head*) stands for the whole
log. A missing tail shows only to somebody who remembers a later head: sites keep one another's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from abfed.protocol.canonical import digest
from abfed.protocol.errors import IntegrityError

GENESIS = "0" * 64
"""The head of an empty chain."""


def link(head: str, sequence: int, body: dict[str, Any]) -> dict[str, Any]:
    """The next entry of a chain.

    Args:
        head: digest of the entry before, or `GENESIS`.
        sequence: 0 for the first entry, one more for each.
        body: what happened: JSON-able, without row values or secrets.
    """
    return {"sequence": sequence, "previous": head, "body": body}


def head_of(entry: dict[str, Any]) -> str:
    """The digest that stands for the chain up to and with this entry."""
    return digest({key: entry[key] for key in ("sequence", "previous", "body")})


def verify_chain(
    entries: Iterable[dict[str, Any]], *, where: str, start: tuple[int, str] = (0, GENESIS)
) -> tuple[int, str]:
    """Check every link.

    Args:
        entries: in order.
        where: what to call it in an error.
        start: how many entries came before the first, and their head.

    Returns:
        The number of entries and the head.

    Raises:
        IntegrityError: names the first entry that doesn't fit.
    """
    count, head = start
    for entry in entries:
        if entry.get("sequence") != count:
            raise IntegrityError(
                f"entry {count} is missing or out of place", where=where, why="the chain is broken"
            )
        if entry.get("previous") != head:
            raise IntegrityError(
                f"entry {count} does not follow the entry before it",
                where=where,
                why="that one, or this one, was changed",
            )
        head = head_of(entry)
        count += 1
    return count, head
