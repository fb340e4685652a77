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

import numpy as np
import torch
from torch import Tensor

from abfed.learning.bookkeeping import ROUNDED_UP
from abfed.learning.bounded import CLIP_BITS, SINGLE, Rounding, Sums
from abfed.learning.losses import Loss
from abfed.learning.steady import Scratch, blocks, lengths, stride_of
from abfed.learning.steady_passes import Laid, Plain, SteadyPasses

ROUNDED_DOWN = 1.0 - 4.0 * SINGLE
"""More than is gained where a factor becomes a float32, and where it is multiplied."""

VANISHED = 2.0**-124  # of float32: what the square of a small number loses, and sums of them


class Way(NamedTuple):
    """How recipients with equally many rows are summed; known before anybody's rows are.

    Attributes:
        sizes: of blocks for which the network is steady (`steady_passes.sizes_for`).
        rounding: how they are added (`bounded.rounding_for`).
        longest: clips that a recipient's rows have together, at most (`steady_groups`).
        counts: of recipients with several rows whose norms are made at a time (`parts`).
    """

    sizes: tuple[int, ...]
    rounding: Rounding
    longest: float
    counts: tuple[int, ...] = ()


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
    laid: Laid | None = None,
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
        laid: the same lines, if they lie as a block's do.
    """
    count = lines.shape[0]
    terms, start = way.rounding.terms_for(count), 0
    for size in blocks(count, way.sizes):
        stop = min(start + size, count)
        theirs, block, norms = labels[start:stop], None, None
        if laid is not None and passes.takes_laid() and start + size <= laid.block.shape[0]:
            block = laid.block[start : start + size]
            block.numpy()[stop - start :] = 0.0
            norms = laid.norms[start:stop] if passes.stack.lowest == 0 else None
        if block is None:
            kept = passes.kept(lines[start:stop], theirs, size, loss)
        else:
            kept = passes.kept_of(block, theirs, loss)
        sums.make_room(size)
        kept, weights = _weighted(kept, norms, clip, way.rounding.share, passes.scratch)
        for one in kept:
            sums.add(_multiplied(one, weights, passes.scratch), terms)
        start = stop


def _weighted(
    kept: list[Plain], norms: Tensor | None, clip: float, share: float, scratch: Scratch
) -> tuple[list[Plain], Tensor]:
    """A block without those who aren't finite, and its rows' factors, `(rows, 1)` float32.

    A factor is share · clip over the norm, at most 1, in units of which 2²⁰ are a clip. What
    float32 may have lost of norms is put in the constant: theirs are too small by `more` at most.
    """
    rows = kept[0].inputs.shape[0]
    room = scratch.take("norms", 1, rows, torch.float64)
    weights = scratch.take("weights", rows, 1)
    more = _lengths(kept, norms, room, scratch)
    bound = share * clip / (more * ROUNDED_UP)
    double = room.numpy()[0]
    if not math.isfinite(double.sum()):
        alive = np.isfinite(double)
        kept = silenced(kept, torch.from_numpy(alive))
        double[~alive] = np.inf
    np.maximum(double, bound, out=double)
    np.divide(bound * factor(clip), double, out=double)
    weights.numpy()[:, 0] = double
    return kept, weights


def _multiplied(one: Plain, weights: Tensor, scratch: Scratch) -> Plain:
    """The same with its shorter side weighted: inputs, which may be the data's, elsewhere."""
    rows, numbers = one.inputs.shape
    if numbers >= one.signals.shape[1]:
        one.signals.mul_(weights)
        return one
    room = scratch.take("weighted", rows, stride_of(numbers))[:, :numbers]
    return one._replace(inputs=torch.mul(one.inputs, weights, out=room))


def factor(clip: float) -> float:
    """What makes 2²⁰ of the clip; so small that no number within ±2⁶⁴ overflows by it."""
    return min(2.0**CLIP_BITS / clip, 2.0**63) * ROUNDED_DOWN


def silenced(kept: Sequence[Plain], alive: Tensor) -> list[Plain]:
    """What isn't finite would spoil the products: 0 in place of the rows that aren't alive."""
    return [
        one._replace(
            inputs=torch.where(alive[:, None], one.inputs, 0.0),
            signals=torch.where(alive[:, None], one.signals, 0.0),
        )
        for one in kept
    ]


def _lengths(kept: Sequence[Plain], first: Tensor | None, out: Tensor, scratch: Scratch) -> float:
    """Norms of rows' gradients, to be multiplied with what is returned: then at least as large.

    Args:
        kept: of a block, from the last layer to the first.
        first: norms of the first layer's inputs, if they are known; of those that are no padding.
        out: `(1, rows)` float64, written to.
        scratch: to work in.
    """
    layers = [one.inputs for one in kept] + [one.signals for one in kept]
    found, numbers = scratch.take("lengths", len(layers), layers[0].shape[0]), 1
    rows = found.numpy()
    for place, each in enumerate(layers):
        numbers = max(numbers, each.shape[1])
        if first is not None and place == len(kept) - 1:
            rows[place, : len(first)] = first.numpy()
            rows[place, len(first) :] = 0.0
        elif each.shape[1] == 1:
            np.abs(each.numpy()[:, 0], out=rows[place])
        else:
            lengths(each, found[place])
    more, lost = _losses(numbers)
    rows += np.float32(math.sqrt(lost))
    whole = out.numpy()[0]
    if len(kept) == 1:
        whole[:] = rows[0]
        whole *= rows[1]
        return more
    double = scratch.take("lengths", len(rows), rows.shape[1], torch.float64).numpy()
    double[:] = rows
    squares = double[: len(kept)]
    squares *= double[len(kept) :]
    squares *= squares
    np.add(squares[0], squares[1], out=whole)
    for each in squares[2:]:  # one after another: in the same order for each row
        whole += each
    np.sqrt(whole, out=whole)
    return more


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
    return 1.0 + (1.05 * numbers + 16.0) * SINGLE, numbers * VANISHED
