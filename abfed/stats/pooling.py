"""Across brands: what holds for these brands together, and for brands like these.

*These brands*: the size-weighted mean of the brands' effects; its variance is Σw²V.
*Brands like these*: the plain mean of the brands' effects with Student's statistic. An effect
differs from the mean by chance, by noise and by what is its own, so the spread of effects shows all
three at once, and no weight has to be estimated from few brands. Student's t on k−1 degrees of
freedom is right where effects vary alike, and never too narrow (Bakirov and Székely 2005; Ibragimov
and Müller 2010). Where brands are unlike in size and don't differ it is too wide. So where their
effects agree (Q is small) the critical value is that of values which vary as theirs do by chance
and noise (`stats.student`; decision 0168). Alike brands have Student's t by either way.
*Heterogeneity*: Cochran's Q, I², and τ by Paule and Mandel (1982). All variances include the noise:
without it Q "finds" differences between brands that are only noise. A brand whose recipients are
all alike has a variance of zero and can't be weighed by it: who calls leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from abfed.stats import student
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


class LikeThese(NamedTuple):
    """The mean over brands like these, of which some were seen; of many experiments at once, too.

    Attributes:
        estimate: mean of their effects, (…).
        spread: its standard error, by how far they lie apart.
        variances: what their effects are taken to vary by, (…, k); only proportions count.
    """

    estimate: Floats
    spread: Floats
    variances: Floats

    def interval(self, alpha: float) -> tuple[Floats, Floats]:
        """Both ends, at confidence 1 − α."""
        half = student.critical(alpha, self.variances) * self.spread
        return self.estimate - half, self.estimate + half

    def p_value(self) -> Floats:
        """Two-sided, of the mean being zero: below α where the interval leaves zero out."""
        return 2 * self.tail(-np.abs(self.estimate))

    def tail(self, distance: Floats | float) -> Floats:
        """Chance of an estimate at most this far above the true mean (below it: negative)."""
        t = np.clip(np.abs(distance) / self.spread, 1e-6, 1e6)  # beyond, nothing is left to tell
        beside = student.beyond(t, self.variances) / 2
        return np.asarray(np.where(np.asarray(distance) > 0, 1 - beside, beside))


def agreement(brands: int) -> float:
    """Effects agree where Q is below this quantile of χ² on k − 1 degrees of freedom.

    What k brands of up to 50:1 in size bear: then 95 % intervals hold the truth in .935 to .975 of
    cases whatever brands differ by (three brands of 50:1: in .932 to .975; decision 0168).
    """
    return 0.17 if brands <= 3 else 0.4


def weights_by_size(sizes: Sequence[float]) -> Floats:
    """Weights that add up to one, in proportion to noised sizes (a size below zero counts none)."""
    kept = np.maximum(np.asarray(sizes, dtype=np.float64), 0.0)
    total = kept.sum()
    return kept / total if total > 0 else np.full(len(kept), 1.0 / len(kept))


def heterogeneity(effects: Sequence[float], variances: Sequence[float]) -> Heterogeneity:
    """Cochran's Q, I² and τ of brands' effects with noise-aware variances, all above zero."""
    d, v = _arrays(effects, variances)
    q = float(_q(0.0, d, v))
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
    return float(optimize.brentq(lambda t: float(_q(t, effects, variances)) - df, 0.0, high))


def like_these(effects: Sequence[float] | Floats, variances: Sequence[float] | Floats) -> LikeThese:
    """The mean over brands like these.

    Args:
        effects: of the brands that were seen, (…, k), not all the same.
        variances: of each, noise included. Where one is zero Student's t is taken.

    Raises:
        ValueError: fewer than two brands, or all their effects are the same.
    """
    d, v = _arrays(effects, variances)
    many = d.shape[-1]
    if many < 2:
        raise ValueError("brands like these can't be told from one brand")
    spread = d.std(axis=-1, ddof=1) / math.sqrt(many)
    if np.any(spread == 0):
        raise ValueError("effects that are all the same don't show how much brands differ")
    known = np.where((v > 0).all(axis=-1, keepdims=True), v, np.nan)
    most = float(special.chdtri(many - 1, 1 - agreement(many)))
    agree = _q(0.0, d, known) < most
    return LikeThese(d.mean(axis=-1), spread, np.where(agree[..., None], known, 1.0))


def shrunk(effects: Sequence[float], variances: Sequence[float]) -> Floats:
    """Brands' effects pulled towards their mean by how unsure each is (empirical Bayes).

    Args:
        effects: of the brands.
        variances: of each, noise included, all above zero.
    """
    d, v = _arrays(effects, variances)
    tau2 = paule_mandel(d, v)
    w = 1.0 / (v + tau2)
    mean = float((w * d).sum() / w.sum())
    return np.asarray((tau2 * d + v * mean) / (tau2 + v), dtype=np.float64)


def _arrays(
    effects: Sequence[float] | Floats, variances: Sequence[float] | Floats
) -> tuple[Floats, Floats]:
    return np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)


def _q(tau2: Floats | float, effects: Floats, variances: Floats) -> Floats:
    """Cochran's Q at this τ²: (…)."""
    w = 1.0 / (variances + np.asarray(tau2)[..., None])
    mean = (w * effects).sum(axis=-1, keepdims=True) / w.sum(axis=-1, keepdims=True)
    return np.asarray((w * (effects - mean) ** 2).sum(axis=-1))
