"""The register of vendors (S16, S17): whose services a site may use, and until when.

Whatever abfed calls or hands something to (an identity provider, a webhook, a mail server, an
external key store, a place that reports go to) belongs to a vendor. It is usable while the
vendor's entry names that service, was approved by somebody other than its owner, is not due for
review, and is not frozen or offboarded. Whatever is not here is a no.

A questionnaire is scored by weights that are declared with it: the score is the weight of the
questions answered yes, over all weights. An entry below the site's threshold can't be approved.
"""

from __future__ import annotations

import ipaddress
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import AfterValidator, Field, model_validator

from abfed.protocol.canonical import digest
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError, Refused
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen, Name
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.freezes import Freezes
from abfed.site.keys import SiteKeys
from abfed.site.kms import FileKms, Pkcs11Kms
from abfed.site.sealedfile import SealedFile

FILE = "vendors.sealed"
LOWEST_SCORE = 0.7
"""An entry whose questionnaire scores less can't be approved."""

ServiceKind = Literal["identity", "webhook", "mail", "keys", "reports", "connector"]
Category = Literal["none", "contact", "engagement", "purchases", "security-events", "credentials"]


def _shown_as_is(text: str) -> str:
    """What a terminal, a page or a reader could take for something else stands in no register."""
    if not text.isprintable():
        raise ValueError("holds a character that can't be shown")
    return text


def _of_the_calendar(text: str) -> str:
    date.fromisoformat(text)  # 2027-02-31 would compare, and never come
    return text


Text = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_shown_as_is)]
Day = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_of_the_calendar)
]


class Service(Frozen):
    """One thing that a vendor runs and a site uses.

    Attributes:
        kind: what it is used as.
        address: exactly as it is configured: an issuer, an address, a host and port.
    """

    kind: ServiceKind
    address: Text


class Agreement(Frozen):
    """A data-processing agreement (GDPR Art. 28): which, signed when, until when."""

    reference: Text
    signed_on: Day
    ends_on: Day


class Question(Frozen):
    """One question of a risk questionnaire, with its declared weight."""

    text: Text
    weight: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    yes: bool
    evidence: Annotated[str, Field(max_length=300)] = ""


class Vendor(Frozen):
    """What a site knows about a vendor.

    Attributes:
        name, purpose: who, and what for.
        owner: the person of the site who answers for it.
        categories: of data that it gets to see.
        region: where it processes them, as a country or region code.
        transfer: what a transfer out of the region's law rests on; empty where there is none.
        standards: certificates, such as `ISO 27001` or `SOC 2`.
        agreement: data-processing agreement; needed where it sees personal data.
        services: what of it is used.
        questionnaire: scored by its weights.
        review_by: the day from which on it is due for review, and not usable.
    """

    name: Name
    purpose: Text
    owner: Name
    categories: Annotated[tuple[Category, ...], Field(min_length=1)]
    region: Annotated[str, Field(pattern=r"^[A-Z]{2,3}(-[A-Z0-9]{1,3})?$")]
    transfer: Annotated[str, Field(max_length=200)] = ""
    standards: tuple[Text, ...] = ()
    agreement: Agreement | None = None
    services: Annotated[tuple[Service, ...], Field(min_length=1)]
    questionnaire: Annotated[tuple[Question, ...], Field(min_length=1)]
    review_by: Day

    @model_validator(mode="after")
    def _agreed(self) -> Vendor:
        personal = set(self.categories) - {"none", "security-events"}
        if personal and self.agreement is None:
            message = f"agreement: is needed for {', '.join(sorted(personal))}"
            raise ValueError(message)
        return self

    @property
    def ends_on(self) -> str:
        """The day from which on it is not usable: its review's, or its agreement's if sooner."""
        return min(self.review_by, self.agreement.ends_on if self.agreement else self.review_by)

    @property
    def score(self) -> float:
        """Share of the questionnaire's weight that was answered yes."""
        total = sum(one.weight for one in self.questionnaire)
        return sum(one.weight for one in self.questionnaire if one.yes) / total


