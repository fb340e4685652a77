"""What lies in a silo's store and is no part of it (S4, S1b): the doctor names it, and clears it.

A writer that was killed leaves files of a state that is replaced, or of one that never came to be:
rows, sealed, perhaps of somebody who was erased. The silo removes them when it is next opened; one
that nobody opens keeps them. Where a writer is at work, its files are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from abfed.lab.offices import Office
from abfed.protocol.printable import printable
from abfed.silo.buckets import BucketFiles
from abfed.silo.manifest import MANIFEST
from abfed.site.checkups import Finding
from abfed.site.files import ASIDE

FOLDER = "store"


def strays(office: Office, now: datetime) -> Iterator[Finding]:
    """Files in a silo's store that its manifest doesn't name, and files that nobody knows."""
    del now
    folder = office.folder / FOLDER
    if not (folder / MANIFEST).exists():
        return  # a coordinator, or a silo that is damaged: `seals` says so
    files = BucketFiles(folder, office.keys)
    with files.exclusive(wait=False) as held:
        for path in files.strays() if held else ():
            if not path.name.startswith(ASIDE):  # `leftovers` names these
                yield Finding(
                    check="strays",
                    severity="medium",
                    what=f"{FOLDER}/{printable(path.name)} belongs to no state of the data: "
                    "a killed change left it, and sealed rows may be in it",
                    fix="it is removed when the silo is next opened",
                    safe=True,
                )
    for path in files.foreign():
        yield Finding(
            check="strays",
            severity="high",
            what=f"{FOLDER}/{printable(path.name)} is no file of a store",
            fix="move it away, and find out who put it there",
        )


def clear_strays(office: Office) -> None:
    """Remove what no state of the data needs, unless a writer is at work."""
    folder = office.folder / FOLDER
    if (folder / MANIFEST).exists():
        files = BucketFiles(folder, office.keys)
        with files.exclusive(wait=False) as held:
            if held:
                files.sweep()
