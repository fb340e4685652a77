"""What events cost: the report of a run, and the filter of a silo.

Two questions, two answers, both computed by Google's dp-accounting:

* *What did this run cost?* Its settings are fixed before its first step, so its privacy loss
  distribution (PLD; Koskela et al. 2020, Doroshenko et al. 2022) composes exactly: `epsilon_of`.
* *May this be answered?* Later plans depend on earlier answers, so the silo keeps the sum of Rényi
  curves over a fixed grid of orders, which `abfed.privacy.filtering` compares with the budget:
  valid under full adaptivity (Feldman and Zrnic 2021; Lécuyer 2021): `Curve`.

Adjacency is add-or-remove one recipient throughout. An event of another kind has no cost here: it
is refused, never guessed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.accountant import get_smallest_gaussian_noise
from dp_accounting.pld.common import DifferentialPrivacyParameters
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

from abfed.protocol.messages import Charge

ORDERS: tuple[float, ...] = (
    *(1 + x / 10.0 for x in range(1, 100)),
    *(float(x) for x in range(11, 64)),
    128.0,
    256.0,
    512.0,
    1024.0,
)
"""The grid of Rényi orders. Fixed for ever: spent curves are sums over it."""

MULTIPLIER_STEP = 1e-4
"""Noise multipliers are rounded up to this step, so that each machine finds the same one."""

NEAR = 1e-3
"""How far below the asked ε, as a share of it, a search may end."""

COARSE_INTERVAL = 1e-3  # in searches, which a check on the fine grid ends
FINE_INTERVAL = 1e-4  # of the discretised privacy loss in reports; pessimistic, as all rounding


def event_of(charge: Charge) -> dp_accounting.DpEvent:
    """The dp-accounting event of a charge."""
    one: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(charge.noise_multiplier)
    if charge.event == "sampled-gaussian":
        one = dp_accounting.PoissonSampledDpEvent(charge.sampling_rate, one)
    elif charge.event != "gaussian":
        assert_never(charge.event)  # an unknown event has no cost: it fails
    return dp_accounting.SelfComposedDpEvent(one, charge.count)


def merged(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The same events with equal ones counted together: fewer to account for, same cost."""
    counts: dict[Charge, int] = {}
    for charge in charges:
        one = charge.model_copy(update={"count": 1})
        counts[one] = counts.get(one, 0) + charge.count
    return tuple(one.model_copy(update={"count": n}) for one, n in counts.items())


@functools.lru_cache(maxsize=256)
def _epsilon_of(charges: tuple[Charge, ...], delta: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=FINE_INTERVAL)
    for charge in charges:
        accountant.compose(event_of(charge))
    return float(accountant.get_epsilon(delta))


def epsilon_of(charges: Iterable[Charge], delta: float) -> float:
    """ε at `delta` of events whose settings were all fixed beforehand (PLD, pessimistic)."""
    events = merged(charges)
    return _epsilon_of(events, delta) if events else 0.0


class Accountant(Protocol):
    """What counts the cost of events. `tests/conformance/accountants.py` says what it must keep."""

    def __add__(self, other: Any) -> Any:
        """Of both lists of events, one after the other."""
        ...

    def epsilon(self, delta: float) -> float:
        """An upper bound on ε at `delta`."""
        ...


@dataclass(frozen=True, slots=True)
class Losses:
    """Privacy loss distributions of events whose settings were all fixed beforehand.

    `Losses.of(a) + Losses.of(b) == Losses.of(a, b)`, but for the order of the events.
    """

    charges: tuple[Charge, ...] = ()

    @classmethod
    def of(cls, charges: Iterable[Charge]) -> Losses:
        """Of these events."""
        return cls(merged(charges))

    def __add__(self, other: Losses) -> Losses:
        """Compose."""
        return Losses.of((*self.charges, *other.charges))

    def epsilon(self, delta: float) -> float:
        """See `epsilon_of`."""
        return epsilon_of(self.charges, delta)


