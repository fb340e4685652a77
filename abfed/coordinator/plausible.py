"""What silos can have said: bounds that follow from the plan, and from what was released before.

A signature says who said something, not that it is true. Where noise is added once nobody sees one
silo's numbers, so a lie that is large enough to be told from any truth must be found in two places:

1. In what one silo says by itself (`check_said`, the inbox's last rule): that silo is left out.
   Its keys must be such that something agreed on is secret; what it counts (totals and histograms,
   too, where it noises its own) no more recipients than there are people; its share of the noise
   between what the plan needs and the most that a policy may ask; flags, kinds and shares what such
   a thing can be.
2. In the sum of all (`check_totals`, `check_gradient`): nobody can tell whose it is, so nothing is
   made of the sum, and what was charged stays charged. A sum is refused where no brands with the
   noised counts that they released can have added up to it.

All bounds hold for honest silos but with a chance below 10⁻¹³ for each number: `REACH` standard
deviations of noise. A lie within them can't be told from a truth (docs/noise-once.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from abfed.learning.shapes import MASKED, UNIT_BITS
from abfed.privacy.once import AGREED, LARGEST_SHARE, SHARE_BYTES, role_of, split, step_of, sum_of
from abfed.privacy.secure_sum import PRIME, agreeable
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import Release
from abfed.protocol.plan import Plan
from abfed.stats.encoding import SCALE

if TYPE_CHECKING:
    from abfed.coordinator.together import Opened

REACH = 8.0
"""Standard deviations of noise beyond which a number isn't one that noise has moved."""

PEOPLE = 1 << 33
"""More than live on Earth: no silo has so many recipients."""

ASK = "nobody sees one silo's part: ask them, and ask with `noise: each`, which shows whose it is"

Arrays = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]


def check_said(plan: Plan, release: Release, arrays: Arrays, where: str) -> None:
    """Refuse a release that no honest silo can have made.

    Raises:
        IntegrityError: it is one.
    """
    role = role_of(release.step) if plan.noise_once else ""
    for name, counted in arrays.items():
        if counted.dtype != np.int64 or name == MASKED:
            continue
        most = PEOPLE * (SCALE if name in {"counts", "totals"} else 1)
        if counted.max(initial=0) > most or counted.min(initial=0) < -most:
            raise IntegrityError("it counts more recipients than there are people", where=where)
    if role == "keys" and not all(agreeable(row.tobytes()) for row in arrays["keys"][:2]):
        raise IntegrityError("nothing agreed on with its keys is secret", where=where)
    if role == "masked":
        _check_share(plan, release, where)
    if role == "answered" and arrays["answered"].max(initial=0) > 1:
        raise IntegrityError("it says neither who answered nor who didn't", where=where)
    if role == "opening":
        if arrays["kinds"].max(initial=0) > AGREED:
            raise IntegrityError("it gives shares of a kind that there isn't", where=where)
        given = arrays["shares"].reshape(-1, SHARE_BYTES)
        if any(int.from_bytes(row.tobytes(), "big") >= PRIME for row in given):
            raise IntegrityError("a share is no number of the field", where=where)


def check_totals(plan: Plan, opened: Opened) -> None:
    """Refuse sums of totals that these silos can't have added up to.

    An arm's recipients are known by the silos' noised counts, each of whom adds to each number at
    least 0 and at most their weight, and to a block of a metric exactly that in all.

    Raises:
        IntegrityError: a number is beyond, or an arm's recipients aren't those that were counted.
    """
    from abfed.privacy.charges import noise_multipliers  # noqa: PLC0415 - brings dp-accounting
    from abfed.stats.layout import Layout  # noqa: PLC0415 - brings scipy, as the next does
    from abfed.stats.once import weights_of  # noqa: PLC0415

    layout = Layout.of(plan)
    doubt = REACH * split(plan, noise_multipliers(plan).statistics)[0]
    weights = weights_of(plan, opened.counts)
    known = np.zeros(len(layout.arms))
    unsure = np.zeros(len(layout.arms))
    for silo in opened.answered:
        share = weights[silo] / SCALE
        known += share * np.maximum(opened.counts[silo] / SCALE, 0.0)
        unsure += share * doubt
    where = f"{plan.name}, {step_of('opening')}"
    for block in layout.blocks:
        part = opened.sums[:, block.columns].astype(np.float64) / SCALE
        noise = REACH * opened.noise * block.sd
        most = (known + unsure + noise)[:, None]
        if (part > most).any() or (part < -noise - 1.0).any():
            raise _beyond(f"a sum of {block.metric!r} is more than all recipients together", where)
        if block.counts:
            whole = noise * math.sqrt(block.width)
            lost = (known + unsure) * block.width / SCALE  # weights are rounded down
            apart = part.sum(axis=1) - known
            if (apart > unsure + whole).any() or (apart < -unsure - whole - lost - 1.0).any():
                raise _beyond(f"{block.metric!r} has other recipients than were counted", where)


def check_gradient(plan: Plan, opened: Opened, number: str) -> None:
    """Refuse a sum of gradients that is longer than the gradients of these silos can be.

    A recipient in the batch adds a vector of one clip at most; how many are in it is binomial, and
    exceeds its mean μ by REACH·√(2μ) + REACH² with a chance below e⁻⁶⁴ (Bernstein). The noise of d
    coordinates is longer than √d + REACH of its sd with a chance below e⁻³² (Laurent and Massart
    2000).

    Raises:
        IntegrityError: it is.
    """
    from abfed.privacy.charges import noise_multipliers  # noqa: PLC0415 - brings dp-accounting

    settings = plan.schedule
    doubt = REACH * split(plan, noise_multipliers(plan).statistics)[0]
    counted = [opened.counts[silo] / SCALE + doubt for silo in opened.answered]
    people = sum(float(np.maximum(one, 0.0).sum()) for one in counted)
    mean = people * settings.sampling_rate * (1.0 - settings.holdout)
    batch = mean + REACH * math.sqrt(2.0 * mean) + REACH**2
    noise = opened.noise * (math.sqrt(opened.sums.size) + REACH)
    length = float(np.linalg.norm(cast("Floats", opened.sums.astype(np.float64))))
    if length * 2.0**-UNIT_BITS > batch + noise:
        where = f"{plan.name}, {step_of('opening', number)}"
        raise _beyond("the gradient is longer than those of all recipients together", where)


def check_opened(plan: Plan, opened: Opened, number: str = "") -> Opened:
    """A sum that these silos can have added up to.

    Raises:
        IntegrityError: it isn't one.
    """
    if number:
        check_gradient(plan, opened, number)
    else:
        check_totals(plan, opened)
    return opened


def _check_share(plan: Plan, release: Release, where: str) -> None:
    """Its share of the noise: what the plan needs at least, a policy's most at most."""
    from abfed.privacy.charges import silo_share  # noqa: PLC0415 - brings dp-accounting

    share = release.noise.get("share", 0.0)
    if share < silo_share(plan, step=step_of("masked", sum_of(release.step))):
        raise IntegrityError("it adds less noise than the plan needs", where=where)
    if share > LARGEST_SHARE:
        raise IntegrityError("it says it adds more noise than a policy can ask", where=where)


def _beyond(what: str, where: str) -> IntegrityError:
    why = "a silo masked wrong numbers, or masked with other keys than it gave"
    return IntegrityError(what, where=where, why=why, do=ASK)
