"""Will a covariate pay? Decided from what the plan expects, before anything is released.

CUPED under privacy (statistics.md, 8) releases the tensor (u, 1−u) ⊗ (v, 1−v) instead of (u, 1−u):
the same sensitivity, but four noised numbers in place of two, and a tenth of the budget for Σv².
It takes the share r² off the sampling variance and adds noise: it pays where many recipients make
sampling the larger part, and hurts where the noise is.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from abfed.protocol.analysis import Adjustment
from abfed.protocol.metrics import Count, Mean, Metric, Proportion
from abfed.protocol.plan import Plan
from abfed.protocol.schema import NumericFeature
from abfed.stats.encoding import Floats

MOMENTS_SHARE = 0.1
"""Share of a metric's budget for each kind of second moment (privacy is better spent on first)."""


MOMENTS_HIDDEN = 0.5
"""Second moments whose noise is expected to be above this share of them are left out: the bound is
used in their place anyway (`estimates.MOMENTS_USABLE` is half of it: some brands are larger)."""


class Forecast(NamedTuple):
    """What a covariate is expected to do to the standard error of an effect.

    Attributes:
        ratio: standard error with it over that without.
        pays: whether it is below one.
        why: in words, with the figures it rests on.
    """

    ratio: float
    pays: bool
    why: str


def bounds_of(metric: Metric) -> tuple[float, float]:
    """The public bounds of a recipient's value; a proportion's, ratio's: 0 and 1."""
    if isinstance(metric, Mean):
        return metric.low, metric.high
    return (0.0, float(metric.most)) if isinstance(metric, Count) else (0.0, 1.0)


def variances(mean: float, noise: float) -> float:
    """Noise variance × n² of A/(A+B) around `mean`, for noise of this sd in each number."""
    return noise**2 * ((1 - mean) ** 2 + mean**2)


def tensor_gradient(u: Floats, v: Floats, theta: Floats) -> Floats:
    """How mean(u) − θ·mean(v) follows each number of the tensor, × n: (…, 4)."""
    return np.stack(
        [1 - u - theta * (1 - v), 1 - u + theta * v, -u - theta * (1 - v), -u + theta * v],
        axis=-1,
    )


def in_a_wave(plan: Plan) -> float | None:
    """Recipients of a brand that one release is about, as far as the plan expects any."""
    design, recipients = plan.analysis.sequential, plan.analysis.recipients
    if recipients is None:
        return None
    return recipients / (1 if design is None else len(design.waves))


def moments_help(plan: Plan, metric: Metric, share: float, cells: int = 1) -> bool:
    """Whether the second moments of a mean or count are worth their part of the budget.

    They aren't where noise would hide them even over all arms together, by what the plan expects
    (with noise once: over all brands together too); a plan that says nothing of it gets them.

    Args:
        plan: what is asked.
        metric: which.
        share: of the statistics' budget that the metric's blocks have here.
        cells: over how many the recipients are spread.
    """
    expected, recipients = plan.analysis.expects(metric.name), in_a_wave(plan)
    if expected is None or expected.sd is None or recipients is None:
        return True
    low, high = bounds_of(metric)
    spread = recipients / cells * (expected.sd / (high - low)) ** 2
    sigma = noise_multiplier(plan)
    if plan.noise_once:
        from abfed.privacy.once import own_share, split  # noqa: PLC0415 - brings cryptography

        spread *= len(plan.silos)
        sigma = own_share(plan, split(plan, sigma)[1]) * math.sqrt(len(plan.silos))
    noise = sigma * math.sqrt(len(plan.arms) / (share * MOMENTS_SHARE))
    return noise <= MOMENTS_HIDDEN * spread


@functools.lru_cache(maxsize=256)
def chosen(plan: Plan, metric: str) -> Adjustment | None:
    """The adjustment that the plan's release is made for; None where it isn't declared or used.

    Both sides derive it from the plan: it is fixed before anything is released.
    """
    adjustment = plan.analysis.adjustment(metric)
    if adjustment is None or adjustment.use == "no":
        return None
    if adjustment.use == "yes" or forecast(plan, adjustment).pays:
        return adjustment
    return None


