"""The table of effects: each column against its definition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from abfed.protocol.plan import Plan
from abfed.stats.effects import COLUMNS, LIKE_THESE, NOT_ESTIMABLE, THESE, effects
from abfed.stats.totals import Layout, SiloTotals
from tests.stats.simulated import BRANDS, CLICKED, CONVERTED, RATIO, SPEND, World, plan_of

Z = stats.norm.ppf(0.975)
PLAN = plan_of(CLICKED)


def totals_of(
    plan: Plan, rates: Mapping[str, tuple[list[float], list[int]]], sigma: float = 4.22
) -> dict[str, SiloTotals]:
    """Totals of proportions, without noise but for what is said of it: rates, sizes by arm."""
    layout = Layout.of(plan)
    out = {}
    for brand, (shares, sizes) in rates.items():
        values = np.zeros(layout.shape)
        for row, (share, size) in enumerate(zip(shares, sizes, strict=True)):
            for block in layout.blocks:
                values[row, block.columns] = [share * size, (1 - share) * size]
        out[brand] = SiloTotals(layout, values, sigma)
    return out


def only(frame: pd.DataFrame, scope: str, **where: str) -> Any:
    """The one row of a scope."""
    for name, value in ({"scope": scope} | where).items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_one_brand_is_a_difference_of_means() -> None:
    row = only(effects(PLAN, totals_of(PLAN, {"aurora": ([0.1, 0.13], [5000, 6000])})), "aurora")
    sampling = 0.1 * 0.9 / 5000 + 0.13 * 0.87 / 6000
    privacy = 4.22**2 * ((0.01 + 0.81) / 5000**2 + (0.13**2 + 0.87**2) / 6000**2)
    se = math.sqrt(sampling + privacy)
    assert (row["mean_control"], row["mean_arm"]) == pytest.approx((0.1, 0.13))
    assert row["estimate"] == pytest.approx(0.03)
    assert row["se"] == pytest.approx(se)
    assert row["se_sampling"] ** 2 == pytest.approx(sampling)
    assert row["se_privacy"] ** 2 == pytest.approx(privacy)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.03 - Z * se, 0.03 + Z * se))
    assert row["p_value"] == pytest.approx(2 * stats.norm.sf(0.03 / se))
    assert row["privacy_share"] == pytest.approx(privacy / (sampling + privacy))
    assert row["n_effective"] == pytest.approx(11_000 * sampling / (sampling + privacy))
    assert row["decision"] == "better"


def test_effective_size_is_what_the_noise_cost() -> None:
    """As many recipients as `n_effective`, without noise, have the same interval."""
    row = only(effects(PLAN, totals_of(PLAN, {"aurora": ([0.1, 0.1], [900, 900])})), "aurora")
    exact = math.sqrt(2 * 0.1 * 0.9 / (row["n_effective"] / 2))
    assert exact == pytest.approx(row["se"])
    assert row["n_effective"] < 1800


def test_these_brands_are_weighted_by_size() -> None:
    rates = {
        "aurora": ([0.10, 0.12], [1000, 3000]),
        "borealis": ([0.30, 0.31], [4000, 2000]),
    }
    frame = effects(PLAN, totals_of(PLAN, rates))
    pooled, small, large = (only(frame, scope) for scope in (THESE, "aurora", "borealis"))
    assert pooled["estimate"] == pytest.approx(0.4 * 0.02 + 0.6 * 0.01)
    assert pooled["se"] == pytest.approx(math.hypot(0.4 * small["se"], 0.6 * large["se"]))
    assert pooled["mean_control"] == pytest.approx(0.4 * 0.1 + 0.6 * 0.3)
    # Pooled sums would compare (0.12·3 + 0.31·2)/5 with (0.10·1 + 0.30·4)/5: the wrong sign.
    unknown = only(frame, LIKE_THESE)
    assert unknown["decision"] == "not estimable"
    assert "it takes 3 brands" in unknown["note"]


def test_brands_like_these_need_three() -> None:
    same = ([0.10, 0.12], [4000, 4000])
    rates = dict.fromkeys(BRANDS[:3], same) | {BRANDS[3]: ([0.10, 0.22], [4000, 4000])}
    frame = effects(PLAN, totals_of(PLAN, rates))
    row = only(frame, LIKE_THESE)
    assert row["ci_high"] - row["ci_low"] > 3 * (
        only(frame, THESE)["ci_high"] - only(frame, THESE)["ci_low"]
    )
    assert "each of 4 brands counts the same" in row["note"]
    assert "brands differ" in only(frame, THESE)["note"]
    shrunk = frame.set_index("scope")["shrunk"]
    assert 0.02 < shrunk["aurora"] < shrunk["dawn"] < 0.12


def test_brands_that_happen_to_agree_are_said_to() -> None:
    """One brand fifty times the others: an interval narrower than these brands' says so."""
    rates = {
        "aurora": ([0.10, 0.12], [50_000, 50_000]),
        "borealis": ([0.30, 0.3201], [1000, 1000]),
        "corona": ([0.20, 0.2199], [1000, 1000]),
    }
    frame = effects(PLAN, totals_of(PLAN, rates))
    these, like = only(frame, THESE), only(frame, LIKE_THESE)
    assert 0 < like["ci_high"] - like["ci_low"] < these["ci_high"] - these["ci_low"]
    assert like["note"].startswith("narrower than these brands, whose effects happen to agree")
    apart = rates | {"corona": ([0.20, 0.25], [1000, 1000])}
    assert "narrower" not in only(effects(PLAN, totals_of(PLAN, apart)), LIKE_THESE)["note"]


