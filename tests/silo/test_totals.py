"""Rows in, noised sums out: what is summed, how it is bounded, how much noise is on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from abfed.privacy.mechanisms import UnsafeSeededNoise
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import Charge
from abfed.silo.totals import columns_needed, compute_totals
from abfed.stats.totals import SCALE, Layout
from tests.statistical.people import permit, sends, table
from tests.stats.simulated import CLICKED, RATIO, SPEND, plan_of

QUIET = 1e-8
"""A noise multiplier so small that the discrete Gaussian always draws 0."""

PLAN = plan_of(CLICKED, SPEND, RATIO)
OPENS = {"name": "opens", "kind": "mean", "column": "opened", "low": 1.0, "high": 3.0}


def one(**changes: Any) -> pd.DataFrame:
    """One recipient with one send."""
    row = {"recipient": 1, "arm": "control", "opened": False, "clicked": False, "revenue": 0.0}
    return pd.DataFrame([row | changes])


def sums(plan: Any, *parts: pa.Table) -> np.ndarray:
    """The sums behind a release, with noise that draws 0."""
    return compute_totals(permit(plan, QUIET), parts).arrays["totals"]


def test_reads_only_the_metrics_columns() -> None:
    assert columns_needed(plan_of(CLICKED, SPEND)) == ("clicked", "revenue")
    assert columns_needed(plan_of({**RATIO, "denominator": "sends"})) == ("clicked",)


def test_sums_are_those_of_a_count_by_hand() -> None:
    frame = pd.concat(
        [
            one(recipient=1, opened=True, clicked=True, revenue=150.0),
            one(recipient=1, opened=True, revenue=150.0),
            one(recipient=2, arm="arm-1", opened=True),
        ]
    )
    control, treated = sums(PLAN, table(frame, PLAN)) / SCALE
    third = 1 / 3
    clicked, spend, square, ratio, products = np.split(control, [2, 4, 5, 8])
    assert clicked == pytest.approx([1, 0])  # one of two sends is enough
    assert spend == pytest.approx([1, 0])  # 300, clipped to 200
    assert square == pytest.approx([1])
    third = 1 / 3  # opened 2 of at most 3 sends, clicked 1 of these
    assert ratio == pytest.approx([third] * 3, abs=2e-5)
    assert products == pytest.approx([third**2, 2**0.5 * third**2, third**2], abs=3e-5)
    assert treated[:8] == pytest.approx([0, 1, 0, 1, 0, 0, third, 2 * third], abs=2e-5)


def test_means_of_a_binary_column_count_sends() -> None:
    plan = plan_of(OPENS)
    frame = pd.concat([one(opened=True), one(opened=True), one(recipient=2)])
    first, rest, square = sums(plan, table(frame, plan))[0] / SCALE
    assert (first, rest, square) == (0.5, 1.5, 0.25)  # 2 opens → .5; none is clipped to 1 → 0


@pytest.mark.parametrize("revenue", [math.nan, math.inf, -math.inf, 1e308, -1.0, None])
def test_no_value_breaks_the_bound(revenue: float | None) -> None:
    plan = plan_of(SPEND)
    rows = table(pd.concat([one(), one()]), plan)
    rows = rows.set_column(2, "revenue", pa.array([revenue, revenue], pa.float64()))
    first, rest, square = sums(plan, rows)[0]
    assert first + rest == SCALE
    assert 0 <= first <= SCALE
    assert 0 <= square <= first


def test_infinities_of_both_signs_stay_bounded() -> None:
    plan = plan_of(SPEND)
    rows = table(pd.concat([one(revenue=math.inf), one(revenue=-math.inf)]), plan)
    assert sums(plan, rows)[0].tolist() == [0, SCALE, 0]


def test_surplus_sends_stay_bounded() -> None:
    plan = plan_of(RATIO)
    rows = table(pd.concat([one(opened=True, clicked=True)] * 9), plan)
    assert sums(plan, rows)[0].tolist() == [SCALE, 0, 0, SCALE, 0, 0]


def test_unknown_outcomes_count_as_not() -> None:
    plan = plan_of(CLICKED)
    rows = table(one(clicked=True), plan).set_column(2, "clicked", pa.array([None], pa.bool_()))
    assert sums(plan, rows)[0].tolist() == [0, SCALE]


def test_tables_add_up_and_empty_ones_are_fine() -> None:
    rng = np.random.default_rng(3)
    rows = table(sends(rng, 300, {"control": 0.5, "arm-1": 0.5}), PLAN)
    recipients = rows["recipient"].to_pylist()
    cut = recipients.index(recipients[250])
    whole = sums(PLAN, rows)
    parts = sums(PLAN, rows.slice(0, cut), rows.slice(0, 0), rows.slice(cut))
    assert np.array_equal(whole, parts)
    assert not sums(PLAN).any()


def test_an_unplanned_arm_adds_nothing() -> None:
    assert not sums(PLAN, table(one(arm="other", clicked=True), PLAN)).any()


def test_a_recipient_who_stands_twice_is_refused() -> None:
    frame = pd.concat([one(recipient=2), one(recipient=1), one(recipient=2)])
    with pytest.raises(IntegrityError, match="not sorted by recipient"):
        sums(PLAN, table(frame, PLAN))


def test_noise_is_as_reserved() -> None:
    """Each coordinate's noise over many releases of no rows: σ/√s of the layout."""
    sigma, times = 2.0, 400
    layout = Layout.of(PLAN)
    noise = UnsafeSeededNoise(5)
    draws = np.stack(
        [compute_totals(permit(PLAN, sigma, noise), []).arrays["totals"] for _ in range(times)]
    )
    spread = draws.std(axis=(0, 1)) / SCALE
    expected = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks]) * sigma
    assert spread == pytest.approx(expected, rel=5 / math.sqrt(2 * 2 * times))


def test_the_system_noises_every_release_anew() -> None:
    allowed = permit(PLAN, 1e6)  # so much that two alike, or none, come once in 1e9 runs
    first, second = (compute_totals(allowed, []).arrays["totals"] for _ in range(2))
    assert (first != second).all()
    assert (first != 0).all()


def test_says_what_noise_it_carries() -> None:
    computed = compute_totals(permit(PLAN, 1.5), [])
    assert computed.payload == "totals"
    assert computed.noise == {"noise_multiplier": 1.5, "scale": SCALE}
    assert computed.arrays["totals"].dtype == np.int64
    assert computed.arrays["totals"].shape == Layout.of(PLAN).shape


def test_a_permit_of_another_step_is_refused() -> None:
    charge = Charge(event="sampled-gaussian", noise_multiplier=1.0, sampling_rate=0.1)
    allowed = permit(PLAN, 1.0)
    other = type(allowed)(
        **{name: getattr(allowed, name) for name in type(allowed).__slots__}
        | {"charges": (charge,)}
    )
    with pytest.raises(IntegrityError, match="no single gaussian"):
        compute_totals(other, [])
