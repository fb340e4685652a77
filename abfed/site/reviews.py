"""Reviewing who may do what (S13): what to look at, and what was decided.

A review looks at every grant, of people and of service accounts. It marks those that are stale
(older than a review's period), unused, over-broad (duties that should be apart) or expiring; the
reviewer keeps or revokes each one, and the record says so with their name. Nobody reviews their
own. A review that leaves a marked grant undecided is not one: then nothing changes.

What a provider's claims give lasts a session and is given anew at the next: that it ends is no
mark; that it was not asked for in a while is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError
from abfed.protocol.identity import At, Role
from abfed.protocol.schema import Frozen, Name
from abfed.site.clock import moment_of, stamp
from abfed.site.grants import Grant
from abfed.site.people import People, Person
from abfed.site.rights import Reviews
from abfed.site.sealedfile import SealedFile

FILE = "reviews.sealed"
UNUSED = timedelta(days=45)
EXPIRING = timedelta(days=14)
APART: tuple[frozenset[Role], ...] = (
    frozenset({"analyst", "privacy-officer"}),
    frozenset({"analyst", "security-officer"}),
    frozenset({"silo-admin", "auditor"}),
    frozenset({"security-officer", "auditor"}),
    frozenset({"privacy-officer", "silo-admin"}),
)
"""Pairs of roles that one person should not have: asking and approving, doing and auditing."""

Mark = Literal["stale", "unused", "over-broad", "expiring", "expired", "stopped"]


class Line(NamedTuple):
    """A grant under review.

    Attributes:
        person, role: whose, and what.
        grant: the grant itself.
        marks: what is to be looked at; nothing where all is well.
    """

    person: str
    role: Role
    grant: Grant
    marks: tuple[Mark, ...]


class Verdict(Frozen):
    """What a reviewer decides on one grant."""

    person: Name
    role: Role
    decision: Literal["keep", "revoke"]
    reason: str = ""


class Verdicts(Frozen):
    """A file of decisions."""

    verdicts: tuple[Verdict, ...]


class Review(Frozen):
    """A review that was done."""

    at: At
    by: str
    verdicts: tuple[Verdict, ...]


class Record(Frozen):
    """All reviews of a site, oldest first."""

    reviews: tuple[Review, ...] = Field(default=())


def lines(people: Iterable[Person], reviews: Reviews, now: datetime) -> list[Line]:
    """Every grant with what is to be looked at, marked ones first."""
    found: list[Line] = []
    for person in people:
        passing = person.kind == "provider"
        roles = {one.role for one in person.grants} if passing else set(person.roles(now))
        for grant in person.grants:
            marks = _marks(person, grant, roles, reviews, now)
            found.append(Line(person.name, grant.role, grant, marks))
    return sorted(found, key=lambda line: (not line.marks, line.person, line.role))


def overdue_days(people: People, reviews: Reviews, now: datetime) -> int:
    """How many days a site is late with its review; negative while it is not."""
    last = people.register().reviewed_at or stamp(now)
    return (now - moment_of(last) - timedelta(days=reviews.every_days)).days


def decide_all(
    folder: Path, people: People, verdicts: Sequence[Verdict], *, by: str, reviews: Reviews
) -> Review:
    """Carry a review out: revoke what is to be revoked, and record it all.

    Args:
        folder: the site's folder.
        people: the site's people.
        verdicts: one for each marked grant, more where wished.
        by: who reviews, as `cleo@aurora`.
        reviews: what the policy asks for.

    Raises:
        InputError: a marked grant is undecided, or a verdict is about nothing, the second on its
            grant, or the reviewer's own.
    """
    now = people.clock()
    open_lines = lines(people.register().people.values(), reviews, now)
    known = {(line.person, line.role) for line in open_lines}
    decided = {(one.person, one.role): one for one in verdicts}
    if len(decided) < len(verdicts):
        raise InputError("a grant is decided twice", where="review", do="decide each once")
    if unknown := sorted(set(decided) - known):
        raise InputError(f"{unknown[0][0]} has no grant of {unknown[0][1]!r}", where="review")
    others = [
        line
        for line in open_lines
        if line.marks
        and (line.person, line.role) not in decided
        and f"{line.person}@{people.keys.site}" != by
    ]
    if others:
        raise InputError(
            f"{len(others)} marked grants are undecided, such as {others[0].person}'s",
            where="review",
            do="decide keep or revoke for each",
        )
    if own := [one for one in verdicts if f"{one.person}@{people.keys.site}" == by]:
        raise InputError(f"nobody reviews their own grants ({own[0].role})", where="review")
    for one in verdicts:
        if one.decision == "revoke":
            people.take_back(one.person, one.role, by=by)
    review = Review(at=stamp(now), by=by, verdicts=tuple(verdicts))
    _keep(folder, people, review)
    people.reviewed(now)
    revoked = sum(one.decision == "revoke" for one in verdicts)
    people.audit.append("access.reviewed", by=by, kept=len(verdicts) - revoked, revoked=revoked)
    return review


def record(folder: Path, people: People) -> tuple[Review, ...]:
    """All reviews of a site, oldest first.

    Raises:
        IntegrityError: the record was changed.
    """
    values = SealedFile(folder / FILE, people.keys, "reviews").read()
    return parse_record(Record, values, where=FILE).reviews if values is not None else ()


def _keep(folder: Path, people: People, review: Review) -> None:
    file = SealedFile(folder / FILE, people.keys, "reviews")
    with file.alone():
        kept = Record(reviews=(*record(folder, people), review))
        file.write(kept.model_dump(mode="json"))


def _marks(
    person: Person, grant: Grant, roles: set[Role], reviews: Reviews, now: datetime
) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    given, ends = moment_of(grant.granted_at), moment_of(grant.expires_at)
    used = moment_of(grant.used_at) if grant.used_at else given
    if person.stopped_at:
        marks.append("stopped")
    lasts = person.kind != "provider"  # theirs ends with each session
    if lasts and ends <= now:
        marks.append("expired")
    elif lasts and ends - now <= EXPIRING:
        marks.append("expiring")
    if now - given >= timedelta(days=reviews.every_days):
        marks.append("stale")
    if now - used >= UNUSED:
        marks.append("unused")
    if any(grant.role in pair and pair <= roles for pair in APART):
        marks.append("over-broad")
    return tuple(marks)
