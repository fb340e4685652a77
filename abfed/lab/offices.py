"""The office of a site: where its people are kept, judged, reviewed and stopped.

In an embedded workspace each site's office is a folder of this machine; every command that acts on
a site asks its office first. Who acts is signed in at that site and has the right to, by the site's
own policy. While nobody there may manage people, whoever holds the site's key may do what is done
inside a site (`FOUNDING`): that is how the first one comes in and the first rows, and the log says
so. While nobody may review access, they may do that, too: else a site whose last reviewer's grant
ran out would be closed by its late review for good. Plans, runs and models always take a person who
is signed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from abfed.lab.coordination import coordinator_access
from abfed.lab.readers import forget_reader
from abfed.protocol.errors import InputError, Refused
from abfed.protocol.identity import ROLES, Right, Token
from abfed.site.access import Place
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, stamp, system_clock
from abfed.site.keys import SiteKeys
from abfed.site.people import People
from abfed.site.reviews import Line, Review, Verdict, decide_all, lines, overdue_days
from abfed.site.rights import AccessPolicy, Asked, Decision, Identity, decide
from abfed.site.rotation import destroy_due
from abfed.site.stops import Stop, Stops

if TYPE_CHECKING:
    from abfed.lab.session import Session

KEY_HOLDER = "site-key"
"""How the log calls whoever holds the site's key, before anybody may manage people."""

FOUNDING: frozenset[Right] = frozenset(
    {
        "people.manage",
        "data.ingest",
        "subject.export",
        "subject.erase",
        "budget.raise",
        "policy.change",
        "keys.rotate",
        "audit.read",
        "incident.contain",
        "freeze.lift",
        "vendor.approve",
    }
)
"""What the holder of a site's key may do there until somebody may manage its people."""


