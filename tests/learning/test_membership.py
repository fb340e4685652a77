"""Members are told from a model without privacy, and hardly from one with it."""

from __future__ import annotations

import numpy as np
import pytest

from abfed.learning.membership import (
    Membership,
    Trainer,
    _area,
    infer_membership,
    with_privacy,
    without_privacy,
)


def test_the_area_is_the_chance_of_the_right_order() -> None:
    members = np.array([True, False, True, False])
    assert _area(np.array([3.0, 1.0, 2.0, 0.0]), members) == 1.0
    assert _area(np.array([0.0, 1.0, 0.5, 2.0]), members) == 0.0
    assert _area(np.zeros(4), members) == 0.5


def areas(train: Trainer) -> Membership:
    """The mean of six attacks: its standard deviation is .018, where that of one is .045."""
    return Membership(*np.mean([infer_membership(train) for _ in range(6)], axis=0))


@pytest.mark.privacy
def test_without_privacy_members_are_known() -> None:
    found = areas(without_privacy)  # .735 and .78, over 60 attacks
    assert found.loss_threshold > 0.62
    assert found.likelihood_ratio > 0.62


@pytest.mark.privacy
def test_with_privacy_they_hardly_are() -> None:
    """At ε = 1 a test finds at most e times as many members as it raises false alarms; the area is
    then at most 0.73, and what is seen is far below."""
    found = areas(with_privacy(1.0))  # .50
    assert found.loss_threshold < 0.62
    assert found.likelihood_ratio < 0.62
