"""Is an experiment sound? Balance, impossible outcomes, dead cells, novelty and drift.

From noised totals only; every test knows the noise. Beside the sample ratio (`stats.checks`):

* *balance*: covariates, segments and declared features must not differ between arms;
* *orphans*: recipients with a click on a send that wasn't opened, by the plan's declared rule;
* *dead cells*: an arm of a brand or of a segment in which a metric is all zero while the other
  arms' isn't, or doesn't vary at all: a broken template or tracker, not an effect;
* *novelty*: effects that fade or grow from wave to wave; *drift*: a control that does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from abfed.protocol.metrics import Metric, Quantile
from abfed.protocol.plan import Plan
from abfed.protocol.schema import NumericFeature
from abfed.stats.adjusting import chosen
from abfed.stats.effects import THESE, effects
from abfed.stats.encoding import Floats
from abfed.stats.estimates import MOMENTS_USABLE
from abfed.stats.layout import BALANCE, ORPHANS, cells_of
from abfed.stats.totals import SiloTotals

BALANCE_ALARM = 0.001
"""A p-value below this is an alarm, as for sample ratios: checks run on every report."""

DEAD_Z = 4.0
"""A cell is dead where it lies this many standard errors below the other arms': of hundreds of
cells in a report fewer than one in fifty reports has one that is so by chance."""

DEAD_NOISE = 3.0
"""… and can't be told from zero by this many standard deviations of the noise."""

STILL_SHARE = 0.002
"""Nothing is called still where the noise could hide more than this share of the bound."""

FEWEST = 10.0
"""Recipients of a category below which a comparison of shares is left out."""

Totals = Mapping[str, SiloTotals]


class _Shares(NamedTuple):
    """Shares of an arm's recipients, and their covariance, noise included."""

    values: Floats
    covariance: Floats


def balance(plan: Plan, totals: Totals) -> pd.DataFrame:
    """Whether arms are alike in what was known before the send.

    Returns:
        One row for brand × feature: scope, feature, chi_squared, df, p_value, alarm.
    """
    rows: list[dict[str, Any]] = []
    for brand, one in sorted(totals.items()):
        for feature, arms in _compared(plan, one):
            statistic, df = _homogeneity(arms)
            p = float(special.chdtrc(df, statistic)) if df else 1.0
            rows.append(
                {
                    "scope": brand,
                    "feature": feature,
                    "chi_squared": statistic,
                    "df": df,
                    "p_value": p,
                    "alarm": p < BALANCE_ALARM,
                }
            )
    columns = ["scope", "feature", "chi_squared", "df", "p_value", "alarm"]
    return pd.DataFrame(rows, columns=columns)


def _compared(plan: Plan, totals: SiloTotals) -> Iterator[tuple[str, list[_Shares]]]:
    """What was released of the time before the send, by arm."""
    arms = totals.layout.arms
    for name in plan.analysis.balance:
        feature = next(one for one in plan.features if one.name == name)
        if isinstance(feature, NumericFeature):
            yield name, [_mean(totals, arm, name) for arm in arms]
        else:
            block = totals.layout.block(BALANCE + name)
            yield name, _of_counts([totals.raw(arm, block) for arm in arms])
    for segment in plan.analysis.segments:
        many = len(cells_of(segment, plan.features))
        cells = [totals.cell(segment.name, index).counts() for index in range(many)]
        counts = np.stack([values for values, _ in cells], axis=-1)
        yield segment.name, _of_counts([(row, cells[0][1]) for row in counts])
    for metric in plan.metrics:
        adjustment = chosen(plan, metric.name)
        if adjustment is not None and adjustment.covariate not in plan.analysis.balance:
            yield adjustment.covariate, [_covariate(totals, arm, metric.name) for arm in arms]


