"""A Bayesian read-out of noised effects, and the next wave's allocation from it.

Effects of arms against the control are jointly normal with noise-aware variances (they share the
control, so they hang together); the plan declares a normal prior for each, the control's own value
has a flat one. The posterior is normal in closed form. Its questions (which arm is best, what would
it cost to be wrong) are answered from quasi-random draws that are the same each time: a read-out
is re-made bit for bit from its release.

Allocation is Thompson's (1933): an arm's share is its probability to be best, but never below a
floor, so that every arm goes on being measured.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from abfed.protocol.analysis import Prior
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.stats.effects import THESE, is_harmful
from abfed.stats.encoding import Floats

DRAWS = 1 << 14
"""Of the posterior: the standard error of a probability is below .004."""

FLOOR = 0.05
"""Smallest share of an arm where none is asked for."""


class Posterior(NamedTuple):
    """Effects of all arms but the control, given a release.

    Attributes:
        mean: (arms,)
        covariance: (arms, arms)
    """

    mean: Floats
    covariance: Floats


def posterior(
    effects: Floats, arm_variances: Floats, control_variance: float, prior: tuple[float, float]
) -> Posterior:
    """Combine noised effects with a prior N(mean, sd²) on each.

    Args:
        effects: of each arm against the control.
        arm_variances: of each arm's own value, noise included.
        control_variance: of the control's.
        prior: mean and standard deviation.
    """
    many = len(effects)
    likelihood = np.diag(arm_variances) + control_variance
    middle, sd = prior
    gain = np.linalg.solve(likelihood + sd**2 * np.eye(many), sd**2 * np.eye(many)).T
    mean = middle + gain @ (effects - middle)
    covariance = sd**2 * np.eye(many) - gain * sd**2
    return Posterior(mean, (covariance + covariance.T) / 2)


@functools.lru_cache(maxsize=8)
def _normals(many: int) -> Floats:
    """Quasi-random standard normals, the same each time: (draws, many)."""
    points = stats.qmc.Sobol(many, scramble=True, rng=np.random.default_rng(20260101))
    return np.asarray(special.ndtri(np.clip(points.random(DRAWS), 1e-12, 1 - 1e-12)))


def draws_of(one: Posterior) -> Floats:
    """Draws of all arms' effects, the control's (0) first: (draws, arms + 1)."""
    values, vectors = np.linalg.eigh(one.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    effects = one.mean + _normals(len(one.mean)) @ root.T
    return np.concatenate([np.zeros((len(effects), 1)), effects], axis=1)


def readout(plan: Plan, effects: pd.DataFrame, metric: str, *, scope: str = "") -> pd.DataFrame:
    """The posterior of every arm's effect on a metric.

    Args:
        plan: with a prior for the metric.
        effects: of the plan (`abfed.stats.effects.effects`).
        metric: which.
        scope: whose; these brands, or the only one, where none is named.

    Returns:
        One row an arm, the control first: arm, mean, sd, low, high (95 %), best (probability to be
        the best arm), loss (expected, in the metric's unit, of choosing this arm).

    Raises:
        InputError: no prior is declared, or the effects are suppressed.
    """
    prior = _prior(plan, metric)
    scopes = set(effects["scope"])
    scope = scope or (THESE if THESE in scopes else str(effects["scope"].iloc[0]))
    rows = effects[(effects["metric"] == metric) & (effects["scope"] == scope)]
    if not len(rows) or rows["estimate"].isna().any():
        raise InputError(
            f"the effects on {metric!r} can't be told from noise",
            where=f"{plan.name}, {scope}",
            why="; ".join(sorted(set(map(str, rows["note"])))) or "there is no such scope",
            do="collect more, or ask for more ε",
        )
    if rows["var_control"].isna().any():
        raise InputError(
            f"there is no posterior of {metric!r} for {scope}",
            where=plan.name,
            why="its interval rests on how far brands lie apart, not on arms' own variances",
            do=f"read {THESE}, or one brand",
        )
    shared = _shared_variance(rows)
    whole = posterior(
        rows["estimate"].to_numpy(dtype=float),
        rows["se"].to_numpy(dtype=float) ** 2 - shared,
        shared,
        (prior.mean, prior.sd),
    )
    sign = -1.0 if is_harmful(next(one for one in plan.metrics if one.name == metric)) else 1.0
    draws = sign * draws_of(whole)
    top = draws.max(axis=1)
    means = np.concatenate([[0.0], whole.mean])
    sds = np.sqrt(np.concatenate([[0.0], np.maximum(np.diag(whole.covariance), 0.0)]))
    z = float(special.ndtri(0.975))
    return pd.DataFrame(
        {
            "arm": [plan.control.name, *rows["arm"]],
            "mean": means,
            "sd": sds,
            "low": means - z * sds,
            "high": means + z * sds,
            "best": np.bincount(draws.argmax(axis=1), minlength=len(means)) / len(draws),
            "loss": (top[:, None] - draws).mean(axis=0),
        }
    )


def allocation(plan: Plan, read: pd.DataFrame, *, floor: float = FLOOR) -> dict[str, float]:
    """The next wave's share of each arm: its probability to be best, but no less than the floor.

    Raises:
        InputError: the floor leaves nothing to share out.
    """
    many = len(plan.arms)
    if not 0 <= floor * many <= 1:
        raise InputError(
            f"a floor of {floor:g} for {many} arms is more than the whole",
            do=f"give at most {1 / many:.3f}",
        )
    best = dict(zip(read["arm"], read["best"], strict=True))
    return {arm.name: floor + (1 - floor * many) * float(best[arm.name]) for arm in plan.arms}


def rounded(shares: Mapping[str, float], places: int = 4) -> dict[str, float]:
    """Shares as an e-mail tool takes them: rounded, and adding up to one."""
    units = 10**places
    floors = {arm: int(share * units) for arm, share in shares.items()}
    left = units - sum(floors.values())
    order: Sequence[str] = sorted(shares, key=lambda arm: floors[arm] - shares[arm] * units)
    for arm in order[:left]:
        floors[arm] += 1
    return {arm: count / units for arm, count in floors.items()}


def _prior(plan: Plan, metric: str) -> Prior:
    for prior in plan.analysis.priors:
        if prior.metric == metric:
            return prior
    raise InputError(
        f"the plan declares no prior for {metric!r}",
        where=plan.name,
        do="add one under analysis.priors, before the release",
    )


def _shared_variance(rows: pd.DataFrame) -> float:
    """The control's variance, which all effects share.

    Where arms were suppressed in different brands their effects rest on different ones: then the
    least, which no effect's own variance is below.
    """
    return float(rows["var_control"].min())
