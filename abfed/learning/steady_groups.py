"""Clipped sums of recipients with several rows each, from steady passes.

As `abfed.learning.steady_sums`: what a recipient adds is a sum of exact products of float32
vectors, no longer than their share of the clip, which follows from the parameters and their own
rows alone. In a block each recipient's rows stand next to each other, and recipients with equally
many rows (`Part`).

1. The norm is of a recipient's *summed* gradient. A layer with one output has it made: it is one
   line, Σ_j g_j a_j, and all that follows is as if they had one row.
2. For other layers its square is Σ_jj' (g_j·g_j')(a_j·a_j') over pairs of their k rows, with
   inputs a (and 1 for the bias) and signals g (Li et al. 2022): two small matrix products for each
   recipient and layer.
3. L = Σ_j ‖g_j‖‖a_j‖ over those layers is at least the norm, and more where rows cancel each other.
   What float32 loses is a share of L, whatever the order of its sums: of squares
   (`abfed.learning.steady_pairs`), and 2⁻²⁴ L where rows are multiplied by their factor. So much is
   added to the norm. Where rows are multiplied, gradients that were made count in L, too.
4. No factor is so large that L counts more than `longest` clips: what adding loses is a share of L
   (`abfed.learning.bounded`). Recipients with 2 to 16 rows are added together, so that each of
   them is held to the share of the longest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from abfed.learning.bookkeeping import ROUNDED_UP, Group
from abfed.learning.bounded import LEAST_TERMS, MOST_LOST, ROUNDED, SINGLE, Lost, Sums
from abfed.learning.losses import Loss
from abfed.learning.parts import Part, filled, gaps
from abfed.learning.stacks import Layer, Linear, Stack
from abfed.learning.steady import (
    Scratch,
    are_steady_pairs,
    are_steady_sums,
    lengths,
    stride_of,
    sums_together,
)
from abfed.learning.steady_pairs import MOST_ROWS, Doubles, Pairs, Singles, pair_squares
from abfed.learning.steady_passes import Plain, SteadyPasses, last_linear
from abfed.learning.steady_sums import Way, at_least, factor, silenced


def longest(rows: int, most: float) -> float:
    """Of a recipient's L, in clips, at most; √k of the norm is what k unlike rows have.

    Less than four times as much, but no less than twice, where sums can be in float32 by that.

    Args:
        rows: of each recipient.
        most: recipients, as everybody knows it.
    """
    if rows == 1:
        return 1.0
    length = 4.0 * math.sqrt(rows)
    fitting = _fitting(most)
    return fitting if length / 2.0 <= fitting < length else length


def longest_beside(rows: int, most: float) -> float:
    """Of anybody's L who is added together with recipients with so many rows.

    Args:
        rows: of a recipient; at least 2.
        most: recipients, as everybody knows it.
    """
    length, fitting = longest(rows, most), _fitting(most)
    if length > fitting:  # float64 is to add them
        return length
    lengths_of_all = (longest(each, most) for each in range(2, MOST_ROWS + 1))
    return max(each for each in lengths_of_all if each <= fitting)


def _fitting(most: float) -> float:
    """The most clips for which sums can be in float32."""
    return MOST_LOST / (2.0 * (LEAST_TERMS + 0.01) * SINGLE * most)


class Block(NamedTuple):
    """What recipients of a block leave for their gradients. Sensitive.

    Attributes:
        paired: layers whose rows are weighted and multiplied.
        made: layers whose gradients are made, a line for each recipient in place of inputs.
        parts: whose the rows are.
        size: lines of what was made, of which more may be than recipients.
        known: for each part products of pairs of its inputs in the stack's first layer, if known.
    """

    paired: list[Plain]
    made: list[Plain]
    parts: Sequence[Part]
    size: int
    known: Sequence[Singles | None]


class Run(NamedTuple):
    """Groups of recipients who are added together.

    Attributes:
        groups: whose the rows are; 2 to `MOST_ROWS` each.
        ways: how, for each group; all in the same rounding.
        pairs: for each group products of pairs of its lines, if they are known; or nothing.
    """

    groups: Sequence[Group]
    ways: Sequence[Way]
    pairs: Sequence[Pairs | None] = ()


def add_steady_groups(
    sums: Sums,
    passes: SteadyPasses,
    lines: Tensor,
    labels: Tensor,
    run: Run,
    clip: float,
    loss: Loss,
) -> None:
    """Add the clipped gradients of recipients with several rows.

    Args:
        sums: added to. Sensitive.
        passes: of the network as it is now.
        lines: `(rows, inputs)`, each recipient's next to each other. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
        run: whose the rows are, and how they are added.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.
    """
    groups, ways, pairs = run
    first = passes.stack.layers[0]
    are_used = isinstance(first, Linear) and first.trained and first.weight.shape[0] > 1
    if not (pairs and are_used and passes.takes_laid()):
        pairs = [None] * len(groups)
    rounding = ways[0].rounding
    lost = Lost(rounding, sum(group.recipients for group in groups))
    sizes = sorted({size for way in ways for size in way.sizes}, reverse=True)
    for size, parts in filled(groups, sizes, [way.counts for way in ways]):
        kept = passes.kept(lines, labels, size, loss, parts)
        sums.make_room(size)
        known = [_theirs(part, groups, pairs) for part in parts]
        block = _block(kept, parts, sizes, known, passes.scratch)
        longests = [ways[part.group].longest for part in parts]
        _add(sums, block, clip, rounding.share, longests, lost, first, passes.scratch)


def _theirs(part: Part, groups: Sequence[Group], pairs: Sequence[Pairs | None]) -> Singles | None:
    """What is known of the recipients of a part, of what is known of all."""
    of_group = pairs[part.group]
    if of_group is None:
        return None
    before = sum(group.rows * group.recipients for group in groups[: part.group])
    first = (part.taken - before) // part.rows
    return of_group.of(slice(first, first + part.recipients))


def are_paired(stack: Stack, counts: Sequence[int], rows: int) -> bool:
    """Whether so many recipients' rows are summed and multiplied in pairs steadily at a time.

    Args:
        stack: the network.
        counts: of recipients.
        rows: of each.
    """
    threads, last = torch.get_num_threads(), stack.layers[last_linear(stack)]

    def is_steady(layer: Linear, count: int) -> bool:
        outputs, inputs = layer.weight.shape[0], layer.weight.shape[1] + (layer.bias is not None)
        if outputs == 1:
            return are_steady_sums(inputs, count, rows, threads)
        tight = layer is last
        return are_steady_pairs(inputs, count, rows, threads) and are_steady_pairs(
            outputs, count, rows, threads, tight=tight
        )

    trained = [each for each in stack.layers if isinstance(each, Linear) and each.trained]
    return all(is_steady(layer, count) for layer in trained for count in counts)


def _block(
    kept: Sequence[Plain],
    parts: Sequence[Part],
    sizes: Sequence[int],
    known: Sequence[Singles | None],
    scratch: Scratch,
) -> Block:
    """Gradients of layers with one output, made; the others as they are."""
    paired = [one for one in kept if one.signals.shape[1] > 1]
    recipients = parts[-1].first + parts[-1].recipients
    size = min(each for each in sizes if each >= recipients)
    room = max(size, parts[0].tried)
    made = []
    for one in kept:
        if one.signals.shape[1] > 1:
            continue
        numbers = one.inputs.shape[1]
        found = scratch.take(("made", one.layer.start), room, stride_of(numbers))[:, :numbers]
        if len(parts) == 1:
            part = parts[0]
            lines = part.lines_tried
            sums_together(one.inputs[lines], one.signals[lines], part.rows, found[: part.tried])
        else:
            for part in parts:
                some = scratch.take("gathered", part.tried, stride_of(numbers))[:, :numbers]
                lines = part.lines_tried
                sums_together(one.inputs[lines], one.signals[lines], part.rows, some)
                found[part.first : part.first + part.recipients] = some[: part.recipients]
        found = found[:size]
        found[recipients:] = 0.0
        made.append(one._replace(inputs=found))
    return Block(paired, made, parts, size, known)


def _add(
    sums: Sums,
    block: Block,
    clip: float,
    share: float,
    longests: Sequence[float],
    lost: Lost,
    first: Layer,
    scratch: Scratch,
) -> None:
    """Add a block without those who aren't finite."""
    recipients = block.parts[-1].first + block.parts[-1].recipients
    bound = share * clip
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        norms, lengths_of_all = _norms(block, first, scratch)
        is_sound = math.isfinite(norms[:recipients].sum())
        factors = bound / np.maximum(norms, bound)
        if lengths_of_all is not None:
            for part, longest_one in zip(block.parts, longests, strict=True):
                theirs = slice(part.first, part.first + part.recipients)
                most = longest_one * bound / lengths_of_all[theirs]
                np.minimum(factors[theirs], most, out=factors[theirs])
    if not is_sound:
        alive = np.isfinite(norms)
        factors[~alive] = 0.0
        block = _alive(block, torch.from_numpy(alive))
    factors[recipients:] = 0.0
    weights = (factors * factor(clip)).astype(np.float32)
    terms = 0
    if lengths_of_all is not None:
        with np.errstate(invalid="ignore"):  # of somebody who isn't finite: 0 times infinity
            of_all = lengths_of_all[:recipients] * factors[:recipients]
        length = float(np.nansum(of_all)) * (1.0 + ROUNDED / 2.0) / bound
        terms = lost.terms(recipients, length)
    for one in block.made:
        sums.add(one._replace(signals=torch.from_numpy(weights[:, None])), terms)
    if block.paired:
        _add_paired(sums, block, weights, terms, first, scratch)