def test_brands_whose_effects_are_all_the_same_say_nothing_of_others() -> None:
    same = {brand: ([0.10, 0.12], [4000, 4000]) for brand in BRANDS}
    row = only(effects(PLAN, totals_of(PLAN, same)), LIKE_THESE)
    assert row["decision"] == "not estimable"
    assert "all the same" in row["note"]


def test_relative_lift_is_fiellers() -> None:
    """Each end θ of the interval solves (m − θc)² = z²(Vm + θ²Vc)."""
    row = only(effects(PLAN, totals_of(PLAN, {"aurora": ([0.05, 0.06], [3000, 3000])})), "aurora")
    m, c = 0.06, 0.05
    vm, vc = (p * (1 - p) / 3000 + 4.22**2 * ((1 - p) ** 2 + p**2) / 3000**2 for p in (m, c))
    assert row["relative"] == pytest.approx(0.2)
    for end in (row["rel_low"], row["rel_high"]):
        theta = 1 + end
        assert (m - theta * c) ** 2 == pytest.approx(Z**2 * (vm + theta**2 * vc))
    assert row["rel_low"] < 0.2 < row["rel_high"]
    assert row["rel_high"] - 0.2 > 0.2 - row["rel_low"]


@pytest.mark.parametrize(
    ("control", "size", "sigma", "note"),
    [
        (0.01, 2000, 36.3, NOT_ESTIMABLE),
        (0.002, 400, 0.01, "the control can't be told from zero, noise or no noise"),
        (-0.03, 9000, 36.3, "below zero"),
    ],
)
def test_a_relative_lift_without_bounds_is_not_a_number(
    control: float, size: int, sigma: float, note: str
) -> None:
    rates = {"aurora": ([control, 0.02], [size, size])}
    row = only(effects(PLAN, totals_of(PLAN, rates, sigma)), "aurora")
    assert row[["relative", "rel_low", "rel_high"]].isna().all()
    assert note in row["note"]
    assert math.isfinite(row["estimate"])


def test_a_small_brand_is_suppressed_and_left_out() -> None:
    large, small = ([0.1, 0.2], [5000, 5000]), ([0.1, 0.9], [5000, 20])
    frame = effects(PLAN, totals_of(PLAN, {"aurora": large, "borealis": small}))
    hidden, pooled = only(frame, "borealis"), only(frame, THESE)
    assert hidden["decision"] == "suppressed"
    assert "'arm-1' is too small" in hidden["note"]
    assert math.isnan(hidden["estimate"])
    assert pooled["estimate"] == pytest.approx(0.1)
    assert "without borealis" in pooled["note"]
    nothing = effects(PLAN, totals_of(PLAN, {"aurora": small, "borealis": small}))
    assert (nothing["decision"] == "suppressed").sum() == 3
    assert nothing["note"].str.contains("too small").sum() == 3


