"""Clipped sums from steady passes: float32 throughout, and what it loses is taken off the clip.

For recipients who have one row each:

1. what is computed for a recipient is a function of the parameters and their own row alone, as the
   passes are steady (`abfed.learning.steady`), and so are the norms;
2. a layer's gradient is the outer product of signal g and input a (with 1 for the bias). Its norm
   is ‖g‖‖a‖, each square rounded up by more than float32's sum can lose, in whatever order it adds;
3. one of the two is multiplied by the recipient's factor, in float32. What they add is, by
   definition, the exact product of the two float32 vectors; it is no longer than their share of
   the clip (`bounded.Rounding`), as the factor was rounded down by more than this multiplication;
4. these products are added by `abfed.learning.bounded`, whose rounding is bounded in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from abfed.learning.bookkeeping import ROUNDED_UP
from abfed.learning.bounded import CLIP_BITS, SINGLE, Rounding, Sums
from abfed.learning.losses import Loss
from abfed.learning.steady import Scratch, blocks, lengths
from abfed.learning.steady_passes import Plain, SteadyPasses

ROUNDED_DOWN = 1.0 - 4.0 * SINGLE
"""More than is gained where a factor becomes a float32, and where it is multiplied."""

_VANISHED = 2.0**-124  # of float32: what the square of a small number loses, and sums of them


class Way(NamedTuple):
    """How recipients with equally many rows are summed; known before anybody's rows are.

    Attributes:
        sizes: of blocks for which the network is steady (`steady_passes.sizes_for`).
        rounding: how they are added (`bounded.rounding_for`).
        longest: clips that a recipient's rows have together, at most (`steady_groups`).
    """

    sizes: tuple[int, ...]
    rounding: Rounding
    longest: float


EXACT = Way((), Rounding(0, 0.0, 0.0), 0.0)
"""For those who take the exact path (`abfed.learning.bookkeeping`)."""


def add_steady(
    sums: Sums,
    passes: SteadyPasses,
    lines: Tensor,
    labels: Tensor,
    clip: float,
    loss: Loss,
    way: Way,
) -> None:
    """Add the clipped gradients of recipients with one row each.

    Args:
        sums: added to. Sensitive.
        passes: of the network as it is now.
        lines: `(rows, inputs)`. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.
        way: how.
    """
    terms, start = way.rounding.terms_for(lines.shape[0]), 0
    for size in blocks(lines.shape[0], way.sizes):
        rows = slice(start, start + size)
        kept = passes.kept(lines[rows], labels[rows], size, loss)
        sums.make_room(size)
        add_weighted(sums, *_weighted(kept, clip, way.rounding.share, passes.scratch), terms)
        start = rows.stop


def _weighted(
    kept: list[Plain], clip: float, share: float, scratch: Scratch
) -> tuple[list[Plain], Tensor]:
    """A block without those who aren't finite, and its rows' factors."""
    norms = _root_of_squares(_lengths(kept, scratch)).mul_(ROUNDED_UP)
    if not math.isfinite(float(norms.sum())):
        alive = torch.isfinite(norms)
        kept, norms = silenced(kept, alive), torch.where(alive, norms, torch.inf)
    bound = share * clip
    return kept, norms.clamp_(min=bound).reciprocal_().mul_(bound * factor(clip))


def _root_of_squares(parts: Tensor) -> Tensor:
    """Of lines, added one after another: each number for itself, in the same order."""
    total = parts[0]
    if parts.shape[0] > 1:
        for each in parts.square_()[1:]:
            total.add_(each)
        total.sqrt_()
    return total


def factor(clip: float) -> float:
    """What makes 2²⁰ of the clip; so small that no number within ±2⁶⁴ overflows by it."""
    return min(2.0**CLIP_BITS / clip, 2.0**63) * ROUNDED_DOWN


def add_weighted(sums: Sums, kept: Sequence[Plain], factors: Tensor, terms: int) -> None:
    """Add all layers' products, the shorter side of which is multiplied.

    Args:
        sums: added to.
        kept: of a block; written over.
        factors: of its rows, float64 and finite.
        terms: that may be added in float32.
    """
    weights = factors.float()[:, None]
    for one in kept:
        inputs, signals = one.inputs, one.signals
        (inputs if inputs.shape[1] < signals.shape[1] else signals).mul_(weights)
        sums.add(one, terms)


def silenced(kept: Sequence[Plain], alive: Tensor) -> list[Plain]:
    """What isn't finite would spoil the products: 0 in place of the rows that aren't alive."""
    return [
        one._replace(
            inputs=torch.where(alive[:, None], one.inputs, 0.0),
            signals=torch.where(alive[:, None], one.signals, 0.0),
        )
        for one in kept
    ]


def _lengths(kept: Sequence[Plain], scratch: Scratch) -> Tensor:
    """At least ‖g‖‖a‖ of each row, `(layers, rows)` float64."""
    layers = [one.inputs for one in kept] + [one.signals for one in kept]
    found = scratch.take("lengths", len(layers), layers[0].shape[0])
    for each, out in zip(layers, found, strict=True):
        lengths(each, out)
    more, lost = _losses(max(each.shape[1] for each in layers))
    double = scratch.doubled("lengths", found).mul_(math.sqrt(more)).add_(math.sqrt(lost))
    return double[: len(kept)].mul_(double[len(kept) :])


def at_least(squares: Tensor, numbers: int) -> Tensor:
    """Squared norms in float64, and more than float32 can have lost of them.

    Args:
        squares: as float32 has them; written over.
        numbers: that were squared, at most.
    """
    more, lost = _losses(numbers)
    return squares.mul_(more).add_(lost)


def _losses(numbers: int) -> tuple[float, float]:
    """What a sum of so many squares may have lost: a factor and a number.

    That is half a rounding for each square, addition and root, and what squares of small numbers
    lose altogether. Some more is for the roundings of what is multiplied with it later.
    """
    return 1.0 + (1.05 * numbers + 16.0) * SINGLE, numbers * _VANISHED