class Entry(Frozen):
    """A vendor in the register.

    Attributes:
        vendor: what is known.
        added_by, added_at: who put it there, when.
        approved_by, approved_at: who approved exactly this, when; empty where nobody did.
        offboarded: what was done when it was let go, by item; empty while it is used.
    """

    vendor: Vendor
    added_by: str
    added_at: At
    approved_by: str = ""
    approved_at: At | Literal[""] = ""
    offboarded: dict[str, str] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of what is known, in canonical form: what an approval names."""
        return digest(self.vendor.model_dump(mode="json"))

    @property
    def until(self) -> str:
        """The day from which on an approval of it holds no more."""
        return self.vendor.ends_on

    def standing(self, today: str) -> str:
        """`approved`, or why it isn't usable."""
        if self.offboarded:
            return "offboarded"
        if not self.approved_by:
            return "proposed"
        if self.vendor.review_by <= today:
            return "review overdue"
        agreement = self.vendor.agreement
        if agreement is not None and agreement.ends_on <= today:
            return "agreement ended"
        return "approved"


class Register(Frozen):
    """What the sealed file holds."""

    vendors: dict[Name, Entry] = Field(default_factory=dict)


CHECKLIST = (
    "credentials revoked",
    "data returned or deleted, in writing",
    "addresses removed from configurations",
    "people who worked with it told",
)
"""What offboarding asks for; each with who did it and how it is known."""


