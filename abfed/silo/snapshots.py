"""Opening a long ledger at once: what its entries added up to, kept sealed beside them.

Used only where the entries are still, byte for byte, those that were read and checked then, and
where the same accountant counted them. Everything else is read and checked again, so a change is
found as it would be without a snapshot.
"""

from __future__ import annotations

import json
import sqlite3

from abfed.silo.curves import Curves
from abfed.silo.entries import Books
from abfed.silo.sealed_rows import SealedRows

NAME = "books"
EVERY = 200  # entries: reading so many takes some hundredths of a second


def begin(rows: SealedRows, books: Books, curves: Curves) -> None:
    """Let empty books begin from the snapshot, where it holds."""
    kept = rows.kept(NAME)
    if kept is None:
        return
    values = json.loads(kept)
    same = values["rows"] == rows.digest_before(values["books"]["count"])
    if same and values["counted_by"] == curves.counted_by:
        books.load(values["books"])


def keep(rows: SealedRows, books: Books, curves: Curves, *, since: int) -> None:
    """Keep a snapshot, if enough entries came after number `since`."""
    if books.count - since < EVERY:
        return
    values = {
        "rows": rows.digest_before(books.count),
        "counted_by": curves.counted_by,
        "books": books.dump(),
    }
    try:
        rows.keep(NAME, json.dumps(values).encode())
    except sqlite3.OperationalError:  # a full disk: opening is slower next time, nothing else
        return
