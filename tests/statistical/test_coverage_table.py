"""The coverage table holds: every interval within 93.5 and 97.5 %, every test at its level."""

from __future__ import annotations

import pytest

from tests.statistical import cells, levels
from tests.statistical.coverage_table import every_cell, is_nominal


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_row_of_the_table_is_nominal() -> None:
    rows = list(every_cell(2000))
    assert len({cell.interval for cell in rows}) >= 15
    assert [cell for cell in rows if not is_nominal(cell)] == []


def test_each_kind_of_interval_is_nominal_at_a_middling_epsilon() -> None:
    """One world of each kind, quickly; the slow test above has them all."""
    rows = [
        *cells.adjusted(0.5, 64_000, 2000),
        *cells.in_segments(0.5, 64_000, 2000),
        *cells.time_to_open(0.5, 64_000, 2000),
        *levels.credible(0.5, 16_000, 2000),
        *levels.guardrails(0.5, 64_000, 2000),
        *levels.sample_ratio_alarms(0.1, 2000, (0.8, 0.1, 0.1), 1000),
    ]
    assert [cell for cell in rows if not is_nominal(cell)] == []
