"""Pages and terminals say the same, in the metric's unit."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from abfed.cli.run import show_run, summary
from abfed.lab.runs import Run
from abfed.lab.sections import soundness
from abfed.lab.sections.readout import took_part
from abfed.lab.views.display import effects_table
from abfed.lab.views.figures import effect_rows, remarks
from abfed.lab.views.units import count, percent, unit_of
from abfed.protocol.plan import Plan
from abfed.stats.contrasts import Contrast, relative_lift
from abfed.stats.effects import DEFAULT_ALPHA
from abfed.stats.estimates import Estimate
from tests.lab.example import example_values, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("figures") / "workspace"
    return make_run(folder, example_values(simulation={"seed": 3}))


def test_terminal_and_page_have_the_same_words(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    show_run(run)
    printed, page = capsys.readouterr().out, effects_table(run)
    over = run.effects[run.effects["scope"] == "these brands"]
    for row in effect_rows(run, over):
        words = row["decision"]
        assert f">{words}<" in page
        assert words in printed
        assert row["noise's part, worth"].split()[0] in printed
    assert "Noise’s part, worth" in page
    for shown in over["privacy_share"], over["n_effective"]:
        text = percent if shown is over["privacy_share"] else count
        assert all(text(value) in page for value in shown)
    assert "clicked (share of" in printed  # of recipients, on the next line of its cell
    assert "click-to-open" in printed
    assert "Checks (alarm: p < 0.001)" in printed
    assert "Do effects differ" in printed


def test_a_note_is_said_once_behind_all_that_it_is_about(run: Run) -> None:
    frame = run.effects[run.effects["scope"] == "these brands"].copy()
    frame["note"] = "the same; and another"
    frame.loc[frame["metric"] == "clicked", "note"] = "the same"
    said = remarks(frame)
    assert len(said) == 2
    assert said[0].endswith(": the same")
    assert "clicked" not in said[1]


def test_whether_effects_differ_is_read_off_whichever_level_a_page_has(run: Run) -> None:
    opened = Run.open(run.folder)
    opened.effects_at(0.2)
    pd.testing.assert_frame_equal(opened.heterogeneity, run.heterogeneity)
    assert list(opened._by_level) == [0.2], "effects were read a second time"


def test_segments_stand_on_the_page_and_those_that_drown_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = run.effects[run.effects["scope"].isin(["these brands", "aurora"])].copy()
    cells["scope"] = "by-age: " + cells["scope"]
    cells["segment"] = "by-age"
    drowned = cells["scope"] == "by-age: aurora"
    cells.loc[drowned, ["estimate", "mean_arm", "mean_control"]] = math.nan
    monkeypatch.setitem(run._by_level, DEFAULT_ALPHA, cells)
    page = soundness.segments(run)
    assert "No effect can be read in by-age: aurora." in page
    # the primary metric has a table, all others have one
    assert page.count("<thead>") == 2
    assert page.count("<tr>") == 2 + int((~drowned).sum())
    assert f'data-source="{run.source}"' in page
    assert len(run.segments) == len(cells)


def test_segments_in_a_terminal_are_of_the_primary_metric_and_what_was_found(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run.effects
    cells = whole[whole["scope"] == "these brands"].copy()
    cells["scope"], cells["segment"], cells["decision"] = "by-age: x", "by-age", "inconclusive"
    other = cells.index[cells["metric"] != run.plan.primary]
    cells.loc[other[0], "decision"] = "worse"
    monkeypatch.setitem(run._by_level, DEFAULT_ALPHA, pd.concat([whole, cells], ignore_index=True))
    monkeypatch.setitem(run.__dict__, "segments", cells)
    show_run(run)
    printed = capsys.readouterr().out.partition("Effects in segments")[2].partition("Shown: ")
    assert printed[2].startswith(f"{run.plan.primary}, and what was found. All: the report")
    rows = printed[0].count("by-age: x")
    assert rows == (cells["metric"] == run.plan.primary).sum() + 1 < len(cells)
    assert "worse" in printed[0]


def test_who_was_left_out_of_rounds_is_said_at_the_end_and_on_the_page(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = [
        ("train-0002", "absent", "no answer in time"),
        ("train-0003", "absent", "no answer in time"),
    ]
    long = [("train-0004", "outlier", "its update is longer than 20: 51.8")]
    rows = [(step, "aurora", reason, why) for step, reason, why in (*late, *long)]
    frame = pd.DataFrame(rows, columns=["step", "silo", "reason", "why"])
    monkeypatch.setitem(run.__dict__, "left_out", frame)
    show_run(run)
    printed, page = capsys.readouterr().out, took_part(run)
    assert (
        "without aurora in 2 steps, from train-0002 (absent: no answer in time); what it" in printed
    )
    assert "without aurora in train-0004 (outlier: its update is longer than 20: 51.8);" in printed
    assert "2 steps, from train-0002" in page
    assert [one["step"] for one in summary(run)["left_out"]] == [row[0] for row in rows]


def test_one_is_singular() -> None:
    plan = Plan.from_values(
        example_values(
            metrics=[
                {"name": "clicked", "kind": "proportion", "column": "clicked"},
                {"name": "opens", "kind": "count", "column": "opened", "most": 4},
                {"name": "unsubscribed", "kind": "proportion", "column": "unsubscribed"},
            ]
        )
    )
    assert unit_of(plan, "clicked").amount(0.01) == "1 percentage point"
    assert unit_of(plan, "clicked").amount(0.015) == "1.5 percentage points"
    assert unit_of(plan, "opens").amount(1) == "1 opened send per recipient"
    assert unit_of(plan, "opens").amount(2) == "2 opened sends per recipient"


def test_nothing_loses_more_than_all_of_it() -> None:
    """A share or an amount can't fall by more than 100 %; what may be negative can."""
    control = Estimate(0.010, 1e-6, 1e-6, 9000)
    low = relative_lift(Contrast(Estimate(0.001, 1e-6, 1e-6, 9000), control), 1.96)
    assert low.value == pytest.approx(-0.9)
    assert low.low == -1.0
    below = relative_lift(Contrast(Estimate(-0.002, 1e-6, 1e-6, 9000), control), 1.96)
    assert math.isnan(below.value)
    assert below.low == -1.0
    assert -1.0 < below.high < low.high
    assert "the arm's value came out below zero: of its relative lift only" in below.reason
    far = relative_lift(Contrast(Estimate(-0.02, 1e-6, 1e-6, 9000), control), 1.96)
    assert math.isnan(far.high)
    assert "not estimable at this ε: the arm's value came out below zero" in far.reason
    signed = relative_lift(Contrast(Estimate(-0.002, 1e-6, 1e-6, 9000), control, signed=True), 1.96)
    assert signed.value == pytest.approx(-1.2)
    assert signed.low < -1.2


def test_the_page_says_whether_it_can_be_believed(run: Run) -> None:
    page = "".join((soundness.checks(run), soundness.agreement(run), soundness.segments(run)))
    assert "No check raised an alarm" in page or "look before you believe" in page
    assert "Cochran’s Q" in page
    assert "Segments" not in page  # the plan has none
