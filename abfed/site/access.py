"""Judging who asks: the same checks at submit and again inside each silo (S11, S12, S20).

A token is somebody else's text until check 1 held. In this order, and the first no ends it:

 1. the token is signed by a site whose word on people the policy pins;
 2. it is in date, short-lived, and meant for us;
 3. the session is not older than the policy allows;
 4. the factors are ones that the policy accepts;
 5. the person is not stopped here, and this session began after they were let back, if ever;
 6. the plan was submitted by the key that the token names, for this plan and for us, in date;
 7. what the token is bound to (plans, hours) fits;
 8. role, right and relation: see `abfed.site.rights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from abfed.protocol.envelope import key_id
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.identity import Presented, Right, Submission, Token, read_statement
from abfed.site.clock import moment_of
from abfed.site.rights import AccessPolicy, Asked, decide

TOLERANCE = timedelta(seconds=60)
"""How far two sites' clocks may be apart."""

LONGEST_TOKEN = timedelta(hours=1)
"""No token that lives longer is heard, whoever signed it."""

AGAIN = "run `abfed login`"


class Stopped(Refused):
    """A person who was stopped here asks all the same."""

    def __init__(self, who: str, site: str) -> None:
        super().__init__("this person's access was revoked here", code="revoked", where=site)
        self.who = who


class Asker(NamedTuple):
    """A person who may do what they ask; `signer` is the id of the key that signed the token."""

    token: Token
    submission: Submission | None = None
    approvers: tuple[str, ...] = ()
    signer: str = ""

    @property
    def who(self) -> str:
        """The person, with the site whose word it is."""
        return self.token.who


class Barred(NamedTuple):
    """Whom a site doesn't hear.

    Attributes:
        stopped: people who are stopped now.
        since: people who were let back, and from which sign-in on they are heard again.
    """

    stopped: frozenset[str] = frozenset()
    since: Mapping[str, str] = MappingProxyType({})


class Place(NamedTuple):
    """Where it is judged: which site, by which policy, when, and whom it doesn't hear."""

    site: str
    policy: AccessPolicy
    now: datetime
    barred: Barred = Barred()


def judge_token(text: str, place: Place) -> Token:
    """Checks 1 to 5.

    Raises:
        Refused: with the code `sign-in` or `revoked`.
    """
    token, _ = open_token(text, place)
    check_token(token, place)
    return token


def open_token(text: str, place: Place) -> tuple[Token, str]:
    """Check 1: what a token says, and the id of the key of the site that says it, if it counts.

    Raises:
        Refused: with the code `sign-in`.
    """
    trusted = {
        key_id(bytes.fromhex(one.public_key)): bytes.fromhex(one.public_key)
        for one in place.policy.identities
    }
    try:  # 1
        token, signer = read_statement(Token, "token", text, trusted, where="token")
    except IntegrityError as cause:
        raise _no(cause.what) from cause
    named = {key_id(bytes.fromhex(o.public_key)): o.site for o in place.policy.identities}
    if named[signer] != token.site:
        raise _no("the token is another site's than the one that signed it")
    return token, signer


def check_token(token: Token, place: Place) -> None:
    """Checks 2 to 5.

    Raises:
        Refused: with the code `sign-in` or `revoked`.
    """
    _check_times(token, place)  # 2, 3
    if not _enough(place.policy, token):  # 4
        raise _no("the factors used do not suffice here")
    if token.development and not place.policy.development_people:
        raise _no("people who were made up for trying abfed out do not count here")
    if token.who in place.barred.stopped:  # 5
        raise Stopped(token.who, place.site)
    since = place.barred.since.get(token.who)
    if since is not None and moment_of(token.signed_in_at) <= moment_of(since):
        raise Refused(
            "the session began before this person was let back here",
            code="sign-in",
            where=place.site,
            why=f"they were stopped, and count again from sign-ins after {since[:19]}Z on",
            do=AGAIN,
        )


