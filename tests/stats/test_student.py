"""Student's statistic of values that vary unlike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from abfed.stats import student


@pytest.mark.parametrize("many", [2, 3, 8, 50, 2000])
@pytest.mark.parametrize("t", [0.3, 1.0, 2.0, 4.3, 30.0])
def test_values_that_vary_alike_follow_students_law(many: int, t: float) -> None:
    found = student.beyond(t, np.full(many, 7.0))
    assert found == pytest.approx(2 * stats.t.sf(t, many - 1), rel=1e-6)


@pytest.mark.parametrize(
    "variances", [[1, 1, 50], [50, 50, 1], [1, 7, 50], [1, 1e3, 1e6], [1, 1, 1, 1, 1, 1, 1, 50]]
)
def test_values_that_vary_unlike_stray_as_drawn_ones_do(variances: list[float]) -> None:
    v, times = np.array(variances, dtype=float), 100_000
    drawn = np.random.default_rng(6).normal(size=(times, len(v))) * np.sqrt(v)
    strays = np.abs(stats.ttest_1samp(drawn, 0.0, axis=1).statistic)
    for t in (0.5, 1.0, 2.0, 4.0):
        chance = float(student.beyond(t, v))
        assert (strays > t).mean() == pytest.approx(chance, abs=4 * 0.5 / times**0.5)
    at = float(student.critical(0.05, v))
    assert student.beyond(at, v) == pytest.approx(0.05)
    assert at < stats.t.ppf(0.975, len(v) - 1)  # Bakirov and Székely


def test_a_level_above_eight_percent_may_need_more_than_students() -> None:
    v = np.array([1.0, 1.0, 1e6])
    assert student.critical(0.5, v) > stats.t.ppf(0.75, 2)
    assert student.beyond(student.critical(0.5, v), v) == pytest.approx(0.5)


def test_a_critical_value_is_found_in_a_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, beyond = [], student.beyond

    def counted(*given: Any) -> Any:
        tried.append(given)
        return beyond(*given)

    monkeypatch.setattr(student, "beyond", counted)
    v = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 9.0], [1.0, 50.0, 50.0]])
    found = student.critical(0.03, v)
    assert len(tried) <= 15
    assert beyond(found, v) == pytest.approx(0.03, rel=1e-9)
