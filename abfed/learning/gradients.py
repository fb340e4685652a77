"""Gradients of recipients, each bounded before they are added.

1. The protected unit is the recipient: their gradient is that of the *sum* of their rows' losses.
2. It is clipped to L2 norm `clip` over all parameters together, then summed (Abadi et al. 2016).
3. What a recipient adds is a function of the parameters and of their own rows, bit for bit, and
   adding it is exact, or off by so little, whatever the order, that it was taken off the clip
   before: one recipient more or less moves the sum by at most `clip`, whatever model an asker chose
   (decisions 0060, 0111 and 0171). It is one of whole numbers (`UNIT_BITS` of the clip).
4. A recipient whose gradient is not finite adds nothing. An asker chooses the incoming model; one
   that overflows for a single person must not be able to turn a release into a failure.
5. Nothing is returned beside the sum: norms, losses and counts would be releases too.
6. No generator is drawn from: a module that would (dropout) is refused.

A stack of layers takes a fast path: `abfed.learning.steady_sums` and `steady_groups`, or
`bookkeeping` where they can't be had. Any other module that Opacus accepts takes the general one:
one recipient at a time, so that nobody else's rows are in the products. No plan needs it; it is for
networks of one's own. Opacus's optimizer, sampler and loader stay unused (they draw from torch's
global generator), and so do its hooks and its ghost clipping: they multiply all rows at once.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import ROUNDED_UP, Group, book_keeping_units
from abfed.learning.bounded import MOST_RECIPIENTS, Rounding, Sums, rounding_for
from abfed.learning.losses import LOGISTIC, Loss
from abfed.learning.shapes import UNIT_BITS
from abfed.learning.stacks import Stack
from abfed.learning.steady import Scratch, counts_for
from abfed.learning.steady_groups import (
    Run,
    add_steady_groups,
    are_paired,
    longest,
    longest_beside,
)
from abfed.learning.steady_pairs import MOST_ROWS
from abfed.learning.steady_passes import SteadyPasses, sizes_for
from abfed.learning.steady_sums import EXACT, Way, add_steady


def clipped_sum(
    network: nn.Module,
    lines: Tensor,
    labels: Tensor,
    recipients: Tensor,
    clip: float,
    *,
    loss: Loss = LOGISTIC,
) -> dict[str, Tensor]:
    """The sum of recipients' clipped gradients.

    Adding or removing one recipient moves it by at most `clip` in L2.

    Args:
        network: gives one line of scores a row.
        lines: `(rows, width)` float32. Rows: sensitive.
        labels: 0 or 1, `(rows,)` float32.
        recipients: for each row its recipient's place in the batch, ascending from 0, `(rows,)`.
        clip: L2 bound, in the loss's unit (nats).
        loss: what is made small.

    Returns:
        By trained parameter, float64. Sensitive: noise must be added. Zeros for an empty batch.

    Raises:
        ValueError: the network draws random numbers.
    """
    batch = _grouped(lines, labels, recipients)
    units = BatchGradients(network, loss).clipped_units(batch, clip)
    return named(network, in_losses_unit(units, clip))


def in_losses_unit(units: Tensor, clip: float) -> Tensor:
    """Whole units of 2⁻⁴⁰ of the clip as float64 numbers; rounded where they exceed 2⁵³."""
    return units.double() * (clip * 2.0**-UNIT_BITS)


def named(network: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """A vector over all trained parameters, by their names."""
    trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
    parts = vector.split([each.numel() for each in trained.values()])
    return {
        name: part.view_as(each) for (name, each), part in zip(trained.items(), parts, strict=True)
    }


class BatchGradients:
    """Clipped sums of a network's gradients, batch after batch.

    Args:
        network: read once; its parameters may change in place between batches.
        loss: what is made small.
        expected: recipients of a batch, as everybody knows it: then sums may be made in float32,
            for which a share of the clip is kept back (`abfed.learning.bounded`). Where nobody
            does, all is exact.

    Raises:
        ValueError: the network draws random numbers, or it is neither a stack nor a module that
            Opacus accepts (one that mixes rows, as batch normalisation does).
    """

    __slots__ = ("_loss", "_network", "_stack", "_sums")

    def __init__(
        self, network: nn.Module, loss: Loss = LOGISTIC, *, expected: float = math.inf
    ) -> None:
        _refuse_dice(network)
        self._network = network
        self._loss = loss
        self._stack = Stack.of(network)
        self._sums: StackSums | None = None
        if self._stack is None:
            _refuse_mixing(network)
        else:
            self._sums = StackSums(self._stack, loss, expected)

    def clipped_units(self, batch: Batch, clip: float) -> Tensor:
        """The sum of recipients' clipped gradients over all trained parameters, `(size,)`.

        Returns:
            int64, in 2⁻⁴⁰ of the clip. Sensitive: noise must be added. Zeros for an empty batch.
        """
        if self._sums is not None and self._stack is not None and self._stack.takes(batch.lines):
            return self._sums.units(batch, clip)
        return one_by_one(self._network, batch, clip, self._loss)


class StackSums:
    """Clipped sums of a stack: in float32 where that is steady, else exact throughout.

    Recipients with many rows take the exact path, which was the faster one for them. Which one it
    is follows from the network's shape, this machine, and how many rows the recipient has.

    Args:
        stack: whose parameters may change in place between batches.
        loss: what is made small.
        expected: recipients of a batch, as everybody knows it; where nobody does, all is exact.
    """

    __slots__ = ("_expected", "_loss", "_passes", "_stack", "_sums", "_ways")

    def __init__(self, stack: Stack, loss: Loss, expected: float = math.inf) -> None:
        self._stack = stack
        self._loss = loss
        self._expected = expected
        scratch = Scratch()
        self._passes = SteadyPasses(stack, scratch)
        self._sums = Sums(stack, scratch)
        self._ways: dict[tuple[int, int, str], Way] = {}

    def units(self, batch: Batch, clip: float) -> Tensor:
        """The sum, `(size,)` int64, in 2⁻⁴⁰ of the clip. Sensitive."""
        lines, labels, groups, laid, pairs = batch
        stack, loss, single = self._stack, self._loss, lines.dtype is torch.float32
        passes, sums, exact, start = self._passes, self._sums, None, 0
        sums.clear()
        if not passes.read():
            return sums.total()
        place = 0
        for run, ways in self._runs(groups):
            known, place = pairs[place : place + len(run)], place + len(run)
            theirs, aims, way = lines, labels, ways[0]
            if len(run) < len(groups):
                rows = slice(start, start + sum(group.rows * group.recipients for group in run))
                theirs, aims, laid, start = lines[rows], labels[rows], None, rows.stop
            if not (single and way.sizes):
                found = book_keeping_units(stack, theirs, aims, run, clip, loss)
                exact = found if exact is None else exact.add_(found)
                continue
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                if run[0].rows == 1:  # what isn't finite is silenced there
                    add_steady(sums, passes, theirs, aims, clip, loss, way, laid)
                else:
                    add_steady_groups(sums, passes, theirs, aims, Run(run, ways, known), clip, loss)
        return sums.total() if exact is None else exact.add_(sums.total())

    def share(self, rows: int) -> float:
        """Of the clip, to which a recipient with so many rows is held; anybody may know it."""
        way = self._way(rows)
        return way.rounding.share if way.sizes else 1.0

    def _runs(self, groups: Sequence[Group]) -> Iterator[tuple[list[Group], list[Way]]]:
        """Groups that are added together, and how each is."""
        found = [(group, self._way(group.rows)) for group in groups]

        def together(one: tuple[Group, Way]) -> tuple[bool, Rounding]:
            return one[0].rows == 1, one[1].rounding

        for _, run in itertools.groupby(found, together):
            some, ways = zip(*run, strict=True)
            yield list(some), list(ways)

    def _way(self, rows: int) -> Way:
        """How recipients with so many rows are summed, as long as torch is set as it is."""
        key = rows, torch.get_num_threads(), torch.get_float32_matmul_precision()
        if key not in self._ways:
            stack, expected = self._stack, self._expected
            most = expected + 4.0 * math.sqrt(expected)  # standard deviations of a Poisson draw
            sizes: tuple[int, ...] = ()
            counts: tuple[int, ...] = ()
            if expected <= MOST_RECIPIENTS / 2 and rows <= MOST_ROWS:
                sizes = sizes_for(stack, expected * rows, rows)
                if sizes and rows > 1:
                    counts = counts_for(sizes, rows)
                    sizes = sizes if are_paired(stack, counts, rows) else ()
            if sizes and rows == 1:
                self._ways[key] = Way(sizes, rounding_for(stack, most), 1.0)
            elif sizes:
                rounding = rounding_for(stack, most, longest_beside(rows, most), made=True)
                self._ways[key] = Way(sizes, rounding, longest(rows, most), counts)
            else:
                self._ways[key] = EXACT
        return self._ways[key]


def _grouped(lines: Tensor, labels: Tensor, recipients: Tensor) -> Batch:
    """Rows with their owners as a batch: those of recipients with fewest rows first."""
    if len(recipients) == 0:
        return Batch(lines, labels, ())
    if int(recipients[-1]) + 1 == len(recipients):
        return Batch(lines, labels, (Group(1, len(recipients)),))
    _, counts = recipients.unique_consecutive(return_counts=True)
    order = counts.repeat_interleave(counts).argsort(stable=True)
    sizes, many = counts.unique(return_counts=True)
    groups = tuple(Group(*pair) for pair in zip(sizes.tolist(), many.tolist(), strict=True))
    return Batch(lines[order], labels[order], groups)


def _refuse_dice(network: nn.Module) -> None:
    """Refuse modules that draw from torch's global generator, which anybody may have seeded."""
    for name, module in network.named_modules():
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0  # noqa: SLF001
        if dropout or isinstance(
            module, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d
        ):
            message = f"{name or 'the network'} draws random numbers: {type(module).__name__}"
            raise ValueError(message)


