"""Records that data-protection law asks a brand for, made from what its silo enforces (S22).

Four, each a plain value for JSON and a page for people:

* `processing`: the record of processing activities (GDPR Art. 30(1)),
* `assessment`: facts for an impact assessment (GDPR Art. 35(7)),
* `notice`: what a notice under the CCPA says, with the counts of requests (11 CCR §7102),
* `transfers`: the register of transfers (GDPR Art. 44 to 49).

1. Nothing is typed in by hand: every line comes from the policy that the gate reads, the store's
   manifest, the ledger, the registers of people, vendors and requests, or the key ring.
2. What the law asks for and none of these says is a *gap*, told as one; it is never filled in.
3. No figure comes from a row, and nobody who is in the data or asked about it is named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple, get_args

from abfed.lab.offices import Office
from abfed.lab.responding import vendors_of
from abfed.privacy.accounting import epsilon_of
from abfed.protocol.schema import LAWFULNESS_COLUMNS
from abfed.silo.policy import Policy
from abfed.silo.service import SiloService
from abfed.silo.subjects import Act, Subjects
from abfed.site.checkups import Checkups
from abfed.site.clock import moment_of, stamp
from abfed.site.ring import read_ring
from abfed.site.vendors import Entry

EEA = frozenset(
    {
        "AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IS",
        "IT", "LI", "LV", "LT", "LU", "MT", "NL", "NO", "PL", "PT", "RO", "SK", "SI", "ES", "SE",
        "EU", "EEA",
    }
)  # fmt: skip
"""Where data moves without a transfer: the European Economic Area, by ISO 3166."""

IMPERSONAL = frozenset({"none", "security-events"})
CLOSED_STATES = ("offboarded", "proposed")


class Kept(NamedTuple):
    """What the records are made from, read once.

    Attributes:
        service: the silo, opened.
        office: the same site, as its people keep it.
        policy: what the gate enforces.
        now: when.
    """

    service: SiloService
    office: Office
    policy: Policy
    now: datetime


class Record(NamedTuple):
    """One record.

    Attributes:
        kind: which; a key of `RECORDS`.
        title: for people.
        facts: what is so, by the words of the law; plain values.
        gaps: what the law asks for and nothing here says.
    """

    kind: str
    title: str
    facts: dict[str, Any]
    gaps: tuple[str, ...]


def records_of(service: SiloService, office: Office, now: datetime) -> tuple[Record, ...]:
    """All records of a silo.

    Raises:
        InputError: it has no policy, so it processes nothing that could be written down.
        IntegrityError: a register was changed.
    """
    kept = Kept(service, office, service.policy(), now)
    return tuple(make(kept) for make in RECORDS.values())


def stated(record: Record, service: SiloService, now: datetime) -> dict[str, Any]:
    """A record with what it was made from: to be signed, and compared with what is so later."""
    return {
        "record": record.kind,
        "title": record.title,
        "silo": service.keys.site,
        "key": service.keys.key_id,
        "made_at": stamp(now),
        "policy": service.policy().version,
        "data_epoch": service.store.epoch,
        "audit_head": service.audit.head,
        "facts": record.facts,
        "gaps": list(record.gaps),
    }


def _processing(kept: Kept) -> Record:
    """Art. 30(1), (a) to (g)."""
    policy, store = kept.policy, kept.service.store.describe()
    facts = {
        "controller": kept.service.keys.site,
        "data protection contacts": _people_with(kept, "privacy-officer"),
        "purposes and lawful bases": {one.name: list(one.bases) for one in policy.purposes},
        "categories of people": ["recipients of the brand's marketing e-mail"],
        "categories of data": {
            "tests that people were in": sorted(store.experiments),
            "outcomes": list(store.outcomes),
            "features": dict(store.features),
            "lawfulness": list(LAWFULNESS_COLUMNS),
        },
        "who gets what": {
            **{
                f"coordinator {one.name}": "noised, signed releases only"
                for one in policy.coordinators
            },
            **{
                f"vendor {name}": ", ".join(entry.vendor.categories)
                for name, entry in _in_use(kept).items()
            },
        },
        "transfers": _moves(kept),
        "time limits for erasure": _limits(kept),
        "security measures": _measures(kept),
        "what was done": _plans(kept),
    }
    gaps = (*_gaps_of_policy(kept), *_gaps_of_contacts(kept), *_gaps_of_transfers(kept))
    return Record("processing", "Record of processing activities (GDPR Art. 30)", facts, gaps)


def _assessment(kept: Kept) -> Record:
    """Art. 35(7), (a) to (d)."""
    policy = kept.policy
    spent = kept.service.ledger.spent(policy.budget)
    held = {*kept.service.store.describe().outcomes, *kept.service.store.describe().features}
    facts = {
        "systematic description": {
            "purposes and lawful bases": {one.name: list(one.bases) for one in policy.purposes},
            "columns that plans may use": list(policy.columns),
            "plans so far": _plans(kept),
        },
        "necessity and proportionality": {
            "never read": "people without a basis for the purpose, opted out, restricted, erased "
            "or past retention",
            "held and usable by no plan": sorted(held - set(policy.columns)),
            "smallest cell that is released": policy.minimum_recipients,
            "one plan may spend": f"ε ≤ {policy.per_plan.epsilon:g}, δ ≤ {policy.per_plan.delta:g}",
            "time limits for erasure": _limits(kept),
        },
        "risks to people": {
            "to be told apart by all releases so far": _risk(spent),
            "to be told apart if the whole budget is spent": _risk(policy.budget.epsilon),
            "bound for each person": f"ε = {policy.budget.epsilon:g}, δ = {policy.budget.delta:g}, "
            "over all plans, for ever",
            "what is not covered": "the brand's own administrator with the silo's key; timing on a "
            "shared host; somebody known to two brands is two people here",
        },
        "measures": _measures(kept),
    }
    return Record(
        "assessment",
        "Facts for an impact assessment (GDPR Art. 35)",
        facts,
        (*_gaps_of_policy(kept), *_gaps_of_checkups(kept)),
    )


def _notice(kept: Kept) -> Record:
    """What the CCPA wants said, and how requests were answered."""
    store = kept.service.store.describe()
    subjects = Subjects(kept.service, lambda: kept.now)
    facts = {
        "categories collected": {
            "internet activity": list(store.outcomes),
            "inferences and characteristics": sorted(store.features),
            "identifiers": ["a keyed pseudonym; the address itself is not kept"],
        },
        "sources": ["the brand's own e-mail platform, by its exports"],
        "business purposes": [one.name for one in kept.policy.purposes],
        "sold or shared": "no: only noised, signed releases leave, and none is about one person",
        "disclosed to service providers": {
            name: list(entry.vendor.categories) for name, entry in _in_use(kept).items()
        },
        "kept for": _limits(kept),
        "how to opt out": f"`abfed silo subject opt-out {kept.service.keys.site} WHO`; people whom "
        "the export marks as opted out are never read either",
        "requests": dict(_requests(subjects)),
    }
    late = subjects.overdue()
    gaps = [f"{len(late)} requests are open past their day"] if late else []
    return Record(
        "notice",
        "Notice at collection, and counts of requests (CCPA)",
        facts,
        (*gaps, *_gaps_of_retention(kept)),
    )


def _transfers(kept: Kept) -> Record:
    """Who processes personal data where, and what that rests on."""
    return Record(
        "transfers",
        "Register of transfers (GDPR Art. 44 to 49)",
        {"silo": kept.service.keys.site, "transfers": _moves(kept)},
        tuple(_gaps_of_transfers(kept)),
    )


RECORDS: Mapping[str, Callable[[Kept], Record]] = {
    "processing": _processing,
    "assessment": _assessment,
    "notice": _notice,
    "transfers": _transfers,
}


def _in_use(kept: Kept) -> dict[str, Entry]:
    """Vendors whose services are, or were until something ran out, used."""
    vendors = vendors_of(kept.office)
    standings = vendors.standings()
    return {
        name: entry
        for name, entry in sorted(vendors.list().items())
        if standings[name] not in CLOSED_STATES
    }


def _moves(kept: Kept) -> list[dict[str, str]]:
    standings = vendors_of(kept.office).standings()
    return [
        {
            "vendor": name,
            "data": ", ".join(entry.vendor.categories),
            "region": entry.vendor.region,
            "rests on": entry.vendor.transfer or ("EEA" if _in_eea(entry) else "nothing stated"),
            "agreement": entry.vendor.agreement.reference if entry.vendor.agreement else "none",
            "standing": standings[name],
        }
        for name, entry in _in_use(kept).items()
    ]


def _in_eea(entry: Entry) -> bool:
    return entry.vendor.region.partition("-")[0] in EEA


def _limits(kept: Kept) -> dict[str, str]:
    days = kept.policy.retention_days
    purged = kept.service.store.describe().purged_before
    return {
        "sends": f"{days} days" if days else "no limit",
        "releases": f"{kept.policy.keep_releases_days} days",
        "purged so far": f"before {purged[:10]}" if purged else "nothing",
    }


def _plans(kept: Kept) -> list[dict[str, Any]]:
    delta = kept.policy.budget.delta
    return [
        {
            "plan": one.plan_name,
            "purpose": one.purpose,
            "at": one.at[:10],
            "digest": one.plan_digest,
            "epsilon": _shown(epsilon_of(one.charges, delta)),
        }
        for one in kept.service.ledger.reservations()
    ]


def _shown(epsilon: float) -> float | str:
    """Rounded up; a plan over made-up people may have no bound."""
    return math.ceil(epsilon * 1000) / 1000 if math.isfinite(epsilon) else "no bound"


def _measures(kept: Kept) -> dict[str, Any]:
    """What holds at this site now; each line is checked by code when data is touched."""
    ring, access = read_ring(kept.office.folder / "keys"), kept.policy.access
    last = Checkups(kept.office.folder, kept.office.keys).last()
    return {
        "encryption at rest": "Parquet modular encryption, AES-256-GCM; all else sealed likewise",
        "key-encryption key": f"{ring.current.kms.kind}, since {ring.current.made_at[:10]}",
        "sign-in": [" + ".join(one) for one in access.factors],
        "roles that may do something": sorted({rule.role for rule in access.rights}),
        "plans need a second person": _four_eyes(kept.policy),
        "access review every": f"{access.reviews.every_days} days",
        "audit log": f"{sum(1 for _ in kept.service.audit.entries())} entries, chained and signed",
        "last check-up": f"{last.at[:10]}, worst: {last.worst}" if last else "none",
        "privacy": f"differential privacy for each recipient: ε ≤ {kept.policy.budget.epsilon:g}",
    }


def _four_eyes(policy: Policy) -> str:
    asked = policy.access.four_eyes
    said = []
    if asked.epsilon_above is not None:
        said.append(f"above ε = {asked.epsilon_above:g}")
    if asked.settled_purposes is not None:
        said.append("for a purpose that is not settled")
    if asked.settled_columns is not None:
        said.append("for a column that is not settled")
    return ", ".join(said) or "no"


def _risk(epsilon: float) -> str:
    """What ε bounds: how sure somebody who was half sure can become (δ aside)."""
    sure = 1 / (1 + math.exp(-min(epsilon, 700.0)))
    shown = min(math.ceil(sure * 1000) / 10, 100.0)
    return f"who was 50 % sure that somebody is in the data is at most {shown:g} % sure after"


def _requests(subjects: Subjects) -> Iterator[tuple[str, dict[str, Any]]]:
    """Counts by act, with the median days to answer."""
    every = subjects.requests()
    received = Counter(one.act for one in every)
    for act in get_args(Act):
        done = [one for one in every if one.act == act and one.done_at]
        days = [
            (moment_of(one.done_at) - moment_of(one.received_at)).total_seconds() / 86_400
            for one in done
        ]
        yield (
            act,
            {
                "received": received[act],
                "complied with": len(done),
                "median days": round(median(days), 1) if days else None,
            },
        )


def _people_with(kept: Kept, role: str) -> list[str]:
    register = kept.office.people.register().people
    return [
        f"{name}@{kept.office.site}"
        for name, one in sorted(register.items())
        if role in one.roles(kept.now) and not one.stopped_at
    ]


def _gaps_of_policy(kept: Kept) -> Iterator[str]:
    if not kept.policy.purposes:
        yield "no purpose is stated in the policy, so nothing may be processed"
    if kept.policy.minimum_recipients == 0 and not kept.policy.synthetic:
        yield "no smallest cell is set in the policy (minimum_recipients)"
    yield from _gaps_of_retention(kept)


def _gaps_of_retention(kept: Kept) -> Iterator[str]:
    if kept.policy.retention_days is None:
        yield "no time limit for sends is set in the policy (retention_days)"


def _gaps_of_contacts(kept: Kept) -> Iterator[str]:
    if not _people_with(kept, "privacy-officer"):
        yield "nobody at this site is its privacy officer (`abfed people grant`)"


def _gaps_of_checkups(kept: Kept) -> Iterator[str]:
    last = Checkups(kept.office.folder, kept.office.keys).last()
    if last is None:
        yield "the site was never checked (`abfed doctor`)"
    elif last.worst == "critical":
        yield "the last check-up left something critical (`abfed doctor`)"


def _gaps_of_transfers(kept: Kept) -> Iterator[str]:
    for name, entry in _in_use(kept).items():
        vendor = entry.vendor
        personal = set(vendor.categories) - IMPERSONAL
        if personal and not _in_eea(entry) and not vendor.transfer:
            yield f"{name} processes personal data in {vendor.region}; no basis is stated for it"
