"""Corrections against statsmodels, and what they do to decisions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from abfed.stats.decisions import CORRECTIONS

THEIRS = {"holm": "holm", "hochberg": "simes-hochberg", "benjamini-hochberg": "fdr_bh"}
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.mark.parametrize("name", list(CORRECTIONS))
@settings(max_examples=30, deadline=None)
@given(p_values)
def test_corrections_are_those_of_statsmodels(name: str, values: list[float]) -> None:
    _, theirs, *_ = multipletests(values, method=THEIRS[name])
    mine = CORRECTIONS[name](values)  # type: ignore[index]
    assert mine == pytest.approx(list(theirs), abs=1e-12)


@given(p_values)
def test_hochberg_finds_whatever_holm_does(values: list[float]) -> None:
    pairs = zip(CORRECTIONS["hochberg"](values), CORRECTIONS["holm"](values), strict=True)
    assert all(hochberg <= holm + 1e-12 for hochberg, holm in pairs)
