"""Student's statistic of values that vary unlike: how far it strays by chance.

T = √k·(mean)/s of k independent normal values about zero follows Student's law on k − 1 degrees of
freedom where they vary alike. Where they don't, with variances v, it strays less far (at levels up
to 8 %: Bakirov and Székely 2005), and by how much less follows from v. |T| is beyond t where

    (1 + g)·(Σd)²/k − g·Σd² > 0,   g = t²/(k − 1),

a quadratic form with one positive eigenvalue λ (a diagonal matrix and one of rank one) and k − 1
others −μ. The chance of that is a single integral over an angle (Bakirov and Székely; for k → ∞
and equal v it is Craig's of the normal law, 1991):

    P(|T| > t) = (2/π) ∫₀^{π/2} Π (1 + μ/(λ·cos²φ))^(−1/2) dφ
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from abfed.stats.encoding import Floats

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_COSINES = np.cos((_NODES + 1.0) * math.pi / 4.0) ** 2
_STEPS, _TRIES = 20, 45
_CLOSE = 1e-12  # of the level


def beyond(t: Floats | float, variances: Floats) -> Floats:
    """The chance of |T| above t, two-sided.

    Args:
        t: above zero, of any shape (…).
        variances: of each value, all above zero: (…, k).
    """
    v = variances / variances.max(axis=-1, keepdims=True)
    many = v.shape[-1]
    g = np.asarray(t, dtype=np.float64)[..., None] ** 2 / (many - 1)
    largest = _eigenvalue(g, v)
    y = largest * _COSINES  # (…, nodes)
    apart = y[..., None] + (g * v)[..., None, :]  # (…, nodes, k)
    pulled = (v / (largest + g * v))[..., None, :] / apart
    # Π(y + μ) is the determinant over y − λ, which the equation of λ takes out of it
    product = np.log(apart).sum(axis=-1) + np.log((1 + g) / many * pulled.sum(axis=-1))
    found = np.exp(((many - 1) * np.log(y) - product) / 2.0) @ _WEIGHTS / 2.0
    return np.asarray(np.clip(found, 0.0, 1.0))


def critical(alpha: float, variances: Floats) -> Floats:
    """The t that |T| is beyond in a share α of cases.

    Between one that is too low and one that isn't runs a line, where logarithms of chances are
    drawn: its zero is the next to be tried. The end that stays counts half (the Illinois rule), so
    that both ends close in; some eight chances are computed instead of a halving's fifty.

    Args:
        alpha: the share.
        variances: as in `beyond`; gives (…).
    """
    student = float(special.stdtrit(variances.shape[-1] - 1, 1 - alpha / 2))

    def surplus(t: Floats) -> Floats:
        return np.asarray(np.log(beyond(t, variances) / alpha))

    low, high = np.zeros(variances.shape[:-1]), np.full(variances.shape[:-1], student)
    above, below = np.full(low.shape, -math.log(alpha)), surplus(high)
    while np.any(short := below > 0):
        low, above = np.where(short, high, low), np.where(short, below, above)
        high = np.where(short, 2.0 * high, high)
        below = surplus(high)
    middle, left, before = high, below, np.zeros(low.shape, dtype=np.bool_)
    for tried in range(_TRIES):
        if np.all(np.abs(left) < _CLOSE):
            break
        middle = high - below * (high - low) / (below - above)
        left = surplus(middle)
        short = left > 0
        half = np.where((short == before) & (tried > 0), 0.5, 1.0)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
        above, below = np.where(short, left, above * half), np.where(short, below * half, left)
        before = short
    return np.asarray(middle)


def _eigenvalue(g: Floats, v: Floats) -> Floats:
    """The positive eigenvalue λ, (…, 1).

    It solves 1/Σ v/(λ + gv) = (1 + g)/k. The left side rises and is concave, so that Newton's steps
    from zero come from below.
    """
    many = v.shape[-1]
    found = np.zeros_like(g * v[..., :1])
    for _ in range(_STEPS):
        part = v / (found + g * v)
        whole = part.sum(axis=-1, keepdims=True)
        slope = (part**2 / v).sum(axis=-1, keepdims=True) / whole**2
        nearer = found + ((1 + g) / many - 1 / whole) / slope
        if np.array_equal(nearer, found):
            break
        found = nearer
    return np.asarray(found)
