"""Batches of recipients as tensors: gathered by whole recipients, those of equal size together.

1. Recipients lie sorted by their exact number of rows. Those of equal number are one block of
   `(recipients, rows, numbers)`: a batch is one gather for each number, and nothing is padded.
2. Whoever draws a batch speaks of recipients in the order of the data that came in; that they lie
   sorted here shows nowhere.
3. Lines of the design matrix are made once where they are few (`EXPANDED`), else for each batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from abfed.learning.bookkeeping import Group
from abfed.learning.design_matrix import Integers, RecipientRows
from abfed.learning.steady import SMALLEST, line_norms, line_pairs, stride_of
from abfed.learning.steady_pairs import MOST_ROWS, Pairs
from abfed.learning.steady_passes import Laid

EXPANDED = 1 << 28  # bytes of lines that may be kept ready
_LAID_AT_ONCE = 1 << 16  # rows


class Batch(NamedTuple):
    """All rows of some recipients. Sensitive.

    Attributes:
        lines: of the design matrix, `(rows, width)` float32.
        labels: float32, `(rows,)`, or several a row; of nobody as many as of anybody.
        groups: whose the rows are, fewest rows first.
        laid: the same lines as the first layer takes them, where each recipient has one row.
        pairs: of each group's lines, if they are known.
    """

    lines: Tensor
    labels: Tensor
    groups: tuple[Group, ...]
    laid: Laid | None = None
    pairs: tuple[Pairs | None, ...] = ()


class TrainingRows(Protocol):
    """Recipients to train on, wherever they lie."""

    @property
    def recipients(self) -> int:
        """How many there are. Sensitive."""
        ...

    @property
    def rows(self) -> int:
        """How many rows they own together. Sensitive."""
        ...

    def batches(self, drawn: Iterable[Integers]) -> Iterator[Batch]:
        """The rows of each of these batches, in their order.

        Args:
            drawn: for each batch the places of its recipients, ascending.
        """
        ...


class InMemory:
    """Recipients' rows in memory. Use `of`.

    Attributes:
        recipients, rows: how many. Sensitive.
    """

    __slots__ = (
        "_arms",
        "_blocks",
        "_design",
        "_features",
        "_labels",
        "_lying",
        "_places",
        "recipients",
        "rows",
    )

    def __init__(self, data: RecipientRows) -> None:
        counts = np.diff(data.offsets)
        self._places: Integers | None = None
        if (counts[1:] < counts[:-1]).any():
            data, order = data.by_size()
            self._places = np.empty_like(order)
            self._places[order] = np.arange(len(order))
            counts = counts[order]
        self.recipients = data.recipients
        self.rows = len(data.labels)
        self._design = data.design
        self._labels = torch.from_numpy(data.labels)
        self._arms: Tensor | None = torch.from_numpy(data.arms)
        self._features = torch.from_numpy(data.features)
        self._lying: _Lying | None = None
        if 4 * stride_of(data.design.width) * len(data.labels) <= EXPANDED:
            if len(counts) and (counts == 1).all():
                self._lying = _Lying.of(data)
                return
            self._features = torch.from_numpy(data.design.expand(data.features, data.arms))
            self._arms = None
        sizes, firsts = np.unique(counts, return_index=True)
        ends = np.append(firsts, len(counts))[1:]
        self._blocks = [
            self._block(int(size), int(first), int(end), int(data.offsets[first]))
            for size, first, end in zip(sizes, firsts, ends, strict=True)
            if size > 0  # somebody without a row adds nothing
        ]

    def batches(self, drawn: Iterable[Integers]) -> Iterator[Batch]:
        """See `TrainingRows.batches`."""
        return map(self.batch, drawn)

    def batch(self, chosen: Integers) -> Batch:
        """The rows of some recipients.

        Args:
            chosen: their places, ascending.
        """
        if self._lying is not None:
            return self._lying.batch(chosen)
        if self._places is not None:
            chosen = np.sort(self._places[chosen])
        groups, gathered, pairs = [], [], list[Pairs | None]()
        for block in self._blocks:
            low, high = np.searchsorted(chosen, (block.first, block.end))
            if low == high:
                continue
            places = chosen[low:high] - block.first
            groups.append(Group(block.rows, int(high - low)))
            gathered.append(block.of(places))
            pairs.append(None if block.pairs is None else Pairs(block.pairs, places))
        if not gathered:
            return Batch(torch.empty(0, self._design.width), self._labels[:0], ())
        parts = [p[0] if len(p) == 1 else torch.cat(p) for p in zip(*gathered, strict=True)]
        lines, labels = parts[:2]
        if len(parts) == 3:
            lines = torch.from_numpy(self._design.expand(lines.numpy(), parts[2].numpy()))
        return Batch(lines, labels, tuple(groups), pairs=tuple(pairs))

    def _block(self, rows: int, first: int, end: int, start: int) -> _Block:
        span = slice(start, start + rows * (end - first))
        columns = (self._features, self._labels, self._arms)
        parts, pairs = [part[span] for part in columns if part is not None], None
        if rows > 1:
            if rows <= MOST_ROWS and self._arms is None:
                pairs = line_pairs(parts[0], rows).numpy()
            parts = [part.unflatten(0, (-1, rows)) for part in parts]
        return _Block(rows, first, end, parts, pairs)


class _Block(NamedTuple):
    """Recipients from `first` to `end`, each with `rows` rows; parts `(recipients, rows, …)`.

    Where each has one row, the parts are without that dimension.
    """

    rows: int
    first: int
    end: int
    parts: list[Tensor]
    pairs: npt.NDArray[np.float32] | None

    def of(self, places: Integers) -> list[Tensor]:
        """All rows of some of them, `(rows, …)`."""
        found = [torch.from_numpy(part.numpy().take(places, axis=0)) for part in self.parts]
        return found if self.rows == 1 else [part.flatten(0, 1) for part in found]


class _Lying(NamedTuple):
    """Recipients with one row each, whose lines lie as a block's do (`steady_passes.Laid`).

    A batch then is gathered once, into memory that the first layer takes as it is, and what doesn't
    change from step to step, the norms of lines, is made once. A line's norm and label lie in the
    same memory behind its one, where there is room: so they come with it, or are gathered as well.

    Attributes:
        width: numbers of a line.
        table: the lines, `stride_of(width)` numbers each.
        behind: norms and labels, if they aren't in the table.
    """

    width: int
    table: npt.NDArray[np.float32]
    behind: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None

    @classmethod
    def of(cls, data: RecipientRows) -> _Lying:
        """All lines of the data; in order, as each recipient has one."""
        width, count = data.design.width, len(data.labels)
        table = torch.zeros(count, stride_of(width))
        filled = table.numpy()
        start = 0
        for lines, _ in data.blocks(_LAID_AT_ONCE):
            filled[start : start + len(lines), :width] = lines
            start += len(lines)
        filled[:, width] = 1.0
        norms = line_norms(table, width).numpy()
        if data.labels.ndim > 1 or table.shape[1] < width + 3:
            return cls(width, filled, (norms, data.labels))
        filled[:, -2], filled[:, -1] = norms, data.labels
        return cls(width, filled, None)

    def batch(self, chosen: Integers) -> Batch:
        """See `InMemory.batch`.

        Raises:
            IndexError: a place that isn't there.
        """
        count = len(chosen)
        if count and (chosen[0] < 0 or chosen[-1] >= len(self.table)):
            message = f"a batch of places beyond the {len(self.table)} that there are"
            raise IndexError(message)
        block = torch.empty(count + count // 8 + SMALLEST, self.table.shape[1])
        rows = block.numpy()[:count]
        # clipping touches no place, after the look above: else numpy gathers by way of a buffer
        self.table.take(chosen, axis=0, out=rows, mode="clip")
        if self.behind is None:
            norms, labels = rows[:, -2], rows[:, -1]
        else:
            norms, labels = (each.take(chosen, axis=0) for each in self.behind)
        laid, groups = Laid(block, torch.from_numpy(norms)), (Group(1, count),) if count else ()
        return Batch(block[:count, : self.width], torch.from_numpy(labels), groups, laid)


def owners(groups: Iterable[Group]) -> Tensor:
    """For each row the place of its recipient, ascending from 0, `(rows,)`."""
    rows, recipients = torch.tensor([tuple(group) for group in groups] or [(0, 0)]).unbind(1)
    counts = rows.repeat_interleave(recipients)
    return torch.arange(len(counts)).repeat_interleave(counts)