@pytest.mark.parametrize("size", [0, 5000])
def test_without_noise_nothing_is_laid_on_it(size: int) -> None:
    """An arm of nobody, or in which nobody opened: no ε would help."""
    plan = plan_of(CLICKED, RATIO)
    layout = Layout.of(plan)
    values = np.zeros(layout.shape)
    for row, many in enumerate((5000.0, float(size))):
        values[row, layout.block("clicked").columns] = [many / 10, many - many / 10]
        values[row, layout.block("ctor").columns] = [0.0, many / 10 * (row == 0), many]
    frame = effects(plan, {"aurora": SiloTotals(layout, values, 0.0)}).set_index("metric")
    assert not frame["note"].str.contains("noise at this ε").any()
    assert frame.loc["ctor", "decision"] == "suppressed"
    assert frame.loc["ctor", "note"] in {"nobody is in arm 'arm-1'", "arm 'arm-1' has no 'opened'"}
    assert ("nobody is in arm 'arm-1'" in frame.loc["clicked", "note"]) == (size == 0)


def test_the_frame_begins_with_the_columns_that_were_promised() -> None:
    promised = (
        "metric scope arm control estimate ci_low ci_high relative rel_low rel_high p_value "
        "p_adjusted privacy_share n_effective decision note"
    )
    assert COLUMNS[:16] == tuple(promised.split())


@pytest.mark.parametrize("alike", [2, 4])
def test_brands_whose_values_are_all_alike_are_said_to_be(alike: int) -> None:
    """Without noise a brand in which nobody spends has no variance: weights by it don't exist."""
    plan = plan_of(SPEND)
    layout = Layout.of(plan)
    totals = {}
    for place, brand in enumerate(BRANDS):
        values = np.zeros(layout.shape)
        for row, size in enumerate((4000.0, 5000.0)):
            spent = 0.0 if place < alike else 0.02 * (1 + row) * size
            values[row, layout.block("spend").columns] = [spent, size - spent]
            values[row, layout.block("spend", moments=True).columns] = spent / 10
        totals[brand] = SiloTotals(layout, values, 0.0)
    frame = effects(plan, totals).set_index("scope")
    for brand in BRANDS[:alike]:
        assert frame.loc[brand, "decision"] == "not estimable"
        assert "all values are alike" in frame.loc[brand, "note"]
    shared = frame.loc[[THESE, LIKE_THESE]]
    if alike < len(BRANDS):
        assert np.isfinite(shared[["estimate", "ci_low", "ci_high"]].to_numpy()).all()
        assert np.isfinite(frame.loc[list(BRANDS[alike:]), "shrunk"].to_numpy(dtype=float)).all()
    else:
        assert (shared["decision"] == "not estimable").all()
        assert shared["note"].str.contains("all values are alike").all()


def test_no_value_is_missing_without_a_reason() -> None:
    plan = plan_of(CLICKED, CONVERTED, SPEND, RATIO, shares=(0.5, 0.4, 0.1))
    rates = {"clicked": 0.1, "converted": 0.004, "spend": 0.01, "ctor": 0.2}
    missing = 0
    for sigma in (0.5, 8.0, 60.0):
        frame = effects(plan, World(plan, rates, {}, 2000, sigma).draw(np.random.default_rng(1)))
        assert tuple(frame.columns) == COLUMNS
        assert frame["decision"].ne("").all()
        values = frame.drop(columns=["shrunk"])
        for _, row in values[values.isna().any(axis=1)].iterrows():
            assert row["note"]
            missing += 1
        seen = frame[frame["estimate"].notna()]
        assert seen["n_effective"].isna().eq(seen["scope"].eq(LIKE_THESE)).all()
        notes = seen.loc[seen["n_effective"].isna(), "note"]
        assert notes.str.contains("effective sample size see these brands").all()
    assert missing > 30


def test_arms_and_metrics_of_a_scope_are_one_family() -> None:
    from statsmodels.stats.multitest import multipletests

    plan = plan_of(CLICKED, CONVERTED, shares=(0.4, 0.3, 0.3))
    rates = {"clicked": 0.1, "converted": 0.02}
    world = World(plan, rates, {"clicked": 0.15}, 6000, 1.0)
    frame = effects(plan, world.draw(np.random.default_rng(4)))
    for _, scope in frame.groupby("scope"):
        expected = multipletests(scope["p_value"], method="holm")[1]
        assert scope["p_adjusted"].to_numpy() == pytest.approx(expected)
        assert ((scope["decision"] == "inconclusive") == (scope["p_adjusted"] >= 0.05)).all()


