"""Which wave is next, and what makes two waves one design."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from abfed.lab.waves import design_of, wave_to_run
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from tests.examples import make_plan

FIRST, SECOND = (
    {"name": "one", "until": "2026-03-04"},
    {"name": "two", "until": "2026-03-11"},
)


def design(**second: object) -> Plan:
    return make_plan(analysis={"sequential": {"waves": [FIRST, SECOND | second]}})


def test_the_first_wave_comes_first_and_only_when_it_is_over(tmp_path: Path) -> None:
    plan = design()
    assert wave_to_run(tmp_path, plan, today=date(2026, 3, 4)).analysis.wave == 1
    with pytest.raises(InputError, match="isn't over"):
        wave_to_run(tmp_path, plan, today=date(2026, 3, 3))
    assert wave_to_run(tmp_path, make_plan()) == make_plan()  # no waves: as it is


def test_a_later_allocation_is_the_same_design() -> None:
    """The next wave's shares follow from the waves before: they don't make another experiment."""
    adapted = design(shares=[0.3, 0.7])
    assert design_of(adapted.at_wave(2)) == design_of(design().at_wave(1))
    assert adapted.at_wave(2).wave_shares() == (0.3, 0.7)
    assert adapted.at_wave(1).wave_shares() == (0.5, 0.5)
    assert design_of(design(until="2026-03-12")) != design_of(design())
