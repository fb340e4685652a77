"""The filter: may this be answered, whatever was answered before?

Later plans depend on earlier answers, so a theorem for fixed lists of events does not do. The rule:

* before anything is asked, a budget (ε, δ) becomes one bound B(α) for each Rényi order α of the
  grid, with a share w(α) of δ; the shares add up to 1:

      B(α) = ε − log1p(−1/α) + log(w(α) δ α) / (α − 1);

* more may be answered while the sum of Rényi curves, what is asked included, is at or below B(α)
  *for some* order.

For one order this is the Rényi filter (Feldman and Zrnic 2021; Lécuyer 2021), with
the conversion of Canonne, Kamath and Steinke (2020, Proposition 12). Which order holds at the end
may depend on the answers; therefore the shares: the part of the outcomes that ends at order α adds
at most w(α) δ to the total δ, and the parts add up (docs/privacy.md has the proof, four lines).
Without shares the total could exceed δ. One order gets nine tenths, namely the one at which
Gaussian releases exhaust the budget; the other orders share the rest and serve small rates.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from abfed.privacy.accounting import ORDERS, Curve

MAIN_SHARE = 0.9
"""Of δ, for the order that Gaussian releases exhaust. Costs −log(0.9)/(α − 1), 0.04 at α = 3.7."""

MOST_QUESTIONS = 1_000_000
"""Where counting how many more fit ends."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A budget on the privacy loss of each recipient, valid under full adaptivity.

    Attributes:
        epsilon, delta: the promise.
        kept: ε of it that is kept for something else. The bound is lower by it at every order and
            the shares of δ stay those of the promise: two filters of one promise that shared δ in
            two ways would together give away more than δ.
    """

    epsilon: float
    delta: float
    kept: float = 0.0

    @property
    def usable(self) -> float:
        """The ε up to which it admits."""
        return max(0.0, self.epsilon - self.kept)

    def spent(self, curve: Curve) -> float:
        """The smallest ε at which this filter would still have allowed the curve; 0 for none.

        It reaches `usable` exactly when the budget is exhausted. It is above the ε that the same
        events have in a report, because it holds for questions that were chosen by the answers.
        """
        if not any(curve.values):
            return 0.0
        offsets = _offsets(self.epsilon, self.delta)
        # What is no number is no bound: such an order must not win.
        held = [
            value + offset
            for value, offset in zip(curve.values, offsets, strict=True)
            if value >= 0.0
        ]
        return max(0.0, min(held, default=math.inf))

    def admits(self, spent: Curve, asked: Curve) -> bool:
        """Whether the budget covers what was spent and what is asked, together."""
        return self.spent(spent + asked) <= self.usable

    def more(self, spent: Curve, asked: Curve) -> int:
        """How many further questions like this one fit, at most `MOST_QUESTIONS`."""
        most = 0.0
        offsets = _offsets(self.epsilon, self.delta)
        for before, one, offset in zip(spent.values, asked.values, offsets, strict=True):
            if before >= 0.0 and one > 0.0:
                most = max(most, (self.usable - offset - before) / one)
        count = int(min(most * (1 - 1e-12), MOST_QUESTIONS))
        if count and not self.admits(spent, asked.times(count)):
            count -= 1
        return count


@functools.lru_cache(maxsize=256)
def _offsets(epsilon: float, delta: float) -> tuple[float, ...]:
    """By order: what to add to a Rényi bound to get ε at this order's share of δ."""
    whole = [_offset(order, delta) for order in ORDERS]
    # A Gaussian release has the curve ρα: at its best order it may spend the most ρ.
    main = max(range(len(ORDERS)), key=lambda at: (epsilon - whole[at]) / ORDERS[at])
    rest = (1.0 - MAIN_SHARE) / (len(ORDERS) - 1)
    shares = [MAIN_SHARE if at == main else rest for at in range(len(ORDERS))]
    return tuple(_offset(order, share * delta) for order, share in zip(ORDERS, shares, strict=True))


def _offset(order: float, delta: float) -> float:
    return math.log1p(-1.0 / order) - math.log(delta * order) / (order - 1.0)
