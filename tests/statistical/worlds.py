"""Many experiments at once: totals drawn directly, each with the noise of a release.

A *world* is a finite list of recipients who differ ("atoms") and, for each arm, how likely each is.
What an atom adds to the totals comes from the silo's own computation on its rows, so that drawing
counts of atoms (multinomial) gives exactly the distribution that summing over rows would, at any
size: a million recipients cost no more than a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from abfed.protocol.plan import Plan
from abfed.silo.totals import columns_needed, compute_totals
from abfed.stats.encoding import SCALE, Floats, Integers
from abfed.stats.layout import Layout
from abfed.stats.totals import SiloTotals
from tests.statistical.people import permit
from tests.stats.simulated import SIGMA, plan_of

CAP = 200.0


class Brands(NamedTuple):
    """Brands that are unlike: sizes and baselines, as multiples of an average."""

    sizes: Floats
    baselines: Floats


FOUR = Brands(np.array([0.5, 0.75, 1.0, 1.75]), np.array([0.6, 0.87, 1.13, 1.4]))
BASELINES = FOUR.baselines
TWO = Brands(np.array([0.6, 1.4]), np.array([0.75, 1.25]))
FIVE = Brands(np.array([0.5, 0.6, 0.8, 1.1, 2.0]), np.array([1.4, 0.6, 1.2, 0.8, 1.0]))


class Setting(NamedTuple):
    """Where an experiment takes place.

    Attributes:
        epsilon: of the release.
        recipients: in a brand, on average.
        shares: planned, of the control and of the arm.
        brands: which.
    """

    epsilon: float
    recipients: int
    shares: tuple[float, float] = (0.5, 0.5)
    brands: Brands = FOUR

    @property
    def people(self) -> Integers:
        """Recipients in each brand."""
        return np.rint(self.recipients * self.brands.sizes).astype(np.int64)

    @property
    def sigma(self) -> float:
        """Noise multiplier of a release."""
        return SIGMA[self.epsilon]

    def plan(self, metric: dict[str, Any], **changes: Any) -> Plan:
        """A plan that asks this of these brands."""
        names = [f"brand-{number}" for number in range(len(self.brands.sizes))]
        return plan_of(metric, shares=self.shares, silos=names, **changes)

    def said(self, what: str) -> str:
        """What is asked, with what isn't usual here."""
        if self.shares != (0.5, 0.5):
            what += f", arms {self.shares[0]:g}/{self.shares[1]:g}"
        many = len(self.brands.sizes)
        return what if many == 4 else f"{what}, {many} brands"


class Silent:
    """No noise, and everybody is drawn: noise is added where totals are."""

    def integers(self, values: Integers, scale: float) -> Integers:
        return values

    def floats(self, count: int, sigma: float) -> Floats:
        return np.zeros(count)

    def poisson_batch(self, population: int, rate: float) -> Integers:
        return np.arange(population)

    def fork(self, number: int) -> Silent:
        return self


def vectors(plan: Plan, atoms: Sequence[pd.DataFrame]) -> Integers:
    """What one recipient of each kind adds to the totals: (atoms, coordinates)."""
    quiet = permit(plan, 1.0, Silent())
    arm = plan.arms[0].name
    rows = [compute_totals(quiet, [_table(plan, one, arm)]).arrays["totals"][0] for one in atoms]
    return np.stack(rows)


def _table(plan: Plan, rows: pd.DataFrame, arm: str) -> pa.Table:
    many = len(rows)
    pseudonyms = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), many, [None, pa.py_buffer(bytes(16 * many))]
    )
    columns = {name: pa.array(rows[name]) for name in columns_needed(plan)}
    return pa.table({"recipient": pseudonyms, "arm": pa.array([arm] * many), **columns})


