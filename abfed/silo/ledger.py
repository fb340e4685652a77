"""The ledger: what was charged to a silo's recipients, and may still be.

Rules, in order of importance:

1. A charge is on disk before the computation it pays for begins. A crash wastes budget; it never
   gives a free release.
2. What is stored is what happened (events), never only what it cost, so that a better accountant
   can count it again.
3. The budget is one for all plans, people, names and states of the data. A new data epoch is a new
   question: it is charged anew and resets nothing.
4. A plan's whole cost is reserved at its first step. Each step is answered once; asked again in
   the same words it costs nothing, and asked again with another model it is refused.

Kept in SQLite (write-ahead log, synchronous=FULL), one row an entry, each sealed and chained to the
one before. `BEGIN IMMEDIATE` makes judging and writing one act among any number of processes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from abfed.privacy.accounting import Curve, admits, merged
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.chain import GENESIS, head_of, link
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.messages import Charge
from abfed.protocol.sealing import seal, unseal
from abfed.silo.policy import Budget
from abfed.site.clock import Clock, stamp, system_clock
from abfed.site.files import FILE_MODE, check_private
from abfed.site.keys import SiteKeys

Steps = Mapping[str, tuple[Charge, ...]]
BUSY_SECONDS = 60.0  # how long a process waits for another one's transaction


@dataclass(frozen=True, slots=True)
class Reservation:
    """A plan's charge on one state of the data."""

    plan_digest: str
    plan_name: str
    purpose: str
    epoch: str
    at: str
    charges: tuple[Charge, ...]


@dataclass
class _State:
    """What the entries add up to."""

    count: int = 0
    head: str = GENESIS
    spent: Curve = field(default_factory=Curve)
    reservations: dict[tuple[str, str], Reservation] = field(default_factory=dict)
    begun: dict[tuple[str, str, str], str] = field(default_factory=dict)
    released: dict[str, str] = field(default_factory=dict)

    def apply(self, entry: dict[str, Any]) -> None:
        """Take one entry in."""
        body = entry["body"]
        if body["what"] == "reserve":
            charges = tuple(Charge(**charge) for charge in body["charges"])
            kept = {name: body[name] for name in ("plan_digest", "plan_name", "purpose", "epoch")}
            reservation = Reservation(**kept, at=body["at"], charges=charges)
            self.reservations[(reservation.plan_digest, reservation.epoch)] = reservation
            self.spent = self.spent + Curve.of(charges)
        elif body["what"] == "begin":
            self.begun[(body["plan_digest"], body["epoch"], body["step"])] = body["key"]
        elif body["what"] == "release":
            self.released[body["key"]] = body["digest"]
        else:
            raise IntegrityError("an entry of the ledger is of no known kind")
        self.count += 1
        self.head = head_of(entry)


