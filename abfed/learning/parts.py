"""How recipients with several rows each are laid out in blocks.

A block goes through the network as a whole; recipients with equally many rows are a part of it, as
their norms are made at a time. What is tried on a machine (`abfed.learning.steady`) are so many
recipients from a certain line on, hence:

1. each part starts at a line that is a multiple of `START`: so memory is as it was when tried;
2. its norms are made for as many recipients as were tried, `tried`, or more than there are. Behind
   the last stands whatever does; what comes of it is left aside. All of it is in the block.
"""

from __future__ import annotations

import bisect
import math
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from abfed.learning.bookkeeping import Group

LEAST = 64  # lines: so many are worth a part of their own
START = 16  # lines: as 32 bits each, 64 bytes at least


class Part(NamedTuple):
    """Recipients of a block with equally many rows. Sensitive.

    Attributes:
        group: the place of their group.
        rows: of each.
        recipients: how many are here.
        tried: the number that was tried.
        taken: the first of their rows in the batch.
        start: the line of the block where that is.
        first: recipients of the block before them.
    """

    group: int
    rows: int
    recipients: int
    tried: int
    taken: int
    start: int
    first: int

    @property
    def lines_there(self) -> slice:
        """Their lines."""
        return slice(self.start, self.start + self.rows * self.recipients)

    @property
    def lines_tried(self) -> slice:
        """Theirs and what stands behind them."""
        return slice(self.start, self.start + self.rows * self.tried)

    @property
    def rows_taken(self) -> slice:
        """Their rows in the batch."""
        return slice(self.taken, self.taken + self.rows * self.recipients)


def filled(
    groups: Sequence[Group], sizes: Sequence[int], counts: Sequence[Sequence[int]]
) -> Iterator[tuple[int, list[Part]]]:
    """Blocks that hold all recipients, one after another: the size of each and its parts.

    Args:
        groups: whose the rows are, in their order.
        sizes: of blocks, the largest first.
        counts: for each group, of how many recipients norms are made at a time, the most first.
    """
    left = [group.recipients for group in groups]
    while any(left):
        size = _size(groups, left, sizes, counts)
        parts = list(_parts(groups, left, size, counts))
        for part in parts:
            left[part.group] -= part.recipients
        yield size, parts


def _size(
    groups: Sequence[Group],
    left: Sequence[int],
    sizes: Sequence[int],
    counts: Sequence[Sequence[int]],
) -> int:
    """The size of the next block: all have about the same, and the last may be padded."""
    rows = needed = 0
    for group, many, tried in zip(groups, left, counts, strict=True):
        if many:
            start = _aligned(rows)
            rows = start + group.rows * many
            needed = max(needed, start + _lines(group.rows, many, tried))
    share = math.ceil(rows / math.ceil(rows / sizes[0]))
    wanted = needed if share == rows else share
    return _enough(wanted, sizes) or sizes[0]


def _lines(rows: int, many: int, tried: Sequence[int]) -> int:
    """What so many recipients need at the end of a block, in as many parts as `_parts` makes."""
    line = 0
    while many:
        count = _least(rows, many, tried)
        line = _aligned(line) + rows * count
        many -= min(many, count)
    return line


def _least(rows: int, many: int, tried: Sequence[int]) -> int:
    """The least number that was tried of at least so many, or a lesser one if few lines fit it."""
    count = _enough(many, tried) or tried[0]
    return _most(many, tried) if rows * (count - many) > LEAST else count


def _enough(many: int, tried: Sequence[int]) -> int:
    """The least of these, the most first, of at least so many; 0 if there is none."""
    place = bisect.bisect_right(tried, -many, key=operator.neg)
    return tried[place - 1] if place else 0


def _most(many: int, tried: Sequence[int]) -> int:
    """The most of these of at most so many; 0 if there is none."""
    place = bisect.bisect_left(tried, -many, key=operator.neg)
    return tried[place] if place < len(tried) else 0


def _parts(
    groups: Sequence[Group], left: Sequence[int], size: int, counts: Sequence[Sequence[int]]
) -> Iterator[Part]:
    """Whom a block of this size holds of those who are left."""
    line = first = taken = 0
    rest = sum(group.rows * many for group, many in zip(groups, left, strict=True))
    for place, (group, waiting, tried) in enumerate(zip(groups, left, counts, strict=True)):
        end, many = taken + group.rows * group.recipients, waiting
        taken = end - group.rows * many
        while many:
            start = _aligned(line)
            room = (size - start) // group.rows
            count = _enough(many, tried)
            if count == 0 or count > room:
                count = _most(room, tried)
            if count == 0 or (size - start < LEAST and rest > size - start):
                return
            here = min(many, count)
            yield Part(place, group.rows, here, count, taken, start, first)
            line, first = start + group.rows * here, first + here
            taken, many, rest = taken + group.rows * here, many - here, rest - group.rows * here
        taken = end


def _aligned(line: int) -> int:
    return math.ceil(line / START) * START


def gaps(parts: Sequence[Part], size: int) -> list[slice]:
    """Lines of a block that are nobody's.

    Args:
        parts: of the block, in their order.
        size: of the block.
    """
    ends = [0] + [part.lines_there.stop for part in parts]
    starts = [part.start for part in parts] + [size]
    return [slice(*each) for each in zip(ends, starts, strict=True) if each[0] < each[1]]
