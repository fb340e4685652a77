"""Noise once, from outside: carry what silos say to one another, and open the sum.

The coordinator learns the sum over those who answered, and each silo's noised counts. It carries
envelopes that silos sign for one another and can't change one, nor put a silo in another's place;
what it may do is lose them. What a list must be for a silo to answer it, see `silo.together`.

1. `keys`: asked of all; the run is bound to the answers. 2. `shares`: on all keys. 3. `totals`:
masked, on keys and shares. 4. `answered`: each says whose masked values it saw. 5. `opening`: a
share of one secret of each. After each step its answers are on disk, so the next list is the same
if the run is gone on with.

Up to 3, silos that are lost only get fewer; the least number that the plan wants must be there. For
4 and 5 `needed` silos are enough, of whom all must have come as far as 4. A round of training goes
through the same five steps, with keys of its own (`keys-0001` …), and `train-0001` for 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from abfed.coordinator.inbox import Accepted
from abfed.coordinator.plausible import check_opened
from abfed.privacy.once import (
    AGREED,
    MODEL,
    OWN,
    bound_to,
    carried_with,
    mask_context,
    needed,
    place_of,
    role_of,
    step_of,
    steps_of,
    sum_of,
)
from abfed.privacy.secure_sum import (
    Integers,
    Share,
    Words,
    agreed_seed,
    opened_sum,
    put_together,
)
from abfed.protocol.errors import IntegrityError
from abfed.protocol.plan import Plan
from abfed.protocol.relayed import pack_lists

if TYPE_CHECKING:  # who only reads a run doesn't carry what carries one out
    from abfed.coordinator.rounds import RunFolder

Steps = Mapping[str, Mapping[str, Accepted]]
"""Verified releases by step and silo."""


class Opened(NamedTuple):
    """What came of a run with noise once.

    Attributes:
        sums: weighted sums over those who answered, noised once, (arms, coordinates).
        counts: noised recipients by arm of each silo that agreed on weights.
        answered: silos in the sum.
        noise: noise multiplier of the sum, by what each silo says it added.
    """

    sums: Integers
    counts: dict[str, Integers]
    answered: tuple[str, ...]
    noise: float


def list_for(folder: RunFolder, step: str, model: bytes = b"") -> bytes:
    """What silos are told with a step: envelopes of the steps before, and a model to train."""
    number = sum_of(step)
    lists: dict[str, dict[str, bytes]] = {}
    for role in carried_with(step):
        if role == MODEL:
            lists[MODEL] = {MODEL: model}
            continue
        earlier = step_of(role, number)
        lists[role] = {silo: folder.release(silo, earlier) for silo in _silos(folder, earlier)}
    return pack_lists(lists) if lists else b""


def asked_for(folder: RunFolder, step: str) -> list[str]:
    """Who is asked: those that answered the step before; all of the run where it is the first."""
    steps = steps_of(sum_of(step))
    place = steps.index(step)
    return _silos(folder, steps[place - 1]) if place else sorted(folder.epochs)


def least_for(folder: RunFolder, step: str) -> int:
    """How many must answer."""
    if role_of(step) in {"answered", "opening"}:
        keys = _silos(folder, step_of("keys", sum_of(step)))
        return needed(len(keys), folder.plan.privacy.colluders)
    return folder.plan.minimum_silos


def open_sums(plan: Plan, steps: Steps, number: str = "") -> Opened:
    """Take the masks off a sum.

    Args:
        plan: with noise once.
        steps: verified releases of its five steps, by step.
        number: of the round of training; empty for the totals.

    Raises:
        IntegrityError: shares are missing, or aren't of what silos were bound to; a silo adds
            less noise than the plan needs; or no such silos can have added up to it.
    """
    keys, shares, masked, _, opening = (steps[step] for step in steps_of(number))
    noise = _noise_of(plan, masked, step_of("masked", number))
    many = needed(len(keys), plan.privacy.colluders)
    own_seeds: dict[str, bytes] = {}
    dropped: dict[str, dict[str, bytes]] = {}
    for silo in shares:
        published = keys[silo].arrays["keys"]
        kind = OWN if silo in masked else AGREED
        fits = _fits(kind, published[2 if kind == OWN else 0].tobytes())
        secret = _put_together(plan, opening, silo, kind, many, fits)
        if kind == OWN:
            own_seeds[silo] = secret
            continue
        private = X25519PrivateKey.from_private_bytes(secret)
        dropped[silo] = {
            other: agreed_seed(
                private,
                keys[other].arrays["keys"][0].tobytes(),
                mask_context(plan.digest, number),
                (silo, other),
            )
            for other in masked
        }
    answers: dict[str, Words] = {
        silo: one.arrays["masked"].view(np.uint64) for silo, one in masked.items()
    }
    counts = {silo: steps["keys"][silo].arrays["counts"] for silo in shares}
    sums = opened_sum(answers, own_seeds, dropped)
    return check_opened(plan, Opened(sums, counts, tuple(sorted(masked)), noise), number)


def _noise_of(plan: Plan, masked: Mapping[str, Accepted], step: str) -> float:
    """The noise multiplier of the sum."""
    from abfed.privacy.charges import silo_share  # noqa: PLC0415 - brings dp-accounting

    least = silo_share(plan, step=step)
    shares = {silo: one.release.noise.get("share", 0.0) for silo, one in masked.items()}
    for silo, share in shares.items():
        if share < least:
            raise IntegrityError("it adds less noise than the plan needs", where=silo)
    return float(np.sqrt(sum(share**2 for share in shares.values())))


def _put_together(
    plan: Plan,
    opening: Mapping[str, Accepted],
    silo: str,
    kind: int,
    many: int,
    fits: Callable[[bytes], bool],
) -> bytes:
    """A secret of a silo, of the shares that others gave of it. Who gives a wrong one stops nobody.

    Raises:
        IntegrityError: too few right ones.
    """
    place = place_of(plan, silo) - 1
    shares = [
        Share(place_of(plan, holder), int.from_bytes(one.arrays["shares"][place].tobytes(), "big"))
        for holder, one in opening.items()
        if one.arrays["kinds"][place] == kind
    ]
    try:
        return put_together(shares, many, fits)
    except ValueError as cause:
        raise IntegrityError(
            f"its secret doesn't open: {cause}", where=f"{silo}, opening"
        ) from cause


def _fits(kind: int, published: bytes) -> Callable[[bytes], bool]:
    """Whether a secret is what its silo was bound to before anybody held a share of it."""

    def fits(secret: bytes) -> bool:
        if kind == OWN:
            return bound_to(secret) == published
        private = X25519PrivateKey.from_private_bytes(secret)
        return private.public_key().public_bytes_raw() == published

    return fits


def _silos(folder: RunFolder, step: str) -> list[str]:
    return sorted(folder.steps[step]["releases"])
