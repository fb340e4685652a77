"""Requests of data subjects (S1b): export, erase, opt out, restrict, by the original identifier.

1. A request is written down, sealed, before anything is done, with the day by which the law wants
   an answer: one month (GDPR Art. 12(3)) or 45 days (CCPA §1798.130). So one that was interrupted
   is open, shows as due, and is completed by asking again.
2. What it changes is on disk, wholly or not at all, before the request counts as done (see
   `rewriting`): in the store, then in lists (see `lists`), then in what is to be trained again, and
   in the log. So a request that was interrupted can say, when it is asked again, all that it would
   have said: whose rows were held is written down before they go. The log gets the act and the
   receipt; never the identifier or the pseudonym.
3. Every person has one receipt, also in a batch, which takes one pass over the store. Who stands
   there several times, however spelt, has one too: it says on which lines. A receipt that got lost
   can be had again (`receipts`).
4. A receipt for an erasure names the plans whose releases the person's data may be in, and why
   those stand: each is differentially private for every recipient, so it says about as much with a
   person as without; or that nothing covers them, where a plan was answered without noise. Where
   the policy asks for it, those plans are queued to be trained again.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError
from abfed.protocol.messages import release_key
from abfed.silo.entries import Reservation
from abfed.silo.lists import Lists
from abfed.silo.pseudonyms import SEPARATOR, Normalise, Pseudonyms, normalised
from abfed.silo.requests import (
    FILE,
    QUEUE,
    Act,
    Affected,
    Law,
    Queue,
    Receipt,
    Register,
    Request,
    due_on,
    read_requests,
    why_they_stand,
)
from abfed.silo.rewriting import Rewriting
from abfed.silo.service import SiloService
from abfed.silo.tombstones import State
from abfed.site.clock import Clock, stamp
from abfed.site.sealedfile import SealedFile

EVALUATE = "evaluate"
"""The step with which a silo gets the model that a plan ended in."""
LONGEST_AGO = timedelta(days=3653)

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
        self._lists = Lists(service.paths.folder, self._pseudonyms)
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
            InputError: an identifier holds nothing, or stands in the store in its other form;
                or the day of receipt is to come.
        """
        now = self._clock()
        came = received or now
        if not now - LONGEST_AGO <= came <= now:
            when = "in the future" if came > now else "so long ago"
            raise InputError(f"a request can't be received {when}")
        digests = [self._digest(one, normalise) for one in identifiers]
        self._check_form(identifiers, normalise)
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
            A receipt for each person, in the order in which they are named first.
        """
        asked = self.receive(act, identifiers, law=law, received=received, normalise=normalise)
        pseudonyms = {self._pseudonyms.of(one, normalise=normalise) for one in identifiers}
        if act == "erase":
            noted = [one.receipt for one in asked]
            changed = self._store.erase(pseudonyms, lambda held: self._note(noted, _those(held)))
        else:
            state, lift = _BARS[act]
            changed = self._store.bar(pseudonyms, state, lift=lift)
        if act in ("erase", "opt-out", "restrict"):
            self._lists.leave_out(pseudonyms)
        lines: dict[str, list[int]] = defaultdict(list)
        for line, one in enumerate(identifiers, start=1):
            lines[self._digest(one, normalise)].append(line)
        made = self._done(asked, _those(changed.held), by=by)
        return [one._replace(lines=tuple(lines[one.request.who])) for one in made]

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
            "lists": self._lists.about(who),
        }
        held = _those({who}) if sends or data["lists"] else set()
        (receipt,) = self._done(asked, held, by=by)
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
        """Plans that this silo released for so far, with the models that came of them."""
        ledger, kept = self._service.ledger, self._service.models.digests()
        return tuple(
            Affected(
                name=one.plan_name,
                digest=one.plan_digest,
                charged_at=one.at,
                epoch=one.epoch,
                releases=(left := ledger.releases_of(one)),
                trained=any(step.startswith("train-") for step in left),
                models=self._models(one, kept),
                exact=one.exact,
            )
            for one in ledger.reservations()
        )

    def _models(self, charged: Reservation, kept: Iterable[str]) -> tuple[str, ...]:
        """The kept models that were evaluated under a charge: a key of the ledger names one."""
        question = {"plan_digest": charged.plan_digest, "epoch": charged.epoch, "step": EVALUATE}
        answered = self._service.ledger.answered(**question)
        if answered is None:
            return ()
        asked = (charged.plan_digest, charged.epoch, EVALUATE)
        these = [one for one in kept if release_key(*asked, one) == answered[0]]
        return tuple(self._service.models.in_registry(one) for one in these)

    def receipts(
        self, identifiers: Sequence[str], *, normalise: Normalise = "casefold"
    ) -> list[Receipt]:
        """The receipts of everything that people asked for and got, oldest first."""
        who = {self._digest(one, normalise) for one in identifiers}
        affected = self.affected()
        return [
            self._receipt(one, affected, queued=self.retraining())
            for one in self._requests()
            if one.who in who and one.done_at
        ]

    def _check_form(self, identifiers: Sequence[str], normalise: Normalise) -> None:
        """Refuse people whom the store holds in the form that was not named.

        Else they would be told that nothing is held; or, where case tells two people apart,
        somebody else would be answered for.
        """
        other: Normalise = "trim" if normalise == "casefold" else "casefold"
        forms = {
            (self._pseudonyms.of(one, normalise=normalise),
             self._pseudonyms.of(one, normalise=other))
            for one in identifiers
        }  # fmt: skip
        unlike = {(named, else_) for named, else_ in forms if named != else_}
        held = self._store.holds({else_ for _, else_ in unlike}) if unlike else frozenset()
        wrong = {named for named, else_ in unlike if else_ in held}
        if normalise == "trim" and wrong:  # it was named: who is held in it is meant
            wrong -= self._store.holds(wrong)
        if wrong:
            raise InputError(
                f"the store holds {len(wrong)} of these people in another form",
                why="upper and lower case count in one form and not in the other; in this one "
                "nothing would be found, or somebody else",
                do=f"ask for them with `--normalise {other}`, as the mapping of the exports says",
            )

    def _note(self, receipts: Iterable[str], held: set[str]) -> None:
        """Write down whose rows are held, while they are."""
        noted = set(receipts)
        with self._file.alone():
            known = self._requests()
            self._write(
                tuple(
                    one.model_copy(update={"held": True})
                    if one.receipt in noted and one.who in held and not one.done_at
                    else one
                    for one in known
                )
            )

    def _done(self, asked: Iterable[Request], held: set[str], *, by: str) -> list[Receipt]:
        """Queue plans, log the requests, close them, and make receipts.

        Of two who carry one request out at once, the first closes it, for both.
        """
        now = stamp(self._clock())
        with self._file.alone():
            known = {one.receipt: one for one in self._requests()}
            opened = [known[one.receipt] for one in asked if not known[one.receipt].done_at]
            done = {
                one.receipt: one.model_copy(
                    update={"done_at": now, "held": one.held or one.who in held}
                )
                for one in opened
            }
            affected = self.affected()
            if any(one.act == "erase" and one.held for one in done.values()):
                self._queue_again(affected, now)
            for one in done.values():
                self._service.audit.append(_EVENTS[one.act], receipt=one.receipt, by=by)
            self._write(tuple((known | done).values()))
        queued = self.retraining()
        return [
            self._receipt((known | done)[one.receipt], affected, queued=queued) for one in asked
        ]

    def _queue_again(self, affected: Iterable[Affected], now: str) -> None:
        """Queue plans to be trained again, where the policy asks for that."""
        plans = {one.digest: now for one in affected}
        if plans and self._service.policy().retrain_after_erasure:
            with self._queue.alone():
                self._queue.write(Queue(plans=plans | self.retraining()).model_dump(mode="json"))

    def _receipt(
        self, request: Request, affected: Iterable[Affected], *, queued: Mapping[str, str]
    ) -> Receipt:
        silo = self._service.keys.site
        if request.act != "erase" or not request.held:
            return Receipt(request, silo)
        those = tuple(one for one in affected if one.charged_at <= request.done_at)
        again = any(one.digest in queued for one in those)
        return Receipt(request, silo, those, why_they_stand(those), retraining=again)

    def _digest(self, identifier: str, normalise: Normalise) -> str:
        check_identifier(identifier, normalise)
        return _digest_of(self._pseudonyms.of(identifier, normalise=normalise))

    def _requests(self) -> tuple[Request, ...]:
        return read_requests(self._file)

    def _write(self, requests: tuple[Request, ...]) -> None:
        self._file.write(Register(requests=requests).model_dump(mode="json"))


def check_identifier(identifier: str, normalise: Normalise, where: str = "") -> None:
    """Refuse what is nobody's identifier.

    Args:
        identifier: sensitive; not repeated.
        normalise: as the mapping of the exports says.
        where: which line of which file.

    Raises:
        InputError: it holds nothing, or control characters.
    """
    if not normalised(identifier, normalise):
        raise InputError("an identifier holds nothing", where=where, do="check the file's lines")
    text = identifier.strip().replace(SEPARATOR, "")
    if any(unicodedata.category(one) == "Cc" for one in text):
        raise InputError(
            "an identifier holds control characters",
            where=where,
            why="no address has any; the file may be damaged, and nobody would be found",
            do="check the file's lines and its encoding",
        )


def _those(pseudonyms: Iterable[bytes]) -> set[str]:
    return {_digest_of(one) for one in pseudonyms}


def _digest_of(pseudonym: bytes) -> str:
    return sha256_hex(b"subject:" + pseudonym)
