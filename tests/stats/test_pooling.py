"""Across brands, with statsmodels' meta-analysis as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from abfed.stats import pooling

EFFECTS = [0.012, 0.031, -0.004, 0.022, 0.047]
VARIANCES = [1e-4, 4e-5, 9e-5, 2e-5, 6e-5]

several = st.integers(2, 12).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(-1, 1), min_size=k, max_size=k),
        st.lists(st.floats(1e-4, 1), min_size=k, max_size=k),
    )
)


def test_brands_like_these_are_students_mean() -> None:
    mine, student = pooling.like_these(EFFECTS), stats.ttest_1samp(EFFECTS, 0.0)
    assert mine.estimate == pytest.approx(np.mean(EFFECTS))
    assert mine.interval(0.05) == pytest.approx(tuple(student.confidence_interval()))
    assert mine.p_value() == pytest.approx(student.pvalue)
    assert (mine.df, mine.se) == (4, mine.spread)


def test_brands_that_agree_by_chance_are_no_surer_than_these_brands() -> None:
    mine = pooling.like_these([0.02, 0.02, 0.02], floor=0.01)
    z = stats.norm.ppf(0.975) * 0.01
    assert mine.interval(0.05) == pytest.approx((0.02 - z, 0.02 + z))
    assert mine.p_value() == pytest.approx(2 * stats.norm.sf(2))
    assert pooling.like_these([0.02, 0.02, 0.02]).p_value() == 0.0
    assert pooling.like_these([0.0, 0.0]).p_value() == 1.0


@given(several, st.floats(0, 1), st.floats(0.001, 0.3))
def test_the_interval_leaves_zero_out_where_p_is_small(
    given_: tuple[list[float], list[float]], floor: float, alpha: float
) -> None:
    """Interval and p-value say the same, and it is never narrower than these brands'."""
    mine = pooling.like_these(given_[0], floor=floor)
    low, high = mine.interval(alpha)
    if min(abs(low), abs(high)) > 1e-9:
        assert (mine.p_value() < alpha) == (low > 0 or high < 0)
    assert high - low >= 2 * stats.norm.ppf(1 - alpha / 2) * floor * (1 - 1e-9) - 1e-12
    assert mine.tail(0.3) >= mine.tail(-0.1)


def test_paule_mandel_is_that_of_statsmodels() -> None:
    oracle = combine_effects(np.array(EFFECTS), np.array(VARIANCES), method_re="iterated")
    found = pooling.paule_mandel(np.array(EFFECTS), np.array(VARIANCES))
    assert found == pytest.approx(oracle.tau2, rel=1e-4)


def test_heterogeneity_is_that_of_statsmodels() -> None:
    oracle = combine_effects(np.array(EFFECTS), np.array(VARIANCES)).test_homogeneity()
    mine = pooling.heterogeneity(EFFECTS, VARIANCES)
    assert mine.q == pytest.approx(oracle.statistic)
    assert mine.p_value == pytest.approx(oracle.pvalue)
    assert mine.i_squared == pytest.approx((mine.q - 4) / mine.q)
    assert mine.tau**2 == pytest.approx(
        pooling.paule_mandel(np.array(EFFECTS), np.array(VARIANCES))
    )
    assert mine.tau > 0
    assert mine.brands == 5


def test_brands_that_agree_have_no_spread() -> None:
    found = pooling.heterogeneity([0.02, 0.02, 0.02], VARIANCES[:3])
    assert found == (0.0, 1.0, 0.0, 0.0, 3)
    assert pooling.shrunk([0.01, 0.012], [1.0, 1.0]) == pytest.approx([0.011, 0.011])


@given(several)
def test_paule_mandel_solves_its_equation(given_: tuple[list[float], list[float]]) -> None:
    effects, variances = (np.array(one) for one in given_)
    tau2 = pooling.paule_mandel(effects, variances)
    w = 1 / (variances + tau2)
    q = (w * (effects - (w * effects).sum() / w.sum()) ** 2).sum()
    assert tau2 >= 0
    if tau2 > 0:
        assert q == pytest.approx(len(effects) - 1, rel=1e-4)
    else:
        assert q <= len(effects) - 1


@given(several)
def test_shrinking_pulls_towards_the_mean_and_never_past_it(
    given_: tuple[list[float], list[float]],
) -> None:
    effects, variances = (np.array(one) for one in given_)
    w = 1 / (variances + pooling.paule_mandel(effects, variances))
    mean = (w * effects).sum() / w.sum()
    pulled = pooling.shrunk(list(effects), list(variances))
    tolerance = 1e-9
    assert np.all(np.abs(pulled - mean) <= np.abs(effects - mean) + tolerance)
    assert np.all((pulled - mean) * (effects - mean) >= -tolerance)


@given(st.lists(st.floats(-50, 1e6), min_size=1, max_size=10))
def test_weights_add_up(sizes: list[float]) -> None:
    weights = pooling.weights_by_size(sizes)
    assert weights.sum() == pytest.approx(1)
    assert np.all(weights >= 0)


def test_one_brand_says_nothing_of_others() -> None:
    with pytest.raises(ValueError, match="one brand"):
        pooling.like_these([0.1])
    assert math.isclose(pooling.heterogeneity([0.1], [0.01]).p_value, 1.0)