@dataclass(frozen=True)
class World:
    """Brands of known behaviour.

    Attributes:
        plan: what is asked.
        vectors: (atoms, coordinates), in units of 1/`SCALE`.
        chances: (brands, arms, atoms).
        recipients: in each brand.
        sigma: noise multiplier of a release.
    """

    plan: Plan
    vectors: Integers
    chances: Floats
    recipients: Integers
    sigma: float

    def draw(self, times: int, rng: np.random.Generator) -> dict[str, SiloTotals]:
        """Released totals of `times` experiments by brand: values (times, arms, coordinates)."""
        names = self.plan.silos[: len(self.recipients)]
        return {name: self._brand(i, times, rng) for i, name in enumerate(names)}

    def _brand(self, brand: int, times: int, rng: np.random.Generator) -> SiloTotals:
        layout = Layout.of(self.plan)
        sds = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks])
        shares = [arm.share for arm in self.plan.arms]
        sizes = rng.multinomial(self.recipients[brand], shares, size=times)
        values = np.empty((times, *layout.shape))
        for arm in range(len(shares)):
            counts = rng.multinomial(sizes[:, arm], self.chances[brand, arm])
            values[:, arm] = counts @ self.vectors.astype(np.float64)
        noise = rng.normal(size=values.shape) * sds * self.sigma * SCALE
        return SiloTotals(layout, (values + np.rint(noise)) / SCALE, self.sigma)


def sizes_of(recipients: int) -> Integers:
    """Recipients of the four brands, for this average."""
    return np.rint(recipients * FOUR.sizes).astype(np.int64)


def binary_atoms(column: str) -> list[pd.DataFrame]:
    """Somebody without and somebody with an outcome."""
    return [pd.DataFrame({column: [flag]}) for flag in (False, True)]


def binary_chances(rates: Floats) -> Floats:
    """From rates (brands, arms)."""
    return np.stack([1 - rates, rates], axis=-1)


def spending() -> tuple[Floats, Floats]:
    """A buyer's amounts (log-normal, about $100) on a grid, and their chances."""
    edges = np.concatenate([[0.0], np.geomspace(5.0, 2000.0, 80)])
    amount = stats.lognorm(0.7, scale=np.exp(4.4))
    mass = np.diff(amount.cdf(edges), append=1.0)[:-1]
    return (edges[1:] + edges[:-1]) / 2, mass / mass.sum()


def spend_atoms() -> list[pd.DataFrame]:
    """Nobody's spend, and each amount of a buyer."""
    amounts, _ = spending()
    return [pd.DataFrame({"revenue": [float(one)]}) for one in (0.0, *amounts)]


def spend_chances(rates: Floats) -> Floats:
    """From the rates of buying (brands, arms)."""
    _, mass = spending()
    return np.concatenate([1 - rates[..., None], rates[..., None] * mass], axis=-1)


def purchase_atoms(amounts: Floats) -> list[pd.DataFrame]:
    """Nobody; somebody who only clicked; and those who bought for each amount."""
    rows = [(False, False, 0.0), (True, False, 0.0), *((True, True, float(one)) for one in amounts)]
    names = ("clicked", "converted", "revenue")
    return [pd.DataFrame({n: [v] for n, v in zip(names, row, strict=True)}) for row in rows]


def purchase_chances(rates: Floats, mass: Floats) -> Floats:
    """From the rates of clicking (brands, arms), of whom 6 % buy."""
    bought = 0.06 * rates[..., None] * mass
    few = np.stack([1 - rates, 0.94 * rates], axis=-1)
    return np.concatenate([few, bought], axis=-1)


def sends_atoms(most: int) -> list[pd.DataFrame]:
    """One to `most` sends, of which some are opened, of which some are clicked."""
    out = []
    for sends in range(1, most + 1):
        for opens in range(sends + 1):
            for clicks in range(opens + 1):
                place = np.arange(sends)
                out.append(pd.DataFrame({"opened": place < opens, "clicked": place < clicks}))
    return out


def sends_chances(rates: Floats, most: int) -> Floats:
    """Opens and clicks cling to a person (beta-binomial): (brands, arms, atoms)."""
    out: list[Floats] = []
    for sends in range(1, most + 1):
        for opens in range(sends + 1):
            opened = stats.betabinom(sends, 1.0, 2.0).pmf(opens) / most
            for clicks in range(opens + 1):
                clicked = stats.betabinom(opens, 2 * rates, 2 * (1 - rates)).pmf(clicks)
                out.append(opened * np.asarray(clicked))
    return np.stack(out, axis=-1)


def pairs(first: Floats, second: Floats) -> Floats:
    """Joint chances of two things that are independent: (…, a, b) flattened."""
    return (first[..., :, None] * second[..., None, :]).reshape(*first.shape[:-1], -1)