def judge_asker(presented: Presented, plan: str, place: Place) -> Asker:
    """Checks 1 to 8 for somebody who asks a plan.

    Args:
        presented: what came with the request.
        plan: the plan's digest.
        place: where it is judged.

    Raises:
        Refused: with the code `sign-in`, `revoked` or `rights`.
    """
    token, signer = open_token(presented.token, place)
    check_token(token, place)
    holder = bytes.fromhex(token.holder)
    try:  # 6
        submission, _ = read_statement(
            Submission,
            "submission",
            presented.submission,
            {key_id(holder): holder},
            where="submission",
        )
    except IntegrityError as cause:
        raise _no(cause.what) from cause
    begins, ends = _moments(submission.issued_at, submission.expires_at)
    if not begins - TOLERANCE <= place.now < ends + TOLERANCE:
        raise _no("the submission is not in date")
    if submission.plan != plan:
        raise _no("another plan was submitted")
    if place.site not in submission.sites:
        raise _no("the plan was not submitted to this site")
    _check_bounds(token, plan, place)  # 7
    require(token, "plan.submit", place, submitter=token.who)  # 8
    return Asker(token, submission, signer=signer)


def require(token: Token, right: Right, place: Place, *, submitter: str = "") -> None:
    """Check 8 for any right, over a token that was judged.

    Raises:
        Refused: with the code `rights`; says which step said no.
    """
    decision = decide(place.policy, token, Asked(right, place.site, submitter, place.now))
    if not decision.allowed:
        raise Refused(
            f"{token.who} may not {right} at {place.site}",
            code="rights",
            where=place.site,
            why="; ".join(decision.steps),
            do=f"see `abfed access why {token.person} {right} --site {token.site}`",
        )


def _enough(policy: AccessPolicy, token: Token) -> bool:
    """Whether the factors suffice; a key alone does for a bound service account only."""
    used = set(token.factors)
    bound = token.roles == ("service-account",) and bool(token.plans)
    if "service-account" in token.roles and not bound:
        return False
    return any(
        bool(wanted) and used.issuperset(wanted) and (bound or wanted != ("swk",))
        for wanted in policy.factors
    )


def _check_times(token: Token, place: Place) -> None:
    issued, expires = _moments(token.issued_at, token.expires_at)  # 2
    if not issued - TOLERANCE <= place.now < expires + TOLERANCE:
        raise _no("the token is not in date")
    if expires - issued > LONGEST_TOKEN:
        raise _no("the token lives too long")
    if place.site not in token.audience:
        raise _no("the token is not meant for this site")
    signed_in, factor = _moments(token.signed_in_at, token.factor_at)  # 3
    if place.now - signed_in > timedelta(hours=place.policy.session_hours) + TOLERANCE:
        raise _no("the session is too old")
    if max(signed_in, factor) > place.now + TOLERANCE:
        raise _no("the session begins in the future")


def _check_bounds(token: Token, plan: str, place: Place) -> None:
    if token.plans and plan not in token.plans:
        raise Refused(
            "the account is bound to other plans",
            code="sign-in",
            where=token.who,
            do="make an account for this plan, too: `abfed people service`",
        )
    hours = token.hours
    if hours is None:
        return
    if place.now.weekday() not in hours.days or not hours.start <= place.now.hour < hours.end:
        raise Refused(
            "the account is bound to other hours",
            code="sign-in",
            where=token.who,
            why=f"it may ask from {hours.start} to {hours.end} o'clock UTC, on days "
            f"{''.join(map(str, hours.days))} of the week (Monday is 0)",
            do="ask then, or make an account for other hours: `abfed people service`",
        )


def _moments(first: str, second: str) -> tuple[datetime, datetime]:
    try:
        return moment_of(first), moment_of(second)
    except ValueError as cause:  # such as a 13th month
        raise _no("a time that does not exist") from cause


def _no(what: str) -> Refused:
    return Refused(what, code="sign-in", do=AGAIN)