@dataclass(frozen=True, slots=True)
class Curve:
    """Rényi divergence bounds over `ORDERS`; curves of composed events add.

    `Curve.of(a) + Curve.of(b) == Curve.of(a, b)` up to rounding.
    """

    values: tuple[float, ...] = (0.0,) * len(ORDERS)

    @classmethod
    def of(cls, charges: Iterable[Charge]) -> Curve:
        """The curve of events (Mironov 2017; Mironov, Talwar and Zhang 2019 for sampling)."""
        total = cls()
        for charge in merged(charges):
            total = total + _curve_of(charge)
        return total

    def __add__(self, other: Curve) -> Curve:
        """Compose, rounding up; with nothing it is exact."""
        return Curve(
            tuple(
                math.nextafter(a + b, math.inf) if a and b else a + b
                for a, b in zip(self.values, other.values, strict=True)
            )
        )

    def times(self, count: int) -> Curve:
        """The curve of so many of the same, one after another, rounding up."""
        return Curve(
            tuple(
                math.nextafter(count * value, math.inf) if value else 0.0 for value in self.values
            )
        )

    def epsilon(self, delta: float) -> float:
        """The ε that the curve implies at `delta` (Canonne, Kamath and Steinke 2020, Prop. 12)."""
        if not any(self.values):
            return 0.0
        # What is no number is no bound: such an order must not win the search below.
        bounds = [value if value >= 0.0 else math.inf for value in self.values]
        epsilon, _ = compute_epsilon(ORDERS, bounds, delta)
        return float(epsilon)


@functools.lru_cache(maxsize=4096)
def _curve_of(charge: Charge) -> Curve:
    accountant = RdpAccountant(list(ORDERS))
    with _orders_left_out_in_silence():
        accountant.compose(event_of(charge))
    # The accountant's own vector: its public face gives only ε at one δ, and curves must add.
    return Curve(tuple(float(value) for value in accountant._rdp))  # noqa: SLF001


@contextlib.contextmanager
def _orders_left_out_in_silence() -> Iterator[None]:
    """No line on the terminal for each order that has no bound: the filter passes over those."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@functools.lru_cache(maxsize=256)
def gaussian_multiplier(epsilon: float, delta: float, count: int = 1) -> float:
    """The smallest noise multiplier whose `count` Gaussian releases together are (ε, δ)-DP.

    Exact for the Gaussian mechanism (Balle and Wang 2018), rounded up.
    """
    sigma = get_smallest_gaussian_noise(
        DifferentialPrivacyParameters(epsilon, delta), num_queries=count, sensitivity=1.0
    )
    return _round_up(float(sigma) * (1 + 1e-6))


@functools.lru_cache(maxsize=256)
def sampled_multiplier(epsilon: float, delta: float, *, rate: float, steps: int) -> float:
    """The smallest noise multiplier whose `steps` Poisson-sampled Gaussian steps are (ε, δ)-DP.

    Found by the secant method on a coarse grid, where log ε is nearly straight in log σ, and raised
    until the ε on the fine grid, which reports use, is not above the asked one.
    """
    if rate >= 1.0:
        return gaussian_multiplier(epsilon, delta, steps)

    def excess(sigma: float, interval: float) -> float:
        event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma))
        accountant = PLDAccountant(value_discretization_interval=interval)
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
        return math.log(max(accountant.get_epsilon(delta), 1e-12) / epsilon)

    low, high = 0.2, max(1.0, gaussian_multiplier(epsilon, delta, steps))  # no sampling: above all
    sigma, before = _first_guess(epsilon, delta, rate, steps), (0.0, 0.0)
    for turn in range(40):
        sigma = min(max(sigma, low), high)
        found = excess(sigma, COARSE_INTERVAL)
        low, high = (sigma, high) if found > 0 else (low, sigma)
        if -NEAR < found <= 0 or high <= low * (1 + NEAR / 2):  # a bound is what there is
            break
        slope = -1.0 if not turn else (found - before[1]) / (math.log(sigma) - before[0])
        before = (math.log(sigma), found)
        aim = math.exp(before[0] - (found + NEAR / 2) / slope) if slope < 0 else 0.0
        sigma = aim if low < aim < high else math.sqrt(low * high)
    raised = 0
    while (above := excess(_round_up(sigma), FINE_INTERVAL)) > 0:
        if not math.isfinite(above):  # δ is below what the grid leaves out: no noise is enough
            message = f"no bound can be told at δ = {delta:g} for {steps} steps at rate {rate:g}"
            raise ValueError(message)
        sigma *= 1 + NEAR * 1.5 ** max(0, raised - 2)  # what the grid adds grows with the steps
        raised += 1
    return _round_up(sigma)


def _first_guess(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """σ by the central limit theorem of many sampled steps (Dong, Roth and Su 2022, Cor. 5.4)."""
    mu = 1.0 / gaussian_multiplier(epsilon, delta)
    return 1.0 / math.sqrt(math.log1p((mu / rate) ** 2 / steps))


def _round_up(multiplier: float) -> float:
    return round(math.ceil(multiplier / MULTIPLIER_STEP) * MULTIPLIER_STEP, 10)
