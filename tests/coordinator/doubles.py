"""A stand-in for a silo service: it signs real releases with real keys, but computes on no rows.

What it answers follows from its key material and the request alone, so that, as with a real silo,
the same request gets the same release again, also from another process.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from abfed.coordinator.conduct import Coordinator
from abfed.coordinator.courier import make_courier
from abfed.coordinator.front import Front
from abfed.coordinator.grid import EmbeddedGrid
from abfed.coordinator.inbox import expected_shapes
from abfed.protocol.canonical import canonical_bytes, digest, sha256_hex
from abfed.protocol.envelope import open_envelope
from abfed.protocol.messages import (
    Charge,
    Refusal,
    Release,
    Request,
    decode,
    encode,
    payload_of,
)
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Shape, pack
from abfed.site.access import Barred
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys
from abfed.site.rights import AccessPolicy
from tests.signing import access_values, make_people, make_session

AT = "2026-03-01T12:00:00.000000Z"
Fields = dict[str, Any]
Forge = Callable[[Fields, dict[str, Any]], None]


def plan_values(**changes: Any) -> dict[str, Any]:
    """A small plan with a model over four silos."""
    values: dict[str, Any] = {
        "name": "spring",
        "purpose": "email-optimisation",
        "experiment": "spring-2026",
        "silos": ["aurora", "borealis", "corona", "dawn"],
        "minimum_silos": 2,
        "arms": [
            {"name": "a", "share": 0.5, "control": True},
            {"name": "b", "share": 0.5},
        ],
        "metrics": [{"name": "clicked", "kind": "proportion", "column": "clicked"}],
        "primary": "clicked",
        "features": [
            {"name": "age", "kind": "numeric", "low": 0.0, "high": 100.0},
            {"name": "past", "kind": "numeric", "low": 0.0, "high": 20.0},
        ],
        "model": {"outcome": "clicked"},
        "training": {"rounds": 3, "local_steps": 2, "averaged": 0.0},
        "privacy": {
            "epsilon": 3.0,
            "delta": 1e-6,
            "split": {"statistics": 1.0, "training": 1.5, "evaluation": 0.5},
        },
    }
    return values | changes


def make_plan(**changes: Any) -> Plan:
    """The plan above, changed."""
    return Plan.from_values(plan_values(**changes))


def statistics_plan(**changes: Any) -> Plan:
    """A plan without a model."""
    values = plan_values(**changes)
    for name in ("model", "training"):
        values.pop(name)
    values["privacy"] = {"epsilon": 1.0, "delta": 1e-6, "split": {"statistics": 1.0}}
    return Plan.from_values(values)


def noise_of(silo: str, step: str, incoming: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Arrays that follow from silo, step and incoming model."""
    seed = int.from_bytes(hashlib.sha256(f"{silo} {step} {incoming}".encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    return {
        name: random.integers(1, 10_000, shape.shape)
        if shape.dtype == "int64"
        else random.normal(0.0, 0.1, shape.shape).astype(shape.dtype)
        for name, shape in shapes.items()
    }


@dataclass
class SiloDouble:
    """One silo.

    Attributes:
        keys: its keys.
        coordinator: the public key whose requests it reads.
        epoch: name of the state of its data.
        forge: changes header fields and arrays before they're signed, for hostile silos.
        asked: steps that it was asked, in order.
    """

    keys: SiteKeys
    coordinator: SiteKeys
    epoch: str = ""
    forge: Forge | None = None
    refuses: str = ""
    about: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, envelope: bytes) -> bytes:
        """Answer a request as `SiloService.answer` does."""
        trusted = {self.coordinator.key_id: self.coordinator.public_key}
        opened = open_envelope(envelope, trusted, kind="request", where="request")
        request = decode("request", opened.content, where="request").header
        assert isinstance(request, Request)
        plan = Plan.from_canonical(request.plan.encode())
        self.asked.append(request.step)
        if self.refuses:
            return self.refusal(plan, request.step, self.refuses)
        fields = self.fields(plan, request.step, request.incoming_digest)
        arrays = noise_of(
            request.silo, request.step, request.incoming_digest, expected_shapes(plan, request.step)
        )
        if self.forge is not None:
            self.forge(fields, arrays)
        return self.signed(fields, arrays)

    def fields(self, plan: Plan, step: str, incoming: str) -> Fields:
        """The header of an honest release."""
        epoch = self.epoch or sha256_hex(self.keys.site.encode())
        return {
            "payload": payload_of(step),
            "silo": self.keys.site,
            "plan_digest": plan.digest,
            "step": step,
            "incoming_digest": incoming,
            "key": digest([plan.digest, epoch, step, incoming]),
            "epoch": epoch,
            "simulated": plan.simulation is not None,
            "noise": {"noise_multiplier": 1.0},
            "charged": (Charge(event="gaussian", noise_multiplier=1.0),),
            "budget": None,
            "made_at": AT,
            "head": sha256_hex(f"{self.keys.site} {step}".encode()),
        }

    def signed(self, fields: Fields, arrays: Mapping[str, Any]) -> bytes:
        """A release with these fields and arrays, signed by this silo."""
        packed = pack(arrays)
        header = Release(**(fields | {"arrays_digest": sha256_hex(packed)}))
        return self.keys.sign("release", encode(header, packed))

    def refusal(self, plan: Plan, step: str, code: str) -> bytes:
        """A refusal, signed by this silo."""
        values = {"silo": self.keys.site, "plan_digest": plan.digest, "step": step, "code": code}
        header = Refusal.model_validate(values | {"about": self.about, "head": "0" * 64})
        return self.keys.sign("refusal", encode(header))


class Federation:
    """A coordinator and its silos in one folder; opened again if it's there."""

    def __init__(self, folder: Path, silos: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.keys = _keys(folder / "coordinator", "coordinator")
        names = silos or tuple(plan_values()["silos"])
        self.silos = {
            name: SiloDouble(_keys(folder / "silos" / name, name), self.keys) for name in names
        }
        self.front = make_front(self.keys, self.silos)

    @property
    def coordinator(self) -> Coordinator:
        """The coordinator's site."""
        return Coordinator(
            keys=self.keys,
            audit=AuditLog(self.folder / "coordinator" / "audit.jsonl", self.keys),
            runs=self.folder / "runs",
            silos={name: silo.keys.public_key for name, silo in self.silos.items()},
            front=self.front,
        )

    def grid(self, **carriers: Callable[[bytes], bytes]) -> EmbeddedGrid:
        """A grid over the silos; some may be carried by something else."""
        carry = {name: silo.answer for name, silo in self.silos.items()} | carriers
        return EmbeddedGrid({name: make_courier(one) for name, one in carry.items()})


def make_front(keys: SiteKeys, silos: Iterable[str]) -> Front:
    """An analyst who is signed in at a coordinator, judged by the default table."""
    people = make_people(Path(tempfile.mkdtemp()) / "people", keys)
    session = make_session(people, audience=[keys.site, *silos])
    policy = AccessPolicy.model_validate_json(
        canonical_bytes(access_values(keys.public_key, keys.site))
    )
    return Front(keys.site, session.present, lambda: policy, Barred)


def _keys(folder: Path, site: str) -> SiteKeys:
    if (folder / "site.json").exists():
        return SiteKeys.open(folder)
    return SiteKeys.create(folder, site=site)
