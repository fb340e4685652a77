"""A site's people: who they are, what they prove it with, what was granted to them (S11, S13).

One sealed register at each site. It keeps hashes and secrets that only sign-in reads; nothing of
them is in a `repr`, an error or the log. Each change is in the audit log before it is in the
register, with who made it. A grant has an owner, a reason and an expiry; there are no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from argon2 import Parameters
from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.protocol.identity import At, Attested, Hex64, Hours, Maker, Role
from abfed.protocol.schema import Frozen, Name
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.factors import (
    RFC_9106,
    check_password,
    hash_password,
    new_otp_secret,
    new_recovery_codes,
    otp_uri,
    recovery_digest,
)
from abfed.site.files import make_own_folder
from abfed.site.grants import Grant, Kind, check_fits, new_grant
from abfed.site.hardware import MOST_KEYS, HardwareKey
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

FOLDER = "people"


class Person(Frozen):
    """A person, a service account, or a person of a provider's. Secrets are never shown.

    No session counts that began before `heard_from`: they were stopped until then.
    """

    name: Name
    kind: Kind = "person"
    development: bool = False
    password: str = Field(default="", repr=False)
    otp_secret: str = Field(default="", repr=False)
    otp_step: int = Field(default=0, repr=False)
    hardware: tuple[HardwareKey, ...] = Field(default=(), max_length=MOST_KEYS, repr=False)
    recovery: tuple[Hex64, ...] = Field(default=(), repr=False)
    failures: int = 0
    locked_until: At | Literal[""] = ""
    grants: tuple[Grant, ...] = ()
    attested: tuple[Attested, ...] = ()
    stopped_at: At | Literal[""] = ""
    heard_from: At | Literal[""] = ""
    holder: Hex64 | Literal[""] = ""
    subject: Hex64 | Literal[""] = ""
    made_by: Maker = ""
    plans: tuple[Hex64, ...] = ()
    hours: Hours | None = None

    def roles(self, now: datetime) -> tuple[Role, ...]:
        """Roles whose grants have not run out."""
        return tuple(g.role for g in self.grants if moment_of(g.expires_at) > now)

    def factors(self) -> str:
        """What they prove themselves with, in words."""
        if self.kind != "person":
            return {"service": "its own key", "provider": "their provider"}[self.kind]
        keys = [f"key {one.label}" for one in self.hardware]
        return ", ".join((["password, code"] if self.password else []) + keys)

    def is_locked(self, now: datetime) -> bool:
        """Whether they are locked out, after too many failures in a row."""
        return bool(self.locked_until) and moment_of(self.locked_until) > now

    def state(self, now: datetime) -> str:
        """What is to be known of them beside their grants, in words."""
        if self.stopped_at:
            return "stopped"
        if self.is_locked(now):
            return f"locked out until {self.locked_until[:19]}Z"
        return self.kind


class Register(Frozen):
    """What the sealed file holds.

    Attributes:
        decoy: a hash of nobody's password: a name that is not here takes as long to refuse.
        attempts: when sign-ins were tried of late, whoever tried them.
        people: everybody, by name.
        reviewed_at: when who may do what was last reviewed; at first, when the first was added.
    """

    decoy: str = Field(repr=False)
    attempts: tuple[At, ...] = ()
    people: dict[Name, Person] = Field(default_factory=dict)
    reviewed_at: At | Literal[""] = ""


class Enrolment(NamedTuple):
    """What a person is shown once, when they are enrolled."""

    name: str
    otp_secret: str
    uri: str
    recovery_codes: tuple[str, ...]

    def __repr__(self) -> str:
        """Whose; none of the secrets."""
        return f"Enrolment(name={self.name!r})"


def register_file(site: Path, keys: SiteKeys) -> SealedFile:
    """Where a site's register lies, by the site's folder."""
    return SealedFile(site / FOLDER / "people.sealed", keys, "people")


def read_register(file: SealedFile) -> Register:
    """Everybody, as they are now.

    Raises:
        IntegrityError: the register was changed.
    """
    values = file.read()
    if values is None:
        return Register(decoy="")
    try:
        return parse_record(Register, values, where=str(file.path))
    except InputError as cause:
        raise IntegrityError("not a register of people", where=str(file.path)) from cause


class People:
    """The people of a site.

    Args:
        site: the site's folder.
        keys: the site's keys.
        audit: its log.
        clock: where the time comes from.
        hashing: Argon2 parameters; RFC 9106's unless a test says otherwise.
    """

    def __init__(
        self,
        site: Path,
        keys: SiteKeys,
        audit: AuditLog,
        clock: Clock = system_clock,
        *,
        hashing: Parameters = RFC_9106,
    ) -> None:
        make_own_folder(site / FOLDER)
        self._file = register_file(site, keys)
        self.folder = site
        self._recovery_key = keys.derive("recovery-codes")
        self.keys = keys
        self.audit = audit
        self.clock = clock
        self.hashing = hashing

    def __repr__(self) -> str:
        """Whose people."""
        return f"People(site={self.keys.site!r})"

    def register(self) -> Register:
        """Everybody, as they are now.

        Raises:
            IntegrityError: the register was changed.
        """
        return read_register(self._file)

    def names(self) -> tuple[str, ...]:
        """Everybody's name."""
        return tuple(sorted(self.register().people))

    def person(self, name: str) -> Person:
        """One person.

        Raises:
            WorkspaceError: there is nobody of this name.
        """
        found = self.register().people.get(name)
        if found is None:
            ending = f"@{self.keys.site}"  # lists show people with it
            raise WorkspaceError(
                f"there is nobody called {name!r} here", where=self.keys.site,
                do=f"leave {ending} out" if name.endswith(ending) else "see `abfed people list`",
            )  # fmt: skip
        return found

    def enrol(
        self,
        name: str,
        password: str,
        *,
        by: str,
        grants: Sequence[Grant] = (),
        development: bool = False,
        again: bool = False,
    ) -> Enrolment:
        """Add a person with a password, a new second factor and their first roles, in one write.

        Args:
            name: what the person is called here.
            password: theirs.
            by: who adds them.
            grants: what they may be from now on.
            development: they are made up, and their secrets will lie in a file.
            again: it is the same person as before, who left and was let back.

        Raises:
            WorkspaceError: nobody of this name was here before.
            InputError: the name, the password or a role can't be used.
        """
        check_password(password, name)
        secret, codes = new_otp_secret(), new_recovery_codes()
        values = {
            "name": name,
            "development": development,
            "password": hash_password(password, self.hashing),
            "otp_secret": secret,
            "recovery": [recovery_digest(self._recovery_key, code) for code in codes],
            "grants": [grant.model_dump(mode="json") for grant in grants],
        }
        made = parse_record(Person, values, where="people")
        if again:
            self._enrol_again(made, by=by)
        else:
            self.add(made, by=by)
        return Enrolment(name, secret, otp_uri(secret, f"{name}@{self.keys.site}"), codes)

    def _enrol_again(self, made: Person, *, by: str) -> None:
        """The new factors in the old record: it keeps since when the name is heard."""

        def change(person: Person) -> Person:
            if person.kind != "person" or person.password or person.stopped_at:
                raise InputError(
                    f"{person.name!r} is nobody who left and was let back",
                    where=self.keys.site,
                    do="let them back first, with `abfed access restore`, or add a new name",
                )
            self._note_grants(made, by=by)
            given = ("password", "otp_secret", "recovery", "grants")
            return person.model_copy(update={name: getattr(made, name) for name in given})

        _check_grants(made)
        self.change(made.name, change, "people.enrolled-again", by=by)

    def _note_grants(self, person: Person, *, by: str) -> None:
        for one in person.grants:
            facts = {"role": one.role, "by": by, "until": one.expires_at}
            self.audit.append("people.granted", person=person.name, **facts)

    def add(self, person: Person, *, by: str) -> None:
        """Add a record; a name is never given twice.

        Raises:
            InputError: the name is taken, or a role is not for their kind.
        """
        _check_grants(person)
        decoy = self.register().decoy or hash_password(new_otp_secret(), self.hashing)
        with self._file.alone():
            register = self.register()
            if person.name in register.people:
                raise InputError(
                    f"there is a {person.name!r} already",
                    where=self.keys.site,
                    do="take another name; who left and was let back comes in again with --again",
                )
            self.audit.append("people.added", person=person.name, kind=person.kind, by=by)
            self._note_grants(person, by=by)
            update = {
                "people": register.people | {person.name: person},
                "decoy": decoy,
                "reviewed_at": register.reviewed_at or stamp(self.clock()),
            }
            self._write(register.model_copy(update=update))

    def change(
        self, name: str, change: Callable[[Person], Person], event: str = "", **facts: str
    ) -> Person:
        """Change one person, alone.

        Args:
            name: whom.
            change: from the record as it is to the record as it will be.
            event: what the audit log calls it; nothing is logged where empty.
            facts: what the log says beside the name.

        Raises:
            WorkspaceError: there is nobody of this name.
        """
        with self._file.alone():
            before = self.person(name)
            after = change(before)
            if event:
                self.audit.append(event, person=name, **facts)
            register = self.register()
            people = register.people | {name: after}
            self._write(register.model_copy(update={"people": people}))
            return after

    def rewrite(self, change: Callable[[Register], Register]) -> Register:
        """Change the register as a whole, alone; returns it as it was before."""
        with self._file.alone():
            before = self.register()
            self._write(change(before))
            return before

    def reviewed(self, at: datetime) -> None:
        """Note that who may do what was reviewed."""
        self.rewrite(lambda register: register.model_copy(update={"reviewed_at": stamp(at)}))

    def grant(self, name: str, role: Role, *, owner: str, reason: str, lasts: timedelta) -> Grant:
        """Give a role for a time; a role that the person has is renewed.

        Raises:
            InputError: no reason, no owner, too long, or not a role for their kind.
        """
        given = new_grant(role, owner=owner, reason=reason, lasts=lasts, now=self.clock())

        def change(person: Person) -> Person:
            check_fits(person.kind, role, name=name)
            kept = tuple(one for one in person.grants if one.role != role)
            return person.model_copy(update={"grants": (*kept, given)})

        self.change(name, change, "people.granted", role=role, by=owner, until=given.expires_at)
        return given

    def take_back(self, name: str, role: Role, *, by: str) -> None:
        """Take a role away."""

        def change(person: Person) -> Person:
            kept = tuple(one for one in person.grants if one.role != role)
            return person.model_copy(update={"grants": kept})

        self.change(name, change, "people.taken-back", role=role, by=by)

    def attest(self, name: str, module: str, *, by: str, lasts: timedelta) -> Attested:
        """Note that a person passed a training module (S20)."""
        values = {"module": module, "until": stamp(self.clock() + lasts)}
        passed = parse_record(Attested, values, where="training")

        def change(person: Person) -> Person:
            kept = tuple(one for one in person.attested if one.module != module)
            return person.model_copy(update={"attested": (*kept, passed)})

        self.change(name, change, "people.attested", module=module, by=by, until=passed.until)
        return passed

    def stop(self, name: str, *, by: str) -> Person:
        """Stop a person: no sign-in and no renewal from now on."""
        update = {"stopped_at": stamp(self.clock())}
        return self.change(name, lambda p: p.model_copy(update=update), "people.stopped", by=by)

    def resume(self, name: str, *, by: str) -> Person:
        """Let a person sign in again; sessions of before stay ended."""
        update = {"stopped_at": "", "heard_from": stamp(self.clock())}
        return self.change(name, lambda p: p.model_copy(update=update), "people.resumed", by=by)

    def leave(self, name: str, *, by: str) -> Person:
        """End all that a person has here, in one write: roles, password, factors, codes, key.

        The record stays, so that logs can be read and the name is never given again; also a
        person who is let back in must be given everything anew.
        """
        gone = {
            "stopped_at": stamp(self.clock()),
            "grants": (),
            "password": "",
            "otp_secret": "",
            "hardware": (),
            "recovery": (),
            "holder": "",
            "plans": (),
        }
        return self.change(name, lambda p: p.model_copy(update=gone), "people.left", by=by)

    def recovery_digest(self, code: str) -> str:
        """What the register keeps of a recovery code."""
        return recovery_digest(self._recovery_key, code)

    def _write(self, register: Register) -> None:
        self._file.write(register.model_dump(mode="json"))


def _check_grants(person: Person) -> None:
    for one in person.grants:
        check_fits(person.kind, one.role, name=person.name)