def forecast(plan: Plan, adjustment: Adjustment) -> Forecast:
    """Whether a covariate is expected to make a metric's intervals narrower."""
    analysis = plan.analysis
    expected, recipients = analysis.expects(adjustment.metric), in_a_wave(plan)
    if expected is None or recipients is None or not expected.r_squared:
        need = "analysis.recipients and the metric's mean and r_squared under analysis.expected"
        return Forecast(
            math.inf, pays=False, why=f"{_verdict(adjustment)}: it takes {need} to tell"
        )
    metric = next(one for one in plan.metrics if one.name == adjustment.metric)
    low, high = bounds_of(metric)
    u = (expected.mean - low) / (high - low)
    of_u = math.sqrt(u * (1 - u)) if expected.sd is None else expected.sd / (high - low)
    v, of_v = _covariate(plan, adjustment)
    theta = math.sqrt(expected.r_squared) * of_u / of_v
    weights = [analysis.budget_of(one.name).share for one in plan.metrics]
    share = analysis.metrics_share * analysis.budget_of(metric.name).share / sum(weights)
    sigma = noise_multiplier(plan) / math.sqrt(share)
    arm = recipients / len(plan.arms)
    with_moments = not isinstance(metric, Proportion) and moments_help(plan, metric, share)
    moments = MOMENTS_SHARE if with_moments else 0.0
    plain = of_u**2 / arm + variances(u, sigma) / (1 - moments) / arm**2
    gradient = np.square(tensor_gradient(*map(np.asarray, (u, v, theta)))).sum()
    noise = sigma**2 * float(gradient) / (1 - MOMENTS_SHARE - moments) / arm**2
    adjusted = of_u**2 * (1 - expected.r_squared) / arm + noise
    ratio = math.sqrt(adjusted / plain) if plain else math.inf  # neither spread nor noise
    pays = ratio < 1
    waves = "" if analysis.sequential is None else " and wave"
    change = f"{abs(1 - ratio):.1%} {'narrower' if pays else 'wider'}"
    why = (
        f"{_verdict(adjustment, pays=pays)}: with {recipients:,.0f} recipients in a brand{waves}, "
        f"r² = {expected.r_squared:g} and ε = {plan.privacy.split.statistics:g}, intervals are "
        f"expected to be {change} with it"
    )
    return Forecast(ratio, pays, why)


def _verdict(adjustment: Adjustment, *, pays: bool = False) -> str:
    """Whether a covariate is used, and who says so."""
    if adjustment.use == "auto":
        return "used, as it pays" if pays else "not used"
    return "used, as declared" if adjustment.use == "yes" else "not used, as declared"


def noise_multiplier(plan: Plan) -> float:
    """Of the plan's release of totals; 0 for one that isn't private."""
    if plan.privacy.unprotected:
        return 0.0
    from abfed.privacy.accounting import gaussian_multiplier  # noqa: PLC0415 - brings dp-accounting

    return gaussian_multiplier(plan.privacy.split.statistics, plan.privacy.delta)


def covariate_of(plan: Plan, adjustment: Adjustment) -> NumericFeature:
    """The feature of an adjustment; that there is one was checked when the plan was parsed."""
    return next(
        one
        for one in plan.features
        if isinstance(one, NumericFeature) and one.name == adjustment.covariate
    )


def _covariate(plan: Plan, adjustment: Adjustment) -> tuple[float, float]:
    """Expected mean and standard deviation of a covariate, as shares of its bounds."""
    feature = covariate_of(plan, adjustment)
    width = feature.high - feature.low
    mean = 0.5 if adjustment.mean is None else (adjustment.mean - feature.low) / width
    spread = 0.25 if adjustment.sd is None else adjustment.sd / width
    return mean, spread
