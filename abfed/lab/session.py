"""The researcher's session: signed in once, it signs each plan that is asked (S11).

The session's key is made here and its private half stays here, in a private file of the lab, until
signing out or the end of the session. What goes to the coordinator is a token that names the public
half and, for each plan, a submission signed with the private one: who copies both can ask no other
plan. Nothing of either is ever shown.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.envelope import enclose, key_id, open_envelope
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.identity import (
    Approval,
    Countersigned,
    Presented,
    Right,
    Submission,
    Token,
    as_envelope,
    as_text,
    content_of,
)
from abfed.site.access import Place, judge_token, require
from abfed.site.accounts import prove, read_key, sign_in_account
from abfed.site.clock import moment_of, stamp
from abfed.site.files import make_private_folder, read_private, write_private
from abfed.site.foureyes import Question
from abfed.site.people import People
from abfed.site.proofs import Second
from abfed.site.signin import SESSION, SignIn

if TYPE_CHECKING:
    from abfed.lab.offices import Office
    from abfed.protocol.plan import Plan
    from abfed.site.device import Shown

DEVELOPMENT_FILE = "development-person.json"  # in it, where a person was made up to try abfed out


class Session:
    """A person who is signed in at a site.

    Args:
        people: the site's people.
        token: the site's word.
        key: the session's private key.
        audience: sites that tokens are to be for.
    """

    def __init__(
        self, people: People, token: str, key: Ed25519PrivateKey, audience: Sequence[str]
    ) -> None:
        self._people = people
        self._token = token
        self._key = key
        self._audience = tuple(audience)
        self._submissions: dict[str, str] = {}
        self.approvals: Callable[[str], Iterable[Countersigned]] = lambda _: ()
        self.facts = _facts(token, people)

    def __repr__(self) -> str:
        """Who and until when; nothing secret."""
        return f"Session({self.who!r}, until {self.ends_at})"

    def __reduce__(self) -> str:
        """Sessions don't travel."""
        message = "a session can't be pickled"
        raise TypeError(message)

    @property
    def who(self) -> str:
        """The person, with the site whose word it is."""
        return self.facts.who

    @property
    def ends_at(self) -> str:
        """When signing in again is needed."""
        return stamp(moment_of(self.facts.signed_in_at) + SESSION)

    @property
    def token(self) -> str:
        """The session's token, as it is now: renewed, so refused once the person is stopped.

        Raises:
            Refused: the session has ended, or the person was stopped.
        """
        token = SignIn(self._people).renew(self._token, self._audience)
        if token != self._token:
            self._token, self.facts = token, _facts(token, self._people)
        return token

    def present(self, plan: Plan) -> Presented:
        """What goes with a message that asks a plan.

        Raises:
            Refused: the session has ended, or the person was stopped.
        """
        return Presented(
            token=self.token,
            submission=self._submit(plan),
            approvals=tuple(self.approvals(plan.digest)),
        )

    def approve(
        self, question: Question, silo: str, *, runs: int, lasts: timedelta
    ) -> Countersigned:
        """Countersign somebody else's plan; whether this person may is judged where it counts."""
        now = self._people.clock()
        approval = Approval(
            id=secrets.token_hex(16),
            plan=question.plan,
            silo=silo,
            epoch=question.epoch,
            policy=question.policy,
            runs=runs,
            issued_at=stamp(now),
            expires_at=stamp(now + lasts),
        )
        signed = as_text(enclose(self._key, "approval", content_of(approval)))
        return Countersigned(token=self._token, approval=signed)

    def expect(self, name: str) -> None:
        """Refuse where somebody else than the one who is named is signed in.

        Raises:
            Refused: with the code `sign-in`.
        """
        if name and name != self.facts.person:
            site = self._people.keys.site
            raise Refused(
                f"{self.who} is signed in at {site}",
                code="sign-in",
                do=f"sign in first: `abfed login {name} --site {site}`",
            )

    def fresh(self, second: Second) -> None:
        """Give a second factor again, for dangerous acts.

        Raises:
            Refused: it is wrong or was used, or this session takes a hardware key.
        """
        self._token = SignIn(self._people).fresh_factor(self._token, second)
        self.facts = _facts(self._token, self._people)

    def require(self, right: Right, place: Place, *, submitter: str = "") -> Token:
        """Refuse unless this person has a right at a site.

        Raises:
            Refused: with the code `sign-in`, `revoked` or `rights`.
        """
        token = judge_token(self.token, place)
        require(token, right, place, submitter=submitter)
        return token

    def keep(self, folder: Path) -> None:
        """Keep the session in a private file of the lab."""
        make_private_folder(folder)
        private = self._key.private_bytes_raw().hex()
        file = _file(folder, self._people.keys.site)
        write_private(file, canonical_bytes({"token": self._token, "key": private}))

    def _submit(self, plan: Plan) -> str:
        if plan.digest not in self._submissions:
            now = self._people.clock()
            submission = Submission(
                plan=plan.digest,
                sites=tuple(dict.fromkeys((self._people.keys.site, *plan.silos))),
                issued_at=stamp(now),
                expires_at=self.ends_at,
            )
            envelope = enclose(self._key, "submission", content_of(submission))
            self._submissions[plan.digest] = as_text(envelope)
        return self._submissions[plan.digest]


