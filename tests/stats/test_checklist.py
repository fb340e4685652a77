"""Every check is on the list, whether it found something or not, and says what it found."""

from __future__ import annotations

import numpy as np
import pandas as pd

from abfed.stats.checklist import CHECKS, COLUMNS, by_check, checklist
from abfed.stats.layout import Layout
from abfed.stats.totals import SiloTotals
from tests.stats.simulated import CLICKED, plan_of
from tests.stats.test_soundness import plan, rows, totals


def test_a_sound_experiment_has_every_check_and_no_alarm() -> None:
    frame = rows(1)
    frame["clicked"] &= frame["opened"]
    found = checklist(plan(), [totals(plan(), frame)])
    assert tuple(found.columns) == COLUMNS
    assert set(found["check"]) == set(CHECKS)
    assert not found["alarm"].any()
    assert found["reading"].ne("").all()
    short = by_check(found).set_index("check")
    assert short["alarms"].sum() == 0
    assert short.loc["balance", "tests"] == 3
    assert "hold their planned shares" in short.loc["sample ratio", "reading"]


def test_what_is_broken_stands_first_with_what_to_do() -> None:
    frame = rows(2)
    frame = frame[(frame["arm"] == "control") | (np.arange(len(frame)) % 10 > 0)]
    frame.loc[frame["arm"] == "arm-1", "age"] += 3
    frame.loc[(frame["arm"] == "arm-1") & (frame["browser"] == "two"), "revenue"] = 0.0
    frame.loc[frame["arm"] == "control", "clicked"] &= frame["opened"]
    found = checklist(plan(), [totals(plan(), frame)])
    alarms = found[found["alarm"]]
    assert set(alarms["check"]) == {"sample ratio", "balance", "dead cells", "clicks without opens"}
    assert alarms["p_value"].dropna().lt(0.001).all()
    short = by_check(found).set_index("check")
    assert "find out why" in short.loc["sample ratio", "reading"]
    assert "differ in age" in short.loc["balance", "reading"]
    assert "spend for arm-1: all zero" in short.loc["dead cells", "reading"]
    assert "tracking" in short.loc["clicks without opens", "reading"]


def test_a_brand_of_nobody_is_not_said_to_hold_its_shares() -> None:
    asked = plan_of(CLICKED)
    empty = SiloTotals(Layout.of(asked), np.zeros(Layout.of(asked).shape), 4.0)
    found = checklist(asked, [{"a-new-brand": empty, **totals(asked, rows(3))}])
    readings = found[found["check"] == "sample ratio"].set_index("scope")["reading"]
    assert readings["a-new-brand"] == "too few recipients to tell arms' shares"
    assert readings.drop("a-new-brand").str.contains("hold their planned shares").all()
    short = by_check(found).set_index("check")["reading"]
    assert "hold their planned shares" in short["sample ratio"]
    assert short["dead cells"].startswith("as far as the noise shows")


def test_what_could_not_be_checked_says_why() -> None:
    asked = plan_of(CLICKED)
    found = checklist(asked, [totals(asked, rows(3))]).set_index("check")["reading"]
    assert "analysis.balance" in found["balance"]
    assert "analysis.clicks_without_opens" in found["clicks without opens"]
    assert "no waves" in found["novelty"]


def test_an_effect_that_fades_and_a_control_that_moves_are_alarms() -> None:
    waves = [{"name": f"w{n}", "until": f"2026-03-0{n}"} for n in range(1, 5)]
    asked = plan_of(CLICKED, analysis={"sequential": {"waves": waves}})
    seen = []
    for wave in range(4):
        frame, rng = rows(10 + wave), np.random.default_rng(wave)
        rate = np.where(frame["arm"] == "control", 0.1 + 0.03 * wave, 0.2)
        seen.append(totals(asked, frame.assign(clicked=rng.random(len(frame)) < rate)))
    found = checklist(asked, seen)
    changed = found[found["check"].isin(["novelty", "drift"])]
    assert changed["alarm"].all()
    assert changed["reading"].str.contains("changes by").all()
    first = checklist(asked, seen[:1])
    assert first[first["check"] == "novelty"]["reading"].iloc[0].startswith("one wave so far")


def test_alarms_are_as_rare_as_they_should_be() -> None:
    """At 5 %, over 60 sound experiments: each kind of test within binomial error."""
    ps = []
    for seed in range(60):
        frame = rows(100 + seed, many=4000)
        found = checklist(plan(), [totals(plan(), frame)])
        ps.append(found[["check", "p_value"]].dropna())
    for _, seen in pd.concat(ps).groupby("check"):
        share = float((seen["p_value"] < 0.05).mean())
        assert share < 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(seen))