def on_this_machine(host: str) -> bool:
    """Whether a host is this machine, by a loopback address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_service(kms: FileKms | Pkcs11Kms) -> str:
    """How the register names a key service; empty for files, which are nobody's service.

    A PKCS#11 module may drive a card in this machine or a service far away, and doesn't say which:
    so each takes an entry, by its library and token.
    """
    return "" if isinstance(kms, FileKms) else f"{kms.module}#{kms.token}"


WAY = (
    "see `abfed vendor show`; a new one is put in with `abfed vendor propose`, as a service of kind"
)


class Vendors:
    """A site's vendors.

    Args:
        folder: the site's folder.
        keys: the site's keys.
        audit: the site's log.
        clock: where the time comes from.
    """

    def __init__(
        self, folder: Path, keys: SiteKeys, audit: AuditLog, clock: Clock = system_clock
    ) -> None:
        self._file = SealedFile(folder / FILE, keys, "vendors")
        self._freezes = Freezes(folder, keys, clock)
        self._audit = audit
        self._clock = clock

    def list(self) -> dict[str, Entry]:
        """All entries by name.

        Raises:
            IntegrityError: the register was changed.
        """
        values = self._file.read()
        if values is None:
            return {}
        try:
            return dict(parse_record(Register, values, where=FILE).vendors)
        except InputError as cause:
            raise IntegrityError("not a register of vendors", where=FILE) from cause

    def find(self, name: str) -> Entry:
        """One entry.

        Raises:
            InputError: there is none.
        """
        return _found(self.list(), name)

    @property
    def today(self) -> str:
        """The day, in UTC."""
        return stamp(self._clock())[:10]

    def standings(self) -> dict[str, str]:
        """How each vendor stands today."""
        frozen = {one.name for one in self._freezes.list() if one.kind == "vendor"}
        return {
            name: "frozen" if name in frozen else entry.standing(self.today)
            for name, entry in sorted(self.list().items())
        }

    def put(self, vendor: Vendor, *, by: str) -> Entry:
        """Propose a vendor, or a change to one: what is proposed has to be approved anew.

        Raises:
            InputError: another vendor has the same service already.
        """
        with self._file.alone():
            entries = self.list()
            for name, other in entries.items():
                shared = set(other.vendor.services) & set(vendor.services)
                if name != vendor.name and shared and not other.offboarded:
                    raise InputError(f"vendor {name} has {shared.pop().address!r} already")
            entry = Entry(vendor=vendor, added_by=by, added_at=stamp(self._clock()))
            self._audit.append("vendor.proposed", vendor=vendor.name, digest=entry.digest, by=by)
            self._write(entries | {vendor.name: entry})
        return entry

    def approve(self, name: str, *, by: str, seen: str = "") -> Entry:
        """Approve a vendor as it stands in the register.

        Args:
            name: whom.
            by: who says so.
            seen: digest, or its first characters, of what they looked at: another entry, proposed
                meanwhile, is not approved in its place.

        Raises:
            InputError: there is none, or its review date has passed or its agreement has ended.
            Refused: by its owner or by whoever put it there, its score is too low, or it is not
                what was looked at.
        """
        with self._file.alone():
            entries = self.list()
            entry = _found(entries, name)
            vendor = entry.vendor
            if not entry.digest.startswith(seen):
                raise Refused(
                    f"the entry is {entry.digest[:16]} now, and not what was looked at",
                    code="vendor",
                    where=name,
                    do=f"look at it: `abfed vendor show {name}`",
                )
            if by == entry.added_by or by.partition("@")[0] == vendor.owner:
                raise Refused(
                    "a vendor is approved by somebody other than its owner and its proposer",
                    code="vendor",
                    where=name,
                )
            if vendor.score < LOWEST_SCORE:
                raise Refused(
                    f"the questionnaire scores {vendor.score:.2f}, below {LOWEST_SCORE:g}",
                    code="vendor",
                    where=name,
                    do=f"see what was answered no: `abfed vendor show {name}`",
                )
            if vendor.ends_on <= self.today:
                passed = vendor.review_by <= self.today
                what = "its review date has passed" if passed else "its agreement has ended"
                raise InputError(what, where=name, do="propose it anew, with a later day")
            approved = entry.model_copy(
                update={"approved_by": by, "approved_at": stamp(self._clock())}
            )
            self._audit.append("vendor.approved", vendor=name, digest=entry.digest, by=by)
            self._write(entries | {name: approved})
        return approved

    def offboard(self, name: str, done: dict[str, str], *, by: str) -> Entry:
        """Let a vendor go, once the whole checklist is done.

        Args:
            name: whom.
            done: for each item of `CHECKLIST`, how it is known to be done.
            by: who says so.

        Raises:
            InputError: there is none, or an item is missing.
        """
        with self._file.alone():
            entries = self.list()
            entry = _found(entries, name)
            if missing := [item for item in CHECKLIST if not done.get(item)]:
                raise InputError(f"not done: {'; '.join(missing)}", where=name)
            gone = entry.model_copy(update={"offboarded": {one: done[one] for one in CHECKLIST}})
            self._audit.append("vendor.offboarded", vendor=name, by=by)
            self._write(entries | {name: gone})
        return gone

    def require(self, kind: ServiceKind, address: str) -> str:
        """The vendor whose service this is, if it may be used now.

        Raises:
            Refused: no vendor has it, or its entry doesn't hold today.
        """
        for name, entry in self.list().items():
            if not any((one.kind, one.address) == (kind, address) for one in entry.vendor.services):
                continue
            self._freezes.check({"vendor": name})
            standing = entry.standing(self.today)
            if standing == "approved":
                return name
            if standing != "offboarded":
                self._refuse(kind, f"vendor {name} is not usable: {standing}", name)
        return self._refuse(kind, f"no vendor of this site has this {kind} service", "unknown")

    def _refuse(self, kind: str, what: str, name: str) -> NoReturn:
        self._audit.append("vendor.refused", vendor=name, kind=kind)
        raise Refused(what, code="vendor", do=f"{WAY} {kind}")

    def overdue(self, days: int = 0) -> tuple[str, ...]:
        """Vendors in use whose review or agreement ends within so many days."""
        horizon = stamp(moment_of(stamp(self._clock())) + timedelta(days=days))[:10]
        return tuple(
            name
            for name, entry in sorted(self.list().items())
            if entry.approved_by
            and entry.standing(horizon) in ("review overdue", "agreement ended")
        )

    def _write(self, entries: dict[str, Entry]) -> None:
        self._file.write(Register(vendors=entries).model_dump(mode="json"))


def _found(entries: dict[str, Entry], name: str) -> Entry:
    if name not in entries:
        raise InputError(f"there is no vendor {name!r}", do="see `abfed vendor show`")
    return entries[name]
