"""Records that data-protection law asks a brand for, made from what its silo enforces (S22).

Four, each a plain value for JSON and a page for people:

* `processing`: the record of processing activities (GDPR Art. 30(1)),
* `assessment`: facts for an impact assessment (GDPR Art. 35(7)),
* `notice`: what a notice under the CCPA says, with the counts of requests (11 CCR §7102),
* `transfers`: the register of transfers (GDPR Art. 44 to 49).

1. Nothing is typed in by hand: every fact comes from the policy that the gate reads, the store's
   manifest and files, the ledger, the log, the registers of people, vendors and requests, or the
   key ring. Whether the rules are kept is what `abfed review` tries, not what is read here.
2. Sentences about what abfed is, which are the same for every silo and rest on no fact of this one,
   stand by themselves (`the same everywhere`).
3. What the law asks for and none of these says is a *gap*, told as one; it is never filled in.
4. No figure comes from a row, and nobody who is in the data or asked about it is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from abfed.lab.offices import Office
from abfed.lab.records.facts import (
    IMPERSONAL,
    Kept,
    bare,
    barred,
    but_exact,
    in_eea,
    in_use,
    left,
    limits,
    measures,
    moves,
    people_with,
    plans,
    requests,
    risk,
    sealed_files,
    sources,
)
from abfed.protocol.printable import counted
from abfed.protocol.schema import LAWFULNESS_COLUMNS
from abfed.silo.rows import FIXED
from abfed.silo.service import SiloService
from abfed.silo.subjects import Subjects
from abfed.site.checkups import Checkups
from abfed.site.clock import stamp


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
        "data protection contacts": people_with(kept, "privacy-officer"),
        "purposes and lawful bases": {one.name: list(one.bases) for one in policy.purposes},
        "categories of people": [f"recipients in {one}" for one in sorted(store.experiments)],
        "categories of data": {
            "tests that people were in": sorted(store.experiments),
            "outcomes": list(store.outcomes),
            "features": dict(store.features),
            "lawfulness": list(LAWFULNESS_COLUMNS),
        },
        "who gets what": {
            **{f"coordinator {one.name}": left(kept) for one in policy.coordinators},
            **{
                f"vendor {name}": ", ".join(entry.vendor.categories)
                for name, entry in in_use(kept).items()
            },
        },
        "transfers": moves(kept),
        "time limits for erasure": limits(kept),
        "security measures": measures(kept),
        "what was done": plans(kept),
    }
    gaps = (
        *_gaps_of_policy(kept),
        *_gaps_of_contacts(kept),
        *_gaps_of_transfers(kept),
        *_gaps_of_files(kept),
    )
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
            "plans so far": plans(kept),
        },
        "necessity and proportionality": {
            "kept from being read, as people asked": barred(kept),
            "held and usable by no plan": sorted(held - set(policy.columns)),
            "smallest cell that is released": policy.minimum_recipients,
            "one plan may spend": f"ε ≤ {policy.per_plan.epsilon:g}, δ ≤ {policy.per_plan.delta:g}",
            "time limits for erasure": limits(kept),
        },
        "risks to people": {
            "to be told apart by all releases so far": risk(math.inf if bare(kept) else spent),
            "to be told apart if the whole budget is spent": risk(policy.budget.epsilon),
            "bound for each person": f"ε = {policy.budget.epsilon:g}, δ = {policy.budget.delta:g}, "
            f"over all plans, for ever{but_exact(kept)}",
        },
        "measures": measures(kept),
        "the same everywhere": {
            "never read": "people without a basis for the purpose, opted out, restricted, erased "
            "or past retention; `abfed review` tries it under this policy (S1)",
            "what is not covered": "the brand's own administrator with the silo's key; timing on a "
            "shared host; somebody known to two brands is two people here",
        },
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
            "identifiers": [f"a keyed pseudonym ({FIXED['recipient']}), never the address itself"],
        },
        "sources": sources(kept),
        "business purposes": [one.name for one in kept.policy.purposes],
        "left this silo": left(kept),
        "disclosed to service providers": {
            name: list(entry.vendor.categories) for name, entry in in_use(kept).items()
        },
        "kept for": limits(kept),
        "how to opt out": f"`abfed silo subject opt-out {kept.service.keys.site} WHO`; people whom "
        "the export marks as opted out are never read either",
        "requests": dict(requests(subjects)),
    }
    late = subjects.overdue()
    gaps = (
        [f"{counted(len(late), 'request of people')} had to be answered before today"]
        if late
        else []
    )
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
        {"silo": kept.service.keys.site, "transfers": moves(kept)},
        tuple(_gaps_of_transfers(kept)),
    )


RECORDS: Mapping[str, Callable[[Kept], Record]] = {
    "processing": _processing,
    "assessment": _assessment,
    "notice": _notice,
    "transfers": _transfers,
}


def _gaps_of_policy(kept: Kept) -> Iterator[str]:
    if not kept.policy.purposes:
        yield "no purpose is stated in the policy, so nothing may be processed"
    if kept.policy.minimum_recipients == 0 and not kept.policy.synthetic:
        yield "no smallest cell is set in the policy (minimum_recipients)"
    yield from _gaps_of_retention(kept)


def _gaps_of_retention(kept: Kept) -> Iterator[str]:
    if kept.policy.retention_days is None:
        yield "no time limit for sends is set in the policy (retention_days)"


def _gaps_of_files(kept: Kept) -> Iterator[str]:
    sealed, files = sealed_files(kept)
    if sealed != files:
        yield f"{files - sealed} files of rows are not sealed (`abfed silo verify`)"


def _gaps_of_contacts(kept: Kept) -> Iterator[str]:
    if not people_with(kept, "privacy-officer"):
        yield "nobody at this site is its privacy officer (`abfed people grant`)"


def _gaps_of_checkups(kept: Kept) -> Iterator[str]:
    last = Checkups(kept.office.folder, kept.office.keys).last()
    if last is None:
        yield "the site was never checked (`abfed doctor`)"
    elif last.worst == "critical":
        yield "the last check-up left something critical (`abfed doctor`)"


def _gaps_of_transfers(kept: Kept) -> Iterator[str]:
    for name, entry in in_use(kept).items():
        vendor = entry.vendor
        personal = set(vendor.categories) - IMPERSONAL
        if personal and not in_eea(entry) and not vendor.transfer:
            yield f"{name} processes personal data in {vendor.region}; no basis is stated for it"
