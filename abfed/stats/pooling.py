"""Across brands: what holds for these brands together, and for brands like these.

*These brands*: the size-weighted mean of the brands' effects; its variance is Σw²V.
*Brands like these*: a random-effects mean with the Paule–Mandel estimate of the variance between
brands (Paule and Mandel 1982) and the Hartung–Knapp–Sidik–Jonkman interval on k−1 degrees of
freedom (Hartung and Knapp 2001). All variances include the noise: without it Cochran's Q "finds"
differences between brands that are only noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from abfed.stats.totals import Floats


class Heterogeneity(NamedTuple):
    """How much brands differ, beyond chance and noise.

    Attributes:
        q: Cochran's Q, chi-squared with `brands` − 1 degrees of freedom where brands are alike.
        p_value: of Q.
        i_squared: share of the variation that is between brands, in [0, 1].
        tau: standard deviation between brands (Paule–Mandel), in the metric's unit.
        brands: how many.
    """

    q: float
    p_value: float
    i_squared: float
    tau: float
    brands: int


class RandomEffects(NamedTuple):
    """The mean over brands like these."""

    estimate: float
    se: float
    low: float
    high: float
    p_value: float


def weights_by_size(sizes: Sequence[float]) -> Floats:
    """Weights that add up to one, in proportion to noised sizes (a size below zero counts none)."""
    kept = np.maximum(np.asarray(sizes, dtype=np.float64), 0.0)
    total = kept.sum()
    return kept / total if total > 0 else np.full(len(kept), 1.0 / len(kept))


def heterogeneity(effects: Sequence[float], variances: Sequence[float]) -> Heterogeneity:
    """Cochran's Q, I² and τ of brands' effects with noise-aware variances."""
    d, v = np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    q = _q(0.0, d, v)
    df = len(d) - 1
    p_value = float(special.chdtrc(df, q)) if df else 1.0
    i_squared = max(0.0, (q - df) / q) if q > 0 else 0.0
    return Heterogeneity(q, p_value, i_squared, math.sqrt(paule_mandel(d, v)), len(d))


def paule_mandel(effects: Floats, variances: Floats) -> float:
    """τ²: the variance between brands at which Q is k − 1, its expectation; 0 where Q is less."""
    df = len(effects) - 1
    if df < 1 or _q(0.0, effects, variances) <= df:
        return 0.0
    high = float(np.var(effects) + variances.max())
    while _q(high, effects, variances) > df:
        high *= 2
    return float(optimize.brentq(lambda t: _q(t, effects, variances) - df, 0.0, high))


def random_effects(
    effects: Sequence[float], variances: Sequence[float], *, alpha: float
) -> RandomEffects:
    """The mean over brands like these, with its HKSJ interval.

    Raises:
        ValueError: fewer than two brands.
    """
    d, v = np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if len(d) < 2:
        raise ValueError("brands like these can't be told from one brand")
    w = 1.0 / (v + paule_mandel(d, v))
    mean = float((w * d).sum() / w.sum())
    df = len(d) - 1
    se = math.sqrt(float((w * (d - mean) ** 2).sum()) / (df * float(w.sum())))
    half = float(special.stdtrit(df, 1 - alpha / 2)) * se
    p_value = 2 * float(special.stdtr(df, -abs(mean) / se)) if se > 0 else float(mean == 0)
    return RandomEffects(mean, se, mean - half, mean + half, p_value)


def shrunk(effects: Sequence[float], variances: Sequence[float]) -> Floats:
    """Brands' effects pulled towards their mean by how unsure each is (empirical Bayes)."""
    d, v = np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    tau2 = paule_mandel(d, v)
    w = 1.0 / (v + tau2)
    mean = float((w * d).sum() / w.sum())
    return np.asarray((tau2 * d + v * mean) / (tau2 + v), dtype=np.float64)


def _q(tau2: float, effects: Floats, variances: Floats) -> float:
    w = 1.0 / (variances + tau2)
    mean = (w * effects).sum() / w.sum()
    return float((w * (effects - mean) ** 2).sum())
