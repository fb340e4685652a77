"""Differences between brands and between segments, as a tidy frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from abfed.stats.between import BRANDS, COLUMNS, differences
from abfed.stats.effects import effects
from tests.stats.simulated import CLICKED, CONVERTED, World, plan_of
from tests.stats.test_effects import totals_of

CHANNEL = {"name": "channel", "kind": "category", "values": ["web", "app"]}


def test_brands_that_differ_are_found_with_statsmodels_figures() -> None:
    plan = plan_of(CLICKED, silos=["aurora", "borealis", "corona"])
    rates = {
        "aurora": ([0.10, 0.12], [9000, 9000]),
        "borealis": ([0.10, 0.16], [9000, 9000]),
        "corona": ([0.10, 0.10], [9000, 9000]),
    }
    frame = effects(plan, totals_of(plan, rates))
    row = differences(plan, frame).iloc[0]
    seen = frame[frame["scope"].isin(rates)]
    oracle = combine_effects(
        seen["estimate"].to_numpy(), seen["se"].to_numpy() ** 2, method_re="iterated"
    )
    assert (row["metric"], row["arm"], row["over"], row["parts"]) == ("clicked", "arm-1", BRANDS, 3)
    assert row["q"] == pytest.approx(oracle.q)
    assert row["tau"] == pytest.approx(math.sqrt(oracle.tau2), rel=1e-3)
    assert row["i_squared"] == pytest.approx(oracle.i2)
    assert row["p_value"] < 1e-6
    assert row["note"] == ""


def test_a_brand_without_an_effect_is_left_out_and_one_alone_is_not_compared() -> None:
    plan = plan_of(CLICKED, silos=["aurora", "borealis", "corona"])
    fine, tiny = ([0.10, 0.12], [9000, 9000]), ([0.1, 0.9], [5000, 20])
    both = {"aurora": fine, "borealis": fine, "corona": tiny}
    row = differences(plan, effects(plan, totals_of(plan, both))).iloc[0]
    assert row["parts"] == 2
    assert "1 of 3 left out" in row["note"]
    one = {"aurora": fine, "borealis": tiny, "corona": tiny}
    row = differences(plan, effects(plan, totals_of(plan, one))).iloc[0]
    assert math.isnan(row["q"])
    assert "not estimable" in row["note"]
    assert differences(plan, effects(plan, totals_of(plan, {"aurora": fine}))).empty


def test_a_segmentations_cells_are_compared_too() -> None:
    segments = {"segments": [{"name": "by-channel", "feature": "channel"}]}
    plan = plan_of(CLICKED, CONVERTED, features=[CHANNEL], analysis=segments)
    layout_of_cells = effects(plan, _with_cells(plan))
    table = differences(plan, layout_of_cells)
    assert tuple(table.columns) == COLUMNS
    rows = table[table["over"] == "by-channel"]
    assert set(rows["metric"]) == {"clicked", "converted"}
    found = rows.set_index("metric").loc["clicked"]
    assert found["parts"] == 2  # nobody is in the third, of unlisted values
    assert found["p_value"] < 1e-3


def _with_cells(plan: object) -> dict[str, object]:
    """Clicks rise in one channel only."""
    from abfed.stats.layout import Layout
    from abfed.stats.totals import SiloTotals

    layout = Layout.of(plan)  # type: ignore[arg-type]
    values = np.zeros(layout.shape)
    for row in range(2):
        for block in layout.blocks:
            for cell in range(block.cells):
                lift = 1.0 + (0.5 if row and cell == 1 else 0.0)
                many = 8000.0 if cell < 2 else 0.0
                place = block.cell(cell) if block.segment else block.columns
                values[row, place] = [0.1 * lift * many, (1 - 0.1 * lift) * many]
    totals = SiloTotals(layout, values, 1.0)
    return {"aurora": totals, "borealis": totals}


def test_like_brands_are_called_different_as_often_as_chance_would() -> None:
    plan = plan_of(CLICKED)
    world = World(plan, {"clicked": 0.15}, {}, 4000, 36.3)
    rng = np.random.default_rng(9)
    ps = [differences(plan, effects(plan, world.draw(rng)))["p_value"].iloc[0] for _ in range(120)]
    assert np.mean(np.array(ps) < 0.05) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 120)
