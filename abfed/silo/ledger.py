"""The ledger: what was charged to a silo's recipients, and may still be.

Rules, in order of importance:

1. A charge is on disk before the computation it pays for begins. A crash wastes budget; it never
   gives a free release.
2. What is stored is what happened (events), never only what it cost, so that a better accountant
   can count it again.
3. The budgets are those of all plans, people, names and states of the data. A new data epoch is a
   new question: it is charged anew and resets nothing.
4. A plan's whole cost is reserved at its first step. Each step is answered once; asked again in
   the same words it costs nothing, and asked again with another model it is refused.
5. A charge comes back only for a step that nothing was ever released for, and such a step can't be
   released any more unless it is charged again.

Kept in SQLite (write-ahead log, synchronous=FULL), one row an entry, each sealed and chained to the
one before. `BEGIN IMMEDIATE` makes judging and writing one act among any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from abfed.privacy.accounting import Curve
from abfed.protocol.errors import Refused
from abfed.protocol.messages import Charge
from abfed.silo import snapshots
from abfed.silo.budgets import Budget, Budgets, Forecast, Standing
from abfed.silo.curves import Curves
from abfed.silo.entries import Books, Given, Once, Reservation, Steps, dumped, events_of
from abfed.silo.sealed_rows import SealedRows
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.keys import SiteKeys


class Ledger:
    """A silo's ledger, opened.

    Args:
        path: the database; made with mode 0600.
        keys: the silo's keys: entries are sealed.
        clock: where the time comes from.
    """

    def __init__(self, path: Path, keys: SiteKeys, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._rows = SealedRows(path, keys.derive("ledger"), name=f"ledger:{keys.site}")
        self._curves = Curves(self._rows)
        self._books = Books(self._curves.of)
        with self._rows.damage_is_named():
            snapshots.begin(self._rows, self._books, self._curves)
            since = self._books.count
            self.refresh()
            snapshots.keep(self._rows, self._books, self._curves, since=since)

    def close(self) -> None:
        """Close the database."""
        self._rows.close()

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
        budgets: Budgets,
        erasures: int = 0,
        once: Once | None = None,
    ) -> bool:
        """Charge a plan's whole cost, durably, unless this plan on this epoch already was.

        Steps whose charge was returned are charged again.

        Args:
            plan_digest: the plan.
            plan_name: as people know it.
            purpose: the plan's.
            epoch: the state of the data.
            steps: events of each step.
            budgets: what may be spent.
            erasures: how many erasures the silo has carried out.
            once: what the charge counts on, with noise once.

        Returns:
            Whether something was charged now.

        Raises:
            Refused: a budget doesn't cover it, or another version of abfed reserved it with
                other noise. Nothing is charged then.
        """
        with self._transaction():
            before = self._books.reservations.get((plan_digest, epoch))
            asked = dict(steps)
            if before is not None:
                held = events_of({s: c for s, c in steps.items() if s not in before.returned})
                if frozenset(held) != frozenset(before.charges):
                    raise Refused("the plan was reserved with other noise", code="order")
                asked = {s: c for s, c in steps.items() if s in before.returned}
                if not asked:
                    return False
            charges = events_of(asked)
            self._judge(
                charges,
                budgets,
                purpose=purpose,
                rerun=self._books.is_rerun(plan_digest, epoch, erasures),
            )
            self._curves.keep(charges)
            self._append(
                {
                    "what": "reserve",
                    "plan_digest": plan_digest,
                    "plan_name": plan_name,
                    "purpose": purpose,
                    "epoch": epoch,
                    "erasures": erasures,
                    "charges": dumped(charges),
                    "steps": list(asked) if before is not None else [],
                }
                | ({} if once is None else {"once": once.plain})
            )
        return True

    def _judge(
        self, charges: tuple[Charge, ...], budgets: Budgets, *, purpose: str, rerun: bool
    ) -> None:
        """Refuse what a budget doesn't cover."""
        asked = self._curves.of(charges)
        spending = self._books.spending
        for scope in budgets.scopes(spending, purpose=purpose, now=self._now(), rerun=rerun):
            if not scope.budget.admits(scope.spent, asked):
                raise Refused(
                    "the budget does not cover this plan",
                    code="budget",
                    why=f"budget: {scope.name}",
                    do="ask for less ε, or ask the silo's privacy officer",
                )

    def begin(self, *, plan_digest: str, epoch: str, step: str, key: str) -> None:
        """Give a reserved step to one key, durably.

        A step that was begun but never released may begin again under another key: nothing of it
        has left.

        Raises:
            Refused: the step was released under another key, or nothing is reserved.
        """
        with self._transaction():
            reserved = self._books.reservations.get((plan_digest, epoch))
            if reserved is None or step in reserved.returned:
                raise Refused("nothing is reserved for this plan", code="order")
            holder = self._books.begun.get((plan_digest, epoch, step))
            if holder == key:
                return
            if holder in self._books.given:
                raise Refused("this step was already answered", code="step-used")
            self._append(
                {
                    "what": "begin",
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
                begun for another model, or its charge was returned. One charge pays for one
                release.
        """
        with self._transaction():
            first = self._books.given.get(key)
            if first is not None and first.state == "withheld":
                raise Refused("this step was withheld", code="too-few")
            if first is not None:
                return first.digest
            if key not in self._books.holders:
                raise Refused("this step is not given to this key", code="step-used")
            self._append({"what": "release", "key": key, "digest": digest})
        return digest

    def withhold(self, key: str) -> None:
        """Record, durably, that what was computed for a key will never leave.

        From then on the step is answered, with a no: it can't be computed again in the hope of
        other noise. Nothing comes back of its charge, as the no itself is an answer.

        Raises:
            Refused: the step isn't this key's.
        """
        with self._transaction():
            if key in self._books.given:
                return
            if key not in self._books.holders:
                raise Refused("this step is not given to this key", code="step-used")
            self._append({"what": "withhold", "key": key})

    def expire(self, key: str) -> None:
        """Record, durably and before its bytes go, that a release is no longer kept.

        The step stays answered and charged: it is refused, never noised anew.
        """
        with self._transaction():
            given = self._books.given.get(key)
            if given is not None and given.state == "kept":
                self._append({"what": "expire", "key": key})

    def return_unused(self, *, plan_digest: str, epoch: str, steps: Steps) -> tuple[str, ...]:
        """Give back the charge of a plan's steps that nothing was ever released for.

        A computation of such a step that is under way can't be released any more.

        Args:
            plan_digest: the plan.
            epoch: the state of the data.
            steps: events of each step of the plan.

        Returns:
            The steps whose charge came back.

        Raises:
            Refused: nothing is reserved, or it was reserved with other noise.
        """
        with self._transaction():
            question = (plan_digest, epoch)
            reserved = self._books.reservations.get(question)
            if reserved is None:
                raise Refused("nothing is reserved for this plan", code="order")
            charged = {s: c for s, c in steps.items() if s not in reserved.returned}
            if frozenset(events_of(charged)) != frozenset(reserved.charges):
                raise Refused("the plan was reserved with other noise", code="order")
            unused = self._books.unreleased(question, steps)
            if unused:
                left = events_of({s: c for s, c in charged.items() if s not in unused})
                self._append(
                    {
                        "what": "return",
                        "plan_digest": plan_digest,
                        "epoch": epoch,
                        "steps": list(unused),
                        "left": dumped(left),
                    }
                )
        return unused

    def released(self, key: str) -> str | None:
        """The digest of the release under this key, if there is one."""
        given = self.given(key)
        return given.digest if given is not None and given.state != "withheld" else None

    def given(self, key: str) -> Given | None:
        """What became of this key, if anything was answered under it."""
        self.refresh()
        return self._books.given.get(key)

    def answered(self, *, plan_digest: str, epoch: str, step: str) -> tuple[str, Given] | None:
        """The key that a step is given to, and what became of it, if anything was answered."""
        self.refresh()
        key = self._books.begun.get((plan_digest, epoch, step), "")
        given = self._books.given.get(key)
        return None if given is None else (key, given)

    def kept_before(self, moment: str) -> tuple[tuple[str, str], ...]:
        """Key and digest of the releases that are kept and were made before a stamp."""
        self.refresh()
        return tuple(
            (key, one.digest)
            for key, one in self._books.given.items()
            if one.state == "kept" and one.at < moment
        )

    def spent_epsilon(self, delta: float) -> float:
        """The ε at `delta` of all that is charged, had it been fixed beforehand (RDP)."""
        self.refresh()
        return self._books.spent.epsilon(delta)

    def spent(self, budget: Budget, *, alone: bool = False) -> float:
        """What a budget's filter counts as spent of it.

        Args:
            budget: of the silo.
            alone: as if all other silos told what they added to sums that were noised once.
        """
        self.refresh()
        if not alone:
            return budget.filter.spent(self._books.spent)
        kept = self._books.reservations.values()
        return budget.filter.spent(sum((self._curves.of(one.alone) for one in kept), Curve()))

    def standing(self, budgets: Budgets) -> tuple[Standing, ...]:
        """How each budget stands."""
        self.refresh()
        scopes = budgets.scopes(self._books.spending, purpose=None, now=self._now())
        return tuple(Standing.of(scope) for scope in scopes)

    def forecast(
        self,
        *,
        plan_digest: str,
        purpose: str,
        epoch: str,
        steps: Steps,
        budgets: Budgets,
        erasures: int = 0,
    ) -> tuple[Forecast, ...]:
        """What a plan would do to each budget that it answers to. Nothing is written.

        Returns:
            One a budget; none where the plan is charged already on this epoch.
        """
        self.refresh()
        before = self._books.reservations.get((plan_digest, epoch))
        if before is not None:
            steps = {s: c for s, c in steps.items() if s in before.returned}
            if not steps:
                return ()
        asked = self._curves.of(events_of(steps))
        rerun = self._books.is_rerun(plan_digest, epoch, erasures)
        spending, now = self._books.spending, self._now()
        scopes = budgets.scopes(spending, purpose=purpose, now=now, rerun=rerun)
        return tuple(Forecast.of(scope, asked) for scope in scopes)

    def reservations(self) -> tuple[Reservation, ...]:
        """All charges, oldest first."""
        self.refresh()
        return tuple(self._books.reservations.values())

    def releases_of(self, one: Reservation) -> dict[str, str]:
        """Digests of the releases that left for a charge, by step."""
        return self._books.releases_of((one.plan_digest, one.epoch))

    @property
    def head(self) -> str:
        """The digest of the last entry, which stands for all."""
        self.refresh()
        return self._books.head

    def knows(self, head: str) -> bool:
        """Whether the ledger went through a state with this head."""
        self.refresh()
        return head in self._books.heads

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return self._books.count

    def refresh(self) -> None:
        """Read what other processes wrote since.

        Raises:
            IntegrityError: an entry is missing, out of place, or its seal is broken.
        """
        entries = self._rows.after(self._books.count, self._books.head)
        for entry in entries:
            self._books.apply(entry)

    def _append(self, body: dict[str, Any]) -> None:
        """Write an entry; it counts once the transaction is on disk and is read back."""
        self._rows.append(self._books.count, self._books.head, body | {"at": stamp(self._now())})

    def _now(self) -> datetime:
        """The time, never before the latest charge's: a clock set back renews no period."""
        latest = self._books.latest
        return max(self._clock(), moment_of(latest)) if latest else self._clock()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Judge and write (one entry at most) as one act among all processes."""
        with self._rows.transaction():
            self.refresh()
            yield
        self.refresh()