class Office:
    """A site's office.

    Args:
        folder: the site's folder.
        policy: gives the site's access policy, as it is now.
        clock: where the time comes from.
    """

    def __init__(
        self,
        folder: Path,
        policy: Callable[[], AccessPolicy],
        clock: Clock = system_clock,
    ) -> None:
        self.folder = folder
        self.keys = SiteKeys.open(folder / "keys")
        self.audit = AuditLog(folder / "audit.jsonl", self.keys, clock)
        destroy_due(folder / "keys", self.keys.ring_marker, self.audit.append, clock)
        self.people = People(folder, self.keys, self.audit, clock)
        self.stops = Stops(folder, self.keys, clock)
        self._policy = policy
        self.clock = clock

    @classmethod
    def of_coordinator(cls, folder: Path, clock: Clock = system_clock) -> Office:
        """The office of a workspace's coordinator."""
        return cls(folder, lambda: coordinator_access(folder), clock)

    @classmethod
    def of_silo(cls, folder: Path, clock: Clock = system_clock) -> Office:
        """The office of a silo of this machine."""
        from abfed.silo.policy import Policy

        return cls(folder, lambda: Policy.load(folder / "policy.yaml").access, clock)

    @property
    def site(self) -> str:
        """The site's name."""
        return self.keys.site

    def place(self) -> Place:
        """The site, now; it takes its own word on people for every role."""
        access = self._policy()
        own = Identity(site=self.site, public_key=self.keys.public_key.hex(), roles=ROLES)
        identities = (*(one for one in access.identities if one.site != self.site), own)
        policy = access.model_copy(update={"identities": identities})
        return Place(self.site, policy, self.clock(), self.stops.barred())

    def managers(self) -> tuple[str, ...]:
        """People of this site who may manage people."""
        return self._granted("people.manage")

    def _granted(self, right: Right) -> tuple[str, ...]:
        """People of this site with a role that has a right."""
        place = self.place()
        roles = {rule.role for rule in place.policy.rights if rule.right == right}
        register = self.people.register().people
        return tuple(
            name
            for name, person in sorted(register.items())
            if not person.stopped_at and roles & set(person.roles(place.now))
        )

    def actor(self, right: Right, session: Callable[[], Session], *, submitter: str = "") -> str:
        """Who acts here, once it is known that they may.

        Args:
            right: what they want to do.
            session: gives the session at this site; not asked for where the key's holder may act.
            submitter: whose plan, run or model it is.

        Raises:
            Refused: nobody is signed in here, or they may not; the refusal is in the log.
        """
        if right in FOUNDING and not self.managers():
            return KEY_HOLDER
        if right == "access.review" and not self._granted("access.review"):
            return KEY_HOLDER
        asker: dict[str, str] = {}
        try:
            opened = session()
            asker["person"] = opened.who
            opened.require(right, self.place(), submitter=submitter)
        except Refused as refused:
            self.audit.append("act.refused", right=right, code=refused.code, **asker)
            raise
        return opened.who

    def revoke(self, who: str, *, by: str, reason: str) -> Stop:
        """Stop a person here from the next message on; one of our own can't renew tokens either."""
        stop = self.stops.stop(who, self.audit, by=by, reason=reason)
        name, _, home = who.partition("@")
        if home == self.site and name in self.people.names():
            self.people.stop(name, by=by)
        return stop

    def offboard(self, name: str, *, by: str, reason: str) -> Stop:
        """Let a person of this site go: stopped first, then everything they have is ended.

        Raises:
            WorkspaceError: there is nobody of this name.
        """
        self.people.person(name)
        stop = self.stops.stop(f"{name}@{self.site}", self.audit, by=by, reason=reason)
        self.people.leave(name, by=by)
        forget_reader(self.folder, name)
        return stop

    def restore(self, who: str, *, by: str) -> str:
        """Let a person ask again; returns after which moment they must have signed in.

        Raises:
            InputError: they are not stopped.
        """
        since = self.stops.lift(who, self.audit, by=by)
        name, _, home = who.partition("@")
        if home == self.site and name in self.people.names():
            self.people.resume(name, by=by)
        return since

    def review_lines(self) -> list[Line]:
        """Every grant, with what is to be looked at."""
        place = self.place()
        people = self.people.register().people.values()
        return lines(people, place.policy.reviews, place.now)

    def alert_overdue(self) -> int:
        """How many days this site is late with its review; in the log too where it is late."""
        place = self.place()
        late = overdue_days(self.people, place.policy.reviews, place.now)
        if late > 0:
            self.audit.append("access.review-overdue", days=late)
        return late

    def review(self, verdicts: Sequence[Verdict], *, by: str) -> Review:
        """Carry a review out.

        Raises:
            InputError: a marked grant is undecided, or a verdict is the reviewer's own.
        """
        reviews = self.place().policy.reviews
        return decide_all(self.folder, self.people, verdicts, by=by, reviews=reviews)

    def check_not_self(self, actor: str, name: str) -> None:
        """Nobody changes their own rights.

        Raises:
            Refused: they try to.
        """
        if actor == f"{name}@{self.site}":
            raise Refused(
                "nobody changes their own rights",
                code="rights",
                where=self.site,
                do="ask another administrator",
            )

    def explain(
        self, name: str, right: Right, *, submitter: str = "", place: Place | None = None
    ) -> Decision:
        """Why a person of this site has a right, or has not, as the records are now.

        A second factor is taken to be fresh: whether it is depends on the moment.

        Args:
            name: whom of this site's people.
            right: what they want to do.
            submitter: whose plan, run or model it is.
            place: at which site; here where None.

        Raises:
            WorkspaceError: there is nobody of this name.
        """
        person, place = self.people.person(name), place or self.place()
        who = f"{name}@{self.site}"
        if person.stopped_at or who in place.barred.stopped:
            return Decision(allowed=False, steps=("no: the person was stopped",))
        if person.development and not place.policy.development_people:
            return Decision(allowed=False, steps=("no: development people do not count here",))
        now = stamp(place.now)
        token = Token(
            id="0" * 32,
            person=name,
            site=self.site,
            roles=person.roles(place.now),
            factors=("swk",) if person.kind == "service" else ("pwd", "otp"),
            attested=person.attested,
            audience=(place.site,),
            holder="0" * 64,
            signed_in_at=now,
            factor_at=now,
            issued_at=now,
            expires_at=now,
            plans=person.plans,
            hours=person.hours,
            development=person.development,
            reviewed_at=self.people.register().reviewed_at or now,
        )
        ran_out = [one.role for one in person.grants if one.role not in token.roles]
        decision = decide(place.policy, token, Asked(right, place.site, submitter, place.now))
        steps = tuple(f"the grant of {role} has run out" for role in ran_out) + decision.steps
        return decision._replace(steps=steps)


def parse_who(text: str, site: str) -> tuple[str, str]:
    """A person and their site, from `ada@aurora` or from a name at `site`.

    Raises:
        InputError: not such a name.
    """
    name, at, home = text.partition("@")
    if not name or (at and not home):
        raise InputError(f"{text!r} names nobody", do="write NAME or NAME@SITE")
    return name, home or site
