"""Whom a silo's own lists must leave out: opted out in any row, or a tombstone says so (S1b)."""

from __future__ import annotations

from pathlib import Path

from abfed.silo.buckets import BucketFiles
from abfed.silo.encryption import Cryptor
from abfed.silo.tombstones import STATES, Tombstones
from abfed.site.keys import SiteKeys


def barred(folder: Path, keys: SiteKeys) -> frozenset[bytes]:
    """Pseudonyms of everybody who opted out, is restricted or was erased. Sensitive.

    Args:
        folder: the store's.
        keys: the silo's keys.

    Raises:
        IntegrityError: a file of the store was changed or is missing.
    """
    files, cryptor, found = BucketFiles(folder, keys), Cryptor(keys), set[bytes]()
    with files.snapshot() as (manifest, opened):
        people = Tombstones(folder, keys).read(manifest.subjects)
        found.update(*(people[state] for state in STATES))
        for file, handle in opened:
            data = files.content(file, handle)
            rows = cryptor.decrypt(data, ["recipient", "opted_out"], where=file.name)
            found.update(rows["recipient"].filter(rows["opted_out"]).to_pylist())
    return frozenset(found)