@pytest.mark.parametrize(
    ("column", "treated", "decision"),
    [
        ("clicked", 0.13, "better"),
        ("clicked", 0.07, "worse"),
        ("unsubscribed", 0.13, "worse"),
        ("unsubscribed", 0.07, "better"),
        ("complained", 0.1001, "inconclusive"),
    ],
)
def test_less_of_a_harm_is_better(column: str, treated: float, decision: str) -> None:
    plan = plan_of({"name": "outcome", "kind": "proportion", "column": column})
    frame = effects(plan, totals_of(plan, {"aurora": ([0.1, treated], [9000, 9000])}))
    assert only(frame, "aurora")["decision"] == decision


@pytest.mark.parametrize(
    ("harm", "treated", "decision"),
    [
        ("increase", 0.010, "within margin"),
        ("increase", 0.015, "not shown"),
        ("increase", 0.040, "breached"),
        ("decrease", 0.010, "within margin"),
        ("decrease", 0.040, "within margin"),
        ("decrease", 0.001, "breached"),
    ],
)
def test_guardrails_are_one_sided_with_a_margin(harm: str, treated: float, decision: str) -> None:
    guard = {"metric": "converted", "harm": harm, "margin": 0.005}
    plan = plan_of(CLICKED, CONVERTED, guardrails=[guard])
    frame = effects(plan, totals_of(plan, {"aurora": ([0.01, treated], [9000, 9000])}, 0.5))
    row = only(frame, "aurora", metric="converted")
    side = 1 if harm == "increase" else -1
    z = (side * row["estimate"] - 0.005) / row["se"]
    assert row["p_value"] == pytest.approx(stats.norm.cdf(z), rel=1e-6, abs=1e-12)
    assert row["decision"] == decision
    assert "margin 0.005" in row["note"]
    # It takes no part in the family of the others.
    assert only(frame, "aurora", metric="clicked")["p_adjusted"] == pytest.approx(
        only(frame, "aurora", metric="clicked")["p_value"]
    )


def test_a_guardrail_over_few_brands_takes_the_t_distribution() -> None:
    guard = {"metric": "converted", "harm": "increase", "margin": 0.005}
    plan = plan_of(CLICKED, CONVERTED, guardrails=[guard])
    rates = {
        brand: ([0.01, treated], [9000, 9000])
        for brand, treated in zip(BRANDS[:3], (0.008, 0.010, 0.0135), strict=True)
    }
    row = only(effects(plan, totals_of(plan, rates, 0.5)), LIKE_THESE, metric="converted")
    spread = np.std([-0.002, 0.0, 0.0035], ddof=1) / math.sqrt(3)
    assert row["p_value"] == pytest.approx(stats.t.cdf((row["estimate"] - 0.005) / spread, 2))


def test_alpha_widens_intervals() -> None:
    totals = totals_of(PLAN, {"aurora": ([0.1, 0.12], [3000, 3000])})
    row = only(effects(PLAN, totals, alpha=0.01), "aurora")
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * stats.norm.ppf(0.995) * row["se"])


def test_nothing_has_no_effects() -> None:
    with pytest.raises(ValueError, match="at least one brand"):
        effects(PLAN, {})


def test_scopes_follow_from_the_brands_asked_and_not_from_the_noise() -> None:
    """Three brands of which one drowns for one arm only: every arm still has every scope."""
    rates = {
        "aurora": ([0.10, 0.12, 0.11], [4000, 4000, 4000]),
        "borealis": ([0.30, 0.31, 0.30], [4000, 4000, 4000]),
        "corona": ([0.10, 0.12, 0.50], [4000, 4000, 3]),
    }
    plan = plan_of(CLICKED, shares=(0.34, 0.33, 0.33))
    frame = effects(plan, totals_of(plan, rates))
    assert only(frame, LIKE_THESE, arm="arm-1")["decision"] != "suppressed"
    row = only(frame, LIKE_THESE, arm="arm-2")
    assert row["decision"] == "suppressed"
    assert "fewer than 3 brands" in row["note"]
    assert math.isnan(row["estimate"])
