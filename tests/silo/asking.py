"""A coordinator that asks one silo, and a policy that allows it."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from abfed.lab.session import Session
from abfed.learning.shapes import model_shapes
from abfed.privacy.accounting import Curve
from abfed.privacy.filtering import Filter
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import Refused
from abfed.protocol.identity import Presented
from abfed.protocol.messages import Decoded, Request, decode, encode
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import pack
from abfed.silo.budgets import Budget, Budgets
from abfed.silo.ledger import Ledger
from abfed.silo.permit import Holdings
from abfed.silo.rows import canonical_schema
from abfed.site.clock import stamp
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from tests.signing import access_values, make_people, make_session

SILO = "aurora"
DELTA = 1e-6
HOLDINGS = Holdings(
    epoch="e1" * 32,
    experiments={"spring-2026": ("a", "b", "c")},
    outcomes=("opened", "clicked", "revenue"),
    features={"age": "numeric", "tier": "category"},
)


@dataclass
class SetClock:
    """A clock that tests set."""

    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **parts: float) -> None:
        """Let time pass."""
        self.now += timedelta(**parts)


def policy_values(coordinator: bytes, **changes: Any) -> dict[str, Any]:
    """A policy that allows the example plans; a change to None removes the key."""
    values: dict[str, Any] = {
        "silo": SILO,
        "coordinators": [{"name": "hub", "public_key": coordinator.hex()}],
        "purposes": [{"name": "email-optimisation", "bases": ["consent"]}],
        "columns": ["opened", "clicked", "revenue", "age", "tier"],
        "largest_amounts": [{"column": "revenue", "high": 100.0}],
        "budget": {"epsilon": 10.0, "delta": DELTA},
        "per_plan": {"epsilon": 4.0, "delta": DELTA},
        "access": access_values(coordinator),
    } | changes
    return {key: value for key, value in values.items() if value is not None}


def write_policy(path: Path, coordinator: bytes, **changes: Any) -> None:
    """Write that policy where the silo reads it."""
    write_private(path, yaml.safe_dump(policy_values(coordinator, **changes)).encode())


def model_arrays(plan: Plan, fill: float = 0.0) -> dict[str, Any]:
    """A model of a plan's shapes."""
    return {
        name: np.full(shape.shape, fill, dtype=np.float32)
        for name, shape in model_shapes(plan).items()
    }


@dataclass
class Asker:
    """A coordinator, with an analyst who is signed in there."""

    keys: SiteKeys
    clock: SetClock = field(default_factory=SetClock)

    @cached_property
    def session(self) -> Session:
        """The analyst's session; a session of a day of its own where the clock went on."""
        folder = Path(tempfile.mkdtemp()) / "hub"
        people = make_people(folder, self.keys, self.clock)
        return make_session(people, audience=[SILO])

    def request(
        self,
        asked: Plan,
        step: str = "totals",
        arrays: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> bytes:
        """A signed request; some of its fields may be changed before it is signed."""
        packed = pack(arrays or {})
        values: dict[str, Any] = {
            "plan": asked.canonical_bytes().decode(),
            "step": step,
            "silo": SILO,
            "incoming_digest": sha256_hex(packed),
            "nonce": secrets.token_hex(16),
            "issued_at": stamp(self.clock()),
            "head": "0" * 64,
            "presented": self.presented(asked),
        }
        return self.keys.sign("request", encode(Request(**(values | changes)), packed))

    def presented(self, asked: Plan) -> Presented:
        """What the analyst shows for a plan; signed in again where the session has ended."""
        try:
            return self.session.present(asked)
        except Refused:
            del self.session
            return self.session.present(asked)

    @staticmethod
    def read(answer: bytes, silo: SiteKeys) -> tuple[str, Decoded]:
        """The kind and content of a silo's answer, its signature checked."""
        opened = open_envelope(answer, {silo.key_id: silo.public_key}, where="answer")
        return opened.kind, decode(opened.kind, opened.content, where="answer")


def budgets(total: Budget, **parts: Any) -> Budgets:
    """Budgets with this total and nothing else, unless it is said."""
    return Budgets(total=total, **parts)


def just_enough(curve: Curve, delta: float = DELTA) -> Budget:
    """The smallest budget whose filter covers a curve."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        fits = Filter(middle, delta).spent(curve) <= middle
        low, high = (low, middle) if fits else (middle, high)
    return Budget(epsilon=high, delta=delta)


def charged(ledger: Ledger) -> tuple[int, float, str]:
    """All that a refusal must leave as it was."""
    return len(ledger.reservations()), ledger.spent_epsilon(DELTA), ledger.head


def rows(count: int = 60, **changes: Any) -> pa.Table:
    """Canonical rows of as many recipients, one send each, half in each arm."""
    columns: dict[str, Any] = {
        "recipient": [number.to_bytes(16, "big") for number in range(1, count + 1)],
        "experiment": ["spring-2026"] * count,
        "arm": ["ab"[number % 2] for number in range(count)],
        "sent_at": [datetime(2026, 2, 1, tzinfo=UTC)] * count,
        "basis": ["consent"] * count,
        "opted_out": [False] * count,
        "region": ["eu"] * count,
        "clicked": [number % 3 == 0 for number in range(count)],
        "revenue": [float(number % 40) for number in range(count)],
        "age": [20.0 + number % 50 for number in range(count)],
        "tier": ["gold" if number % 4 else "basic" for number in range(count)],
    } | changes
    schema = canonical_schema(("clicked", "revenue"), {"age": "numeric", "tier": "category"})
    return pa.table(columns, schema=schema)