def sign_in(
    people: People, name: str, password: str, second: Second, *, audience: Sequence[str]
) -> Session:
    """Sign a person in at a site.

    Raises:
        Refused: without saying which of name, password and second factor was wrong.
    """
    key = Ed25519PrivateKey.generate()
    holder = key.public_key().public_bytes_raw()
    token = SignIn(people).sign_in(name, password, second, holder=holder, audience=audience)
    return Session(people, token, key, audience)


def sign_in_with_key(people: People, key_file: Path, *, audience: Sequence[str]) -> Session:
    """Sign a service account in at a site by its key.

    Raises:
        Refused: no such account, stopped, or not its key.
    """
    name, account = read_key(key_file)
    key = Ed25519PrivateKey.generate()
    proof = prove(name, account, people, key.public_key().public_bytes_raw())
    token = sign_in_account(people, name, proof, audience=audience)
    return Session(people, token, key, audience)


def sign_in_by_device(
    office: Office,
    show: Callable[[Shown], None],
    *,
    audience: Sequence[str],
    wait: Callable[[float], None] = time.sleep,
) -> Session:
    """Sign a person in through the provider that a site trusts.

    Raises:
        WorkspaceError: the site trusts none.
        Refused: the provider, or the site, said no.
    """
    from abfed.site.device import ask_by_device
    from abfed.site.openid import OpenId, load_provider

    provider = load_provider(office.folder)
    trusted = OpenId(office.people, office.folder, provider)
    trusted.require_vendor()
    answered = ask_by_device(provider, show, wait)
    key = Ed25519PrivateKey.generate()
    token = trusted.sign_in(
        answered.id_token,
        answered.keys,
        holder=key.public_key().public_bytes_raw(),
        audience=audience,
    )
    return Session(office.people, token, key, audience)


def load_session(folder: Path, people: People, *, audience: Sequence[str]) -> Session:
    """The session that is kept in the lab.

    Raises:
        Refused: nobody is signed in.
    """
    path = _file(folder, people.keys.site)
    if not path.exists():
        site = people.keys.site
        command = "`abfed login NAME`"
        if site != "coordinator":
            command = f"`abfed login NAME --site {site}`"
        elif (folder / DEVELOPMENT_FILE).exists():
            command = "`abfed login`; the demo's made-up person: `abfed login --development`"
        raise Refused(
            "nobody is signed in",
            code="sign-in",
            why="this is asked by a person, with a password and a second factor",
            do=f"run {command}",
        )
    values = parse_canonical(read_private(path), where=str(path))
    try:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(values["key"]))
        return Session(people, values["token"], key, audience)
    except (KeyError, TypeError, ValueError) as cause:
        raise IntegrityError("not a session", where=str(path), do="sign in again") from cause


def is_signed_in(folder: Path, site: str) -> bool:
    """Whether a session at a site is kept in the lab; it may have run out."""
    return _file(folder, site).exists()


def forget_session(folder: Path, site: str) -> bool:
    """Sign out at a site: the session's key is gone. Returns whether anybody was signed in."""
    path = _file(folder, site)
    if not path.exists():
        return False
    path.unlink()
    return True


def _facts(token: str, people: People) -> Token:
    """What the token says; it is ours, and the silos check it again."""
    keys = people.keys
    envelope = as_envelope(token, where="session")
    opened = open_envelope(
        envelope, {key_id(keys.public_key): keys.public_key}, kind="token", where="session"
    )
    return Token.model_validate_json(opened.content)


def _file(folder: Path, site: str) -> Path:
    return folder / f"session-{site}.json"
