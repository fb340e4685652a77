"""What a computation must hand back for a permit: kind, shapes, noise. Pure checks, no I/O."""

from __future__ import annotations

import math

import numpy as np

from abfed.learning.heads import Heads
from abfed.learning.shapes import release_shapes, summed_shapes
from abfed.learning.uplift import counted_once
from abfed.privacy.once import role_of
from abfed.protocol.errors import AbfedError
from abfed.protocol.messages import payload_of
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Shape, shapes_of
from abfed.silo.permit import Computed, Permit
from abfed.stats.once import once_shapes
from abfed.stats.totals import Layout


class WrongResult(AbfedError):
    """What was computed isn't what was reserved: the code is at fault, not what the silo keeps."""

    kind = "wrong-result"


def expected_shapes(plan: Plan, step: str) -> dict[str, Shape]:
    """What the arrays that answer a step must look like."""
    if plan.noise_once and role_of(step):
        return summed_shapes(plan) if step.startswith("train-") else once_shapes(plan, step)
    if step == "totals":
        return {"totals": Shape("int64", Layout.of(plan).shape)}
    return release_shapes(plan, step)


def check_computed(permit: Permit, computed: Computed) -> None:
    """Refuse a result that isn't what the permit was given for.

    Raises:
        WrongResult: it is of another kind, not finite, or its noise isn't what was reserved.
    """
    expected = expected_shapes(permit.plan, permit.step)
    if computed.payload != payload_of(permit.step) or shapes_of(computed.arrays) != expected:
        raise WrongResult("the result is not of the reserved kind", where=permit.step)
    if not all(np.isfinite(array).all() for array in computed.arrays.values()):
        raise WrongResult("the result is not finite", where=permit.step)
    if permit.plan.privacy.unprotected:  # check 7 let it in: there is no noise
        return
    reserved = _reserved(permit, computed)
    if any(computed.noise.get(name) != value for name, value in reserved.items()):
        raise WrongResult("the noise is not what was reserved", where=permit.step)


def _reserved(permit: Permit, computed: Computed) -> dict[str, float]:
    """What the noise must be, by name."""
    if not permit.charges:  # nobody's data are in it: keys, shares and lists of names
        return {}
    first = permit.charges[0]
    reserved = {"noise_multiplier": first.noise_multiplier}
    if permit.plan.noise_once and role_of(permit.step) == "masked":
        reserved["share"] = permit.share
    if computed.payload == "training":
        reserved["sampling_rate"] = first.sampling_rate
        reserved["steps"] = float(first.count)
        reserved["evaluation_noise_multiplier"] = permit.charge("gaussian").noise_multiplier
    if computed.payload == "evaluation":
        reserved["sensitivity"] = math.sqrt(
            counted_once(len(permit.plan.arms), Heads.of(permit.plan).tables)
        )
    return reserved
