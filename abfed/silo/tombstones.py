"""Who must not be read, or must not come back: pseudonyms, sealed beside the store's files (S1b).

Three states. *Erased*: the rows are gone, and a later export doesn't bring the person back.
*Opted out* (CCPA §1798.120) and *restricted* (GDPR Art. 18): the rows stay, and nothing reads them.
The file is part of the store: the manifest names it with its digest, so that people and rows change
in one commit, and it can't be replaced by an older one of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.sealing import seal, unseal
from abfed.silo.manifest import SUBJECTS_PREFIX, SubjectsFile
from abfed.silo.rows import PSEUDONYM_BYTES, RECIPIENT
from abfed.site.files import read_private, write_private
from abfed.site.keys import SiteKeys

State = Literal["erased", "opted-out", "restricted"]
STATES: tuple[State, ...] = get_args(State)

People = Mapping[State, frozenset[bytes]]
NOBODY: People = dict.fromkeys(STATES, frozenset())


class Tombstones:
    """The file of a store that says who must not be read or come back."""

    __slots__ = ("_folder", "_key", "_name")

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        self._folder = folder
        self._key = keys.derive("store-subjects")
        self._name = f"store:{keys.site}:subjects"

    def read(self, named: SubjectsFile | None) -> People:
        """Who is in which state. Pseudonyms: sensitive.

        Raises:
            IntegrityError: the file is missing, open to others, or not the one that was named.
        """
        if named is None:
            return NOBODY
        path = self._folder / named.name
        if not path.exists():
            raise IntegrityError("a file of the store is missing", where=str(path))
        sealed = read_private(path)
        if sha256_hex(sealed) != named.sha256:
            raise IntegrityError("a file of the store was changed", where=str(path))
        plain = parse_canonical(unseal(self._key, sealed, name=self._name), where=named.name)
        return {state: _parts(bytes.fromhex(plain[state])) for state in STATES}

    def write(self, people: People) -> SubjectsFile:
        """Keep who is in which state, in a new file, durably; nothing names it yet."""
        plain = canonical_bytes({state: b"".join(sorted(people[state])).hex() for state in STATES})
        sealed = seal(self._key, plain, name=self._name)
        name = f"{SUBJECTS_PREFIX}{secrets.token_hex(8)}.sealed"
        write_private(self._folder / name, sealed)
        return SubjectsFile(name=name, sha256=sha256_hex(sealed))


def with_state(people: People, who: Iterable[bytes], state: State) -> People:
    """These people in this state too; erased ones are in no other."""
    added = people[state] | set(who)
    changed = dict(people) | {state: frozenset(added)}
    if state == "erased":
        gone = changed["erased"]
        changed |= {other: changed[other] - gone for other in STATES if other != "erased"}
    return changed


def without_state(people: People, who: Iterable[bytes], state: State) -> People:
    """These people no longer in this state."""
    return dict(people) | {state: people[state] - set(who)}


def unread(people: People) -> pa.Array | None:
    """Pseudonyms whose rows nothing reads; None where there is nobody."""
    barred = sorted(people["opted-out"] | people["restricted"] | people["erased"])
    return pa.array(barred, RECIPIENT) if barred else None


def erased(people: People) -> pa.Array | None:
    """Pseudonyms of people who must not come back; None where there is nobody."""
    gone = sorted(people["erased"])
    return pa.array(gone, RECIPIENT) if gone else None


def leave_out(rows: pa.Table, barred: pa.Array | None) -> pa.Table:
    """Rows of everybody else. Rows in, fewer rows out."""
    if barred is None or not rows.num_rows:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["recipient"], value_set=barred)))


def _parts(joined: bytes) -> frozenset[bytes]:
    size = PSEUDONYM_BYTES
    return frozenset(joined[at : at + size] for at in range(0, len(joined), size))
