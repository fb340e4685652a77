"""A gate with all that it keeps, and a coordinator it trusts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abfed.learning.uplift import counted_once
from abfed.protocol.messages import payload_of
from abfed.protocol.plan import Plan
from abfed.silo.gate import Answered, Gate
from abfed.silo.ledger import Ledger
from abfed.silo.permit import Computed, Holdings, Permit
from abfed.silo.releases import Releases
from abfed.silo.releasing import expected_shapes
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys
from tests.silo.asking import (
    HOLDINGS,
    Asker,
    write_policy,
)


@dataclass
class House:
    """A gate with all that it keeps, and a coordinator it trusts."""

    folder: Path
    keys: SiteKeys
    asker: Asker
    ledger: Ledger
    audit: AuditLog

    def policy(self, **changes: Any) -> None:
        """Write another policy."""
        write_policy(self.folder / "policy.yaml", self.asker.keys.public_key, **changes)

    def gate(self) -> Gate:
        """The gate; a new one has forgotten all nonces."""
        return Gate(
            self.keys,
            self.folder / "policy.yaml",
            ledger=self.ledger,
            releases=Releases(self.folder / "releases", self.keys),
            audit=self.audit,
            clock=self.asker.clock,
        )

    def permit(self, envelope: bytes, holdings: Holdings = HOLDINGS) -> Permit:
        """The permit for a request that is allowed."""
        permit = self.gate().admit(envelope, holdings)
        assert isinstance(permit, Permit)
        return permit

    def answer(self, plan: Plan, step: str = "totals", arrays: Any = None) -> bytes:
        """Ask, compute something, release."""
        permit = self.permit(self.asker.request(plan, step, arrays))
        return self.gate().release(permit, computed(permit))

    def answer_again(self, plan: Plan) -> bytes:
        """Ask for totals that were released already."""
        answered = self.gate().admit(self.asker.request(plan), HOLDINGS)
        assert isinstance(answered, Answered)
        return answered.envelope


def computed(permit: Permit, **changes: Any) -> Computed:
    """A result of the right form."""
    plan, step = permit.plan, permit.step
    arrays: dict[str, Any] = {
        name: np.full(shape.shape, 3, dtype=shape.dtype)
        for name, shape in expected_shapes(plan, step).items()
    }
    first = permit.charges[0]
    noise = {"noise_multiplier": first.noise_multiplier}
    if step.startswith("train-"):
        noise |= {
            "sampling_rate": first.sampling_rate,
            "steps": float(first.count),
            "evaluation_noise_multiplier": permit.charges[1].noise_multiplier,
        }
    if step == "evaluate":
        noise["sensitivity"] = math.sqrt(counted_once(len(plan.arms)))
    values: dict[str, Any] = {"payload": payload_of(step), "arrays": arrays, "noise": noise}
    return Computed(**(values | changes))
