"""Experiments that never were: brands' totals drawn directly, with the noise of a release.

Brands differ in size and in baseline as in the simulations that the estimators were chosen on:
four of them, sizes × .5 to 1.75, baselines × .6 to 1.4. Noise is a rounded normal on the release's
own integers. The truth is known, so that coverage and error rates can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from abfed.protocol.metrics import Mean, Metric, Proportion
from abfed.protocol.plan import Plan
from abfed.stats.totals import (
    SCALE,
    Integers,
    Layout,
    SiloTotals,
    encode_products,
    encode_ratio,
    encode_share,
    encode_square,
)

SIZES = (0.5, 0.75, 1.0, 1.75)
BASELINES = (0.6, 0.87, 1.13, 1.4)
BRANDS = ("aurora", "borealis", "corona", "dawn")
SENDS = 3

SIGMA = {0.1: 36.3, 0.5: 8.06, 1.0: 4.22, 3.0: 1.55}
"""Noise multipliers of the analytic Gaussian mechanism at δ = 1e-6, by ε."""

CLICKED = {"name": "clicked", "kind": "proportion", "column": "clicked"}
CONVERTED = {"name": "converted", "kind": "proportion", "column": "converted"}
SPEND = {"name": "spend", "kind": "mean", "column": "revenue", "high": 200.0}
RATIO = {"name": "ctor", "kind": "ratio", "numerator": "clicked", "denominator": "opened"}


def plan_of(*metrics: dict[str, Any], shares: Sequence[float] = (0.5, 0.5), **changes: Any) -> Plan:
    """A plan over the four brands; arms are `control`, `arm-1`, `arm-2` …."""
    arms = [
        {"name": f"arm-{i}" if i else "control", "share": share, "control": i == 0}
        for i, share in enumerate(shares)
    ]
    values: dict[str, Any] = {
        "name": "simulated",
        "purpose": "email-optimisation",
        "experiment": "simulated",
        "silos": list(BRANDS),
        "arms": arms,
        "metrics": list(metrics),
        "primary": metrics[0]["name"],
        "sends_per_recipient": SENDS,
        "privacy": {"epsilon": 1.0, "split": {"statistics": 1.0}},
    }
    return Plan.from_values(values | changes)


def noised(layout: Layout, sums: Integers, sigma: float, rng: np.random.Generator) -> Integers:
    """The sums with a release's noise."""
    sds = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks])
    return sums + np.rint(rng.normal(size=sums.shape) * sds * sigma * SCALE).astype(np.int64)


def draw_metric(
    metric: Metric, rate: float, count: int, rng: np.random.Generator
) -> list[Integers]:
    """A metric's blocks, summed over `count` recipients whose metric has about this rate.

    For a mean the rate is that of spending anything; what is spent is log-normal, about $100.
    For a ratio it is that of a click among opens; recipients differ in how much they do either.
    """
    if isinstance(metric, Proportion):
        events = int(rng.binomial(count, rate))
        return [np.array([events, count - events]) * SCALE]
    if isinstance(metric, Mean):
        spent = np.zeros(count)
        buyers = int(rng.binomial(count, rate))
        spent[:buyers] = rng.lognormal(4.4, 0.7, buyers)
        encoded = encode_share(np.clip(spent, metric.low, metric.high) / metric.high)
        return [encoded.sum(axis=0), encode_square(encoded).sum(axis=0)]
    opens = rng.binomial(SENDS, rng.beta(1.0, 2.0, count))
    clicks = rng.binomial(opens, rng.beta(2 * rate, 2 * (1 - rate), count))
    encoded = encode_ratio(clicks, opens, SENDS)
    return [encoded.sum(axis=0), encode_products(encoded).sum(axis=0)]


@dataclass(frozen=True)
class World:
    """Brands with known rates.

    Attributes:
        plan: what is asked.
        rates: base rate by metric.
        lifts: relative change of the rate in every arm but the control, by metric.
        recipients: average number in a brand.
        sigma: noise multiplier of the release.
    """

    plan: Plan
    rates: Mapping[str, float]
    lifts: Mapping[str, float]
    recipients: int
    sigma: float

    def draw(self, rng: np.random.Generator) -> dict[str, SiloTotals]:
        """One experiment's released totals by brand."""
        return {brand: self._brand(i, rng) for i, brand in enumerate(BRANDS)}

    def _brand(self, index: int, rng: np.random.Generator) -> SiloTotals:
        layout = Layout.of(self.plan)
        sums = np.zeros(layout.shape, dtype=np.int64)
        shares = [arm.share for arm in self.plan.arms]
        counts = rng.multinomial(round(self.recipients * SIZES[index]), shares)
        for row, arm in enumerate(self.plan.arms):
            for metric in self.plan.metrics:
                rate = self.rate(metric.name, index, treated=not arm.control)
                parts = draw_metric(metric, rate, int(counts[row]), rng)
                blocks = [block for block in layout.blocks if block.metric == metric.name]
                for block, part in zip(blocks, parts, strict=True):
                    sums[row, block.columns] = part
        return SiloTotals.of(self.plan, noised(layout, sums, self.sigma, rng), self.sigma)

    def rate(self, metric: str, index: int, *, treated: bool) -> float:
        """A brand's true rate."""
        lift = self.lifts.get(metric, 0.0) if treated else 0.0
        return self.rates[metric] * BASELINES[index] * (1 + lift)


Floats = npt.NDArray[np.float64]