def _mean(totals: SiloTotals, arm: str, feature: str) -> _Shares:
    """The mean of a number, as a share of its bounds."""
    sums, noise = totals.arm(arm, BALANCE + feature)
    squares, _ = totals.arm(arm, BALANCE + feature, moments=True)
    return _one_mean(sums, noise, float(squares[0]))


def _covariate(totals: SiloTotals, arm: str, metric: str) -> _Shares:
    """The mean of a covariate, from its margin of the tensor."""
    tensor, noise = totals.raw(arm, totals.layout.block(metric))
    block = totals.layout.find(metric, "covariate")
    squares = math.nan if block is None else float(totals.raw(arm, block)[0][0])
    margin = np.array([tensor[0] + tensor[2], tensor[1] + tensor[3]])
    return _one_mean(margin, noise * math.sqrt(2.0), squares)


def _one_mean(sums: Floats, noise: float, squares: float) -> _Shares:
    size = max(float(sums.sum()), 1.0)
    mean = float(sums[0]) / size
    privacy = noise**2 * ((1 - mean) ** 2 + mean**2) / size**2
    inside = min(1.0, max(0.0, mean))
    bound = inside * (1 - inside)
    spread = min(bound, squares / size - mean**2 + privacy)
    variance = (spread if spread > 0 else bound) / size + privacy
    return _Shares(np.array([mean]), np.array([[variance]]))


def _of_counts(arms: Sequence[tuple[Floats, float]]) -> list[_Shares]:
    """Shares of categories that hold enough recipients in all arms together, but the last."""
    together = sum((values for values, _ in arms), start=np.zeros(len(arms[0][0])))
    noise = math.sqrt(sum(sd**2 for _, sd in arms))
    kept = np.flatnonzero(together > max(FEWEST, 5 * noise))[:-1]
    out = []
    for values, sd in arms:
        size = max(float(values.sum()), 1.0)
        shares = values / size
        inside = np.clip(shares, 0.0, 1.0)
        covariance = (np.diag(inside) - np.outer(inside, inside)) / size
        project = np.eye(len(shares)) - np.outer(shares, np.ones(len(shares)))
        covariance += sd**2 * project @ project.T / size**2
        out.append(_Shares(shares[kept], covariance[np.ix_(kept, kept)]))
    return out


def _homogeneity(arms: Sequence[_Shares]) -> tuple[float, int]:
    """Q of vectors about their precision-weighted mean, and its degrees of freedom."""
    many = len(arms[0].values)
    if not many:
        return 0.0, 0
    precisions = [np.linalg.pinv(one.covariance, hermitian=True) for one in arms]
    pairs = list(zip(precisions, arms, strict=True))
    weighted = sum((p @ one.values for p, one in pairs), start=np.zeros(many))
    middle = np.linalg.solve(sum(precisions, start=np.zeros((many, many))), weighted)
    q = sum(float((one.values - middle) @ p @ (one.values - middle)) for p, one in pairs)
    return q, many * (len(arms) - 1)


def orphans(plan: Plan, totals: Totals) -> pd.DataFrame:
    """Recipients with a click on a send that wasn't opened.

    Returns:
        One row for brand × arm: scope, arm, recipients (noised), noise_sd, share, rule; empty where
        the plan declares no rule.
    """
    rows = []
    for brand, one in sorted(totals.items()):
        block = one.layout.find(ORPHANS, "simplex")
        if block is None:
            continue
        for arm in one.layout.arms:
            sums, noise = one.raw(arm, block)
            rows.append(
                {
                    "scope": brand,
                    "arm": arm,
                    "recipients": float(sums[0]),
                    "noise_sd": noise,
                    "share": float(sums[0]) / max(float(sums.sum()), 1.0),
                    "rule": str(plan.analysis.clicks_without_opens),
                }
            )
    columns = ["scope", "arm", "recipients", "noise_sd", "share", "rule"]
    return pd.DataFrame(rows, columns=columns)


