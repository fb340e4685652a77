"""Facts of a silo that records rest on: read from what its silo enforces and did.

Each function reads one thing: the policy that the gate reads, the store's manifest and files, the
ledger, the log, a register, or the key ring. None reads a row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple, get_args

from abfed.lab.incidents.responding import vendors_of
from abfed.lab.offices import Office
from abfed.privacy.accounting import epsilon_of
from abfed.privacy.attack import surest
from abfed.protocol.printable import counted
from abfed.silo.policy import Policy
from abfed.silo.requests import Act
from abfed.silo.service import SiloService
from abfed.silo.subjects import Subjects
from abfed.site.checkups import Checkups
from abfed.site.clock import moment_of
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

SEALED_PARQUET = b"PARE"
"""How a Parquet file with an encrypted footer begins; one that isn't sealed begins with PAR1."""

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


def in_use(kept: Kept) -> dict[str, Entry]:
    """Vendors whose services are, or were until something ran out, used."""
    vendors = vendors_of(kept.office)
    standings = vendors.standings()
    return {
        name: entry
        for name, entry in sorted(vendors.list().items())
        if standings[name] not in CLOSED_STATES
    }


def moves(kept: Kept) -> list[dict[str, str]]:
    """Who processes what where, and what that rests on."""
    standings = vendors_of(kept.office).standings()
    return [
        {
            "vendor": name,
            "data": ", ".join(entry.vendor.categories),
            "region": entry.vendor.region,
            "rests on": entry.vendor.transfer or ("EEA" if in_eea(entry) else "nothing stated"),
            "agreement": entry.vendor.agreement.reference if entry.vendor.agreement else "none",
            "standing": standings[name],
        }
        for name, entry in in_use(kept).items()
    ]


def in_eea(entry: Entry) -> bool:
    """Whether a vendor's region is within the EEA."""
    return entry.vendor.region.partition("-")[0] in EEA


def limits(kept: Kept) -> dict[str, str]:
    """How long things are kept."""
    days = kept.policy.retention_days
    purged = kept.service.store.describe().purged_before
    return {
        "sends": f"{days} days" if days else "no limit",
        "releases": f"{kept.policy.keep_releases_days} days",
        "purged so far": f"before {purged[:10]}" if purged else "nothing",
    }


def plans(kept: Kept) -> list[dict[str, Any]]:
    """What was asked and answered, by the ledger."""
    delta = kept.policy.budget.delta
    return [
        {
            "plan": one.plan_name,
            "purpose": one.purpose,
            "at": one.at[:10],
            "digest": one.plan_digest,
            "epsilon": shown(math.inf if one.exact else epsilon_of(one.charges, delta)),
        }
        for one in kept.service.ledger.reservations()
    ]


def shown(epsilon: float) -> float | str:
    """Rounded up; a plan that is answered without noise, over made-up people, has no bound."""
    return math.ceil(epsilon * 1000) / 1000 if math.isfinite(epsilon) else "no bound"


def measures(kept: Kept) -> dict[str, Any]:
    """What holds at this site now; each line is checked by code when data is touched."""
    sealed, files = sealed_files(kept)
    ring, access = read_ring(kept.office.folder / "keys"), kept.policy.access
    last = Checkups(kept.office.folder, kept.office.keys).last()
    return {
        "encryption at rest": f"{sealed} of {files} files of rows are Parquet with a sealed footer",
        "key-encryption key": f"{ring.current.kms.kind}, since {ring.current.made_at[:10]}",
        "sign-in": [" + ".join(one) for one in access.factors],
        "roles that may do something": sorted({rule.role for rule in access.rights}),
        "plans need a second person": four_eyes(kept.policy),
        "access review every": f"{access.reviews.every_days} days",
        "audit log": f"{sum(1 for _ in kept.service.audit.entries())} entries, chained and signed",
        "last check-up": f"{last.at[:10]}, worst: {last.worst}" if last else "none",
        "privacy": f"differential privacy for each recipient: ε ≤ {kept.policy.budget.epsilon:g}"
        f"{but_exact(kept)}",
    }


def sealed_files(kept: Kept) -> tuple[int, int]:
    """How many files of rows are sealed, by their first bytes, and how many there are."""
    files = sorted(kept.service.paths.store.glob("*.parquet"))
    heads = []
    for path in files:
        with path.open("rb") as file:
            heads.append(file.read(len(SEALED_PARQUET)))
    return sum(head == SEALED_PARQUET for head in heads), len(files)


def left(kept: Kept) -> str:
    """What was released, by the ledger; a plan without a bound is one over made-up people."""
    exact = bare(kept)
    noised = sum(1 for _ in kept.service.ledger.reservations()) - exact
    said = f"noised, signed releases of {counted(noised, 'plan')}"
    return f"{said}, exact ones of {counted(exact, 'plan')}" if exact else said


def bare(kept: Kept) -> int:
    """How many plans were answered without noise: nothing bounds what they tell."""
    return sum(one.exact for one in kept.service.ledger.reservations())


def but_exact(kept: Kept) -> str:
    """What a bound over all plans doesn't hold for."""
    exact = bare(kept)
    return f"; but for exact releases of {counted(exact, 'plan')}: no bound" if exact else ""


def barred(kept: Kept) -> dict[str, int]:
    """How many requests to be left out were carried out."""
    done = Counter(one.act for one in Subjects(kept.service).requests() if one.done_at)
    return {act: done[act] for act in get_args(Act) if act != "export"}


def sources(kept: Kept) -> list[str]:
    """Exports that were taken in, by the log."""
    days = [
        entry["body"]["at"][:10]
        for entry in kept.service.audit.entries()
        if entry["body"]["event"] == "data.ingested"
    ]
    return [f"{counted(len(days), 'export')} taken in, {days[0]} to {days[-1]}"] if days else []


def four_eyes(policy: Policy) -> str:
    """Which plans need a second person."""
    asked = policy.access.four_eyes
    said = []
    if asked.epsilon_above is not None:
        said.append(f"above ε = {asked.epsilon_above:g}")
    if asked.settled_purposes is not None:
        said.append("for a purpose that is not settled")
    if asked.settled_columns is not None:
        said.append("for a column that is not settled")
    return ", ".join(said) or "no"


def risk(epsilon: float) -> str:
    """What ε bounds: how sure somebody who was half sure can become (δ aside)."""
    if not math.isfinite(epsilon):
        return "no bound: exact figures of made-up people were released"
    shown = min(math.ceil(surest(epsilon) * 1000) / 10, 100.0)
    return f"who was 50 % sure that somebody is in the data is at most {shown:g} % sure after"


def requests(subjects: Subjects) -> Iterator[tuple[str, dict[str, Any]]]:
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


def people_with(kept: Kept, role: str) -> list[str]:
    """People of the site with a role now."""
    register = kept.office.people.register().people
    return [
        f"{name}@{kept.office.site}"
        for name, one in sorted(register.items())
        if role in one.roles(kept.now) and not one.stopped_at
    ]
