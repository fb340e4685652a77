"""A real e-mail test (Hillstrom 2008), against what another implementation (tea-tasting) says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abfed.stats.checks import sample_ratios
from abfed.stats.effects import effects
from tests.statistical.people import released
from tests.stats.simulated import plan_of

FILE = Path(
    os.environ.get("ABFED_HILLSTROM")
    or Path(__file__).resolve().parents[2] / "../shared/data/hillstrom.csv"
)

TEA_TASTING = {
    "visit": (0.045233, 0.038894, 0.051573),
    "conversion": (0.003111, 0.001499, 0.004723),
    "spend": (0.424412, 0.168957, 0.679868),
}
"""Womens e-mail against none: effect and 95 % interval without noise."""

METRICS = (
    {"name": "visit", "kind": "proportion", "column": "visited"},
    {"name": "conversion", "kind": "proportion", "column": "converted"},
    # Nobody spent more than 500: clipping changes nothing.
    {"name": "spend", "kind": "mean", "column": "revenue", "high": 500.0},
)

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not FILE.is_file(), reason="Hillstrom's data set is not here; set ABFED_HILLSTROM"
    ),
]


def women_and_none() -> pd.DataFrame:
    """Recipients of the two arms, in the canonical columns."""
    raw = pd.read_csv(FILE)
    raw = raw[raw["segment"].isin(["Womens E-Mail", "No E-Mail"])]
    return pd.DataFrame(
        {
            "recipient": np.arange(len(raw)),
            "arm": np.where(raw["segment"] == "No E-Mail", "control", "arm-1"),
            "visited": raw["visit"].to_numpy() == 1,
            "converted": raw["conversion"].to_numpy() == 1,
            "revenue": raw["spend"].to_numpy(),
        }
    )


def test_effects_without_noise_are_the_published_ones() -> None:
    plan = plan_of(*METRICS)
    totals = released(plan, {"aurora": women_and_none()}, sigma=1e-6)
    frame = effects(plan, totals).set_index("metric")
    for metric, (estimate, low, high) in TEA_TASTING.items():
        row = frame.loc[metric]
        # tea-tasting's intervals are Student's and Welch's: at 42,000 recipients the same.
        tolerance = 2e-4 * (high - low)
        assert row["estimate"] == pytest.approx(estimate, abs=tolerance)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=tolerance)
    # χ² without a continuity correction; with one, as tea-tasting has it, p = .699.
    assert sample_ratios(plan, totals)["p_value"].iloc[0] == pytest.approx(0.695, abs=0.0005)


def test_four_pseudo_brands_find_the_visit_at_a_small_epsilon() -> None:
    """With local noise visit is found at ε = .1; conversion needs about ε = 1."""
    plan = plan_of(METRICS[0])
    people = women_and_none()
    brand = np.random.default_rng(1).integers(0, 4, len(people))
    brands = {name: people[brand == i] for i, name in enumerate(plan.silos)}
    frame = effects(plan, released(plan, brands, sigma=36.3))
    pooled = frame[frame["scope"] == "these brands"]
    assert pooled["decision"].tolist() == ["better"]
    assert pooled["privacy_share"].gt(0.2).all()