def _refuse_mixing(network: nn.Module) -> None:
    """Refuse what Opacus refuses: layers that mix rows, or that keep something of them.

    Opacus looks at layers that have parameters to train only; a normalisation without any mixes and
    keeps all the same.
    """
    from opacus.validators import ModuleValidator  # noqa: PLC0415 - 100 MB that a stack is spared

    found = ModuleValidator.validate(network, strict=False)
    if found:
        message = f"the network can't be trained privately: {found[0]}"
        raise ValueError(message)
    for name, module in network.named_modules():
        mixes = isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001
        if mixes or getattr(module, "track_running_stats", False):
            message = (
                f"the network can't be trained privately: {name or 'it'} mixes rows or keeps "
                f"something of them: {type(module).__name__}"
            )
            raise ValueError(message)


@contextlib.contextmanager
def _nothing_kept(network: nn.Module) -> Iterator[None]:
    """Refuse a network that drew from torch's generator meanwhile, or changed a buffer of its own.

    Whether it does is a matter of its code; no sum of it is used.

    Raises:
        ValueError: it did.
    """
    before = torch.get_rng_state()
    buffers = {name: (each, each._version) for name, each in network.named_buffers()}  # noqa: SLF001
    yield
    if not torch.equal(before, torch.get_rng_state()):
        message = "the network draws random numbers"
        raise ValueError(message)
    for name, each in network.named_buffers():
        held, version = buffers.get(name, (None, 0))
        if each is not held or each._version != version:  # noqa: SLF001
            message = f"the network keeps something of the rows in {name}"
            raise ValueError(message)


