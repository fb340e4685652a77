"""Sealed, chained entries in a SQLite database: how the ledger lies on disk.

1. Write-ahead log, synchronous=FULL: when a transaction returns, it is on disk.
2. Each entry is sealed under its place and names the digest of the one before: one that is
   changed, moved, removed or of another history is found when it is read.
3. `BEGIN IMMEDIATE`: one writer at a time among all processes; others wait.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.chain import head_of, link
from abfed.protocol.errors import IntegrityError
from abfed.protocol.sealing import seal, unseal
from abfed.site.files import FILE_MODE, check_private

BUSY_SECONDS = 60.0  # how long a process waits for another one's transaction

_SEALED = "sealed BLOB NOT NULL) STRICT"
TABLES = (
    f"CREATE TABLE IF NOT EXISTS entries (sequence INTEGER PRIMARY KEY, {_SEALED}",
    f"CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, {_SEALED}",
)


class SealedRows:
    """The database, opened.

    Args:
        path: made with mode 0600.
        key: entries are sealed under it.
        name: whose they are; part of each seal.

    Raises:
        IntegrityError: it is open to others, or not such a database.
    """

    def __init__(self, path: Path, key: bytes, *, name: str) -> None:
        if path.exists():
            check_private(path)
        else:
            path.touch(mode=FILE_MODE)
        self._path = path
        self._key = key
        self._name = name
        # The service answers one request at a time, from whichever thread it is asked in.
        self._db = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        with self.damage_is_named():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            for table in TABLES:
                self._db.execute(table)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def damage_is_named(self) -> Iterator[None]:
        """Opening: whatever goes wrong closes the database, and damage is called so."""
        try:
            yield
        except sqlite3.OperationalError:  # such as a full disk: nothing wrong with the ledger
            self.close()
            raise
        except sqlite3.DatabaseError as cause:
            self.close()
            raise IntegrityError("is damaged, or not a ledger", where=str(self._path)) from cause
        except IntegrityError:
            self.close()
            raise

    def after(self, count: int, head: str) -> Iterator[dict[str, Any]]:
        """Entries from number `count` on; `head` is the digest of the one before.

        Raises:
            IntegrityError: one is missing, out of place, or its seal is broken.
        """
        rows = self._db.execute(
            "SELECT sequence, sealed FROM entries WHERE sequence >= ? ORDER BY sequence", (count,)
        )
        for sequence, sealed in rows.fetchall():
            where = f"{self._name}:{count}"
            if sequence != count:
                raise IntegrityError(f"entry {count} is missing", where=where)
            entry = parse_canonical(unseal(self._key, sealed, name=where), where=where)
            if entry["previous"] != head:
                raise IntegrityError("does not follow the entry before it", where=where)
            yield entry
            count, head = count + 1, head_of(entry)

    def digest_before(self, count: int) -> str:
        """One digest over the first `count` entries as they lie on disk, with their places.

        Whoever read and checked them once knows by it that they are the same.
        """
        total = hashlib.sha256()
        rows = self._db.execute(
            "SELECT sequence, sealed FROM entries WHERE sequence < ? ORDER BY sequence", (count,)
        )
        for sequence, sealed in rows:
            total.update(b"%d:%d:" % (sequence, len(sealed)))
            total.update(sealed)
        return total.hexdigest()

    def append(self, count: int, head: str, body: dict[str, Any]) -> None:
        """Write an entry; it counts once the transaction is on disk and is read back."""
        entry = link(head, count, body)
        sealed = seal(self._key, canonical_bytes(entry), name=f"{self._name}:{count}")
        self._db.execute("INSERT INTO entries VALUES (?, ?)", (count, sealed))

    def keep(self, name: str, plain: bytes) -> None:
        """Keep a derived value, sealed, replacing the one of this name."""
        sealed = seal(self._key, plain, name=f"{self._name}/{name}")
        self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, sealed))

    def kept(self, name: str) -> bytes | None:
        """The derived value of this name, if there is one.

        Raises:
            IntegrityError: its seal is broken.
        """
        row = self._db.execute("SELECT sealed FROM kept WHERE name = ?", (name,)).fetchone()
        return None if row is None else unseal(self._key, row[0], name=f"{self._name}/{name}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Judge and write as one act among all processes."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
