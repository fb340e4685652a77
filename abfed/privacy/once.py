"""Noise once: what follows from a plan alone, for silos, coordinator and readers alike.

Each silo adds a share of one noise, and sums are opened over all silos together. With m silos that
must be in the sum at least and t that may collude, each adds variance σ²/(m − t): the others' noise
alone, without that of any t, is what the guarantee needs. Over k silos that answered the sum holds
σ²k/(m − t); where each silo noises what it releases, it holds kσ².

A silo's noised counts of recipients by arm leave by themselves, under noise of its own: what rests
on one silo needs them (the minimum of recipients; weights of arms, unless the plan promises its
shares). They take `COUNTS_SHARE` of the statistics' cost, and the sums the rest.

Secrets are shared so that `needed` silos open them. It is more than half of all that aren't
colluding: two groups of that size have a silo in common that is honest, and an honest silo answers
for one list and gives one kind of share (Bonawitz et al. 2017, section 4).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from abfed.privacy.secure_sum import share_of
from abfed.protocol.sealing import MAGIC, NONCE_BYTES, TAG_BYTES

if TYPE_CHECKING:
    from abfed.protocol.plan import Plan

COUNTS_SHARE = {"counted": 0.1, "planned": 0.01}
"""Of the statistics' cost, by what weights rest on (`privacy.shares`): counts' noise is about three
or ten times that of one release of all."""


LARGEST_SHARE = 2.0**18
"""The most noise that a silo adds, over one recipient's largest influence: it fits the masks."""


def needed(silos: int, colluders: int) -> int:
    """How many silos open a secret, so that no list but one is ever opened."""
    return (silos + colluders) // 2 + 1


def split(plan: Plan, sigma: float) -> tuple[float, float]:
    """Noise multipliers of counts and of sums that cost together what one of `sigma` does."""
    share = COUNTS_SHARE[plan.privacy.shares]
    return sigma / math.sqrt(share), sigma / math.sqrt(1.0 - share)


def own_share(plan: Plan, sigma: float, least: float = 0.0) -> float:
    """The noise multiplier that one silo adds.

    Args:
        plan: with noise once.
        sigma: noise multiplier that the guarantee needs.
        least: of the silo's own policy: it never adds less.
    """
    share = share_of(sigma, plan.minimum_silos, plan.privacy.colluders)
    return max(share * (1.0 + 2.0**-40), least)  # rounding works against the askers


ROLES = ("keys", "shares", "masked", "answered", "opening")
"""What the five steps of one sum do, in order."""

CARRIED: dict[str, tuple[str, ...]] = {
    "keys": (),
    "shares": ("keys",),
    "masked": ("keys", "shares"),
    "answered": ("masked",),
    "opening": ("answered", "keys", "shares"),
}
"""Whose answers travel with the request for each."""

MODEL = "model"
"""What travels beside them to be trained: the list of a model has this one entry."""


def role_of(step: str) -> str:
    """What a step does in its sum; empty for `evaluate`, which is in none."""
    if step == "totals" or step.startswith("train-"):
        return "masked"
    return "" if step == "evaluate" else step.partition("-")[0]


def sum_of(step: str) -> str:
    """Which sum a step is of: a round's number, such as "0001", or empty for the totals."""
    return step.partition("-")[2]


def step_of(role: str, number: str = "") -> str:
    """The step that does this in one sum."""
    if role == "masked":
        return f"train-{number}" if number else "totals"
    return f"{role}-{number}" if number else role


def steps_of(number: str = "") -> tuple[str, ...]:
    """The steps of one sum, in order."""
    return tuple(step_of(role, number) for role in ROLES)


def carried_with(step: str) -> tuple[str, ...]:
    """Which lists travel with the request for a step."""
    lists = CARRIED[role_of(step)]
    return (*lists, MODEL) if step.startswith("train-") else lists


SHARE_BYTES = 66
"""Of one share: a number below 2⁵²¹."""

SEALED_BYTES = 2 * SHARE_BYTES + len(MAGIC) + NONCE_BYTES + TAG_BYTES
"""Of both shares that one silo has for another, sealed to it."""

KEY_ROWS = 3
"""What a silo's keys are: of masks, of sealing shares, and what its own mask's seed is bound to."""

UNKNOWN, OWN, AGREED = 0, 1, 2
"""Which share of a silo's secrets is given: none, of its own mask's seed, of its agreement key."""


def mask_context(plan_digest: str, number: str = "") -> bytes:
    """What two silos agree on a mask for: one sum of a plan."""
    return f"{plan_digest} {step_of('masked', number)}".encode()


def sealing_context(plan_digest: str, number: str = "") -> bytes:
    """What two silos agree on a key for: shares that one has for the other."""
    return f"{plan_digest} {step_of('shares', number)}".encode()


def bound_to(seed: bytes) -> bytes:
    """What is published of a seed beforehand: whoever opens it later can't open another."""
    return hashlib.sha256(b"abfed.noise-once.seed\0" + seed).digest()


def place_of(plan: Plan, silo: str) -> int:
    """A silo's place among all that the plan names, from 1: where its shares stand."""
    return sorted(plan.silos).index(silo) + 1
