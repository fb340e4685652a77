"""What a person changes about how they sign in: their password, their hardware keys (S11).

Each act is proved by the password and a one-time code, whoever is signed in: a session that
somebody else sits at changes nothing. A second factor that is lost is `SignIn.recover`'s.
"""

from __future__ import annotations

import secrets

from abfed.protocol.errors import InputError
from abfed.site.clock import stamp
from abfed.site.factors import check_password, hash_password, password_fits
from abfed.site.hardware import MOST_KEYS, HardwareKey, Touch, check_touch, decoy_id
from abfed.site.people import People, Person
from abfed.site.signin import SignIn, wrong


def change_password(people: People, name: str, password: str, code: str, new: str) -> None:
    """Change a person's password; their sessions end.

    Raises:
        InputError: the new one can't be used; nothing was tried then.
        Refused: without saying which of name, password and code was wrong.
    """
    check_password(new, name)
    if secrets.compare_digest(new.encode(), password.encode()):
        raise InputError("the new password is the old one", do="choose another")
    SignIn(people).prove(name, password, code)
    update = {
        "password": hash_password(new, people.hashing),
        "heard_from": stamp(people.clock()),
    }

    def change(person: Person) -> Person:
        if person.stopped_at or not password_fits(password, person.password):
            raise wrong()  # stopped, or changed, at the same time
        return person.model_copy(update=update)

    people.change(name, change, "people.password-changed")


def add_key(
    people: People, name: str, password: str, code: str, *, key: HardwareKey, touch: Touch
) -> None:
    """Enrol a hardware key, once it has signed a challenge.

    Raises:
        InputError: there is one so called, or there are too many.
        Refused: the key doesn't work, or without saying which of the others was wrong.
    """
    works = check_touch(touch, [key])
    SignIn(people).prove(name, password, code)

    def change(person: Person) -> Person:
        taken = {text for one in person.hardware for text in (one.label, one.id)}
        if {works.label, works.id} & taken or len(person.hardware) >= MOST_KEYS:
            raise InputError(
                f"no hardware key can be added as {works.label!r}",
                why=f"the label or the key is there already, or there are {MOST_KEYS}",
                do="take another label, or remove one: `abfed people remove-key`",
            )
        if person.stopped_at:
            raise wrong()
        return person.model_copy(update={"hardware": (*person.hardware, works)})

    people.change(name, change, "people.key-added", key=works.label)


def remove_key(people: People, name: str, password: str, code: str, label: str) -> None:
    """Take a hardware key away.

    Raises:
        InputError: there is none so called.
        Refused: without saying which of name, password and code was wrong.
    """
    SignIn(people).prove(name, password, code)

    def change(person: Person) -> Person:
        kept = tuple(one for one in person.hardware if one.label != label)
        if len(kept) == len(person.hardware):
            raise InputError(f"there is no hardware key {label!r}", where=name)
        return person.model_copy(update={"hardware": kept})

    people.change(name, change, "people.key-removed", key=label)


def key_ids(people: People, name: str) -> tuple[str, ...]:
    """Which keys a page is to ask; for who has none, or is not here, one that is nobody's."""
    person = people.register().people.get(name)
    known = tuple(one.id for one in person.hardware) if person else ()
    return known or (decoy_id(people.keys.derive("hardware-keys"), name),)
