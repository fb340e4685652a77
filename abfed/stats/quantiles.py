"""Quantiles from noised histograms.

The noised bins are made a distribution function, smoothed to one that rises (isotonic regression:
post-processing, so it costs nothing), and inverted; inside a bin recipients count as evenly spread.
The standard error is Woodruff's (1952): how far on the value axis the function takes from q − z·se
to q and from q to q + z·se, over z, with the noise of the bins in se; the two sides' root mean
square, as they differ where the function bends. A histogram's last bin also holds those without a
value, who come after everybody else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize

from abfed.protocol.metrics import Quantile
from abfed.stats.encoding import Floats

WOODRUFF_Z = 1.96
"""How far from the quantile the slope is measured: about where the interval ends."""


def read_quantile(
    metric: Quantile, bins: Floats, noise: float
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """A quantile, its sampling and privacy variance, and where it could be read.

    Args:
        metric: with its edges.
        bins: noised recipients in each bin (…, edges + 1).
        noise: standard deviation of each.
    """
    q, edges = metric.quantile, np.asarray(metric.edges)
    total = bins.sum(axis=-1, keepdims=True)
    function = _rising(np.cumsum(bins, axis=-1)[..., :-1] / total)
    value = _inverse(function, edges, np.full(function.shape[:-1], q))
    below = 1 + _bin_of(function, q)  # bins whose sum is nearest to q: those that carry noise
    many = bins.shape[-1]
    size = np.maximum(total[..., 0], 1.0)
    sampling = q * (1 - q) / size
    privacy = noise**2 * ((1 - q) ** 2 * below + q**2 * (many - below)) / size**2
    whole = _spread(function, edges, q, np.sqrt(sampling + privacy))
    part = sampling / (sampling + privacy)
    inside = np.isfinite(value) & np.isfinite(whole)
    return value, whole**2 * part, whole**2 * (1 - part), inside


def _spread(function: Floats, edges: Floats, q: float, se: Floats) -> Floats:
    """Standard error on the value axis; NaN where the function doesn't pass both levels.

    Near an end of the distribution one side is cut off: then it is the other side's.
    """
    reach = WOODRUFF_Z * se
    middle = _inverse(function, edges, np.full(se.shape, q))
    low, high = _inverse(function, edges, q - reach), _inverse(function, edges, q + reach)
    both = np.sqrt(((high - middle) ** 2 + (middle - low) ** 2) / 2)
    one = np.where(np.isfinite(high), high - middle, middle - low)
    return np.where(np.isfinite(both), both, one) / WOODRUFF_Z


def _rising(function: Floats) -> Floats:
    """The nearest rising function within [0, 1], by isotonic regression, for each leading index."""
    flat = function.reshape(-1, function.shape[-1])
    if not np.isfinite(flat).all():
        flat = np.nan_to_num(flat, nan=0.0, posinf=1.0, neginf=0.0)
    falls = (np.diff(flat, axis=1) < 0).any(axis=1)
    risen = flat.copy()
    for i in np.flatnonzero(falls):
        risen[i] = optimize.isotonic_regression(flat[i]).x
    return np.clip(risen, 0.0, 1.0).reshape(function.shape)


def _bin_of(function: Floats, q: float) -> npt.NDArray[np.int64]:
    """How many edges lie below the quantile."""
    return np.asarray((function < q).sum(axis=-1), dtype=np.int64)


def _inverse(function: Floats, edges: Floats, level: Floats) -> Floats:
    """Where the function passes a level, linearly between edges; NaN outside the edges."""
    after = (function < level[..., None]).sum(axis=-1)
    inside = (after > 0) & (after < function.shape[-1])
    right = np.clip(after, 1, function.shape[-1] - 1)
    left = right - 1
    high = np.take_along_axis(function, right[..., None], axis=-1)[..., 0]
    low = np.take_along_axis(function, left[..., None], axis=-1)[..., 0]
    step = np.where(high > low, (level - low) / np.where(high > low, high - low, 1.0), 0.5)
    value = edges[left] + step * (edges[right] - edges[left])
    return np.where(inside, value, np.nan)
