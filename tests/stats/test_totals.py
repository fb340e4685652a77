"""The layout's promises: bounded by construction, one release's worth of budget, additive."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abfed.protocol.errors import IntegrityError
from abfed.stats.totals import (
    SCALE,
    Integers,
    Layout,
    SiloTotals,
    encode_products,
    encode_ratio,
    encode_share,
    encode_square,
)
from tests.stats.simulated import CLICKED, CONVERTED, RATIO, SENDS, SPEND, plan_of

METRICS = (CLICKED, CONVERTED, SPEND, RATIO)
PLAN = plan_of(*METRICS)
LAYOUT = Layout.of(PLAN)

anything = st.floats(allow_nan=True, allow_infinity=True)
counts = st.integers(-3, 2 * SENDS)


@st.composite
def encodings(draw: Any) -> dict[tuple[str, bool], Integers]:
    """One recipient's blocks by (metric, moments), from input that may be absurd."""
    spend = encode_share(np.array([draw(anything)]))
    ratio = encode_ratio(np.array([draw(counts)]), np.array([draw(counts)]), SENDS)
    return {
        ("clicked", False): encode_share(np.array([float(draw(st.booleans()))])),
        ("converted", False): encode_share(np.array([float(draw(st.booleans()))])),
        ("spend", False): spend,
        ("spend", True): encode_square(spend),
        ("ctor", False): ratio,
        ("ctor", True): encode_products(ratio),
    }


def squared(values: Integers) -> int:
    """Σx² in whole numbers."""
    return sum(int(value) ** 2 for value in values.ravel())


@given(encodings())
def test_no_recipient_exceeds_the_sensitivity(blocks: dict[tuple[str, bool], Integers]) -> None:
    """Each block has norm ≤ S; over its noise, all blocks together weigh at most one release."""
    weighed = 0.0
    for block in LAYOUT.blocks:
        values = blocks[block.metric, block.moments]
        assert values.dtype == np.int64
        assert values.shape == (1, block.width)
        assert squared(values) <= SCALE**2
        weighed += squared(values) / (block.sd * SCALE) ** 2
    assert weighed <= 1 + 1e-12


@given(st.integers(0, SCALE), st.integers(0, SCALE))
def test_second_moments_of_any_simplex_point_stay_within_the_bound(a: int, b: int) -> None:
    """Every point of the grid, not only those that whole sends can reach."""
    upper, lower = max(a, b), min(a, b)
    point = np.array([[lower, upper - lower, SCALE - upper]])
    exact = np.array([lower**2, math.sqrt(2) * lower * (upper - lower), (upper - lower) ** 2])
    moments = encode_products(point)
    assert squared(moments) <= SCALE**2
    assert np.all(moments[0] <= exact / SCALE)
    assert np.all(moments[0] > exact / SCALE - 1.001)


@given(st.floats(0, 1))
def test_encoding_is_near_the_value(share: float) -> None:
    encoded = encode_share(np.array([share]))
    assert encoded[0, 0] / SCALE == pytest.approx(share, abs=0.5 / SCALE)
    assert encode_square(encoded)[0, 0] / SCALE == pytest.approx(share**2, abs=2 / SCALE)


@pytest.mark.parametrize("metrics", [(CLICKED,), (SPEND,), (RATIO,), METRICS])
def test_blocks_spend_exactly_one_release(metrics: tuple[dict[str, Any], ...]) -> None:
    layout = Layout.of(plan_of(*metrics))
    assert sum(1 / block.sd**2 for block in layout.blocks) == pytest.approx(1)


def test_blocks_stand_side_by_side() -> None:
    assert [(b.metric, b.moments, b.start, b.width) for b in LAYOUT.blocks] == [
        ("clicked", False, 0, 2),
        ("converted", False, 2, 2),
        ("spend", False, 4, 2),
        ("spend", True, 6, 1),
        ("ctor", False, 7, 3),
        ("ctor", True, 10, 3),
    ]
    assert LAYOUT.shape == (2, 13)
    assert LAYOUT.block("clicked").sd == 2  # one of four metrics: √4
    assert LAYOUT.block("spend").sd == pytest.approx(math.sqrt(4 / 0.9))
    assert LAYOUT.block("ctor", moments=True).sd == pytest.approx(math.sqrt(4 / 0.1))
    with pytest.raises(KeyError):
        LAYOUT.block("clicked", moments=True)


integers = st.lists(
    st.integers(-(2**40), 2**40), min_size=LAYOUT.shape[0] * LAYOUT.shape[1], max_size=26
).map(lambda values: np.array(values, dtype=np.int64).reshape(LAYOUT.shape))
sigmas = st.floats(0.01, 1000)


@given(integers, integers, integers, sigmas, sigmas, sigmas)
def test_totals_add(a: Integers, b: Integers, c: Integers, s: float, t: float, u: float) -> None:
    """(a + b) + c = a + (b + c) = the totals of all, and the noise variances add."""
    x, y, z = (SiloTotals.of(PLAN, *one) for one in ((a, s), (b, t), (c, u)))
    left, right, back = (x + y) + z, x + (y + z), (z + y) + x
    assert np.array_equal(left.values, (a + b + c) / SCALE)
    assert np.array_equal(left.values, right.values)
    assert np.array_equal(left.values, back.values)
    expected = math.sqrt(s**2 + t**2 + u**2)
    for pooled in (left, right, back):
        assert pooled.noise_multiplier == pytest.approx(expected)


def test_totals_of_other_layouts_are_not_added() -> None:
    other = plan_of(CLICKED)
    one = SiloTotals.of(PLAN, np.zeros(LAYOUT.shape, dtype=np.int64), 1.0)
    two = SiloTotals.of(other, np.zeros(Layout.of(other).shape, dtype=np.int64), 1.0)
    with pytest.raises(ValueError, match="different layouts"):
        _ = one + two
    with pytest.raises(IntegrityError, match="layout"):
        SiloTotals.of(PLAN, np.zeros((2, 3), dtype=np.int64), 1.0)


def test_counts_weigh_each_metric_by_its_noise() -> None:
    rng = np.random.default_rng(2)
    sds = np.concatenate([np.full(block.width, block.sd) for block in LAYOUT.blocks])
    sigma, times = 3.0, 4000
    noise = rng.normal(size=(times, *LAYOUT.shape)) * sds * sigma
    found = np.array([SiloTotals(LAYOUT, one, sigma).counts()[0] for one in noise])
    _, sd = SiloTotals(LAYOUT, noise[0], sigma).counts()
    assert found.mean(axis=0) == pytest.approx([0, 0], abs=4 * sd / math.sqrt(times))
    assert found.std(axis=0) == pytest.approx([sd, sd], rel=5 / math.sqrt(2 * times))
    # Better than any single metric's own count.
    own = min(b.sd * math.sqrt(b.width) for b in LAYOUT.blocks if not b.moments)
    assert sd < own * sigma


def test_recipients_are_those_of_all_arms() -> None:
    sums = np.zeros(LAYOUT.shape, dtype=np.int64)
    for row, people in enumerate((300, 200)):
        for block in LAYOUT.blocks:
            if not block.moments:
                sums[row, block.start] = people * SCALE
    assert LAYOUT.recipients(sums) == pytest.approx(500)
