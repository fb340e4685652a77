"""Checks find what is broken, and leave alone what isn't."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from abfed.privacy.mechanisms import UnsafeSeededNoise
from abfed.protocol.plan import Plan
from abfed.silo.totals import compute_totals
from abfed.stats.adjusting import chosen
from abfed.stats.layout import Layout
from abfed.stats.soundness import balance, dead_cells, novelty, orphans
from abfed.stats.totals import SiloTotals
from tests.statistical.people import permit, table
from tests.stats.simulated import CLICKED, SPEND, plan_of

FEATURES = [
    {"name": "age", "kind": "numeric", "low": 0.0, "high": 100.0},
    {"name": "browser", "kind": "category", "values": ["one", "two", "three"]},
]
ANALYSIS: dict[str, Any] = {
    "segments": [{"name": "browsers", "feature": "browser", "share": 0.4}],
    "balance": ["age", "browser"],
    "clicks_without_opens": "open",
}
SIGMA = 1.5


def rows(seed: int, many: int = 30_000) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    buys = rng.random(many) < 0.05
    return pd.DataFrame(
        {
            "recipient": np.arange(many),
            "arm": np.where(rng.random(many) < 0.5, "control", "arm-1"),
            "opened": rng.random(many) < 0.5,
            "clicked": rng.random(many) < 0.1,
            "revenue": np.where(buys, 80.0, 0.0),
            "age": rng.uniform(20, 70, many),
            "browser": np.array(["one", "two", "three"])[rng.integers(0, 3, many)],
        }
    )


def plan(**analysis: Any) -> Plan:
    return plan_of(CLICKED, SPEND, features=FEATURES, analysis=ANALYSIS | analysis)


def totals(asked: Plan, frame: pd.DataFrame) -> dict[str, SiloTotals]:
    done = compute_totals(permit(asked, SIGMA), [table(frame, asked)]).arrays["totals"]
    return {"aurora": SiloTotals.of(asked, done, SIGMA)}


def test_a_sound_experiment_raises_nothing() -> None:
    found = totals(plan(), rows(1))
    checked = balance(plan(), found)
    assert set(checked["feature"]) == {"age", "browser", "browsers"}
    assert not checked["alarm"].any()
    assert dead_cells(plan(), found).empty


def test_arms_that_differ_beforehand_are_found() -> None:
    frame = rows(2)
    frame.loc[frame["arm"] == "arm-1", "age"] += 3
    assert balance(plan(), totals(plan(), frame)).set_index("feature").loc["age", "alarm"]


def test_a_browser_whose_revenue_is_all_zero_in_one_arm_is_caught() -> None:
    frame = rows(3)
    broken = (frame["arm"] == "arm-1") & (frame["browser"] == "two")
    frame.loc[broken, "revenue"] = 0.0
    found = dead_cells(plan(), totals(plan(), frame))
    assert found[["scope", "metric", "arm"]].to_numpy().tolist() == [
        ["aurora, browsers: two", "spend", "arm-1"]
    ]


@pytest.mark.parametrize("sigma", [1e-6, 0.5])
def test_sixty_buyers_fewer_than_the_other_arm_has_are_enough(sigma: float) -> None:
    """Amounts that are small beside the bound: each buyer is a witness, whatever their sum is."""
    frame = rows(5, 6000)
    two = frame["browser"].eq("two") & frame["arm"].eq("control")
    buyers = frame.index[two][:60]
    frame["revenue"] = np.where(frame.index.isin(buyers), 70.0, 0.0)
    asked = plan()
    allowed = permit(asked, sigma, UnsafeSeededNoise(4))
    done = compute_totals(allowed, [table(frame, asked)]).arrays["totals"]
    found = dead_cells(asked, {"aurora": SiloTotals.of(asked, done, sigma)})
    dead = found[found["reason"].str.startswith("all zero") & found["scope"].str.contains("two")]
    assert dead[["metric", "arm"]].to_numpy().tolist() == [["spend", "arm-1"]]


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_few_cells_are_called_dead_by_chance(share: float) -> None:
    """Six buyers expected in the small arm, noise or none: it has none in one of four hundred."""
    asked = plan_of(CLICKED, shares=(share, 1 - share))
    layout, rng = Layout.of(asked), np.random.default_rng(8)
    many = np.array([share, 1 - share]) * 6 / 0.01 / min(share, 1 - share)
    alarms = 0
    for sigma in (0.01, 2.0):
        for _ in range(300):
            bought = rng.poisson(0.01 * many)
            values = np.stack([bought, many - bought], axis=1) + rng.normal(0, sigma, (2, 2))
            alarms += len(dead_cells(asked, {"aurora": SiloTotals(layout, values, sigma)}))
    assert alarms <= 1


def test_a_metric_that_never_varies_is_said_to() -> None:
    frame = rows(4).assign(clicked=False)
    found = dead_cells(plan(), totals(plan(), frame))
    whole = found[(found["scope"] == "aurora") & (found["metric"] == "clicked")]
    assert whole["reason"].str.contains("no variation").tolist() == [True]


@pytest.mark.parametrize(("rule", "clicked", "opened"), [
    ("open", 0.2, 0.65), ("ignore", 0.05, 0.5), ("keep", 0.2, 0.5),
])  # fmt: skip
def test_clicks_without_opens_follow_the_declared_rule(
    rule: str, clicked: float, opened: float
) -> None:
    """Of 10,000: half open, of these 5 % of all click; 15 % click without an open."""
    many = 10_000
    place = np.arange(many) / many
    frame = pd.DataFrame(
        {
            "recipient": np.arange(many),
            "arm": np.where(np.arange(many) % 2 == 0, "control", "arm-1"),
            "opened": place < 0.5,
            "clicked": (place < 0.05) | (place >= 0.85),
        }
    )
    opens = {"name": "opened", "kind": "proportion", "column": "opened"}
    asked = plan_of(CLICKED, opens, analysis={"clicks_without_opens": rule})
    found = totals(asked, frame)
    seen = orphans(asked, found)
    assert seen["recipients"].sum() == pytest.approx(1500, abs=8 * seen["noise_sd"].iloc[0])
    assert set(seen["rule"]) == {rule}
    for name, expected in (("clicked", clicked), ("opened", opened)):
        sums, _ = found["aurora"].arm("control", name)
        assert sums[0] / sums.sum() == pytest.approx(expected, abs=0.01)


def test_an_effect_that_fades_is_novelty_and_a_control_that_moves_is_drift() -> None:
    asked = plan_of(CLICKED)
    waves = []
    for wave in range(4):
        frame = rows(10 + wave)
        rng = np.random.default_rng(wave)
        rate = np.where(frame["arm"] == "control", 0.1 + 0.02 * wave, 0.16 + 0.005 * wave)
        waves.append(totals(asked, frame.assign(clicked=rng.random(len(frame)) < rate)))
    found = novelty(asked, waves).set_index("what")
    assert found.loc["novelty", "slope"] < 0
    assert found.loc["novelty", "p_value"] < 0.01
    assert found.loc["drift", "slope"] == pytest.approx(0.02, abs=0.005)
    assert novelty(asked, waves[:1]).empty


def test_waves_are_read_as_they_were_released_where_a_covariate_pays_for_all_of_them_only() -> None:
    """Read by themselves they expect as many recipients as all waves together."""
    expected = {"metric": "clicked", "mean": 0.1, "r_squared": 0.3}
    ends = [{"name": f"w{month}", "until": f"2026-0{month}-01"} for month in range(1, 5)]
    analysis = {
        "recipients": 4000,
        "expected": [expected],
        "adjust": [{"metric": "clicked", "covariate": "age"}],
        "sequential": {"waves": ends},
    }
    asked = plan_of(CLICKED, features=FEATURES, analysis=analysis)
    waves = [totals(asked.at_wave(wave), rows(wave, 4000)) for wave in (1, 2)]
    assert chosen(asked, "clicked") is None
    assert set(novelty(asked, waves)["what"]) == {"novelty", "drift"}
