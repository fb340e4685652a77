"""Clipped sums of recipients with several rows each, from steady passes.

As `abfed.learning.steady_sums`: what a recipient adds is a sum of exact products of float32
vectors, no longer than their share of the clip, which follows from the parameters and their own
rows alone. In a block each recipient's rows stand next to each other.

1. The norm is of a recipient's *summed* gradient: its square is Σ_jj' (g_j·g_j')(a_j·a_j') over
   pairs of their k rows, with inputs a (and 1 for the bias) and signals g (Li et al. 2022): two
   small matrix products for each recipient and layer.
2. L = Σ_j ‖g_j‖‖a_j‖ is at least the norm, and more where rows cancel each other. What float32
   loses is a share of L, whatever the order of its sums: (m + n and a few) 2⁻²⁴ L² of a layer's
   square, m and n the layer's inputs and outputs, and 2⁻²⁴ L where rows are multiplied by their
   factor. So much is added to the norm.
3. No factor is so large that L counts more than `longest` clips: what adding loses is a share of L
   (`abfed.learning.bounded`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from abfed.learning.bookkeeping import ROUNDED_UP, Group
from abfed.learning.bounded import LEAST_TERMS, MOST_LOST, SINGLE, Sums
from abfed.learning.losses import Loss
from abfed.learning.stacks import Linear, Stack
from abfed.learning.steady import Scratch, added, are_steady_pairs, blocks, pair_products
from abfed.learning.steady_passes import Plain, SteadyPasses
from abfed.learning.steady_sums import Way, add_weighted, at_least, factor, silenced

MOST_ROWS = 16
"""Of a recipient here: with more, pairs cost more than the exact path does."""


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
    least = LEAST_TERMS + 0.01
    fitting = MOST_LOST / (2.0 * least * SINGLE * most)
    return fitting if length / 2.0 <= fitting < length else length


def add_steady_group(
    sums: Sums,
    passes: SteadyPasses,
    lines: Tensor,
    labels: Tensor,
    group: Group,
    clip: float,
    loss: Loss,
    way: Way,
) -> None:
    """Add the clipped gradients of recipients with equally many rows.

    Args:
        sums: added to. Sensitive.
        passes: of the network as it is now.
        lines: `(rows, inputs)`, each recipient's next to each other. Rows: sensitive.
        labels: as the loss wants them. Sensitive.
        group: whose the rows are; at most `MOST_ROWS` each.
        clip: L2 bound, in the loss's unit.
        loss: gives the signals.
        way: how.
    """
    terms, start = way.rounding.terms_for(group.recipients), 0
    while start < group.recipients:
        left = group.recipients - start
        size = next(blocks(left * group.rows, way.sizes))
        here = Group(group.rows, min(left, size // group.rows))
        rows = slice(start * group.rows, (start + here.recipients) * group.rows)
        kept = passes.kept(lines[rows], labels[rows], size, loss)
        sums.make_room(size)
        add_weighted(sums, *_weighted(kept, group.rows, clip, way, passes.scratch), terms)
        start += here.recipients


def are_paired(stack: Stack, sizes: Sequence[int], rows: int) -> bool:
    """Whether pairs of a recipient's rows are multiplied steadily in blocks of these sizes.

    Args:
        stack: the network.
        sizes: of the blocks.
        rows: of each recipient.
    """
    numbers = {
        each
        for layer in stack.layers
        if isinstance(layer, Linear) and layer.trained
        for each in (layer.weight.shape[0], layer.weight.shape[1] + (layer.bias is not None))
    }
    threads = torch.get_num_threads()
    return all(are_steady_pairs(each, size, rows, threads) for each in numbers for size in sizes)


def _weighted(
    kept: list[Plain], together: int, clip: float, way: Way, scratch: Scratch
) -> tuple[list[Plain], Tensor]:
    """A block without those who aren't finite, and its rows' factors."""
    count = kept[0].inputs.shape[0]
    recipients = count // together
    squared = torch.zeros(recipients, dtype=torch.float64)
    whole = torch.zeros_like(squared)
    for one in kept:
        square, length = _squares(one, together, scratch)
        whole.addcmul_(length, length)
        squared.add_(square)
    length = whole.sqrt_().mul_(ROUNDED_UP)
    norms = squared.sqrt_().add_(length * (2.0 * SINGLE)).mul_(ROUNDED_UP)
    bound = way.rounding.share * clip
    factors = torch.minimum(bound / norms.clamp(min=bound), way.longest * bound / length)
    alive = torch.isfinite(norms)
    if not bool(alive.all()):
        factors = torch.where(alive, factors, 0.0)
        sound = torch.ones(count, dtype=torch.bool)
        sound[: recipients * together] = alive.repeat_interleave(together)
        kept = silenced(kept, sound)
    rows = torch.zeros(count, dtype=torch.float64)
    rows[: recipients * together].view(recipients, together).copy_(
        factors.mul_(factor(clip))[:, None].expand(-1, together)
    )
    return kept, rows


def _squares(one: Plain, together: int, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """At least Σ (g_j·g_j')(a_j·a_j') over pairs of each recipient's rows, and at least their L."""
    sides = []
    for name, side in (("inner", one.inputs), ("outer", one.signals)):
        room = scratch.take("pairs", side.shape[0] // together, together**2)
        sides.append(scratch.doubled(name, pair_products(side, together, room)))
    inner, outer = sides
    numbers = one.inputs.shape[1], one.signals.shape[1]
    alone = scratch.take("alone", inner.shape[0], together, torch.float64)
    other = scratch.take("other", inner.shape[0], together, torch.float64)
    at_least(alone.copy_(inner[:, :: together + 1]), numbers[0])
    at_least(other.copy_(outer[:, :: together + 1]), numbers[1])
    length = added(alone.mul_(other).sqrt_()).mul_(ROUNDED_UP)
    lost = length * length * ((1.05 * sum(numbers) + 32.0) * SINGLE)
    return added(inner.mul_(outer)).add_(lost).clamp_(min=0.0), length
