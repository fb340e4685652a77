"""Signing in at a site, and the tokens that come of it (S11).

Rules:

1. An attempt counts as a failure before anything is compared, and is forgiven once all held: nobody
   gets two guesses for one by asking twice at the same time.
2. Password and code are both compared, whatever the first said, and so they are for a name that is
   not here, or locked out: neither answer nor time tells what was wrong, or who is here.
3. After five failures in a row a person is locked out, for twice as long with each further one.
   A site hears only so many attempts a minute, whoever makes them (`attempts`).
4. A code counts once. So do recovery codes, and those only enrol a new second factor.
5. Tokens live minutes. While the session lasts they are renewed without a factor, unless the person
   was stopped meanwhile: so a stop takes effect at the next message. A session that began before
   its person was let back stays ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from abfed.protocol.envelope import key_id
from abfed.protocol.errors import IntegrityError, Refused, WorkspaceError
from abfed.protocol.identity import (
    Attested,
    Factor,
    Hours,
    Role,
    Token,
    as_text,
    content_of,
    read_statement,
)
from abfed.site.attempts import counted, is_full
from abfed.site.clock import moment_of, stamp
from abfed.site.factors import (
    hash_password,
    is_outdated,
    new_otp_secret,
    new_recovery_codes,
    otp_uri,
    password_fits,
)
from abfed.site.grants import used
from abfed.site.people import Enrolment, People, Person
from abfed.site.proofs import Second, factor_of, proof_of
from abfed.site.stops import Stops

TOKEN_LIFE = timedelta(minutes=10)
TOKEN_YOUNG = timedelta(minutes=1)
"""So long a token that says all that it would say anew is not written anew: it names every site,
and each round of a run asks for it."""
SESSION = timedelta(hours=8)


class Claims(NamedTuple):
    """What a token is to say beside who issues it, and when.

    Attributes:
        person: who.
        roles, attested: what counts now.
        factors: how it was proved.
        holder: public key (hex) of the session.
        audience: for which sites.
        signed_in_at, factor_at: when.
        plans, hours: what a service account is bound to.
        made_by: who made the service account.
        development: whether the person was made up for trying abfed out.
    """

    person: str
    roles: tuple[Role, ...]
    attested: tuple[Attested, ...]
    factors: tuple[Factor, ...]
    holder: str
    audience: tuple[str, ...]
    signed_in_at: datetime
    factor_at: datetime
    plans: tuple[str, ...] = ()
    hours: Hours | None = None
    made_by: str = ""
    development: bool = False


class SignIn:
    """Signs people of one site in.

    Args:
        people: the site's people.
    """

    def __init__(self, people: People) -> None:
        self._people = people

    def sign_in(
        self, name: str, password: str, second: Second, *, holder: bytes, audience: Iterable[str]
    ) -> str:
        """Sign a person in by password and second factor.

        Args:
            name: what was typed as the name.
            password: what was typed as the password.
            second: what was typed as the one-time code, or a hardware key's touch.
            holder: public key of the session; its private half stays with the person.
            audience: sites that the token is for.

        Returns:
            A token, as requests carry it.

        Raises:
            Refused: without saying which of name, password and code was wrong.
        """
        person = self.prove(name, password, second)
        now, factor = self._people.clock(), factor_of(second)
        roles = person.roles(now)
        text = self.issue(
            Claims(
                person=name,
                roles=roles,
                attested=person.attested,
                factors=("pwd", factor),
                holder=holder.hex(),
                audience=tuple(audience),
                signed_in_at=now,
                factor_at=now,
                development=person.development,
            )
        )
        self._people.audit.append("sign-in.done", person=name, factors=f"pwd {factor}")
        return text

    def fresh_factor(self, token: str, second: Second) -> str:
        """A token that says a second factor was given just now, for dangerous acts.

        Raises:
            Refused: it is wrong or was used, the session has ended, or was begun with a hardware
                key, in place of which no code counts.
        """
        held, factor = self._own(token), factor_of(second)
        if self._active(held.person).kind == "provider":
            raise Refused(
                "this person's factors are their provider's",
                code="sign-in",
                do="sign in there again: `abfed login --openid`",
            )
        if "hwk" in held.factors and factor != "hwk":
            raise Refused(
                "this session was begun with a hardware key",
                code="sign-in",
                do="touch it again: `abfed login --fresh --hardware-key`",
            )
        person = self.prove(held.person, None, second)
        self._people.audit.append("sign-in.fresh-factor", person=held.person, factor=factor)
        return self.issue(self._claims(held, person, held.audience, self._people.clock()))

    def renew(self, token: str, audience: Iterable[str] = ()) -> str:
        """The same session's next token, from what is granted now.

        Args:
            token: the last one, expired or not. It is its own successor while it is young, and what
                is granted now is what it says.
            audience: sites that it is for now; the same as before where empty.

        Raises:
            Refused: the session has ended or the person was stopped.
        """
        held = self._own(token)
        sites = tuple(audience) or held.audience
        factor_at = moment_of(held.factor_at)
        claims = self._claims(held, self._active(held.person), sites, factor_at)
        return token if self._still_says(held, claims) else self.issue(claims)

    def recover(self, name: str, password: str, code: str) -> Enrolment:
        """Enrol a new second factor by password and a recovery code; the other codes end too.

        Raises:
            Refused: without saying what was wrong.
        """
        now, person = self._people.clock(), self._tried(name)
        locked = person is not None and person.is_locked(now)
        digest = self._people.recovery_digest(code)
        fits = password_fits(password, self._hash_of(person))
        known = any([secrets.compare_digest(digest, one) for one in self._codes_of(person)])  # noqa: C419 - each is compared
        if person is None or locked or person.stopped_at or not (fits and known):
            self._failed(person, locked=locked)
            raise wrong()
        secret, codes = new_otp_secret(), new_recovery_codes()
        update = {
            "otp_secret": secret,
            "hardware": (),
            "recovery": tuple(self._people.recovery_digest(one) for one in codes),
            "failures": 0,
            "locked_until": "",
        }

        def change(one: Person) -> Person:
            if digest not in one.recovery or one.stopped_at:  # used, or stopped, at the same time
                raise wrong()
            return one.model_copy(update=update)

        self._people.change(name, change, "people.recovered")
        return Enrolment(name, secret, otp_uri(secret, f"{name}@{self._people.keys.site}"), codes)

    def issue(self, claims: Claims) -> str:
        """Sign a token. For sign-in by other means too, such as a provider or a key."""
        now = self._people.clock()
        ends = min(now + TOKEN_LIFE, claims.signed_in_at + SESSION)
        token = Token(
            id=secrets.token_hex(16),
            person=claims.person,
            site=self._people.keys.site,
            roles=claims.roles,
            factors=claims.factors,
            attested=claims.attested,
            audience=claims.audience,
            holder=claims.holder,
            signed_in_at=stamp(claims.signed_in_at),
            factor_at=stamp(claims.factor_at),
            issued_at=stamp(now),
            expires_at=stamp(ends),
            plans=claims.plans,
            hours=claims.hours,
            made_by=claims.made_by,
            development=claims.development,
            reviewed_at=self._people.register().reviewed_at or stamp(now),
        )
        return as_text(self._people.keys.sign("token", content_of(token)))

    def _claims(
        self, held: Token, person: Person, audience: tuple[str, ...], factor_at: datetime
    ) -> Claims:
        """What the next token of a session says; refused where the session has ended."""
        now, began = self._people.clock(), moment_of(held.signed_in_at)
        if now >= began + SESSION or (person.heard_from and began <= moment_of(person.heard_from)):
            raise _ended()
        return Claims(
            person=held.person,
            roles=person.roles(now),
            attested=person.attested,
            factors=held.factors,
            holder=held.holder,
            audience=audience,
            signed_in_at=began,
            factor_at=factor_at,
            plans=person.plans,
            hours=person.hours,
            made_by=person.made_by,
            development=person.development,
        )

    def _still_says(self, held: Token, claims: Claims) -> bool:
        """Whether a token is young and says what one that was written now would say."""
        age = self._people.clock() - moment_of(held.issued_at)
        reviewed_at = self._people.register().reviewed_at
        return (
            timedelta(0) <= age < TOKEN_YOUNG
            and reviewed_at in ("", held.reviewed_at)
            and claims == _claimed(held)
        )

    def _own(self, token: str) -> Token:
        """A token that this site signed, expired or not."""
        keys = self._people.keys
        try:
            trusted = {key_id(keys.public_key): keys.public_key}
            return read_statement(Token, "token", token, trusted, where="session")[0]
        except IntegrityError as cause:
            raise _ended() from cause

    def _active(self, name: str) -> Person:
        try:
            person = self._people.person(name)
        except WorkspaceError as cause:
            raise _ended() from cause
        if person.stopped_at:
            self._kept_out(name)
            raise Refused("this person was stopped", code="revoked", where=self._people.keys.site)
        return person

    def _kept_out(self, name: str) -> None:
        """Note the first refusal for a stop alone: the time from the decision to its effect."""
        people = self._people
        Stops(people.folder, people.keys, people.clock).refused(f"{name}@{people.keys.site}")

    def prove(self, name: str, password: str | None, second: Second) -> Person:
        """Check password (unless the session stands for it) and second factor; all or nothing.

        Raises:
            Refused: without saying which of name, password and second factor was wrong.
        """
        now, person = self._people.clock(), self._tried(name)
        locked = person is not None and person.is_locked(now)
        fits = password is None or password_fits(password, self._hash_of(person))
        proof = proof_of(second, person, now, self._people.audit)
        if person is None or locked or not fits or proof is None or person.stopped_at:
            if person is not None and person.stopped_at and fits and proof and not locked:
                self._kept_out(name)
            self._failed(person, locked=locked)
            raise wrong()
        update: dict[str, Any] = {"failures": 0, "locked_until": ""} | proof.update
        if password is not None and is_outdated(person.password, self._people.hashing):
            update["password"] = hash_password(password, self._people.hashing)

        def change(one: Person) -> Person:
            if not proof.unused(one) or one.stopped_at:  # used, ended or stopped at the same time
                raise wrong()
            return one.model_copy(update=update | {"grants": used(one.grants, now)})

        return self._people.change(name, change)

    def _tried(self, name: str) -> Person | None:
        """Count an attempt (rule 1); the person as they were before it, None where nobody is so."""
        now = self._people.clock()
        before = self._people.rewrite(lambda register: counted(register, name, now))
        if is_full(before, now):
            self._people.audit.append("sign-in.too-many")
            raise Refused("too many sign-ins here just now", code="sign-in", do="wait a minute")
        return before.people.get(name)

    def _hash_of(self, person: Person | None) -> str:
        # whoever has no password (gone, a provider's, a service) takes as long as a wrong one
        return person.password if person and person.password else self._people.register().decoy

    @staticmethod
    def _codes_of(person: Person | None) -> tuple[str, ...]:
        return person.recovery if person else ()

    def _failed(self, person: Person | None, *, locked: bool) -> None:
        """Log a failure. A name that is not here is not repeated: it may be a password."""
        event = "sign-in.locked-out" if locked else "sign-in.failed"
        self._people.audit.append(event, person=person.name if person else "unknown")


def wrong() -> Refused:
    """A no that doesn't tell what was wrong."""
    return Refused(
        "not signed in",
        code="sign-in",
        why="name, password or code is wrong, the code was used, or too many attempts failed",
        do="wait for the next code, or ask the site's administrator to look",
    )


def _ended() -> Refused:
    return Refused("the session has ended", code="sign-in", do="run `abfed login`")


def _claimed(token: Token) -> Claims:
    """What a token says beside who issued it, and when."""
    said = {name: getattr(token, name) for name in Claims._fields}
    return Claims(**said | {at: moment_of(said[at]) for at in ("signed_in_at", "factor_at")})
