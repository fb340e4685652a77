"""No extremes, no value that the plan doesn't list, no free text: whatever rows hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from abfed.protocol.errors import PlanError
from abfed.protocol.plan import Plan
from abfed.silo.releasing import expected_shapes
from tests.examples import plan_values
from tests.silo.test_totals import one, sums
from tests.statistical.people import table
from tests.stats.simulated import CLICKED, SPEND, plan_of

pytestmark = pytest.mark.privacy
TIER = {"name": "tier", "kind": "category", "values": ["basic", "gold"]}
PLAN = plan_of(
    CLICKED,
    SPEND,
    features=[TIER],
    analysis={"segments": [{"name": "tiers", "feature": "tier"}]},
)


def people(tiers: list[str | None], spent: list[float]) -> pd.DataFrame:
    """One send each to as many recipients, in both arms in turn."""
    rows = [
        one(recipient=place, arm=("control", "arm-1")[place % 2], revenue=amount, clicked=True)
        for place, amount in enumerate(spent)
    ]
    return pd.concat(rows).assign(tier=tiers)


def counted(tiers: list[str | None], spent: list[float]) -> np.ndarray:
    frame = people(tiers, spent)
    return sums(PLAN, table(frame, PLAN))


@pytest.mark.parametrize("outlier", [200.0, 201.0, 4_713.5, 1e12])
def test_the_largest_value_leaves_no_trace(outlier: float) -> None:
    """Beyond the declared bound all amounts are one: nobody's maximum is in any figure."""
    tiers: list[str | None] = ["basic"] * 40
    spent = [float(place) for place in range(39)]
    assert np.array_equal(counted(tiers, [*spent, outlier]), counted(tiers, [*spent, 200.0]))


@pytest.mark.parametrize("unlisted", ["ZZ-canary-tier", "Gold", "", None, "basic;gold"])
def test_a_value_that_the_plan_does_not_list_is_nobodys_cell(unlisted: str | None) -> None:
    """It counts where no listed value fits, as any other unlisted one does."""
    spent = [1.0] * 40
    found = counted([*["basic", "gold"] * 19, unlisted, "gold"], spent)
    other = counted([*["basic", "gold"] * 19, "another", "gold"], spent)
    assert np.array_equal(found, other)
    assert found.shape == expected_shapes(PLAN, "totals")["totals"].shape
    assert not np.array_equal(found, counted([*["basic", "gold"] * 19, "basic", "gold"], spent))


@pytest.mark.parametrize("kind", ["minimum", "maximum", "min", "max", "first", "text", "distinct"])
def test_no_plan_can_ask_for_an_extreme_or_a_text(kind: str) -> None:
    metric = {"name": "spend", "kind": kind, "column": "revenue"}
    with pytest.raises(PlanError, match="metrics"):
        Plan.from_values(plan_values(metrics=[metric], primary="spend"))


@pytest.mark.parametrize(
    "feature",
    [
        {"name": "note", "kind": "text"},
        {"name": "note", "kind": "category"},
        {"name": "note", "kind": "category", "values": []},
    ],
)
def test_a_category_has_a_public_list_and_a_text_is_no_feature(feature: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="features"):
        Plan.from_values(plan_values(features=[feature]))
