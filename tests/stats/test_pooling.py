"""Across brands, with statsmodels' meta-analysis as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
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


ALIKE = [1e-4] * 5


def test_brands_like_these_that_vary_alike_are_students_mean() -> None:
    mine, student = pooling.like_these(EFFECTS, ALIKE), stats.ttest_1samp(EFFECTS, 0.0)
    assert mine.estimate == pytest.approx(np.mean(EFFECTS))
    assert mine.interval(0.05) == pytest.approx(tuple(student.confidence_interval()))
    assert mine.p_value() == pytest.approx(student.pvalue)
    assert mine.spread == pytest.approx(stats.sem(EFFECTS))


def test_brands_that_agree_are_read_by_what_they_vary_by() -> None:
    """Three brands, one of 50:1: half as far as Student's t where they agree, that where not."""
    variances = [1.0, 1.0, 0.02]
    q = stats.chi2.ppf(pooling.agreement(3), 2)
    part = np.array([0.1, -0.1, 0.3])  # Q of part·c is c²·Q(part)
    unit = pooling.heterogeneity(list(part), variances).q
    for scale, expected in ((0.999, variances), (1.001, [1.0, 1.0, 1.0])):
        mine = pooling.like_these(part * math.sqrt(q / unit) * scale, variances)
        assert list(mine.variances) == expected
        low, high = mine.interval(0.05)
        t = 2.3994 if expected == variances else stats.t.ppf(0.975, 2)
        assert (high - low) / 2 == pytest.approx(t * mine.spread, rel=1e-4)


def test_effects_that_are_all_the_same_say_nothing_of_others() -> None:
    with pytest.raises(ValueError, match="all the same"):
        pooling.like_these([0.02, 0.02, 0.02], [3e-4] * 3)


def test_brands_without_any_variance_are_read_by_students_own() -> None:
    mine = pooling.like_these(EFFECTS, [0.0, *VARIANCES[1:]])
    assert mine.p_value() == pytest.approx(stats.ttest_1samp(EFFECTS, 0.0).pvalue)


def test_many_experiments_are_read_as_each_by_itself() -> None:
    rng = np.random.default_rng(5)
    effects, variances = rng.normal(1.0, 1.0, (6, 4)), rng.uniform(0.1, 3.0, (6, 4))
    whole = pooling.like_these(effects, variances)
    for one in range(6):
        alone = pooling.like_these(effects[one], variances[one])
        assert whole.p_value()[one] == pytest.approx(alone.p_value())
        assert whole.interval(0.1)[0][one] == pytest.approx(alone.interval(0.1)[0])


@settings(max_examples=30)
@given(several, st.floats(0.001, 0.3))
def test_the_interval_leaves_zero_out_where_p_is_small(
    given_: tuple[list[float], list[float]], alpha: float
) -> None:
    """Interval and p-value say the same."""
    assume(np.std(given_[0]) > 0)
    mine = pooling.like_these(*given_)
    low, high = mine.interval(alpha)
    if min(abs(low), abs(high)) > 1e-9:
        assert (mine.p_value() < alpha) == (low > 0 or high < 0)
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
        pooling.like_these([0.1], [0.01])
    assert math.isclose(pooling.heterogeneity([0.1], [0.01]).p_value, 1.0)
