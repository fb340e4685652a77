"""Anchors: heads of a site's log that others keep, and what they prove against it (S21).

A chain shows a change, a swap and a gap by itself. It doesn't show a missing tail, nor that the
whole was written anew by whoever holds the site's key: for that somebody else has to remember a
later head. Each signed message carries its sender's head, so whoever keeps the message keeps an
anchor. Logic only: where anchors lie is for others to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from abfed.protocol.chain import GENESIS, head_of
from abfed.protocol.errors import IntegrityError
from abfed.site.audit import AuditLog, AuditState


class Anchor(NamedTuple):
    """A head of a site's log that was seen elsewhere.

    Attributes:
        of: the site whose log it is.
        head: the head.
        at: when it was shown, or later.
        kept_by: the site that keeps it.
        where: the signed thing that it stands in.
    """

    of: str
    head: str
    at: str
    kept_by: str
    where: str


class Verdict(NamedTuple):
    """A log that holds, against everything that others remember of it.

    Attributes:
        state: entries and head.
        anchors: how many heads others keep that are in it.
        older: how many are older than what is kept, so can't be looked for.
        unanchored: entries since the last head that somebody else keeps; nobody would miss these.
        pruned: how many of the entries are not kept any more, but signed for.
    """

    state: AuditState
    anchors: int
    older: int
    unanchored: int
    pruned: int = 0


def verify_against(log: AuditLog, anchors: Iterable[Anchor], *, where: str) -> Verdict:
    """Verify a log, and that it holds every head that others remember.

    Raises:
        IntegrityError: names the first entry that doesn't hold; or says that the tail is missing,
            or that another history was shown (a fork), and which site's anchor proves it.
    """
    state = log.verify()
    start = log.start()
    places = {start.head: start.entries}
    last_at = start.until
    for number, entry in enumerate(log.entries(), start.entries):
        places[head_of(entry)] = number + 1
        last_at = entry["body"]["at"]
    found, older, latest = 0, 0, start.entries
    for anchor in sorted(set(anchors), key=lambda one: one.at):
        if anchor.head in places:
            found += 1
            latest = max(latest, places[anchor.head])
        elif anchor.head == GENESIS or (start.until and anchor.at <= start.until):
            older += 1
        else:
            raise _convicted(anchor, latest, state, last_at, where)
    return Verdict(state, found, older, state.entries - latest, start.entries)


def _convicted(
    anchor: Anchor, latest: int, state: AuditState, last_at: str, where: str
) -> IntegrityError:
    """What a head that isn't in a log proves against it."""
    proof = f"{anchor.kept_by} keeps the head {anchor.head[:16]} of {anchor.at}, in {anchor.where}"
    if anchor.at > last_at:
        what = f"the tail is missing: there was more after entry {state.entries - 1}"
        if not state.entries:
            what = "the log is missing: there were entries"
    else:
        what = f"a fork: another history was shown, other than this from entry {latest} or later"
    return IntegrityError(
        what,
        where=where,
        why=proof,
        do="find out who had the site's files; restore the log from a backup that holds this head",
    )
