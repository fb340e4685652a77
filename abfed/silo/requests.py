"""Requests of data subjects as they are kept, and what people are told (S1b).

The register is sealed and knows nobody: a request names a digest of the person's pseudonym.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

FILE = "subjects.sealed"
QUEUE = "retraining.sealed"
CCPA_DAYS = 45

Act = Literal["export", "erase", "opt-out", "opt-in", "restrict", "unrestrict"]
Law = Literal["gdpr", "ccpa"]


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
    due_on: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    done_at: At | Literal[""] = ""
    held: bool = False


class Register(Frozen):
    """What the sealed file holds."""

    requests: tuple[Request, ...] = ()


class Queue(Frozen):
    """Plans that are to be trained again after an erasure: when that was asked, by digest."""

    plans: dict[str, At] = Field(default_factory=dict)


class Affected(NamedTuple):
    """A plan whose releases a person's data may be in.

    Attributes:
        epoch: the state of the data that it asked.
        releases: digests of what left for it, by step.
        trained: whether models were trained on that: one in each round that `releases` names.
        models: digests of those that came of it and were evaluated here, as a registry names
            them. None where a plan was broken off before: then the releases say which it is.
        exact: whether they are without noise (`privacy: none`), which only a silo that calls its
            people made up gives.
    """

    name: str
    digest: str
    charged_at: str
    epoch: str
    releases: Mapping[str, str]
    trained: bool
    models: tuple[str, ...]
    exact: bool = False


class Receipt(NamedTuple):
    """What the person, or whoever answers them, is given.

    Attributes:
        request: the request as it was done.
        silo: where.
        affected: plans whose releases the data may be in; for an erasure.
        why_they_stand: in words.
        retraining: whether those plans are queued to be trained again.
        lines: where the person stands in what was given, from 1 on.
    """

    request: Request
    silo: str
    affected: tuple[Affected, ...] = ()
    why_they_stand: str = ""
    retraining: bool = False
    lines: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; nothing of it is the identifier."""
        request = self.request.model_dump(mode="json", exclude={"who"})
        return {
            **request,
            "silo": self.silo,
            "affected": [one._asdict() for one in self.affected],
            "why_they_stand": self.why_they_stand,
            "retraining": self.retraining,
            "lines": list(self.lines),
        }


STANDS = (
    "Each of these releases is differentially private for every recipient, with the epsilon and "
    "delta that its plan states: whoever reads it learns about as much with this person's data in "
    "it as without. Nothing in it can be taken back to a person, so it is kept; no computation "
    "from now on reads this person's data."
)
EXACT = (
    "NOT PRIVATE: {plans}. This silo calls its people made up, so these releases carry no noise, "
    "and nothing covers anybody in them. If the person is real, remove those runs."
)


def why_they_stand(affected: Iterable[Affected]) -> str:
    """What is said of the releases that somebody's data may be in."""
    every = list(affected)
    bare = [one.name for one in every if one.exact]
    covered = len(bare) < len(every)
    said = EXACT.format(plans=", ".join(dict.fromkeys(bare)))
    return " ".join([*([STANDS] if covered else []), *([said] if bare else [])])


def open_by_day(folder: Path, keys: SiteKeys) -> dict[str, int]:
    """How many requests of a silo are open, by the day on which they must be answered.

    Raises:
        IntegrityError: the register was changed.
    """
    requests = read_requests(SealedFile(folder / FILE, keys, "subjects"))
    return dict(sorted(Counter(one.due_on for one in requests if not one.done_at).items()))


def read_requests(file: SealedFile) -> tuple[Request, ...]:
    """What a register holds.

    Raises:
        IntegrityError: it was changed.
    """
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
