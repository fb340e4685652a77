"""Across brands: what holds for these brands together, and for brands like these.

*These brands*: the size-weighted mean of the brands' effects; its variance is Σw²V.
*Brands like these*: the plain mean of the brands' effects with Student's interval on k−1 degrees of
freedom, never narrower than that of these brands. A brand's effect differs from the mean by chance,
by noise and by what is its own, so the spread of effects shows all three at once, and no weight has
to be estimated from few brands. That Student's t stays valid where variances differ, at levels up
to 8 %, was proved by Bakirov and Székely (2005) and put to this use by Ibragimov and Müller (2010).
The usual random-effects mean (Paule–Mandel weights with Hartung–Knapp intervals) covers .63 to .95
where brands differ in size (decision 0065).
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
    """The mean over brands like these, of which some were seen.

    Attributes:
        estimate: mean of their effects.
        spread: its standard error, by how far they lie apart.
        floor: standard error over the brands that were seen: it can't be less for all of them.
        df: degrees of freedom of the first.
    """

    estimate: float
    spread: float
    floor: float
    df: int

    @property
    def se(self) -> float:
        """The larger of the two standard errors."""
        return max(self.spread, self.floor)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Both ends, at confidence 1 − α."""
        by_spread = float(special.stdtrit(self.df, 1 - alpha / 2)) * self.spread
        half = max(by_spread, float(special.ndtri(1 - alpha / 2)) * self.floor)
        return self.estimate - half, self.estimate + half

    def p_value(self) -> float:
        """Two-sided, of the mean being zero: below α where the interval leaves zero out."""
        return min(1.0, 2 * self.tail(-abs(self.estimate)))

    def tail(self, distance: float) -> float:
        """Chance of an estimate at most this far above the true mean (below it: negative)."""
        tails = [float(special.stdtr(self.df, distance / self.spread))] if self.spread > 0 else []
        tails += [float(special.ndtr(distance / self.floor))] if self.floor > 0 else []
        return max(tails, default=float(distance >= 0))


def weights_by_size(sizes: Sequence[float]) -> Floats:
    """Weights that add up to one, in proportion to noised sizes (a size below zero counts none)."""
    kept = np.maximum(np.asarray(sizes, dtype=np.float64), 0.0)
    total = kept.sum()
    return kept / total if total > 0 else np.full(len(kept), 1.0 / len(kept))


def heterogeneity(effects: Sequence[float], variances: Sequence[float]) -> Heterogeneity:
    """Cochran's Q, I² and τ of brands' effects with noise-aware variances, all above zero."""
    d, v = _arrays(effects, variances)
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


def like_these(effects: Sequence[float], *, floor: float = 0.0) -> LikeThese:
    """The mean over brands like these.

    Args:
        effects: of the brands that were seen.
        floor: standard error of their effect together.

    Raises:
        ValueError: fewer than two brands.
    """
    d = np.asarray(effects, dtype=np.float64)
    if len(d) < 2:
        raise ValueError("brands like these can't be told from one brand")
    return LikeThese(float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d)), floor, len(d) - 1)


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


def _arrays(effects: Sequence[float], variances: Sequence[float]) -> tuple[Floats, Floats]:
    return np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)


def _q(tau2: float, effects: Floats, variances: Floats) -> float:
    w = 1.0 / (variances + tau2)
    mean = (w * effects).sum() / w.sum()
    return float((w * (effects - mean) ** 2).sum())
