"""Every accountant that abfed has, through the one suite."""

from __future__ import annotations

import pytest

from abfed.privacy.accounting import Curve, Losses
from abfed.privacy.filtering import Filter
from tests.conformance.accountants import AccountantSuite, exact_delta, lowest_epsilon


@pytest.mark.privacy
class TestLosses(AccountantSuite):
    """What reports use."""

    def made(self, charges):
        return Losses.of(charges)


@pytest.mark.privacy
class TestCurve(AccountantSuite):
    """What the ledger adds up."""

    def made(self, charges):
        return Curve.of(charges)


class Filtered:
    """A curve as the filter of a budget of ε = 3 counts it."""

    def __init__(self, curve):
        self.curve = curve

    def __add__(self, other):
        return Filtered(self.curve + other.curve)

    def epsilon(self, delta):
        return Filter(3.0, delta).spent(self.curve)


@pytest.mark.privacy
class TestFiltered(AccountantSuite):
    """What a budget compares: far below the budget its best order is not the main one."""

    keeps = 0.5

    def made(self, charges):
        return Filtered(Curve.of(charges))


def test_the_integrated_bound_is_near_the_truth() -> None:
    """Of one step of everybody the truth is known: the bound must not be far below it."""
    lowest = lowest_epsilon(1e-6, 1.5, 1.0 - 1e-12, 1)
    assert exact_delta(lowest, 1.5) >= 1e-6
    assert exact_delta(lowest + 0.02, 1.5) < 1e-6
