"""Requests of data subjects (S1b): export, erase, opt out, restrict, by the original identifier.

1. A request is written down, sealed, before anything is done, with the day by which the law wants
   an answer: one month (GDPR Art. 12(3)) or 45 days (CCPA §1798.130). So one that was interrupted
   is open, shows as due, and is completed by asking again.
2. What it changes is on disk, wholly or not at all, before the request counts as done (see
   `rewriting`). The log gets the act and the receipt; never the identifier or the pseudonym.
3. Every request has a receipt of its own, also in a batch, which takes one pass over the store.
4. A receipt for an erasure names the plans whose releases the person's data may be in, and why
   those stand: each is differentially private for every recipient, so it says about as much with a
   person as without. Where the policy asks for it, those plans are queued to be trained again.
"""

from __future__ import annotations

import calendar
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.silo.pseudonyms import Normalise, Pseudonyms, normalised
from abfed.silo.rewriting import Rewriting
from abfed.silo.service import SiloService
from abfed.silo.tombstones import State
from abfed.site.clock import Clock, stamp
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

FILE = "subjects.sealed"
QUEUE = "retraining.sealed"
CCPA_DAYS = 45
LONGEST_AGO = timedelta(days=3653)

Act = Literal["export", "erase", "opt-out", "opt-in", "restrict", "unrestrict"]
Law = Literal["gdpr", "ccpa"]

_BARS: dict[Act, tuple[State, bool]] = {
    "opt-out": ("opted-out", False),
    "opt-in": ("opted-out", True),
    "restrict": ("restricted", False),
    "unrestrict": ("restricted", True),
}
_EVENTS: dict[Act, str] = {
    "export": "subject.exported",
    "erase": "subject.erased",
    "opt-out": "subject.opted-out",
    "opt-in": "subject.opted-in",
    "restrict": "subject.restricted",
    "unrestrict": "subject.unrestricted",
}


class Request(Frozen):
    """One person's request.

    Attributes:
        receipt: 128 random bits, hex: what the person is given.
        act: what they ask for.
        who: digest of their pseudonym, to find the request again.
        law: whose deadline counts.
        received_at, due_on: when it came, by which day it must be answered.
        done_at: when it was; empty while it is open.
        held: whether the silo had rows of them.
    """

    receipt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    act: Act
    who: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(repr=False)
    law: Law
    received_at: At
    due_on: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    done_at: At | Literal[""] = ""
    held: bool = False


class Register(Frozen):
    """What the sealed file holds."""

    requests: tuple[Request, ...] = ()


class Queue(Frozen):
    """Plans that are to be trained again after an erasure: when that was asked, by digest."""

    plans: dict[str, At] = Field(default_factory=dict)


class Affected(NamedTuple):
    """A plan whose releases a person's data may be in."""

    name: str
    digest: str
    charged_at: str