def one_by_one(network: nn.Module, batch: Batch, clip: float, loss: Loss) -> Tensor:
    """The clipped sum from each recipient's gradient, made alone: any module that Opacus accepts.

    Autograd's float32 gradient of a recipient's rows, in memory of their own, is computed as it
    would be if they were the only ones. Its norm is taken in float64 and rounded up, the clipped
    gradient rounded to whole units.

    Returns:
        `(size,)` int64, in 2⁻⁴⁰ of the clip. Sensitive.

    Raises:
        ValueError: the network draws random numbers or keeps something of the rows.
    """
    trained = [each for each in network.parameters() if each.requires_grad]
    size = sum(each.numel() for each in trained)
    total = torch.zeros(size, dtype=torch.int64)
    bound = 1.0 - math.sqrt(size) * 2.0 ** -(UNIT_BITS + 1)

    def units(rows: slice) -> Tensor:
        with torch.enable_grad():
            each = loss.total(network(batch.lines[rows].clone()), batch.labels[rows].clone())
            found = torch.autograd.grad(each, trained, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in found]).double()
        norm = float(torch.linalg.vector_norm(gradient)) * ROUNDED_UP / clip
        if not math.isfinite(norm):
            return torch.zeros_like(total)
        factor = bound / max(norm, bound) / clip
        return (gradient * (factor * 2.0**UNIT_BITS)).round_().long()

    spans = _spans(batch)
    first = None
    with _nothing_kept(network):
        for rows in spans:
            found = units(rows)
            first = found if first is None else first
            total += found
    # what a layer keeps may lie where nobody can look: in its own Python, or in a library's
    if first is not None and not torch.equal(first, units(spans[0])):
        message = "the network keeps something of the rows: the same ones give it another sum"
        raise ValueError(message)
    return total


def _spans(batch: Batch) -> list[slice]:
    """Each recipient's rows."""
    counts = [group.rows for group in batch.groups for _ in range(group.recipients)]
    ends = itertools.accumulate(counts)
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