def orphans_alike(totals: Totals) -> dict[str, float]:
    """By brand: the p-value of arms having the same share of such recipients, noise included."""
    found = {}
    for brand, one in totals.items():
        block = one.layout.find(ORPHANS, "simplex")
        if block is not None:
            q, df = _homogeneity(_of_counts([one.raw(arm, block) for arm in one.layout.arms]))
            found[brand] = float(special.chdtrc(df, q)) if df else 1.0
    return found


def dead_cells(plan: Plan, totals: Totals) -> pd.DataFrame:
    """Arms of a brand or of a segment in which a metric doesn't live.

    Returns:
        One row each: scope (brand, or brand and cell), metric, arm, expected and found (in units of
        the metric's bound, noised), reason.
    """
    rows: list[dict[str, Any]] = []
    for brand, one in sorted(totals.items()):
        rows += _dead(plan, brand, one)
        for segment in plan.analysis.segments:
            for index, cell in enumerate(cells_of(segment, plan.features)):
                part = one.cell(segment.name, index)
                rows += _dead(plan, f"{brand}, {segment.name}: {cell}", part)
    columns = ["scope", "metric", "arm", "expected", "found", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _dead(plan: Plan, scope: str, totals: SiloTotals) -> Iterator[dict[str, Any]]:
    for metric in plan.metrics:
        if isinstance(metric, Quantile):
            continue
        sums = {arm: totals.arm(arm, metric.name) for arm in totals.layout.arms}
        yield from _still(scope, metric, sums)
        for arm, (own, noise) in sums.items():
            others = sum((v for a, (v, _) in sums.items() if a != arm), start=np.zeros(len(own)))
            size, rest = float(own.sum()), float(others.sum())
            if size <= 0 or rest <= 0 or others[0] <= DEAD_NOISE * noise:
                continue
            expected = float(others[0]) / rest * size
            gap = expected - float(own[0])
            if gap <= 0 or own[0] >= max(DEAD_NOISE * noise, 0.02 * expected):
                continue
            apart = _deviance(own, others) / _clumping(metric.name, totals, arm, float(others[0]))
            of_noise = noise**2 * (1 + (len(sums) - 1) * (size / rest) ** 2)
            if gap > DEAD_Z * math.sqrt(gap**2 / apart + of_noise):
                yield {
                    "scope": scope,
                    "metric": metric.name,
                    "arm": arm,
                    "expected": expected,
                    "found": float(own[0]),
                    "reason": "all zero here, but not in the other arms",
                }


def _deviance(own: Floats, others: Floats) -> float:
    """Twice the log-likelihood ratio of two rates against one: its root is a z-value.

    A normal z of the difference would take √2 as many events: none is much rarer than it says.
    """
    parts = np.maximum(np.stack([own, others]), 0.0)
    first, whole = parts[:, 0], parts.sum(axis=1)
    share, together = first / whole, first.sum() / whole.sum()
    each = special.rel_entr(share, together) + special.rel_entr(1 - share, 1 - together)
    return max(2.0 * float((whole * each).sum()), math.ulp(1.0))


def _clumping(metric: str, totals: SiloTotals, arm: str, first: float) -> float:
    """Σu²/Σu of the other arms: below 1 amounts are many small ones, each a witness of its own.

    1, the most it can be, where there are no second moments or noise hides them.
    """
    block = totals.layout.find(metric, "moments")
    if block is None or block.size != 1:
        return 1.0
    seen = [totals.raw(one, block) for one in totals.layout.arms if one != arm]
    squares = float(sum(values[..., 0] for values, _ in seen))
    hidden = math.sqrt(sum(sd**2 for _, sd in seen)) > MOMENTS_USABLE * squares
    return 1.0 if hidden or squares <= 0 else min(1.0, squares / first)


def _still(
    scope: str, metric: Metric, sums: Mapping[str, tuple[Floats, float]]
) -> Iterator[dict[str, Any]]:
    """A metric that doesn't vary in any arm."""
    together = sum((v for v, _ in sums.values()), start=np.zeros(len(next(iter(sums.values()))[0])))
    noise = math.sqrt(sum(sd**2 for _, sd in sums.values()))
    size = float(together.sum())
    reach = max(DEAD_NOISE * noise, 0.5)
    if size <= 0 or reach > STILL_SHARE * size:
        return  # noise would hide rates that nobody calls none
    rest = size - float(together[0])
    if together[0] < reach or rest < reach:
        words = "zero" if together[0] < reach else "at the bound"
        found = {"expected": math.nan, "found": float(together[0])}
        reason = f"no variation: all values are {words}, as far as the noise shows"
        yield {"scope": scope, "metric": metric.name, "arm": "all", **found, "reason": reason}


def by_wave(plan: Plan, waves: Sequence[Totals], *, alpha: float = 0.05) -> pd.DataFrame:
    """Each wave's own effects: the columns of `effects`, and `wave` (from 1)."""
    # What was released follows from the whole plan: without its waves and segments another choice
    # of covariates would pay.
    adjust = tuple(
        one.model_copy(update={"use": "no" if chosen(plan, one.metric) is None else "yes"})
        for one in plan.analysis.adjust
    )
    read_once = {"sequential": None, "segments": (), "adjust": adjust}
    alone = plan.model_copy(update={"analysis": plan.analysis.model_copy(update=read_once)})
    frames = [effects(alone, one, alpha=alpha).assign(wave=n) for n, one in enumerate(waves, 1)]
    return pd.concat(frames, ignore_index=True)


def novelty(plan: Plan, waves: Sequence[Totals]) -> pd.DataFrame:
    """Whether effects or the control's values change from wave to wave.

    Returns:
        One row for metric × arm: metric, arm (the control's rows are drift, the others novelty),
        slope (change per wave, in the metric's unit), se, p_value (of the slope), q_p_value (of any
        differences between waves); empty for less than two waves.
    """
    columns = ["metric", "arm", "what", "slope", "se", "p_value", "q_p_value"]
    if len(waves) < 2:
        return pd.DataFrame([], columns=columns)
    frame = by_wave(plan, waves)
    scope = THESE if THESE in set(frame["scope"]) else frame["scope"].iloc[0]
    here = frame[(frame["scope"] == scope) & frame["estimate"].notna()]
    rows = []
    for (metric, arm), seen in here.groupby(["metric", "arm"], sort=False):
        known: dict[str, Any] = {"metric": metric, "arm": arm, "what": "novelty"}
        rows.append(known | _trend(seen["wave"], seen["estimate"], seen["se"] ** 2))
    for metric, seen in here.groupby("metric", sort=False):
        first = seen.drop_duplicates("wave")
        known = {"metric": metric, "arm": plan.control.name, "what": "drift"}
        rows.append(known | _trend(first["wave"], first["mean_control"], first["var_control"]))
    return pd.DataFrame(rows, columns=columns)


def _trend(x: pd.Series[Any], y: pd.Series[Any], variance: pd.Series[Any]) -> dict[str, float]:
    """Weighted slope with known variances, and Cochran's Q about the mean."""
    w, xs, ys = (
        1 / variance.to_numpy(dtype=float),
        x.to_numpy(dtype=float),
        y.to_numpy(dtype=float),
    )
    if len(xs) < 2:
        return {"slope": math.nan, "se": math.nan, "p_value": math.nan, "q_p_value": math.nan}
    middle, mean = (w * xs).sum() / w.sum(), (w * ys).sum() / w.sum()
    lever = float((w * (xs - middle) ** 2).sum())
    slope = float((w * (xs - middle) * ys).sum() / lever)
    se = 1 / math.sqrt(lever)
    q = float((w * (ys - mean) ** 2).sum())
    return {
        "slope": slope,
        "se": se,
        "p_value": 2 * float(special.ndtr(-abs(slope) / se)),
        "q_p_value": float(special.chdtrc(len(xs) - 1, q)),
    }
