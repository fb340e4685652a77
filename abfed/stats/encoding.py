"""Encodings: a recipient's values as whole numbers of bounded L2 norm, whatever the input was.

Every encoded vector is a *simplex*: non-negative whole numbers that add up to S = `SCALE`. As
Σx² ≤ (Σx)² = S², its norm is at most S, exactly and in integers, which is what the discrete
Gaussian is added to. The simplexes:

* share u ∈ [0, 1]: (u, 1−u);
* ratio, with b = sends with the denominator over the most that count, a = of those with the
  numerator: (a, b−a, 1−b);
* place, one of k bins: 1 where it is, 0 elsewhere;
* tensor of two shares: (u, 1−u) ⊗ (v, 1−v), whose margins are exactly (u, 1−u) and (v, 1−v).

Second moments are computed from these integers and rounded down, so that they stay below the
exact ones: u²/S ≤ S, and (a², √2·a(b−a), (b−a)²)/S, whose norm is (a² + (b−a)²)/S ≤ b²/S ≤ S.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SCALE_BITS = 16
SCALE = 1 << SCALE_BITS
"""Units of one: the grid is 1.5e-5, far below the noise."""

_ROOT_TWO_BITS = 30
_ROOT_TWO = math.isqrt(2 << 2 * _ROOT_TWO_BITS)
"""√2 rounded down, in units of 2⁻³⁰: products of two encoded parts times this fit 63 bits."""


def encode_share(share: Floats) -> Integers:
    """Simplex encoding of shares u, as units: (recipients, 2), rows add to SCALE.

    Shares outside [0, 1] are clipped; what is not a number counts as 0.
    """
    bounded = np.clip(np.nan_to_num(share, nan=0.0), 0.0, 1.0)
    first = np.rint(bounded * SCALE).astype(np.int64)
    return np.stack([first, SCALE - first], axis=1)


def encode_square(encoded: Integers) -> Integers:
    """u² of encoded shares, rounded down: (recipients, 1)."""
    return (encoded[:, :1] ** 2) // SCALE


def encode_ratio(numerator: Integers, denominator: Integers, most: int) -> Integers:
    """(a, b−a, 1−b) of counts of sends, as units: (recipients, 3), rows adding to SCALE.

    Args:
        numerator: sends with both outcomes; no more than `denominator` of them count.
        denominator: sends with the denominator's outcome; no more than `most` of them count.
        most: sends that count for a recipient.
    """
    counted = np.clip(denominator, 0, most)
    upper = (counted * SCALE) // most
    first = (np.clip(numerator, 0, counted) * SCALE) // most
    return np.stack([first, upper - first, SCALE - upper], axis=1)


def encode_products(encoded: Integers) -> Integers:
    """(a², √2·a(b−a), (b−a)²) of encoded ratios, rounded down: (recipients, 3)."""
    a, rest = encoded[:, 0], encoded[:, 1]
    cross = (a * rest * _ROOT_TWO) >> (_ROOT_TWO_BITS + SCALE_BITS)
    return np.stack([(a * a) // SCALE, cross, (rest * rest) // SCALE], axis=1)


def encode_place(place: Integers, bins: int) -> Integers:
    """1 in the recipient's bin, 0 elsewhere: (recipients, bins), rows add to SCALE.

    A place outside counts in the last bin: everybody is in exactly one.
    """
    inside = np.where((place >= 0) & (place < bins), place, bins - 1)
    encoded = np.zeros((len(place), bins), dtype=np.int64)
    encoded[np.arange(len(place)), inside] = SCALE
    return encoded


def encode_tensor(first: Integers, second: Integers) -> Integers:
    """(uv, u(1−v), (1−u)v, (1−u)(1−v)) of two encoded shares: (recipients, 4), adding to SCALE.

    The first product is rounded, the others are what the margins leave. None is negative: a product
    that is at most a whole number stays so when it is rounded, and (1−u)(1−v) ≥ 0 is rounded by
    less than one down to a whole number.
    """
    u, v = first[:, 0], second[:, 0]
    both = (u * v + SCALE // 2) // SCALE
    return np.stack([both, u - both, v - both, SCALE - u - v + both], axis=1)
