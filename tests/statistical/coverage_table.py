"""The whole coverage table, and which of its rows are nominal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.statistical import cells, levels
from tests.statistical.cells import EPSILONS, Cell

CONSERVATIVE = ("always-valid", "brands like these, hardly apart")
"""The first holds at looks that were never planned, so that it errs less than nominal at five; the
second is never narrower than the interval over the brands that were seen."""


def every_cell(times: int) -> Iterator[Cell]:
    """The whole table: ε .1–3, 16,000 to a million recipients a brand."""
    for epsilon in EPSILONS:
        for recipients in (16_000, 64_000, 1_000_000):
            for shares in ((0.5, 0.5), (0.9, 0.1)):
                yield from cells.proportion(0.15, epsilon, recipients, shares, times)
                yield from cells.proportion(0.009, epsilon, recipients, shares, times)
            yield from cells.spend(epsilon, recipients, times)
            yield from cells.ratio(epsilon, recipients, times)
            yield from levels.guardrails(epsilon, recipients, times)
            yield from cells.in_segments(epsilon, recipients, times)
            yield from cells.adjusted(epsilon, recipients, times)
            yield from cells.time_to_open(epsilon, recipients, times)
            yield from levels.credible(epsilon, recipients, times)
        yield from levels.sample_ratio_alarms(epsilon, 2000, (0.5, 0.5), times)
        yield from levels.sample_ratio_alarms(epsilon, 2000, (0.8, 0.1, 0.1), times)
        yield from levels.across_brands(epsilon, 16_000, times)
        for spending in ("obrien-fleming", "pocock", "always-valid"):
            yield from levels.sequential_errors(spending, epsilon, times, 3)
    yield from levels.every_like_these((0.5, 3.0), times)


def is_nominal(cell: Cell) -> bool:
    """Coverage within 93.5 and 97.5 %; error rates within binomial error of their level."""
    if math.isnan(cell.nominal):
        return True
    careful = cell.interval.startswith(CONSERVATIVE)
    if cell.nominal > 0.5:
        return 0.935 <= cell.held <= (1.0 if careful else 0.975)
    error = 4 * math.sqrt(cell.nominal * (1 - cell.nominal) / cell.times)
    low = 0.0 if careful else cell.nominal - error
    return low <= cell.held <= cell.nominal + error
