"""Service accounts: batch jobs that sign in with a key of their own (S11).

An account has the role service-account and no other, a grant with owner, reason and expiry like
everybody, and is bound to named plans and to hours. Its key is made with it and given out once; the
site keeps the public half. Sign-in proves the key over the session that it is for, so that a proof
which somebody copies opens the same session and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.declared import parse_record
from abfed.protocol.envelope import enclose, key_id
from abfed.protocol.errors import InputError, IntegrityError, Refused, WorkspaceError
from abfed.protocol.identity import Hours, KeyProof, as_text, content_of, read_statement
from abfed.site.clock import moment_of, stamp
from abfed.site.files import read_private, write_private
from abfed.site.grants import Grant, used
from abfed.site.people import People, Person
from abfed.site.signin import Claims, SignIn

PROOF_LIFE = timedelta(seconds=60)


def add_account(
    people: People,
    name: str,
    plans: Iterable[str],
    *,
    hours: Hours | None,
    by: str,
    grants: Sequence[Grant] = (),
) -> Ed25519PrivateKey:
    """Add a service account; its role is granted to it like to everybody.

    Args:
        people: the site's people.
        name: what it is called.
        plans: digests of the only plans that it may ask.
        hours: the only hours in which it may; any where None.
        by: who adds it.
        grants: what it may be from now on.

    Returns:
        Its private key, to be kept by the job; the site forgets it.

    Raises:
        InputError: no plan is named, or the name is taken.
    """
    bound = tuple(plans)
    if not bound:
        raise InputError("a service account is bound to plans", where=name, do="name some")
    key = Ed25519PrivateKey.generate()
    values = {
        "name": name,
        "kind": "service",
        "holder": key.public_key().public_bytes_raw().hex(),
        "plans": list(bound),
        "made_by": by if "@" in by else "",
        "hours": hours.model_dump(mode="json") if hours else None,
        "grants": [grant.model_dump(mode="json") for grant in grants],
    }
    people.add(parse_record(Person, values, where="people"), by=by)
    return key


def parse_hours(text: str, days: str) -> Hours | None:
    """Hours from `2-5` and days of the week from `01234`; None where no hours are named.

    Raises:
        InputError: not such hours or days.
    """
    if not text:
        return None
    start, _, end = text.partition("-")
    if not all(_is_number(one) for one in (start, end, days)):  # `int` takes more: " +२", "1_0"
        raise InputError(
            "not hours such as 2-5 on days such as 01234",
            where="hours",
            why="they are written with the digits 0 to 9, and nothing between them",
        )
    values = {"days": [int(day) for day in days], "start": int(start), "end": int(end)}
    bound = parse_record(Hours, values, where="hours")
    if bound.start >= bound.end:
        raise InputError(
            "hours that end before they begin",
            where="hours",
            why="an account so bound could never ask",
            do="hours lie within one day in UTC; for a night, make an account for each side "
            "of midnight",
        )
    return bound


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def keep_key(path: Path, name: str, key: Ed25519PrivateKey) -> None:
    """Write an account's key to a private file.

    Raises:
        WorkspaceError: there is a file already.
    """
    if path.exists():
        raise WorkspaceError("there is a file already", where=str(path))
    write_private(path, canonical_bytes({"name": name, "key": key.private_bytes_raw().hex()}))


def read_key(path: Path) -> tuple[str, Ed25519PrivateKey]:
    """An account's name and key, from its private file.

    Raises:
        IntegrityError: it is open to others, or not such a file.
    """
    values = parse_canonical(read_private(path), where=str(path))
    try:
        return values["name"], Ed25519PrivateKey.from_private_bytes(bytes.fromhex(values["key"]))
    except (KeyError, TypeError, ValueError) as cause:
        raise IntegrityError("not the key of an account", where=str(path)) from cause


def prove(name: str, key: Ed25519PrivateKey, people: People, holder: bytes) -> str:
    """An account's proof that a session is its own."""
    now = stamp(people.clock())
    proof = KeyProof(name=name, site=people.keys.site, holder=holder.hex(), issued_at=now)
    return as_text(enclose(key, "sign-in", content_of(proof)))


def sign_in_account(people: People, name: str, proof: str, *, audience: Iterable[str]) -> str:
    """A token for the session that an account proved.

    Raises:
        Refused: no such account, stopped, or the proof does not hold.
    """
    now = people.clock()
    account = people.register().people.get(name)
    public = bytes.fromhex(account.holder) if account and account.kind == "service" else bytes(32)
    try:
        said, _ = read_statement(
            KeyProof, "sign-in", proof, {key_id(public): public}, where="sign-in"
        )
        fresh = abs(now - moment_of(said.issued_at)) <= PROOF_LIFE
    except (IntegrityError, ValueError) as cause:
        raise _no(people, name if account else "") from cause
    named = said.name == name and said.site == people.keys.site
    if account is None or not (fresh and named):
        raise _no(people, name if account else "")

    holder = account.holder

    def use(one: Person) -> Person:
        if one.stopped_at or one.holder != holder:  # stopped, or gone, meanwhile too
            raise _no(people, name)
        return one.model_copy(update={"grants": used(one.grants, now)})

    account = people.change(name, use)
    people.audit.append("sign-in.done", person=name, factors="swk")
    return SignIn(people).issue(
        Claims(
            person=name,
            roles=account.roles(now),
            attested=account.attested,
            factors=("swk",),
            holder=said.holder,
            audience=tuple(audience),
            signed_in_at=now,
            factor_at=now,
            plans=account.plans,
            hours=account.hours,
            made_by=account.made_by,
        )
    )


def _no(people: People, name: str) -> Refused:
    people.audit.append("sign-in.failed", person=name or "unknown")
    return Refused("not signed in", code="sign-in", why="no such account, or not its key")
