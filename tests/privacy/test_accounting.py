"""What events cost: against the closed form, against each other, and never guessed."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr

from abfed.privacy.accounting import (
    ORDERS,
    Curve,
    epsilon_of,
    event_of,
    gaussian_multiplier,
    merged,
    sampled_multiplier,
)
from abfed.protocol.messages import Charge

DELTA = 1e-6
ONE = Charge(event="gaussian", noise_multiplier=4.0)
SAMPLED = Charge(event="sampled-gaussian", noise_multiplier=1.2, sampling_rate=0.05, count=40)


def _delta(epsilon: float, sigma: float) -> float:
    """Balle and Wang 2018, Theorem 8, for L2 sensitivity 1."""
    first = math.exp(log_ndtr(0.5 / sigma - epsilon * sigma))
    return first - math.exp(epsilon + log_ndtr(-0.5 / sigma - epsilon * sigma))


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [1e-10, 1e-6, 1e-4])
@pytest.mark.parametrize("count", [1, 7])
def test_gaussian_multiplier_is_that_of_balle_and_wang(
    epsilon: float, delta: float, count: int
) -> None:
    sigma = gaussian_multiplier(epsilon, delta, count)
    # k releases at σ are one at σ/√k
    assert _delta(epsilon, sigma / math.sqrt(count)) <= delta
    assert _delta(epsilon, (sigma * 0.999 - 2e-4) / math.sqrt(count)) > delta


@pytest.mark.parametrize("sigma", [0.8, 2.0, 10.0])
def test_the_report_of_one_gaussian_is_exact_and_pessimistic(sigma: float) -> None:
    epsilon = epsilon_of([Charge(event="gaussian", noise_multiplier=sigma)], DELTA)
    assert _delta(epsilon, sigma) <= DELTA * (1 + 1e-6)
    assert _delta(epsilon - 2e-3, sigma) > DELTA


def test_sampling_at_rate_one_is_no_sampling() -> None:
    assert sampled_multiplier(1.0, DELTA, rate=1.0, steps=5) == gaussian_multiplier(1.0, DELTA, 5)


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(1.0, 0.05, 100), (2.0, 0.2, 20)])
def test_sampled_multiplier_keeps_its_promise_and_wastes_little(
    epsilon: float, rate: float, steps: int
) -> None:
    sigma = sampled_multiplier(epsilon, DELTA, rate=rate, steps=steps)
    found = epsilon_of(
        [Charge(event="sampled-gaussian", noise_multiplier=sigma, sampling_rate=rate, count=steps)],
        DELTA,
    )
    assert 0.97 * epsilon < found <= epsilon


@pytest.mark.parametrize(("rate", "steps", "delta"), [(0.9999, 1000, 1e-4), (1e-4, 100_000, 1e-12)])
def test_where_bounds_meet_the_search_ends(rate: float, steps: int, delta: float) -> None:
    """It divided by the nothing between two guesses that were the same."""
    sigma = sampled_multiplier(1.0, delta, rate=rate, steps=steps)
    charge = Charge(
        event="sampled-gaussian", noise_multiplier=sigma, sampling_rate=rate, count=steps
    )
    assert epsilon_of([charge], delta) <= 1.0


def test_a_delta_that_no_noise_keeps_is_an_error() -> None:
    """Less than the accountant leaves out: the search for it never ended."""
    with pytest.raises(ValueError, match="no bound"):
        sampled_multiplier(4.0, 1e-16, rate=0.2, steps=15)


def test_multipliers_are_on_their_step() -> None:
    for sigma in (
        gaussian_multiplier(1.3, DELTA),
        sampled_multiplier(1.0, DELTA, rate=0.05, steps=100),
    ):
        assert sigma == round(sigma, 4)


def test_nothing_costs_nothing() -> None:
    assert epsilon_of([], DELTA) == 0.0
    assert Curve().epsilon(DELTA) == 0.0
    assert Curve.of([]) == Curve()


CHARGES = st.builds(
    Charge,
    event=st.just("gaussian"),
    noise_multiplier=st.floats(0.3, 1e4),
    count=st.integers(1, 10_000),
)


def _close(a: Curve, b: Curve) -> bool:
    return all(math.isclose(x, y, rel_tol=1e-9) for x, y in zip(a.values, b.values, strict=True))


@given(st.lists(CHARGES, max_size=4), st.lists(CHARGES, max_size=4))
def test_curves_add(a: list[Charge], b: list[Charge]) -> None:
    together = Curve.of([*a, *b])
    assert _close(Curve.of(a) + Curve.of(b), together)
    assert _close(Curve.of(b) + Curve.of(a), together)
    for whole, part in zip((Curve.of(a) + Curve.of(b)).values, Curve.of(a).values, strict=True):
        assert whole >= part


def test_adding_never_rounds_down() -> None:
    curve = Curve.of([SAMPLED])
    total = Curve()
    for _ in range(100):
        total = total + curve
    for value, one in zip(total.values, curve.values, strict=True):
        assert value >= math.fsum([one] * 100)


def test_curves_add_for_sampled_steps_too() -> None:
    parts = [SAMPLED, ONE, SAMPLED.model_copy(update={"noise_multiplier": 0.7})]
    total = sum((Curve.of([part]) for part in parts), Curve())
    assert _close(total, Curve.of(parts))


def test_the_curve_of_a_gaussian_is_that_of_mironov() -> None:
    curve = Curve.of([Charge(event="gaussian", noise_multiplier=2.0, count=3)])
    for order, value in zip(ORDERS, curve.values, strict=True):
        assert value == pytest.approx(3 * order / (2 * 2.0**2))


@pytest.mark.parametrize(
    "charges",
    [
        [ONE],
        [Charge(event="gaussian", noise_multiplier=0.5)],
        [Charge(event="gaussian", noise_multiplier=30.0, count=200)],
        [SAMPLED],
        [ONE, SAMPLED],
        [Charge(event="sampled-gaussian", noise_multiplier=0.9, sampling_rate=0.01, count=500)],
        [Charge(event="sampled-gaussian", noise_multiplier=5.0, sampling_rate=0.9, count=10)],
    ],
)
@pytest.mark.parametrize("delta", [1e-9, 1e-5])
def test_the_filter_never_counts_less_than_the_report(charges: list[Charge], delta: float) -> None:
    assert Curve.of(charges).epsilon(delta) >= epsilon_of(charges, delta) > 0


def _filter(charges: list[Charge], delta: float) -> float:
    return Curve.of(charges).epsilon(delta)


@pytest.mark.parametrize("cost", [epsilon_of, _filter])
def test_more_steps_cost_more_and_more_noise_costs_less(cost: Any) -> None:
    steps = [cost([SAMPLED.model_copy(update={"count": n})], DELTA) for n in (40, 80, 400)]
    assert steps == sorted(set(steps))
    noise = [cost([SAMPLED.model_copy(update={"noise_multiplier": s})], DELTA) for s in (3, 1.2)]
    assert noise == sorted(set(noise))
    rates = [cost([SAMPLED.model_copy(update={"sampling_rate": q})], DELTA) for q in (0.01, 0.05)]
    assert rates == sorted(set(rates))
    deltas = [cost([ONE], delta) for delta in (1e-4, 1e-6, 1e-9)]
    assert deltas == sorted(set(deltas))


@given(st.lists(st.sampled_from([ONE, SAMPLED, ONE.model_copy(update={"count": 3})]), max_size=6))
@settings(max_examples=30)
def test_merging_counts_each_event_once(charges: list[Charge]) -> None:
    counted = merged(charges)
    assert sum(one.count for one in counted) == sum(one.count for one in charges)
    assert len({one.model_copy(update={"count": 1}) for one in counted}) == len(counted)
    assert merged(counted) == counted


def test_an_unknown_event_has_no_cost() -> None:
    unknown = ONE.model_copy(update={"event": "laplace"})
    for ask in (
        lambda: event_of(unknown),
        lambda: epsilon_of([unknown], DELTA),
        lambda: Curve.of([unknown]),
    ):
        with pytest.raises(AssertionError):
            ask()


def test_the_orders_never_change() -> None:
    assert len(ORDERS) == 156
    assert (ORDERS[0], ORDERS[98], ORDERS[99], ORDERS[-1]) == (1.1, 10.9, 11.0, 1024.0)
    assert list(ORDERS) == sorted(ORDERS)


def test_orders_without_a_bound_are_left_out_in_silence(capfd):
    """At rate .5 dp-accounting writes a line for each; the terminal is for what concerns people."""
    charge = Charge(event="sampled-gaussian", noise_multiplier=0.53, sampling_rate=0.5, count=50)
    assert Curve.of([charge]).epsilon(1e-6) < 200
    assert capfd.readouterr().err == ""
