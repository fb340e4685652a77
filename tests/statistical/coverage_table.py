"""The whole coverage table, and which of its rows are nominal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

from tests.statistical import cells, levels, looks, widths
from tests.statistical.cells import EPSILONS, Cell
from tests.statistical.worlds import FIVE, FOUR, TWO, Setting

Maker = Callable[[int], Iterator[Cell]]
"""Simulates so many experiments for each of some rows."""

CONSERVATIVE = ("always-valid", "any false finding")
"""The first holds at looks that were never planned, so that it errs less than nominal at five; the
second is Holm's. What they may be on the safe side is marked in the table (`is_careful`)."""

LARGER = 10
"""A row outside its bounds is simulated again, with so many times as many experiments: of hundreds
of rows with a standard error of .005 some are outside by chance. What is found then stands."""

FEWEST = 200
"""Intervals below which a share says little: such a row, too, is simulated again with `LARGER`."""

SHARES = ((0.5, 0.5), (0.9, 0.1))


def every_cell(times: int) -> Iterator[Cell]:
    """The whole table: ε .1–3, 16,000 to a million recipients a brand, two to five brands."""
    for make in _every_maker():
        yield from settled(make, times)


def settled(make: Maker, times: int) -> Iterator[Cell]:
    """Rows of one kind; those that aren't settled from more experiments (see `LARGER`)."""
    rows = list(make(times))
    if all(is_settled(cell) for cell in rows):
        yield from rows
        return
    for few, many in zip(rows, make(LARGER * times), strict=True):
        yield few if is_settled(few) else many


def _every_maker() -> Iterator[Maker]:
    """What simulates the table's rows, for a number of experiments."""
    for epsilon in EPSILONS:
        for recipients in (16_000, 64_000, 1_000_000):
            for brands, shares in itertools.product((FOUR, TWO, FIVE), SHARES):
                yield from kinds(Setting(epsilon, recipients, shares, brands))
            yield partial(levels.guardrails, epsilon, recipients)
            yield partial(levels.credible, epsilon, recipients)
        for row, brands, shares in itertools.product(widths.PUBLISHED, (FOUR, TWO, FIVE), SHARES):
            yield partial(noised_once, row, Setting(epsilon, row.recipients, shares, brands))
        yield partial(levels.sample_ratio_alarms, epsilon, 2000, (0.5, 0.5))
        yield partial(levels.sample_ratio_alarms, epsilon, 2000, (0.8, 0.1, 0.1))
        yield partial(levels.across_brands, epsilon, 16_000)
        for spending in ("obrien-fleming", "pocock", "always-valid"):
            for lift in (0.0, 0.1):
                yield partial(looks.any_look, spending, epsilon, lift=lift)
        yield partial(looks.any_finding, epsilon, 16_000)
    yield from levels.every_like_these((0.5, 3.0))


def noised_once(row: widths.Published, at: Setting, times: int) -> Iterator[Cell]:
    """The effect over all brands under one noise, where the plan promises its shares."""
    held, read = widths.once_held(row, at, times)
    what = at.said(f"{row.metric['name']}, p = {row.rate:g}")
    known = ("effect, noise once", what, at.epsilon, at.recipients, times)
    yield Cell(*known, held, math.nan, read=read)


def kinds(at: Setting) -> Iterator[Maker]:
    """Every kind of interval in one setting."""
    yield lambda times: cells.proportion(0.15, at, times)
    yield lambda times: cells.proportion(0.009, at, times)
    yield lambda times: cells.spend(at, times)
    yield lambda times: cells.of_sends(at, times)
    for by_level in (cells.USUAL, cells.RARE):
        yield partial(cells.adjusted, at, by_level=by_level)
        yield partial(cells.in_segments, at, by_level=by_level)
    yield lambda times: cells.time_to_open(at, times)


def every_kind(at: Setting, times: int) -> Iterator[Cell]:
    """The rows of one setting."""
    for make in kinds(at):
        yield from settled(make, times)


def is_settled(cell: Cell) -> bool:
    """Whether a row is nominal, and enough of its intervals were read to tell."""
    return is_nominal(cell) and cell.read * cell.times >= FEWEST


def is_careful(cell: Cell) -> bool:
    """Whether a row is nominal only because it may err on the safe side, and does."""
    return is_nominal(cell) and not is_nominal(cell, careful=False)


def is_nominal(cell: Cell, *, careful: bool = True) -> bool:
    """Coverage within 93.5 and 97.5 %, of the intervals that are given; error rates within binomial
    error of their level. Of few intervals no more can be told than their own binomial error.

    Args:
        cell: a row.
        careful: whether the kinds in `CONSERVATIVE` may err on the safe side.
    """
    read = cell.read * cell.times
    if math.isnan(cell.nominal) or not read:
        return True
    careful = careful and cell.interval.startswith(CONSERVATIVE)
    if cell.nominal > 0.5:
        error = 4 * math.sqrt(0.05 * 0.95 / read) if read < FEWEST else 0.0
        return 0.935 - error <= cell.held <= (1.0 if careful else 0.975 + error)
    error = 4 * math.sqrt(cell.nominal * (1 - cell.nominal) / cell.times)
    low = 0.0 if careful else cell.nominal - error
    return low <= cell.held <= cell.nominal + error
