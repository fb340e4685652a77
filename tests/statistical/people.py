"""Made-up recipients of known behaviour, and the plain analysis that sees every one of them.

`released` takes them through the real computation of a silo; `exact_effects` is the oracle: a
stratified analysis of the rows with pandas, no noise, no encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from abfed.privacy.mechanisms import Noise, SystemNoise
from abfed.protocol.messages import Charge
from abfed.protocol.metrics import Mean, Metric, Proportion
from abfed.protocol.plan import Plan
from abfed.silo.permit import Permit
from abfed.silo.totals import columns_needed, compute_totals
from abfed.stats.totals import SiloTotals


def sends(
    rng: np.random.Generator,
    count: int,
    shares: Mapping[str, float],
    *,
    open_rate: float = 0.4,
    lift: float = 0.0,
) -> pd.DataFrame:
    """Sends of `count` recipients: 1 to 3 each; who opens one tends to open others.

    `lift` raises the chance of an open, and so all that follows from it, in every arm but the
    first. Clicks follow an open, conversions and revenue (about $100) a click.
    """
    arms = list(shares)
    arm = rng.choice(len(arms), size=count, p=list(shares.values()))
    keen = rng.beta(1.0, 1.0 / open_rate - 1.0, count) * np.where(arm > 0, 1 + lift, 1.0)
    many = rng.integers(1, 4, count)
    person = np.repeat(np.arange(count), many)
    opened = rng.random(len(person)) < keen[person]
    clicked = opened & (rng.random(len(person)) < 0.25)
    converted = clicked & (rng.random(len(person)) < 0.1)
    revenue = np.where(converted, rng.lognormal(4.4, 0.7, len(person)), 0.0)
    return pd.DataFrame(
        {
            "recipient": person,
            "arm": np.array(arms)[arm[person]],
            "opened": opened,
            "clicked": clicked,
            "converted": converted,
            "revenue": revenue,
        }
    )


def table(frame: pd.DataFrame, plan: Plan) -> pa.Table:
    """Sends as the store hands them out: pseudonyms of 16 bytes, declared columns only."""
    words = np.zeros((len(frame), 2), dtype=">u8")
    words[:, 1] = frame["recipient"]
    pseudonyms = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(frame), [None, pa.py_buffer(words.tobytes())]
    )
    columns = {name: pa.array(frame[name]) for name in ("arm", *columns_needed(plan))}
    columns["arm"] = columns["arm"].cast(pa.string())
    return pa.table({"recipient": pseudonyms, **columns})


def permit(plan: Plan, sigma: float, noise: Noise | None = None) -> Permit:
    """A permit for the totals of a plan with this noise multiplier."""
    return Permit(
        plan=plan,
        step="totals",
        key="0" * 64,
        epoch="0" * 64,
        charges=(Charge(event="gaussian", noise_multiplier=sigma),),
        noise=noise or SystemNoise(),
        lawful_bases=("consent",),
        holdout_key=bytes(32),
    )


def released(
    plan: Plan, brands: Mapping[str, pd.DataFrame], sigma: float, noise: Noise | None = None
) -> dict[str, SiloTotals]:
    """Each brand's totals, computed and noised as in a silo."""
    allowed = permit(plan, sigma, noise)
    return {
        brand: SiloTotals.of(
            plan, compute_totals(allowed, [table(frame, plan)]).arrays["totals"], sigma
        )
        for brand, frame in brands.items()
    }


def exact_effects(plan: Plan, brands: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The stratified analysis of the rows themselves.

    Returns:
        `estimate` and `se`, by metric, arm and scope (a brand, or "these brands").
    """
    sizes = pd.Series({brand: frame["recipient"].nunique() for brand, frame in brands.items()})
    weights = sizes / sizes.sum()
    rows: list[dict[str, Any]] = []
    for metric in plan.metrics:
        found = {brand: _arms(metric, frame) for brand, frame in brands.items()}
        for arm in plan.arms:
            if arm.control:
                continue
            pair = {"metric": metric.name, "arm": arm.name}
            pooled, variance = 0.0, 0.0
            for brand, arms in found.items():
                (m1, v1), (m0, v0) = arms[arm.name], arms[plan.control.name]
                rows.append(pair | {"scope": brand, "estimate": m1 - m0, "se": (v1 + v0) ** 0.5})
                pooled += weights[brand] * (m1 - m0)
                variance += weights[brand] ** 2 * (v1 + v0)
            rows.append(pair | {"scope": "these brands", "estimate": pooled, "se": variance**0.5})
    return pd.DataFrame(rows).set_index(["metric", "arm", "scope"])


def _arms(metric: Metric, frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Mean and its sampling variance by arm, at the level of recipients."""
    by = frame.groupby(["arm", "recipient"], sort=False)
    if isinstance(metric, Proportion):
        each = by[metric.column].any().astype(float)
    elif isinstance(metric, Mean):
        each = by[metric.column].sum().clip(metric.low, metric.high)
    else:
        return _ratios(metric, frame)
    return {
        str(arm): (float(values.mean()), float(values.var(ddof=1) / len(values)))
        for arm, values in each.groupby(level="arm")
    }


def _ratios(metric: Any, frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Ratio of sums with the delta method (Deng, Knoblich and Lu 2018)."""
    below = np.ones(len(frame), bool)
    if metric.denominator != "sends":
        below = frame[metric.denominator].to_numpy()
    counted = frame.assign(below=below, above=below & frame[metric.numerator])
    sums = counted.groupby(["arm", "recipient"], sort=False)[["above", "below"]].sum()
    out = {}
    for arm, each in sums.groupby(level="arm"):
        above, below_sum = each["above"], each["below"]
        ratio = above.sum() / below_sum.sum()
        residual = (above - ratio * below_sum) / below_sum.mean()
        out[str(arm)] = (float(ratio), float(residual.var(ddof=1) / len(each)))
    return out
