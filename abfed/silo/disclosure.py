"""Disclosure rules beside differential privacy: no figures about a handful of people.

A refusal is an answer too. Whether a group is too small is therefore never decided on a count of
rows, but on two figures that are not secret any more when they are used:

1. *declared sizes*, which the silo's own people wrote into its policy (how many an e-mail went to):
   compared before anything is charged or read;
2. the *noised counts* of the plan's own totals, already charged: where an arm, or a cell of a
   segmentation, counts fewer than the minimum, the totals are withheld, for good. Every later step
   of the plan is refused before anything is computed, since its totals never came.

That totals were withheld follows from their noised counts alone: it is post-processing and tells no
more than they would have (docs/decisions/0011-minimum-recipients.md). With noise once nobody sees
one silo's totals; there the noised counts are a charged release of their own, and come first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from abfed.protocol.errors import Refused
from abfed.protocol.plan import Plan
from abfed.silo.policy import Policy
from abfed.stats.encoding import SCALE
from abfed.stats.layout import Layout, cells_of
from abfed.stats.once import too_small


def check_declared_sizes(policy: Policy, plan: Plan) -> None:
    """Refuse a plan with an arm that was declared to be too small.

    Raises:
        Refused: naming the arm; its declared size is the silo's own word, not a count.
    """
    for one in policy.declared_sizes:
        here = one.experiment == plan.experiment and one.arm in {arm.name for arm in plan.arms}
        if here and one.recipients < policy.minimum_recipients:
            raise Refused(f"arm {one.arm!r} is declared too small", code="too-few", about=one.arm)


def too_few_counted(policy: Policy, plan: Plan, counts: npt.NDArray[np.int64]) -> bool:
    """The same of counts that were released by themselves, for noise once.

    Also too few are those that noise hides: weights couldn't rest on them.

    Args:
        policy: with the minimum.
        plan: what was asked.
        counts: noised, by arm, in units of 1/`SCALE`.
    """
    return too_small(plan, counts) or bool(counts.min() < policy.minimum_recipients * SCALE)


def too_few(policy: Policy, plan: Plan, totals: npt.NDArray[np.int64]) -> bool:
    """Whether noised totals count too few recipients in an arm or cell.

    The last cell of a segmentation, for whom no other fits, may be empty.

    Args:
        policy: with the minimum.
        plan: what was asked.
        totals: noised, `(…, arms, coordinates)`, in units of 1/`SCALE`.
    """
    if not policy.minimum_recipients:
        return False
    layout, values = Layout.of(plan), totals / SCALE
    smallest = float(layout.counts(values)[0].min())
    for segment in plan.analysis.segments:
        for index in range(len(cells_of(segment, plan.features)) - 1):
            cell, places = layout.cell(segment.name, index)
            here = np.concatenate([values[..., place] for place in places], axis=-1)
            smallest = min(smallest, float(cell.counts(here)[0].min()))
    return smallest < policy.minimum_recipients
