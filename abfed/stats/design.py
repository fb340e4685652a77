"""Design: how many recipients, which effect, which ε; and how to split the budget over metrics.

From what the plan expects (`analysis.expected`), never from its data. An effect's variance over
k like brands with n recipients each is (1/k) Σ over the two arms of s²/n_a + σ²c/(share·n_a²): the
second term is the noise, so that sample size and smallest detectable effect grow by
√(1 + V_noise/V_sampling), and beyond n* = σ²c/(share·s²) recipients an arm sampling is the larger.

Where noise is added once, each brand adds its share of it to one sum: the same formula with the
share in σ's place.

In a design with waves each wave has an equal part of the recipients and noise of its own, so that
the noise's part of the variance is as many times larger; and an effect must stand out further to be
found at one of several looks (`stats.horizon`).

Budget shares: widths relative to those without noise, weighted by the plan's priorities, have the
least sum where every metric's marginal gain is the same; found by two nested root searches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, special

from abfed.privacy.accounting import gaussian_multiplier
from abfed.privacy.once import own_share, split
from abfed.protocol.analysis import Expected
from abfed.protocol.errors import InputError
from abfed.protocol.metrics import Mean, Metric, Proportion, Quantile, Ratio
from abfed.protocol.plan import Plan
from abfed.stats.adjusting import (
    Forecast,
    bounds_of,
    chosen,
    forecast,
    moments_help,
    noise_multiplier,
)
from abfed.stats.horizon import LARGEST_DRIFT, ONE_LOOK, Horizon
from abfed.stats.layout import parts_of

LARGEST_SAMPLE = 1e10  # recipients in a brand: beyond it a plan is out of reach
MULTIPLIERS = (0.05, 1000.0)
"""Between which a noise multiplier is looked for: ε from about 300 down to .004."""


@dataclass(frozen=True)
class Outlook:
    """What a metric's effect will cost to see.

    Attributes:
        metric: its name.
        mean: expected under the control.
        lift: relative change worth finding.
        spread: variance of a recipient's value.
        noise: V_noise × n² of an arm's value, for a noise multiplier of 1 on the whole budget.
        share: of the statistics' budget.
        arms: shares of the control and of the smallest other arm.
        brands: how many.
        horizon: how often one looks.
    """

    metric: str
    mean: float
    lift: float
    spread: float
    noise: float
    share: float
    arms: tuple[float, float]
    brands: int
    horizon: Horizon = ONE_LOOK

    def variance(self, recipients: float, sigma: float) -> float:
        """Of the effect over these brands."""
        parts = [recipients * arm for arm in self.arms]
        sampling = sum(self.spread / n for n in parts)
        noise = sigma**2 * self.noise * self.horizon.looks / self.share
        privacy = sum(noise / n**2 for n in parts)
        return (sampling + privacy) / self.brands

    def widening(self, recipients: float, sigma: float) -> float:
        """Width of an interval over that without noise."""
        return math.sqrt(self.variance(recipients, sigma) / self.variance(recipients, 0.0))

    def detectable(self, recipients: float, sigma: float, *, alpha: float, power: float) -> float:
        """The smallest effect (in the metric's unit) that is found with this power."""
        return self.horizon.reach(alpha, power) * math.sqrt(self.variance(recipients, sigma))

    def power(self, recipients: float, sigma: float, *, alpha: float) -> float:
        """The chance to find the expected lift."""
        drift = abs(self.lift * self.mean) / math.sqrt(self.variance(recipients, sigma))
        return self.horizon.power(min(drift, LARGEST_DRIFT), alpha)

    def sample_size(self, sigma: float, *, alpha: float, power: float) -> float:
        """Recipients in each brand that it takes; infinite where more than anybody has."""
        effect = abs(self.lift * self.mean)

        def short(log_n: float) -> float:
            found = self.detectable(math.exp(log_n), sigma, alpha=alpha, power=power)
            return math.log(found / effect) if found else -math.inf

        if effect == 0 or short(math.log(LARGEST_SAMPLE)) > 0:
            return math.inf
        if short(0.0) <= 0:
            return 1.0
        return math.ceil(math.exp(optimize.brentq(short, 0.0, math.log(LARGEST_SAMPLE))))

    def break_even(self, sigma: float) -> float:
        """Recipients an arm from which on sampling is the larger part."""
        return sigma**2 * self.noise * self.horizon.looks / self.share / self.spread


def outlooks(plan: Plan) -> list[Outlook]:
    """One for each metric that the plan expects something of.

    Raises:
        InputError: it expects nothing.
    """
    known = [(one, plan.analysis.expects(one.name)) for one in plan.metrics]
    found = [_outlook(plan, metric, expected) for metric, expected in known if expected]
    if not found or plan.analysis.recipients is None:
        raise InputError(
            "the plan says nothing of what is expected",
            where=plan.name,
            why="a design follows from what is believed beforehand",
            do="add analysis.recipients, and analysis.expected: metric, mean, lift (and sd)",
        )
    return found


def _outlook(plan: Plan, metric: Metric, expected: Expected) -> Outlook:
    low, high = bounds_of(metric)
    u = (expected.mean - low) / (high - low)
    spread = expected.sd**2 if expected.sd is not None else _default_spread(metric, expected, u)
    adjustment = chosen(plan, metric.name)
    analysis = plan.analysis
    weights = sum(analysis.budget_of(one.name).share for one in plan.metrics)
    share = analysis.metrics_share * analysis.budget_of(metric.name).share / weights
    helpful = moments_help(plan, metric, share)
    first = parts_of(metric, adjustment, with_moments=helpful)[0]
    noise = (high - low) ** 2 * ((1 - u) ** 2 + u**2) / first.share
    if isinstance(metric, Ratio):
        noise = ((1 - expected.mean) ** 2 + expected.mean**2) / first.share
        noise /= expected.denominator**2
    if isinstance(metric, Quantile):
        q = metric.quantile
        noise = spread * first.size * (q * (1 - q) ** 2 + (1 - q) * q**2) / (q * (1 - q))
    if adjustment is not None:
        spread, noise = spread * (1 - expected.r_squared), noise * 2
    if plan.noise_once:  # each of k brands adds its share to one sum: k shares over (k n)²
        noise *= own_share(plan, split(plan, 1.0)[1]) ** 2
    return Outlook(
        metric=metric.name,
        mean=expected.mean,
        lift=expected.lift,
        spread=spread,
        noise=noise,
        share=share,
        arms=(plan.control.share, min(arm.share for arm in plan.arms if not arm.control)),
        brands=len(plan.silos),
        horizon=Horizon.of(plan),
    )


def _default_spread(metric: Metric, expected: Expected, u: float) -> float:
    """Of a share; of a ratio as if each send that counts were by itself."""
    if isinstance(metric, Proportion):
        return u * (1 - u)
    if isinstance(metric, Ratio):
        return expected.mean * (1 - expected.mean) / expected.denominator
    what = "a mean" if isinstance(metric, Mean) else f"a {metric.kind}"
    raise InputError(
        f"analysis.expected says nothing of the spread of {metric.name!r}",
        why=f"{what} needs it to tell how many recipients it takes",
        do="add its sd",
    )


@dataclass(frozen=True)
class Design:
    """What a plan can find, and what it would take.

    Attributes:
        table: one row a metric: metric, share (of the budget), recipients (in a brand), power,
            mde (relative), widening, n_effective, break_even (recipients an arm), needs_recipients
            and needs_epsilon for the wanted power at the expected lift.
        split: shares of least total width, by metric, and that width over the plan's own.
        gain: sum of prioritised widths with that split over that with the plan's.
        covariates: what each covariate is expected to do.
    """

    table: pd.DataFrame
    split: dict[str, float]
    gain: float
    covariates: dict[str, Forecast]


def design(plan: Plan, *, alpha: float = 0.05) -> Design:
    """Everything that can be said of a plan before it is run.

    Raises:
        InputError: it expects nothing, or too little.
    """
    views = outlooks(plan)
    n, power = float(plan.analysis.recipients or 0), plan.analysis.power
    sigma = noise_multiplier(plan)
    rows = []
    for view in views:
        wide = view.widening(n, sigma)
        found = view.detectable(n, sigma, alpha=alpha, power=power)
        rows.append(
            {
                "metric": view.metric,
                "share": view.share,
                "recipients": n,
                "power": view.power(n, sigma, alpha=alpha),
                "mde": found / abs(view.mean) if view.mean else math.nan,
                "widening": wide,
                "n_effective": n / wide**2,
                "break_even": view.break_even(sigma),
                "needs_recipients": view.sample_size(sigma, alpha=alpha, power=power),
                "needs_epsilon": epsilon_needed(view, n, plan.privacy.delta, alpha, power),
            }
        )
    priorities = [plan.analysis.budget_of(view.metric).priority for view in views]
    shares = least_width(views, priorities, n, sigma)
    total = sum(view.share for view in views)
    better = [replace(v, share=total * s) for v, s in zip(views, shares, strict=True)]
    mine, best = (
        sum(p * v.widening(n, sigma) for p, v in zip(priorities, some, strict=True))
        for some in (views, better)
    )
    named = {view.metric: round(share, 4) for view, share in zip(views, shares, strict=True)}
    pays = {one.metric: forecast(plan, one) for one in plan.analysis.adjust}
    return Design(pd.DataFrame(rows), named, best / mine, pays)


def epsilon_needed(
    view: Outlook, recipients: float, delta: float, alpha: float, power: float
) -> float:
    """The ε (for all metrics together, at this share) that finds the expected lift.

    Infinite where sampling alone is too much: then it takes more recipients, not more ε.
    """
    effect = abs(view.lift * view.mean)

    def short(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        return view.detectable(recipients, sigma, alpha=alpha, power=power) - effect

    low, high = (math.log(one) for one in MULTIPLIERS)
    if short(low) > 0:
        return math.inf
    if short(high) <= 0:
        return epsilon_at(math.exp(high), delta)
    return epsilon_at(math.exp(optimize.brentq(short, low, high, xtol=1e-6)), delta)


def epsilon_at(sigma: float, delta: float) -> float:
    """The ε of one Gaussian release with this noise multiplier (Balle and Wang 2018, Theorem 8).

    For planning: what a release is charged is computed by `abfed.privacy`.
    """

    def excess(log_epsilon: float) -> float:
        epsilon = math.exp(log_epsilon)
        far = epsilon + float(special.log_ndtr(-0.5 / sigma - epsilon * sigma))
        return float(special.ndtr(0.5 / sigma - epsilon * sigma)) - math.exp(far) - delta

    return math.exp(optimize.brentq(excess, math.log(1e-6), math.log(1e5), xtol=1e-9))


def least_width(
    views: Sequence[Outlook], priorities: Sequence[float], recipients: float, sigma: float
) -> list[float]:
    """Shares (adding up to 1) with the least sum of priority × relative width."""
    total = sum(view.share for view in views)
    ratios = [  # V_noise over V_sampling with all of the metrics' budget
        replace(view, share=total).widening(recipients, sigma) ** 2 - 1 for view in views
    ]

    def share(ratio: float, priority: float, price: float) -> float:
        """Where one more unit of budget gains `price`: priority·r / (2 s² √(1 + r/s)) = price."""

        def excess(log_s: float) -> float:
            s = math.exp(log_s)
            return priority * ratio / (2 * s**2 * math.sqrt(1 + ratio / s)) - price

        if excess(0.0) >= 0:
            return 1.0
        if excess(-30.0) <= 0:
            return math.exp(-30.0)
        return math.exp(optimize.brentq(excess, -30.0, 0.0))

    def shares(log_price: float) -> list[float]:
        price = math.exp(log_price)
        return [share(r, p, price) for r, p in zip(ratios, priorities, strict=True)]

    price = optimize.brentq(lambda log: sum(shares(log)) - 1, -60.0, 60.0)
    found = np.asarray(shares(price))
    return [float(one) for one in found / found.sum()]


def curves(plan: Plan, *, alpha: float = 0.05) -> pd.DataFrame:
    """For plots: metric, epsilon, recipients, mde (relative) and power."""
    views, delta = outlooks(plan), plan.privacy.delta
    n = float(plan.analysis.recipients or 0)
    wanted = plan.privacy.split.statistics
    rows = []
    for epsilon in sorted({0.1, 0.3, 1.0, 3.0, wanted}):
        sigma = gaussian_multiplier(epsilon, delta)
        for recipients in np.geomspace(n / 10, n * 10, 41):
            for view in views:
                found = view.detectable(recipients, sigma, alpha=alpha, power=plan.analysis.power)
                rows.append(
                    {
                        "metric": view.metric,
                        "epsilon": epsilon,
                        "recipients": recipients,
                        "mde": found / abs(view.mean) if view.mean else math.nan,
                        "power": view.power(recipients, sigma, alpha=alpha),
                    }
                )
    return pd.DataFrame(rows)
