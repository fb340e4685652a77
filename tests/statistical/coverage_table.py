"""The whole coverage table, and which of its rows are nominal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from tests.statistical import cells, levels, looks
from tests.statistical.cells import EPSILONS, Cell
from tests.statistical.worlds import FIVE, FOUR, TWO, Setting

CONSERVATIVE = ("always-valid", "brands like these, hardly apart", "any false finding")
"""The first holds at looks that were never planned, so that it errs less than nominal at five; the
second is never narrower than the interval over the brands that were seen; the third is Holm's."""

BOUNDED = ("(ratio)", "relative lift")
"""A ratio's spread is taken for its bound where noise hides its second moments; a relative lift is
"not estimable" where Fieller's interval has no end, which would have held the truth. Intervals of
either may hold it more often than they say."""

MOSTLY = 0.5
"""Rows of which fewer intervals could be read are those that luck picked: they must not be far
off."""

FEWEST = 200
"""Intervals below which a share says little."""

SHARES = ((0.5, 0.5), (0.9, 0.1))


def every_cell(times: int) -> Iterator[Cell]:
    """The whole table: ε .1–3, 16,000 to a million recipients a brand, two to five brands."""
    for epsilon in EPSILONS:
        for recipients in (16_000, 64_000, 1_000_000):
            for brands, shares in itertools.product((FOUR, TWO, FIVE), SHARES):
                yield from every_kind(Setting(epsilon, recipients, shares, brands), times)
            yield from levels.guardrails(epsilon, recipients, times)
            yield from levels.credible(epsilon, recipients, times)
        yield from levels.sample_ratio_alarms(epsilon, 2000, (0.5, 0.5), times)
        yield from levels.sample_ratio_alarms(epsilon, 2000, (0.8, 0.1, 0.1), times)
        yield from levels.across_brands(epsilon, 16_000, times)
        for spending in ("obrien-fleming", "pocock", "always-valid"):
            for lift in (0.0, 0.1):
                yield from looks.any_look(spending, epsilon, times, lift)
        yield from looks.any_finding(epsilon, 16_000, times)
    yield from levels.every_like_these((0.5, 3.0), times)


def every_kind(at: Setting, times: int) -> Iterator[Cell]:
    """Every kind of interval in one setting."""
    yield from cells.proportion(0.15, at, times)
    yield from cells.proportion(0.009, at, times)
    yield from cells.spend(at, times)
    yield from cells.of_sends(at, times)
    for by_level in (cells.USUAL, cells.RARE):
        yield from cells.adjusted(at, times, by_level)
        yield from cells.in_segments(at, times, by_level)
    yield from cells.time_to_open(at, times)


def is_nominal(cell: Cell) -> bool:
    """Coverage within 93.5 and 97.5 %; error rates within binomial error of their level."""
    if math.isnan(cell.nominal) or cell.read * cell.times < FEWEST:
        return True
    careful = cell.interval.startswith(CONSERVATIVE)
    if cell.nominal > 0.5:
        few = cell.read < MOSTLY
        above = careful or few or any(one in cell.interval for one in BOUNDED)
        return (0.90 if few else 0.935) <= cell.held <= (1.0 if above else 0.975)
    error = 4 * math.sqrt(cell.nominal * (1 - cell.nominal) / cell.times)
    low = 0.0 if careful else cell.nominal - error
    return low <= cell.held <= cell.nominal + error
