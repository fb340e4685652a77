"""The filter: sound whatever order wins in the end, exact at its edge."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abfed.privacy.accounting import ORDERS, Curve, epsilon_of
from abfed.privacy.filtering import MAIN_SHARE, MOST_QUESTIONS, Filter, _offset, _offsets
from abfed.protocol.messages import Charge

DELTA = 1e-6
ONE = Curve.of([Charge(event="gaussian", noise_multiplier=4.0)])
BUDGETS = st.builds(Filter, st.floats(0.05, 50.0), st.sampled_from([1e-9, 1e-6, 1e-5, 1e-4]))


@given(BUDGETS)
def test_the_shares_of_delta_add_up_to_one(budget: Filter) -> None:
    """The proof rests on it: each order's part of the outcomes adds at most its share."""
    shares = [
        math.exp((whole - mine) * (order - 1.0))
        for order, mine, whole in zip(
            ORDERS,
            _offsets(budget.epsilon, budget.delta),
            (_offset(order, budget.delta) for order in ORDERS),
            strict=True,
        )
    ]
    assert math.fsum(shares) == pytest.approx(1.0, abs=1e-9)
    assert max(shares) == pytest.approx(MAIN_SHARE)


@given(BUDGETS, st.floats(0.5, 1e3))
def test_it_counts_more_than_a_report_and_little_more(budget: Filter, sigma: float) -> None:
    charge = Charge(event="gaussian", noise_multiplier=sigma)
    curve = Curve.of([charge])
    spent = budget.spent(curve)
    assert spent >= curve.epsilon(budget.delta) - 1e-12
    assert Curve().epsilon(budget.delta) == budget.spent(Curve()) == 0.0


def test_at_its_edge_gaussian_releases_lose_little_to_the_shares() -> None:
    """What adaptivity over orders costs: below two per cent of the budget where it matters."""
    for epsilon in (1.0, 3.0, 10.0):
        budget = Filter(epsilon, 1e-5)
        one = Curve.of([Charge(event="gaussian", noise_multiplier=60.0)])
        spent = one.times(budget.more(Curve(), one))
        assert 0.95 * epsilon < budget.spent(spent) <= epsilon
        assert spent.epsilon(1e-5) > 0.95 * epsilon


def test_it_admits_up_to_its_edge_and_not_beyond() -> None:
    budget = Filter(3.0, DELTA)
    count = budget.more(Curve(), ONE)
    assert budget.admits(ONE.times(count - 1), ONE)
    assert not budget.admits(ONE.times(count), ONE)
    assert budget.more(ONE.times(count - 2), ONE) == 2
    assert budget.more(ONE.times(count), ONE) == 0


@given(BUDGETS, st.floats(0.3, 30.0), st.integers(0, 50))
def test_more_is_what_admits_says(budget: Filter, sigma: float, spent: int) -> None:
    one = Curve.of([Charge(event="gaussian", noise_multiplier=sigma)])
    before = one.times(spent)
    count = budget.more(before, one)
    assert not count or budget.admits(before, one.times(count))
    assert count == MOST_QUESTIONS or not budget.admits(before, one.times(count + 2))


def test_an_order_that_is_no_number_admits_nothing() -> None:
    for bad in (math.nan, math.inf):
        broken = Curve((bad,) * len(ORDERS))
        assert not Filter(1e9, DELTA).admits(broken, ONE)
        assert Filter(1e9, DELTA).more(broken, ONE) == 0


def test_without_shares_adaptivity_could_exceed_delta() -> None:
    """Why there are shares: an asker who picks the order by the answer gains.

    For one Gaussian step, the bound that an order gives on the outcomes is the supermartingale
    exp((α−1)(L − ε(α))) of the privacy loss L; its mean is 1 for each order by itself, and above 1
    for the larger of two.
    """
    mu, (a, b) = 0.7, (2.0, 12.0)
    steps = 20_000
    grid = [-12 + 24 * k / steps for k in range(steps)]
    both = single = 0.0
    for x in grid:
        weight = math.exp(-((x - mu) ** 2) / 2) / math.sqrt(2 * math.pi) * 24 / steps
        loss = mu * x - mu * mu / 2
        values = [math.exp((o - 1) * (loss - o * mu * mu / 2)) for o in (a, b)]
        single += weight * values[0]
        both += weight * max(values)
    assert single == pytest.approx(1.0, abs=1e-3)
    assert both > 1.3


@pytest.mark.parametrize("sigma", [1.0, 5.0])
def test_it_is_never_below_the_report(sigma: float) -> None:
    charges = [
        Charge(event="gaussian", noise_multiplier=sigma, count=3),
        Charge(event="sampled-gaussian", noise_multiplier=sigma, sampling_rate=0.1, count=50),
    ]
    for epsilon in (1.0, 10.0):
        assert Filter(epsilon, DELTA).spent(Curve.of(charges)) > epsilon_of(charges, DELTA)