class Ledger:
    """A silo's ledger, opened.

    Args:
        path: the database; made with mode 0600.
        keys: the silo's keys: entries are sealed.
        clock: where the time comes from.
    """

    def __init__(self, path: Path, keys: SiteKeys, clock: Clock = system_clock) -> None:
        if path.exists():
            check_private(path)
        else:
            path.touch(mode=FILE_MODE)
        self._path = path
        self._clock = clock
        self._key = keys.derive("ledger")
        self._name = f"ledger:{keys.site}"
        self._state = _State()
        # The service answers one request at a time, from whichever thread it is asked in.
        self._db = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS entries"
                " (sequence INTEGER PRIMARY KEY CHECK (sequence >= 0), sealed BLOB NOT NULL) STRICT"
            )
            self.refresh()
        except sqlite3.OperationalError:  # such as a full disk: nothing wrong with the ledger
            self._db.close()
            raise
        except sqlite3.DatabaseError as cause:
            self._db.close()
            raise IntegrityError("is damaged, or not a ledger", where=str(path)) from cause
        except IntegrityError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> Self:
        """Use as a context that closes itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        self.close()

    def reserve(
        self,
        *,
        plan_digest: str,
        plan_name: str,
        purpose: str,
        epoch: str,
        steps: Steps,
        budget: Budget,
    ) -> bool:
        """Charge a plan's whole cost, durably, unless this plan on this epoch already was.

        Returns:
            Whether it was charged now.

        Raises:
            Refused: the budget doesn't cover it, or another version of abfed reserved it with
                other noise. Nothing is charged then.
        """
        charges = merged(charge for step in steps.values() for charge in step)
        asked = Curve.of(charges)
        with self._transaction():
            before = self._state.reservations.get((plan_digest, epoch))
            if before is not None:
                if before.charges != charges:
                    raise Refused("the plan was reserved with other noise", code="order")
                return False
            if not admits(self._state.spent, asked, epsilon=budget.epsilon, delta=budget.delta):
                raise Refused(
                    "the budget does not cover this plan",
                    code="budget",
                    do="ask for less ε, or ask the silo's privacy officer",
                )
            self._append(
                {
                    "what": "reserve",
                    "at": stamp(self._clock()),
                    "plan_digest": plan_digest,
                    "plan_name": plan_name,
                    "purpose": purpose,
                    "epoch": epoch,
                    "charges": [charge.model_dump(mode="json") for charge in charges],
                }
            )
        return True

    def begin(self, *, plan_digest: str, epoch: str, step: str, key: str) -> None:
        """Give a reserved step to one key, durably.

        A step that was begun but never released may begin again under another key: nothing of it
        has left.

        Raises:
            Refused: the step was released under another key, or nothing is reserved.
        """
        with self._transaction():
            if (plan_digest, epoch) not in self._state.reservations:
                raise Refused("nothing is reserved for this plan", code="order")
            holder = self._state.begun.get((plan_digest, epoch, step))
            if holder == key:
                return
            if holder in self._state.released:
                raise Refused("this step was already answered", code="step-used")
            self._append(
                {
                    "what": "begin",
                    "at": stamp(self._clock()),
                    "plan_digest": plan_digest,
                    "epoch": epoch,
                    "step": step,
                    "key": key,
                }
            )

    def settle(self, key: str, digest: str) -> str:
        """Record that a step's release is sealed on disk.

        Returns:
            The digest that counts: of the first release settled under this key.

        Raises:
            Refused: the step isn't this key's, or no longer: while this was computed, it was
                begun for another model. One charge pays for one release.
        """
        with self._transaction():
            first = self._state.released.get(key)
            if first is not None:
                return first
            if key not in self._state.begun.values():
                raise Refused("this step is not given to this key", code="step-used")
            self._append(
                {"what": "release", "at": stamp(self._clock()), "key": key, "digest": digest}
            )
        return digest

    def released(self, key: str) -> str | None:
        """The digest of the release under this key, if there is one."""
        self.refresh()
        return self._state.released.get(key)

    def spent_epsilon(self, delta: float) -> float:
        """What the filter counts as spent, at `delta`."""
        self.refresh()
        return self._state.spent.epsilon(delta)

    def reservations(self) -> tuple[Reservation, ...]:
        """All charges, oldest first."""
        self.refresh()
        return tuple(self._state.reservations.values())

    @property
    def head(self) -> str:
        """The digest of the last entry, which stands for all."""
        self.refresh()
        return self._state.head

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return self._state.count

    def refresh(self) -> None:
        """Read what other processes wrote since.

        Raises:
            IntegrityError: an entry is missing, out of place, or its seal is broken.
        """
        rows = self._db.execute(
            "SELECT sequence, sealed FROM entries WHERE sequence >= ? ORDER BY sequence",
            (self._state.count,),
        )
        for sequence, sealed in rows.fetchall():
            name = f"{self._name}:{self._state.count}"
            if sequence != self._state.count:
                raise IntegrityError(f"entry {self._state.count} is missing", where=name)
            entry = parse_canonical(unseal(self._key, sealed, name=name), where=name)
            if entry["previous"] != self._state.head:
                raise IntegrityError("does not follow the entry before it", where=name)
            self._state.apply(entry)

    def _append(self, body: dict[str, Any]) -> None:
        """Write an entry; it counts once the transaction is on disk and is read back."""
        number = self._state.count
        entry = link(self._state.head, number, body)
        sealed = seal(self._key, canonical_bytes(entry), name=f"{self._name}:{number}")
        self._db.execute("INSERT INTO entries VALUES (?, ?)", (number, sealed))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Judge and write (one entry at most) as one act among all processes."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self.refresh()
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.refresh()
