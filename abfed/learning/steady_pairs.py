"""Norms of recipients with several rows, from products of pairs of their rows.

The square of a layer's gradient is Σ_jj' (g_j·g_j')(a_j·a_j') over pairs of a recipient's k rows,
with inputs a (and 1 for the bias) and signals g (Li et al. 2022). It is made in float32, as long as
numbers are many; what that may lose is a share of L² = (Σ_j ‖g_j‖‖a_j‖)²: half a rounding for each
number of an input and a signal, in whatever order those are added, and for each addition that one
of the k² terms goes through (`steady.added_pairs`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from abfed.learning.bounded import SINGLE
from abfed.learning.design_matrix import Integers
from abfed.learning.parts import START, Part
from abfed.learning.products import pair_products
from abfed.learning.stacks import Layer
from abfed.learning.steady import Scratch, added, added_pairs, additions
from abfed.learning.steady_passes import Plain
from abfed.learning.steady_sums import VANISHED

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

MOST_ROWS = 16
"""Of a recipient here: with more, pairs cost more than the exact path does."""

PAIRED = 2.0**-60
"""Of products of two pairs: so float32 holds them for rows' gradients of up to 2⁹⁴."""


class Pairs(NamedTuple):
    """Products of pairs of recipients' lines, which don't change from step to step. Sensitive.

    Attributes:
        table: of all recipients with equally many rows, as `steady.line_pairs` makes it.
        places: of those who are meant.
    """

    table: Singles
    places: Integers

    def of(self, span: slice) -> Singles:
        """Of some of those who are meant; looked up where they are needed."""
        return self.table.take(self.places[span], axis=0)


def pair_squares(
    paired: Sequence[Plain],
    parts: Sequence[Part],
    known: Sequence[Singles | None],
    first: Layer,
    size: int,
    scratch: Scratch,
) -> tuple[Doubles, Doubles]:
    """At least the square of each recipient's gradients, and at least their L².

    Args:
        paired: layers.
        parts: whose the rows are.
        known: for each part products of pairs of inputs of the stack's first layer, if known.
        first: that layer.
        size: of what is returned; what belongs to nobody is anything.
        scratch: to work in.
    """
    found, sums = np.zeros((2, len(paired), size), dtype=np.float32), np.zeros(size)
    for part, pairs in zip(parts, known, strict=True):
        theirs = slice(part.first, part.first + part.recipients)
        sums[theirs] = 1.05 * additions(part.rows) + 34.0
        _sums_of_pairs(paired, part, pairs, first, scratch, found[:, :, theirs])
    squared, whole = np.full(size, MOST_ROWS**2 * 2.0**-149 / PAIRED), np.zeros(size)
    doubles = found.astype(np.float64)
    for place, one in enumerate(paired):
        length, square = doubles[:, place]
        numbers = one.inputs.shape[1], one.signals.shape[1]
        length *= 1.0 + (1.05 * max(numbers) + MOST_ROWS + 32.0) * SINGLE
        length *= length
        whole += length
        length *= (1.05 * sum(numbers) + sums) * SINGLE
        square *= 1.0 / PAIRED
        squared += square
        squared += length
    return np.maximum(squared, 0.0, out=squared), whole


def _sums_of_pairs(
    paired: Sequence[Plain],
    part: Part,
    known: Singles | None,
    first: Layer,
    scratch: Scratch,
    out: Singles,
) -> None:
    """Σ_j ‖g_j‖‖a_j‖ and Σ_jj' (g_j·g_j')(a_j·a_j') of each layer and recipient, in float32.

    Args:
        paired: layers.
        part: whose the rows are.
        known: products of pairs of inputs of the stack's first layer, if they are known.
        first: that layer.
        scratch: to work in.
        out: `(2, layers, recipients)`, written to; the squares times `PAIRED`.
    """
    count, rows, many = part.tried, part.rows, part.recipients
    pairs = _room(scratch, "pairs", 2, count, (rows + 1) * rows)
    alone, both = _room(scratch, "alone", 2, count, rows), _room(scratch, "both", 1, count, rows**2)
    roots, found, sides = alone.numpy(), both[0].numpy(), pairs.numpy()[:, :, : rows**2]
    for place, one in enumerate(paired):  # one after another: so they stay in the cache
        if known is not None and one.layer is first:
            inner = known
        else:
            pair_products(one.inputs[part.lines_tried], rows, pairs[0])
            inner = sides[0]
        there = len(inner)  # what is behind them is left aside
        pair_products(one.signals[part.lines_tried], rows, pairs[1])
        least = np.float32(max(one.inputs.shape[1], one.signals.shape[1]) * VANISHED / PAIRED)
        np.add(inner[:, :: rows + 1], least, out=roots[0, :there])
        np.add(sides[1, :, :: rows + 1], least, out=roots[1])
        np.sqrt(roots, out=roots)
        np.multiply(roots[0], roots[1], out=roots[0])
        out[0, place] = added(alone[0]).numpy()[:many]
        np.multiply(sides[1], np.float32(PAIRED), out=found)
        np.multiply(found[:there], inner, out=found[:there])
        out[1, place] = added_pairs(both[0], rows).numpy()[:many]


def _room(scratch: Scratch, name: str, layers: int, count: int, numbers: int) -> Tensor:
    """`(layers, count, numbers)`, each layer's as if it were memory of its own."""
    room = scratch.take(name, layers, math.ceil(count * numbers / START) * START)
    found: Tensor = room[:, : count * numbers].unflatten(1, (count, numbers))
    return found
