"""The design matrix: what the plan declares, and nothing that the data says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from abfed.learning.design_matrix import Design, encode_category, encode_numeric
from abfed.protocol.schema import CategoryFeature, NumericFeature
from tests.examples import make_model_plan
from tests.learning.signal_rows import learning_plan, made_rows

AGE = NumericFeature(name="age", low=20.0, high=60.0)
TIER = CategoryFeature(name="tier", values=("basic", "gold"))


def test_numbers_are_scaled_by_public_bounds_clipped_and_missing_is_the_middle():
    values = np.array([20.0, 40.0, 60.0, 50.0, -1e300, np.inf, np.nan])
    encoded = encode_numeric(AGE, values)
    assert encoded.dtype == np.float32
    assert encoded[:, 0].tolist() == [-1.0, 0.0, 1.0, 0.5, -1.0, 1.0, 0.0]


@given(arrays(np.float64, 5, elements=st.floats(width=64)))
def test_whatever_the_number_the_column_stays_in_range(values):
    wide = NumericFeature(name="wide", low=-1.7e308, high=1.7e308)
    for feature in (AGE, wide):
        encoded = encode_numeric(feature, values)
        assert np.isfinite(encoded).all()
        assert np.abs(encoded).max() <= 1.0


def test_one_persons_value_changes_nobody_elses_line():
    values = np.array([25.0, 30.0, 35.0])
    other = np.array([25.0, 30.0, 1e9])
    assert (encode_numeric(AGE, values)[:2] == encode_numeric(AGE, other)[:2]).all()


def test_categories_are_one_hot_and_unknown_is_all_zeros():
    encoded = encode_category(TIER, np.array([1, 0, -1]))
    assert encoded.tolist() == [[0, 1], [1, 0], [0, 0]]


def test_columns_are_features_arms_and_the_features_of_each_treated_arm():
    design = Design((AGE, TIER), ("b", "a", "c"), control=1)
    features = np.array([[0.5, 1, 0], [-1.0, 0, 1], [0.25, 0, 0]], dtype=np.float32)
    lines = design.expand(features, np.array([0, 1, 2], dtype=np.int8))
    assert design.width == len(design.column_names) == 12
    assert design.column_names[:6] == ("age", "tier=basic", "tier=gold", "arm=b", "arm=a", "arm=c")
    assert design.column_names[6:] == (
        *("arm=b × age", "arm=b × tier=basic", "arm=b × tier=gold"),
        *("arm=c × age", "arm=c × tier=basic", "arm=c × tier=gold"),
    )
    none = [0.0] * 3
    assert lines.tolist() == [
        [0.5, 1, 0, 1, 0, 0, 0.5, 1, 0, *none],
        [-1.0, 0, 1, 0, 1, 0, *none, *none],
        [0.25, 0, 0, 0, 0, 1, *none, 0.25, 0, 0],
    ]


def test_the_design_is_the_plans():
    design = Design.of(make_model_plan())
    assert design.arms == ("a", "b")
    assert design.treated == (1,)
    assert design.feature_width == 3


@pytest.mark.parametrize("chosen", [[], [0], [1, 4, 5], list(range(12))])
def test_a_batch_holds_all_rows_of_the_chosen_and_says_whose_they_are(chosen):
    data = made_rows(learning_plan(), 12, seed=3)
    lines, labels, owner = data.batch(np.array(chosen, dtype=np.int64))
    spans = [range(data.offsets[each], data.offsets[each + 1]) for each in chosen]
    rows = [row for span in spans for row in span]
    assert (labels == data.labels[rows]).all()
    assert (lines == data.design.expand(data.features[rows], data.arms[rows])).all()
    assert owner.tolist() == [place for place, span in enumerate(spans) for _ in span]


def test_rows_never_show_themselves():
    data = made_rows(learning_plan(), 3, seed=3)
    assert "array" not in repr(data)
    assert "0." not in repr(data)


@pytest.mark.parametrize("learner", ["s", "t"])
def test_a_line_tells_what_it_was_made_of(learner):
    age = NumericFeature(name="age", low=0.0, high=100.0)
    tier = CategoryFeature(name="tier", values=("basic", "gold", "black"))
    design = Design((age, tier), ("a", "b", "c"), 1, learner)
    random = np.random.default_rng(1)
    features = random.uniform(-1, 1, (50, 4)).astype(np.float32)
    arms = random.integers(0, 3, 50).astype(np.int8)
    lines = design.expand(features, arms)
    assert lines.shape == (50, design.width) == (50, len(design.column_names))
    again, codes = design.compact(lines)
    assert (again == features).all()
    assert (codes == arms).all()


def test_a_t_learners_arms_share_no_column():
    age = NumericFeature(name="age", low=0.0, high=100.0)
    design = Design((age,), ("a", "b"), 0, "t")
    lines = design.expand(np.full((2, 1), 0.5, np.float32), np.array([0, 1], np.int8))
    assert design.column_names == ("arm=a", "arm=a × age", "arm=b", "arm=b × age")
    assert lines.tolist() == [[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.5]]