class Receipt(NamedTuple):
    """What the person, or whoever answers them, is given.

    Attributes:
        request: the request as it was done.
        silo: where.
        affected: plans whose releases the data may be in; for an erasure.
        why_they_stand: in words.
        retraining: whether those plans are queued to be trained again.
    """

    request: Request
    silo: str
    affected: tuple[Affected, ...] = ()
    why_they_stand: str = ""
    retraining: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; nothing of it is the identifier."""
        request = self.request.model_dump(mode="json", exclude={"who"})
        return {
            **request,
            "silo": self.silo,
            "affected": [one._asdict() for one in self.affected],
            "why_they_stand": self.why_they_stand,
            "retraining": self.retraining,
        }


STANDS = (
    "Each of these releases is differentially private for every recipient, with the epsilon and "
    "delta that its plan states: whoever reads it learns about as much with this person's data in "
    "it as without. Nothing in it can be taken back to a person, so it is kept; no computation "
    "from now on reads this person's data."
)


class Subjects:
    """A silo's answers to data subjects.

    Args:
        service: the silo, opened.
        clock: where the time comes from; the silo's own where left out.
    """

    def __init__(self, service: SiloService, clock: Clock | None = None) -> None:
        self._service = service
        self._clock = clock or service.clock
        self._pseudonyms = Pseudonyms(service.keys)
        self._store = Rewriting(service.paths.store, service.keys)
        self._file = SealedFile(service.paths.folder / FILE, service.keys, "subjects")
        self._queue = SealedFile(service.paths.folder / QUEUE, service.keys, "retraining")

    def receive(
        self,
        act: Act,
        identifiers: Sequence[str],
        *,
        law: Law = "gdpr",
        received: datetime | None = None,
        normalise: Normalise = "casefold",
    ) -> list[Request]:
        """Write requests down; open ones of the same person and act are taken up again.

        Raises:
            InputError: an identifier holds nothing, or the day of receipt is to come.
        """
        now = self._clock()
        came = received or now
        if not now - LONGEST_AGO <= came <= now:
            when = "in the future" if came > now else "so long ago"
            raise InputError(f"a request can't be received {when}")
        digests = [self._digest(one, normalise) for one in identifiers]
        with self._file.alone():
            known = self._requests()
            opened = {(one.who, one.act): one for one in known if not one.done_at}
            asked: list[Request] = []
            for who in dict.fromkeys(digests):
                request = opened.get((who, act)) or Request(
                    receipt=secrets.token_hex(16),
                    act=act,
                    who=who,
                    law=law,
                    received_at=stamp(came),
                    due_on=due_on(came.date(), law).isoformat(),
                )
                asked.append(request)
            new = [one for one in asked if (one.who, one.act) not in opened]
            self._write((*known, *new))
        return asked

    def carry_out(
        self,
        act: Act,
        identifiers: Sequence[str],
        *,
        by: str,
        law: Law = "gdpr",
        received: datetime | None = None,
        normalise: Normalise = "casefold",
    ) -> list[Receipt]:
        """Do what people ask for, all in one pass; on disk when this returns.

        Args:
            act: what; not `export`, which is for one person (see `export`).
            identifiers: as they stand in the brand's exports. Sensitive; kept nowhere.
            by: who does it.
            law: whose deadline counts.
            received: when the requests came; now where left out.
            normalise: as the mapping of the exports says.

        Returns:
            A receipt for each person, in the order given.
        """
        asked = self.receive(act, identifiers, law=law, received=received, normalise=normalise)
        pseudonyms = {self._pseudonyms.of(one, normalise=normalise) for one in identifiers}
        if act == "erase":
            changed = self._store.erase(pseudonyms)
        else:
            state, lift = _BARS[act]
            changed = self._store.bar(pseudonyms, state, lift=lift)
        held = {_digest_of(one) for one in changed.held}
        return self._done(asked, held, by=by)

    def export(
        self,
        identifier: str,
        *,
        by: str,
        law: Law = "gdpr",
        received: datetime | None = None,
        normalise: Normalise = "casefold",
    ) -> tuple[Receipt, dict[str, Any]]:
        """Everything that the silo holds about a person (GDPR Art. 15 and 20).

        Returns:
            The receipt, and the data: sensitive, for this person only.
        """
        asked = self.receive(
            "export", [identifier], law=law, received=received, normalise=normalise
        )
        who = self._pseudonyms.of(identifier, normalise=normalise)
        rows = self._store.export(who)
        sends = [] if rows is None else rows.drop_columns(["recipient", "send_order"]).to_pylist()
        data = {
            "silo": self._service.keys.site,
            "person": normalised(identifier, normalise),
            "states": list(self._store.states_of(who)),
            "purposes": [one.name for one in self._service.policy().purposes],
            "kept_for_days": self._service.policy().retention_days,
            "sends": sends,
        }
        (receipt,) = self._done(asked, {_digest_of(who)} if sends else set(), by=by)
        return receipt, data

    def requests(self) -> tuple[Request, ...]:
        """All requests, oldest first."""
        return self._requests()

    def overdue(self) -> tuple[Request, ...]:
        """Open requests whose day has passed."""
        today = stamp(self._clock())[:10]
        return tuple(one for one in self._requests() if not one.done_at and one.due_on < today)

    def retraining(self) -> dict[str, str]:
        """Plans that are queued to be trained again, by digest, with when that was asked."""
        values = self._queue.read()
        if values is None:
            return {}
        return dict(parse_record(Queue, values, where=QUEUE).plans)

    def affected(self) -> tuple[Affected, ...]:
        """Plans that this silo released for so far."""
        return tuple(
            Affected(one.plan_name, one.plan_digest, one.at)
            for one in self._service.ledger.reservations()
        )

    def _done(self, asked: Iterable[Request], held: set[str], *, by: str) -> list[Receipt]:
        """Close requests, log them, and make receipts."""
        now = stamp(self._clock())
        done = {
            one.receipt: one.model_copy(update={"done_at": now, "held": one.who in held})
            for one in asked
        }
        with self._file.alone():
            self._write(tuple(done.get(one.receipt, one) for one in self._requests()))
        for one in done.values():
            self._service.audit.append(_EVENTS[one.act], receipt=one.receipt, by=by)
        return [self._receipt(one) for one in done.values()]

    def _receipt(self, request: Request) -> Receipt:
        silo = self._service.keys.site
        if request.act != "erase" or not request.held:
            return Receipt(request, silo)
        affected = self.affected()
        wanted = self._service.policy().retrain_after_erasure and bool(affected)
        if wanted:
            now = stamp(self._clock())
            with self._queue.alone():
                plans = {one.digest: now for one in affected} | self.retraining()
                self._queue.write(Queue(plans=plans).model_dump(mode="json"))
        return Receipt(request, silo, affected, STANDS if affected else "", retraining=wanted)

    def _digest(self, identifier: str, normalise: Normalise) -> str:
        if not normalised(identifier, normalise):
            raise InputError("an identifier holds nothing", do="check the file's lines")
        if any(unicodedata.category(one) == "Cc" for one in identifier.strip()):
            raise InputError(
                "an identifier holds control characters",
                why="no address has any; the file may be damaged, and nobody would be found",
                do="check the file's lines and its encoding",
            )
        return _digest_of(self._pseudonyms.of(identifier, normalise=normalise))

    def _requests(self) -> tuple[Request, ...]:
        return _read(self._file)

    def _write(self, requests: tuple[Request, ...]) -> None:
        self._file.write(Register(requests=requests).model_dump(mode="json"))


def open_by_day(folder: Path, keys: SiteKeys) -> dict[str, int]:
    """How many requests of a silo are open, by the day on which they must be answered.

    Raises:
        IntegrityError: the register was changed.
    """
    requests = _read(SealedFile(folder / FILE, keys, "subjects"))
    return dict(sorted(Counter(one.due_on for one in requests if not one.done_at).items()))


def _read(file: SealedFile) -> tuple[Request, ...]:
    values = file.read()
    if values is None:
        return ()
    try:
        return parse_record(Register, values, where=FILE).requests
    except InputError as cause:
        raise IntegrityError("not a register of requests", where=FILE) from cause


def due_on(received: date, law: Law) -> date:
    """The day by which a request must be answered.

    >>> due_on(date(2026, 1, 31), "gdpr").isoformat()
    '2026-02-28'
    >>> due_on(date(2026, 1, 31), "ccpa").isoformat()
    '2026-03-17'
    """
    if law == "ccpa":
        return received + timedelta(days=CCPA_DAYS)
    year, month = divmod(received.year * 12 + received.month, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(received.day, last))


def _digest_of(pseudonym: bytes) -> str:
    return sha256_hex(b"subject:" + pseudonym)
