"""Silos that add one noise together, with rows, keys, policies and ledgers of their own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from abfed.coordinator.app import RunOutcome, carry_out
from abfed.coordinator.conduct import Coordinator
from abfed.coordinator.courier import make_courier
from abfed.coordinator.front import Front
from abfed.coordinator.grid import EmbeddedGrid
from abfed.coordinator.together import open_sums
from abfed.lab.runs import Run
from abfed.privacy.once import steps_of
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.chain import GENESIS
from abfed.protocol.envelope import open_envelope
from abfed.protocol.messages import Decoded, Refusal, Release, Request, decode, encode
from abfed.protocol.plan import Plan
from abfed.protocol.relayed import Lists, pack_lists
from abfed.silo.service import SiloService
from abfed.silo.totals import _add_table
from abfed.site.audit import AuditLog
from abfed.site.clock import stamp, system_clock
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from abfed.stats.once import weights_of
from abfed.stats.totals import Layout
from tests.coordinator.doubles import make_front
from tests.examples import plan_values
from tests.silo.asking import policy_values, rows

SILOS = ("aurora", "borealis", "corona", "dawn")
ARMS = ("a", "b")
Carrier = Callable[[bytes], bytes]


def once_plan(**changes: Any) -> Plan:
    """A plan with noise once of four silos: three must be in the sum, one may collude."""
    values: dict[str, Any] = {
        "silos": list(SILOS),
        "minimum_silos": 3,
        "privacy": {"epsilon": 1.0, "split": {"statistics": 1.0}, "noise": "once"},
    }
    return Plan.from_values(plan_values(**(values | changes)))


def table(count: int, shift: int = 0, arms: tuple[str, ...] = ARMS) -> pa.Table:
    """As many recipients, dealt to the arms in turn; a third of them click, or half."""
    places = np.arange(count)
    return rows(
        count,
        arm=[arms[number % len(arms)] for number in places],
        clicked=[bool(number % (2 + shift) == 0) for number in places],
    )


@dataclass
class Kin:
    """A coordinator and its silos.

    Attributes:
        folder: where they lie.
        hub: the coordinator's keys.
        tables: rows of each silo.
        services: each silo, opened.
    """

    folder: Path
    hub: SiteKeys
    tables: dict[str, pa.Table]
    services: dict[str, SiloService]

    @classmethod
    def found(cls, folder: Path, tables: Mapping[str, pa.Table], **policy: Any) -> Kin:
        """Found silos that pin one another."""
        hub = SiteKeys.create(folder / "hub", site="hub")
        services: dict[str, SiloService] = {}
        for name, rows_ in tables.items():
            text = yaml.safe_dump(policy_values(hub.public_key, silo=name, **policy))
            services[name] = SiloService.create(folder / name, text, site=name)
            arms = tuple(dict.fromkeys(rows_["arm"].to_pylist()))
            services[name].store.upsert(iter([rows_]), experiments={"spring-2026": arms})
        kin = cls(folder, hub, dict(tables), services)
        for name in tables:
            kin.allow(name, **policy)
        return kin

    def allow(self, silo: str, once: Mapping[str, Any] | None = None, **policy: Any) -> None:
        """Write a silo's policy: it pins all others, unless it is said otherwise."""
        keys = {name: one.keys.public_key.hex() for name, one in self.services.items()}
        peers = [{"name": name, "public_key": key} for name, key in keys.items() if name != silo]
        section = {"allowed": True, "colluders": 1, "peers": peers} | dict(once or {})
        values = policy_values(self.hub.public_key, silo=silo, noise_once=section, **policy)
        write_private(self.folder / silo / "policy.yaml", yaml.safe_dump(values).encode())

    def reopen(self, silo: str) -> None:
        """As after a restart."""
        self.services[silo].close()
        self.services[silo] = SiloService(self.folder / silo)

    def close(self) -> None:
        """Let go of all."""
        for service in self.services.values():
            service.close()

    @property
    def coordinator(self) -> Coordinator:
        """The coordinator's site."""
        return Coordinator(
            keys=self.hub,
            audit=AuditLog(self.folder / "hub.jsonl", self.hub),
            runs=self.folder / "runs",
            silos={name: one.keys.public_key for name, one in self.services.items()},
            front=self.front,
        )

    def carry(self, plan: Plan, **carriers: Carrier) -> RunOutcome:
        """Carry a plan out; some silos may be carried by something else."""
        carry = {name: one.answer for name, one in self.services.items()} | carriers
        grid = EmbeddedGrid({name: make_courier(one) for name, one in carry.items()})
        return carry_out(plan, grid, self.coordinator)

    def run(self, plan: Plan, **carriers: Carrier) -> Run:
        """Carry it out and open the run."""
        folder = self.carry(plan, **carriers).folder
        return Run.open(folder, coordinator_key=self.hub.public_key)

    @cached_property
    def front(self) -> Front:
        """An analyst who is signed in at the coordinator."""
        return make_front(self.hub, self.services)

    def ask(self, plan: Plan, silo: str, step: str, lists: Lists | None = None) -> bytes:
        """Ask one silo one step by hand; its answer, an envelope."""
        packed = pack_lists(lists) if lists else b""
        request = Request(
            plan=plan.canonical_bytes().decode(),
            step=step,
            silo=silo,
            incoming_digest=sha256_hex(packed),
            nonce=secrets.token_hex(16),
            issued_at=stamp(system_clock()),
            head=GENESIS,
            presented=self.front.admit(plan)[0],
        )
        return self.services[silo].answer(self.hub.sign("request", encode(request, packed)))

    def ask_all(
        self,
        plan: Plan,
        step: str,
        lists: Lists | None = None,
        silos: tuple[str, ...] = SILOS,
    ) -> dict[str, bytes]:
        """Ask several."""
        return {silo: self.ask(plan, silo, step, lists) for silo in silos}

    def read(self, silo: str, envelope: bytes) -> Decoded:
        """An answer's content, its signature checked."""
        keys = self.services[silo].keys
        opened = open_envelope(envelope, {keys.key_id: keys.public_key}, where=silo)
        return decode(opened.kind, opened.content, where=silo)

    def code(self, silo: str, envelope: bytes) -> tuple[str, str]:
        """A refusal's code, and what it is about."""
        header = self.read(silo, envelope).header
        assert isinstance(header, Refusal), header
        return header.code, header.about

    def release(self, silo: str, envelope: bytes) -> Release:
        """A release's header."""
        header = self.read(silo, envelope).header
        assert isinstance(header, Release), header
        return header


def exact(plan: Plan, tables: Mapping[str, pa.Table], run: Run) -> Any:
    """The weighted sums over those who answered, without noise."""
    steps = {
        step: {silo: one[step] for silo, one in run.releases.items() if step in one}
        for step in steps_of()
    }
    opened = open_sums(plan, steps)
    weights, layout = weights_of(plan, opened.counts), Layout.of(plan)
    sums = np.zeros(layout.shape, dtype=np.int64)
    for silo in opened.answered:
        _add_table(sums, plan, layout, tables[silo], weights[silo])
    return opened, sums