def _add_paired(
    sums: Sums, block: Block, weights: Singles, terms: int, first: Layer, scratch: Scratch
) -> None:
    """Add the products of rows, each by its recipient's weight."""
    count = block.paired[0].inputs.shape[0]
    rows = scratch.take("weights", count, 1)
    line = rows.numpy()[:, 0]
    for part in block.parts:
        theirs = weights[part.first : part.first + part.recipients]
        line[part.lines_there].reshape(part.recipients, part.rows)[:] = theirs[:, None]
    for gap in gaps(block.parts, count):
        line[gap] = 0.0
    for one in block.paired:
        is_short = one.layer is first and one.inputs.shape[1] < one.signals.shape[1]
        (one.inputs if is_short else one.signals).mul_(rows)
        sums.add(one, terms)


def _alive(block: Block, alive: Tensor) -> Block:
    """The block with 0 in place of what belongs to nobody alive."""
    if block.paired:
        sound = torch.zeros(block.paired[0].inputs.shape[0], dtype=torch.bool)
        for part in block.parts:
            theirs = alive[part.first : part.first + part.recipients]
            sound[part.lines_there] = theirs.repeat_interleave(part.rows)
        block = block._replace(paired=silenced(block.paired, sound))
    made = [one._replace(inputs=torch.where(alive[:, None], one.inputs, 0.0)) for one in block.made]
    return block._replace(made=made)


def _norms(block: Block, first: Layer, scratch: Scratch) -> tuple[Doubles, Doubles | None]:
    """At least the norm of each recipient's gradient, and at least their L if rows are paired.

    `(lines made,)` each; what belongs to nobody is anything.
    """
    squared = np.zeros(block.size)
    for one in block.made:
        found = lengths(one.inputs, scratch.take("lengths", 1, block.size)[0])
        squared += at_least(found.double().square_(), one.inputs.shape[1]).numpy()
    if not block.paired:
        return np.sqrt(squared, out=squared) * ROUNDED_UP, None
    pairs, length = pair_squares(block.paired, block.parts, block.known, first, block.size, scratch)
    whole = squared + length
    squared += pairs
    whole = np.sqrt(whole, out=whole) * ROUNDED_UP
    norms = np.sqrt(squared, out=squared) + whole * (2.0 * SINGLE)
    norms *= ROUNDED_UP
    return norms, whole
