"""Noise once: weights that tell brands from arms, and intervals that cover and are narrower."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abfed.privacy.charges import noise_multipliers, silo_share
from abfed.privacy.once import split
from abfed.privacy.secure_sum import sum_excess
from abfed.protocol.analysis import Analysis, Expected
from abfed.stats.design import outlooks
from abfed.stats.effects import effects
from abfed.stats.encoding import SCALE
from abfed.stats.layout import Layout
from abfed.stats.once import TOGETHER, pooled_totals, too_small, weighed, weights_of
from abfed.stats.totals import SiloTotals
from tests.together.kin import SILOS, once_plan

PLAN = once_plan(
    minimum_silos=4,
    metrics=[{"name": "clicked", "kind": "proportion", "column": "clicked"}],
    guardrails=None,
)
LAYOUT = Layout.of(PLAN)
EACH = once_plan(
    metrics=[{"name": "clicked", "kind": "proportion", "column": "clicked"}],
    guardrails=None,
    privacy={"epsilon": 1.0, "split": {"statistics": 1.0}},
)


class World:
    """Brands with their recipients, shares of the second arm, levels and lifts."""

    def __init__(self, people, shares, levels, lifts, seed):
        self.people, self.shares = np.array(people), np.array(shares)
        self.rates = np.stack([levels, np.array(levels) + np.array(lifts)], axis=1)
        self.truth = float((self.people * np.array(lifts)).sum() / self.people.sum())
        self.random = np.random.default_rng(seed)

    def draw(self):
        """Recipients and clicks of each brand and arm, (brands, arms)."""
        second = self.random.binomial(self.people, self.shares)
        sizes = np.stack([self.people - second, second], axis=1)
        return sizes, self.random.binomial(sizes, self.rates)

    def noise(self, shape, sd):
        return np.rint(self.random.normal(0.0, sd * SCALE, shape)).astype(np.int64)

    def once(self, sizes, clicks, *, weigh=True):
        """Totals of all brands together, as a run with noise once opens them."""
        count_noise = split(PLAN, noise_multipliers(PLAN).statistics)[0]
        counts = {
            silo: sizes[place] * SCALE + self.noise(2, count_noise)
            for place, silo in enumerate(SILOS)
        }
        weights = weights_of(PLAN, counts)
        block, share = LAYOUT.block("clicked"), silo_share(PLAN)
        sums = np.zeros(LAYOUT.shape, dtype=np.int64)
        for place, silo in enumerate(SILOS):
            own = weights[silo] if weigh else np.full(2, SCALE)
            sums[:, 0] += clicks[place] * own
            sums[:, 1] += (sizes[place] - clicks[place]) * own
            sums += self.noise(LAYOUT.shape, share * block.sd)
        noise = share * math.sqrt(len(SILOS))
        if not weigh:
            return SiloTotals.of(PLAN, sums, noise)
        return pooled_totals(PLAN, sums, counts, SILOS, noise)

    def each(self, sizes, clicks):
        """Totals by brand, as a run with noise each releases them."""
        sigma = noise_multipliers(EACH).statistics
        block = LAYOUT.block("clicked")
        found = {}
        for place, silo in enumerate(SILOS):
            sums = np.stack([clicks[place], sizes[place] - clicks[place]], axis=1) * SCALE
            noised = sums + self.noise(LAYOUT.shape, sigma * block.sd)
            found[silo] = SiloTotals.of(EACH, noised, sigma)
        return found


def row(frame):
    return frame[frame["scope"] == TOGETHER].iloc[0]


def covered(world, trials, read):
    """Share of intervals that hold the truth, and their mean width."""
    rows = [row(read(*world.draw())) for _ in range(trials)]
    inside = [one["ci_low"] <= world.truth <= one["ci_high"] for one in rows]
    return float(np.mean(inside)), float(np.mean([one["ci_high"] - one["ci_low"] for one in rows]))


ALIKE = ([4000] * 4, [0.5] * 4, [0.10, 0.12, 0.14, 0.16], [0.01, 0.02, 0.03, 0.0])
UNLIKE = ([4000, 3000, 2000, 6000], [0.2, 0.5, 0.8, 0.35], [0.05, 0.15, 0.40, 0.20],
          [0.02, 0.01, 0.03, 0.0])  # fmt: skip
SMALL = ([300, 4000, 4000, 400], [0.3, 0.5, 0.6, 0.7], [0.70, 0.10, 0.12, 0.02],
         [0.0, 0.02, 0.03, 0.01])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("world", "seed"), [(ALIKE, 1), (UNLIKE, 2), (SMALL, 3)])
def test_intervals_cover_also_where_brands_have_unlike_shares_of_arms(world, seed):
    trials = 1500
    here = World(*world, seed)
    rate, _ = covered(here, trials, lambda *drawn: effects(PLAN, {TOGETHER: here.once(*drawn)}))
    print(f"noise once, 95 % intervals: {rate:.3f}")
    assert rate > 0.95 - 5 * math.sqrt(0.95 * 0.05 / trials)


def test_without_weights_brands_are_taken_for_arms():
    """What the weights are for: the same runs, summed plainly, hardly ever cover."""
    here = World(*UNLIKE, 4)
    rate, _ = covered(
        here, 100, lambda *drawn: effects(PLAN, {TOGETHER: here.once(*drawn, weigh=False)})
    )
    assert rate < 0.05
    good, _ = covered(here, 100, lambda *drawn: effects(PLAN, {TOGETHER: here.once(*drawn)}))
    assert good > 0.8


def test_intervals_are_narrower_than_with_noise_each_and_by_how_much():
    here = World([1000] * 4, *ALIKE[1:], seed=5)
    once, each = [], []
    for _ in range(60):
        drawn = here.draw()
        once.append(row(effects(PLAN, {TOGETHER: here.once(*drawn)})))
        each.append(row(effects(EACH, here.each(*drawn))))

    def ratio(what):
        return float(np.mean([what(one) for one in once]) / np.mean([what(one) for one in each]))

    noise = ratio(lambda one: one["se_privacy"] ** 2)
    width = ratio(lambda one: one["ci_high"] - one["ci_low"])
    # k(σ²/.9)/(m − t) over kσ², for k silos that answered of the m that must; a little more, as
    # weights that rest on noised counts are below one
    expected = 1 / (0.9 * (PLAN.minimum_silos - PLAN.privacy.colluders))
    print(f"once over each: variance of noise {noise:.3f} ({expected:.3f}), width {width:.3f}")
    assert expected <= noise < 1.25 * expected
    assert width < 0.98


def test_a_design_knows_that_the_noise_is_added_once():
    expected = (Expected(metric="clicked", mean=0.15, lift=0.1),)
    believed = Analysis(recipients=4000, expected=expected)
    once, each = (
        outlooks(plan.model_copy(update={"analysis": believed}))[0] for plan in (PLAN, EACH)
    )
    noise = once.variance(4000, 2.0) - once.variance(4000, 0.0)
    apart = each.variance(4000, 2.0) - each.variance(4000, 0.0)
    fraction = 1 / (0.9 * (PLAN.minimum_silos - PLAN.privacy.colluders))
    assert noise / apart == pytest.approx(fraction, rel=1e-6)
    assert once.variance(4000, 0.0) == each.variance(4000, 0.0)


@given(st.lists(st.lists(st.integers(1, 10**6), min_size=3, max_size=3), min_size=2, max_size=6))
def test_weights_make_arms_alike_and_are_at_most_one(numbers):
    counts = {f"s{place}": np.array(one) * SCALE for place, one in enumerate(numbers)}
    weights = weights_of(PLAN, counts)
    for arm in range(3):
        column = [int(one[arm]) for one in weights.values()]
        assert max(column) == SCALE
        assert min(column) >= 0
    for silo, own in weights.items():
        for arm in range(3):
            share = Fraction(int(counts[silo][arm]), int(counts[silo].sum()))
            least = min(Fraction(int(c[arm]), int(c.sum())) for c in counts.values())
            assert 0 <= least / share - Fraction(int(own[arm]), SCALE) < Fraction(1, SCALE)


def test_promised_shares_need_no_weights_and_leave_no_doubt():
    privacy = {"epsilon": 1.0, "split": {"statistics": 1.0}, "noise": "once", "shares": "planned"}
    plan = PLAN.model_copy(update={"privacy": PLAN.privacy.model_validate(privacy)})
    counts = {"a": np.array([1, 9]) * SCALE, "b": np.array([5, 5]) * SCALE}
    assert all((one == SCALE).all() for one in weights_of(plan, counts).values())
    assert not too_small(plan, np.array([1, 9]) * SCALE)
    assert too_small(PLAN, np.array([1, 9]) * SCALE)
    whole = pooled_totals(plan, np.full(LAYOUT.shape, 100 * SCALE), counts, ("a", "b"), 1.0)
    assert (whole.mixture.sampling == 1).all()
    assert (whole.mixture.doubt == 0).all()
    assert whole.counts()[0] == pytest.approx(200.0)


@given(st.integers(0, SCALE), st.integers(0, SCALE))
def test_a_weighed_vector_is_never_longer(share, weight):
    encoded = np.array([[share, SCALE - share]])
    lighter = weighed(encoded, np.array([0]), np.array([weight, SCALE]))
    assert (lighter >= 0).all()
    assert (lighter**2).sum() <= (encoded**2).sum()
    assert (weighed(encoded, np.array([2]), np.array([weight, SCALE])) == 0).all()


def test_the_sum_of_shares_is_a_discrete_gaussian_to_all_intents():
    loudest = once_plan(silos=[f"s{n}" for n in range(100)], minimum_silos=100,
                        privacy={"epsilon": 50.0, "split": {"statistics": 50.0}, "noise": "once",
                                 "delta": 1e-4})  # fmt: skip
    assert silo_share(loudest) * SCALE > 100
    assert sum_excess(silo_share(loudest) * SCALE, 100) < 1e-100


def test_totals_of_all_brands_are_added_to_no_others():
    here = World(*ALIKE, 6)
    whole = here.once(*here.draw())
    with pytest.raises(ValueError, match="together"):
        _ = whole + whole
