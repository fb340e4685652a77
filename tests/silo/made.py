"""Rows, stores, permits and exports that the tests of a silo start from."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.plan import Plan
from abfed.silo.permit import Permit
from abfed.silo.rows import FeatureKind, canonical_schema
from abfed.silo.store import Store
from abfed.site.keys import SiteKeys

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
ARMS = ("control", "warm", "urgent")
EXPERIMENTS = {"spring": ARMS, "autumn": ARMS}
FEATURES: dict[str, FeatureKind] = {"age": "numeric", "tier": "category"}
OUTCOMES = ("opened", "clicked", "revenue")
LAWFUL = ("consent", "legitimate-interests")


def pseudonym(number: int) -> bytes:
    """A stand-in for a recipient."""
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=16).digest()


def send(person: int, day: int = 0, **changes: Any) -> dict[str, Any]:
    """One canonical row; a person's arm follows from their number."""
    return {
        "recipient": pseudonym(person),
        "experiment": "spring",
        "arm": ARMS[person % 3],
        "sent_at": START + timedelta(days=day),
        "basis": "consent",
        "opted_out": False,
        "region": "EU",
        "opened": False,
        "clicked": None,
        "revenue": None,
        "age": 40.0,
        "tier": "gold",
    } | changes


def table(rows: list[dict[str, Any]], features: dict[str, FeatureKind] | None = None) -> pa.Table:
    """Rows as a canonical table."""
    schema = canonical_schema(OUTCOMES, FEATURES if features is None else features)
    return pa.Table.from_pylist(
        [{name: row[name] for name in schema.names} for row in rows], schema=schema
    )


def founded(folder: Path, *, buckets: int = 4, site: str = "aurora") -> tuple[Store, SiteKeys]:
    """A new store and its keys, beside each other in `folder`."""
    keys = SiteKeys.create(folder / "keys", site=site)
    return Store.create(folder / "store", keys, buckets=buckets), keys


def put(store: Store, rows: list[dict[str, Any]], **options: Any) -> Any:
    """Upsert rows as one table."""
    return store.upsert([table(rows)], experiments=EXPERIMENTS, **options)


def spring_plan(**changes: Any) -> Plan:
    """A plan over the rows above that reads all columns."""
    shares = (0.4, 0.3, 0.3)
    values: dict[str, Any] = {
        "name": "spring",
        "purpose": "email-optimisation",
        "experiment": "spring",
        "silos": ["aurora"],
        "arms": [
            {"name": arm, "share": share, "control": arm == "control"}
            for arm, share in zip(ARMS, shares, strict=True)
        ],
        "metrics": [
            {"name": "opened", "kind": "proportion", "column": "opened"},
            {"name": "clicked", "kind": "proportion", "column": "clicked"},
            {"name": "spend", "kind": "mean", "column": "revenue", "high": 50.0},
        ],
        "primary": "opened",
        "features": [
            {"name": "age", "kind": "numeric", "low": 0.0, "high": 100.0},
            {"name": "tier", "kind": "category", "values": ["basic", "gold"]},
        ],
        "privacy": {"epsilon": 1.0, "split": {"statistics": 1.0}},
    }
    return Plan.from_values(values | changes)


def permit(store: Store, plan: Plan | None = None, **changes: Any) -> Permit:
    """A permit for the store as it is now."""
    values: dict[str, Any] = {
        "plan": plan or spring_plan(),
        "step": "totals",
        "key": "0" * 64,
        "epoch": store.epoch,
        "charges": (),
        "noise": SystemNoise(),
        "lawful_bases": LAWFUL,
        "holdout_key": bytes(32),
    }
    return Permit(**(values | changes))


def seen(store: Store, plan: Plan | None = None, **changes: Any) -> list[dict[str, Any]]:
    """All rows that a permit sees, with every declared column."""
    allowed = permit(store, plan, **changes)
    columns = allowed.plan.columns()
    return [row for part in store.read(allowed, columns) for row in part.to_pylist()]


def people(rows: list[dict[str, Any]]) -> set[bytes]:
    """Whose rows these are."""
    return {row["recipient"] for row in rows}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def upsert_in_steps(folder: Path, told: Any) -> None:
    """Upsert 400 people's sends with a revenue of 1; runs in a process of its own."""
    store = Store.open(folder / "store", SiteKeys.open(folder / "keys"))
    rows = table([send(person, day, revenue=1.0) for person in range(400) for day in (0, 7)])
    told.send("ready")
    told.recv()
    store.upsert([rows], experiments=EXPERIMENTS)
    told.send("done")


MAPPING = """\
experiment: {column: campaign, values: {Spring: spring, Autumn: autumn}}
recipient: {columns: [email]}
arm: {column: variant, values: {A: control, B: warm}}
sent_at: {column: sent, format: "%Y-%m-%d %H:%M"}
outcomes:
  opened: {column: opened, yes: ["1"], no: ["0"]}
  clicked: {column: clicked_at, present: true}
  revenue: {column: spend}
features:
  age: {kind: numeric, column: age}
  tier: {kind: category, column: tier, values: {g: gold, b: basic}}
basis: {column: legal, values: {C: consent, LI: legitimate-interests}}
opted_out: {column: optout, yes: ["Y"], no: ["N"]}
region: {column: country}
"""

HEADER = "email,campaign,variant,sent,opened,clicked_at,spend,age,tier,legal,optout,country"


def line(person: int = 1, **changes: Any) -> str:
    """One line of an export that `MAPPING` reads."""
    values = {
        "email": f"person{person}@example.com",
        "campaign": "Spring",
        "variant": "AB"[person % 2],
        "sent": "2026-03-02 08:00",
        "opened": "1",
        "clicked_at": "",
        "spend": "0",
        "age": "40",
        "tier": "g",
        "legal": "C",
        "optout": "N",
        "country": "EU",
    } | {name: str(value) for name, value in changes.items()}
    return ",".join(values[name] for name in HEADER.split(","))


def export_text(*lines: str) -> str:
    """An export with this header and these lines."""
    return "\n".join([HEADER, *lines]) + "\n"
