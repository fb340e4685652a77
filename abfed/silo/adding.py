"""What noise a silo adds for a step, and what its ledger keeps of a sum that is noised once.

Production noise takes no seed. Of noise once the ledger keeps what it counted on: how many other
silos may collude, and this silo's own share, which is all that hides it where every other tells
what it added. What that costs is computed, not kept.
"""

from __future__ import annotations

from abfed.privacy.charges import plan_charges, silo_share
from abfed.privacy.mechanisms import Noise, SystemNoise, UnsafeSeededNoise
from abfed.privacy.once import role_of
from abfed.protocol.canonical import digest
from abfed.protocol.messages import EMPTY_DIGEST, Request
from abfed.protocol.plan import Plan
from abfed.silo.entries import Once
from abfed.silo.policy import Policy


def noise_for(plan: Plan, request: Request) -> Noise:
    """The operating system's noise; seeded only for a simulation, which check 7 let in."""
    if plan.simulation is None:
        return SystemNoise()
    asked = [plan.simulation.seed, plan.digest, request.silo, request.step]
    incoming = EMPTY_DIGEST if plan.noise_once else request.incoming_digest  # keys are fresh there
    return UnsafeSeededNoise(int(digest([*asked, incoming])[:32], 16))


def share_for(plan: Plan, policy: Policy, step: str) -> float:
    """The noise multiplier that this silo adds to a sum over all; 0 where it noises its own."""
    own = policy.noise_once
    if not plan.noise_once or own is None or role_of(step) != "masked":
        return 0.0
    return silo_share(plan, own.least_share, step)


def once_of(plan: Plan, policy: Policy) -> Once | None:
    """What the charge of a plan counts on; None where the silo noises its own."""
    if not plan.noise_once:
        return None
    shares = {
        charges[0].noise_multiplier: share_for(plan, policy, step)
        for step, charges in plan_charges(plan).items()
        if role_of(step) == "masked" and charges
    }
    return Once(plan.privacy.colluders, tuple(sorted(shares.items())))
