"""Sentences of pages say no more than their figures do: gains, losses, and what noise drowned."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from abfed.lab.disclosure.printed import is_set_as_rows
from abfed.lab.paper.page import paragraph, roomy, section, table
from abfed.lab.sections import (
    brand,
    design,
    model,
    portfolio,
    readout,
    security,
    soundness,
    training,
    uplift,
    utility,
)
from abfed.lab.sections.utility import Grid
from abfed.lab.views import readings
from abfed.learning.calibration import calibration, calibration_in_groups
from abfed.learning.evaluation import BINS, ScoreHistogram
from tests.examples import make_plan

NAN = float("nan")


def outcome(model, column, loss, majority):
    """Each figure with its half-width; missing where it is NaN."""
    rows = [
        ("model", model, loss),
        ("majority", (0.5, 0), majority),
        ("best single column", column, (NAN, NAN)),
        ("random", (0.5, 0), (NAN, NAN)),
    ]
    return pd.DataFrame(
        [
            {
                "scorer": name,
                "auc": auc[0], "auc_low": auc[0] - auc[1], "auc_high": auc[0] + auc[1],
                "log_loss": loss[0], "log_loss_low": loss[0] - loss[1],
                "log_loss_high": loss[0] + loss[1],
            }
            for name, auc, loss in rows
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "ranks", "chances"),
    [
        (((0.8, 0.03), (0.6, 0.03), (0.2, 0.01), (0.3, 0.01)), "clearly better", "clearly better"),
        (((0.6, 0.03), (0.8, 0.03), (0.4, 0.01), (0.3, 0.01)), "clearly worse", "clearly worse"),
        (((0.62, 0.1), (0.6, 0.1), (0.3, 0.1), (0.3, 0.1)), "is open", "is open"),
        (((NAN, NAN), (0.6, 0.1), (NAN, NAN), (NAN, NAN)), "can’t be told", "can’t be told"),
    ],
)
def test_a_model_is_called_better_only_beyond_chance_and_noise(figures, ranks, chances):
    first, second = model.baselines_reading(outcome(*figures)).split(";")
    assert ranks in first
    assert chances in second


def brands(*gains):
    return pd.DataFrame([{"brand": f"b{n}", "gain": gain, "gain_se": 0.05}
                         for n, gain in enumerate(gains)])  # fmt: skip


LOSS = "an untrained model ranks better there."
OPEN = "Of the others it can’t be said."


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((0.2, 0.3), "Every brand gains clearly."),
        ((0.2, -0.3), f"A clear gain in b0. A clear loss in b1: {LOSS}"),
        ((-0.3, 0.01), f"A clear loss in b0: {LOSS} {OPEN}"),
        ((0.2, NAN), f"A clear gain in b0. {OPEN}"),
        ((0.01, NAN), "No brand’s gain is clear by itself."),
        ((NAN, NAN), "Which brand gains can’t be told from noise at this ε."),
        ((0.2,), "A clear gain in b0."),
        ((0.11,), "A clear gain in b0."),  # 2.2 errors: by chance once in 36, so in three brands
        ((0.11, 0.01, NAN, -0.02), "No brand’s gain is clear by itself."),  # once in twelve
    ],
)
def test_a_brand_that_loses_is_named(gains, said):
    assert training.gains_reading(brands(*gains)) == said


def trained(auc, log_loss):
    """Curves that go from one figure to another, each with a standard error of 0.02."""
    named = {"auc": auc, "log_loss": log_loss}
    errors = {f"{name}_{part}": [size] * 2 for name in named
              for part, size in (("se", 0.02), ("se_sampling", 0.01))}  # fmt: skip
    return pd.DataFrame(named | errors)


def test_what_training_did_is_told_by_whatever_noise_left_of_it():
    said = training.helped_reading
    assert said(trained((0.5, 0.7), (0.6, 0.2))) == (
        "AUC went from 0.500 before the first round to 0.700: +0.200, beyond what chance and noise "
        "do (± 0.055, 2.0 times as wide for the noise)."
    )
    fell = said(trained((0.5, NAN), (0.6, 0.2)))
    assert fell.startswith("Whether the ranking got better can’t be told from noise at this ε. ")
    assert "Log-loss went from 0.600 before the first round to 0.200: −0.400, beyond" in fell
    assert said(trained((NAN, 0.7), (NAN, 0.2))) == (
        "Whether training helped can’t be told from noise at this ε."
    )


def touching(figure):
    """Whether names of an axis touch one another."""
    figure.canvas = FigureCanvasAgg(figure)
    figure.canvas.draw()
    boxes = [one.get_window_extent() for one in figure.axes[0].get_yticklabels()]
    return any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_long_names_of_a_figure_do_not_touch_one_another(monkeypatch):
    long = [f"a-brand-of-{letter}-with-a-name-as-long-as-names-may-be" for letter in "abc"]
    budgets = dict.fromkeys(long, (1.0, 10.0, "2026"))
    assert not touching(portfolio._plot_budgets(budgets))
    won = {"scope": long[0], "arm": long[1], "rel_high": 0.2, "rel_low": 0.1, "relative": 0.15,
           "estimate": 0.1, "privacy_share": 0.1, "decision": "better"}  # fmt: skip
    monkeypatch.setattr(portfolio, "effects_at", lambda *_: pd.DataFrame([won] * 3))
    plan = SimpleNamespace(name=long[2], primary="clicked")
    run = SimpleNamespace(plan=plan, silos=long[:1])
    assert not touching(portfolio.plot_wins([run]))


def cells(*decisions):
    return pd.DataFrame([{"arm": "warm", "scope": f"by-channel: {n}", "decision": decision,
                          "estimate": NAN if decision == "suppressed" else 0.1}
                         for n, decision in enumerate(decisions)])  # fmt: skip


def test_an_arm_that_harms_a_segment_is_named():
    read = soundness.segments_reading
    assert read(cells("better", "worse", "better")) == (
        "Clearly better than the control: “warm” for by-channel: 0, by-channel: 2. "
        "Clearly worse than the control: “warm” for by-channel: 1."
    )
    assert "In no segment" in read(cells("inconclusive", "suppressed"))
    assert "can’t be told from noise" in read(cells("suppressed", "suppressed"))


def test_further_outcomes_fall_into_four_kinds():
    rows = [("opened", 0.7, 0.6, 0.8), ("clicked", 0.3, 0.2, 0.4), ("complained", 0.6, 0.4, 0.8),
            ("converted", NAN, NAN, NAN)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["outcome", "auc", "auc_low", "auc_high"])
    assert model.further_reading(frame) == (
        "Ranked clearly better than by lot: “opened”. Ranked clearly worse than by lot: “clicked”. "
        "Not told from guessing: “complained”. Drowned in noise: “converted”."
    )


def test_revenue_that_falls_with_what_was_predicted_is_said_to():
    def read(*observed):
        frame = pd.DataFrame({"observed": observed, "observed_se": [0.1] * len(observed)})
        return model.revenue_reading(frame)

    assert "spent clearly more" in read(0.2, NAN, 2.0)
    assert "spent clearly less" in read(2.0, 0.2)
    assert "spent not clearly more" in read(0.2, 0.3)
    assert "can’t be told from noise" in read(NAN, 0.3)


def test_deciles_that_rise_or_drown_are_said_to():
    def read(*uplifts):
        frame = pd.DataFrame({"arm": "warm", "decile": range(1, len(uplifts) + 1),
                              "uplift": uplifts, "uplift_high": np.add(uplifts, 0.01)})  # fmt: skip
        found = SimpleNamespace(uplift=pd.DataFrame({"arm": ["warm", "cold"]}), deciles=frame)
        return uplift._decile_reading(found)

    assert "warm: the effect falls, +9.0 points in tenth 1 and +1.0 in tenth 3" in read(
        0.09, 0.05, 0.01
    )
    assert "warm: the effect rises" in read(0.01, NAN, 0.09)
    assert "warm: the effect doesn’t clearly fall" in read(0.01, 0.005)
    assert "warm: can’t be told from noise" in read(NAN, 0.01)
    assert read(0.01, 0.005).endswith("cold: can’t be told from noise.")


def effect(decision, relative):
    return "Spring", {"decision": decision, "relative": relative, "arm": "warm", "metric": "left"}


def test_a_harm_that_shrank_is_a_gain_and_a_loss_is_no_silence():
    read = portfolio.largest
    assert read([effect("better", -0.3), effect("better", -0.1)]) == (
        "The largest gain: “warm” in “Spring”, −30\xa0% of “left”."
    )
    assert "by how much of the control’s value can’t be told" in read([effect("better", NAN)])
    assert read([effect("worse", -0.2), effect("inconclusive", 3.0)]).startswith(
        "No gain; the largest loss: “warm” in “Spring”, −20"
    )
    assert read([effect("suppressed", NAN)]) == "No experiment moved its primary metric clearly."


def of(name, made_at, wave=0, waves=True, brands=()):
    """As much of a run as a portfolio's order and budgets look at; brands as spent and total."""
    sequential = {"waves": [{"name": "one", "until": "2026-03-04"},
                            {"name": "two", "until": "2026-03-11"}]}  # fmt: skip
    plan = make_plan(name=name, analysis={"sequential": sequential} if waves else {})
    ledger = pd.DataFrame([{"silo": silo, "epsilon_spent": spent, "epsilon_total": total}
                           for silo, (spent, total) in dict(brands).items()])  # fmt: skip
    plan = plan.at_wave(wave) if wave else plan
    return SimpleNamespace(name=f"{name}-{wave}-{made_at}", plan=plan, made_at=made_at,
                           ledger=ledger, source="run:1")  # fmt: skip


def test_a_portfolio_counts_a_designs_waves_once():
    runs = [of("late", "2026-05-01", 2), of("late", "2026-04-01", 1), of("other", "2026-04-15", 1)]
    runs += [of("plain", f"2026-0{month}-01", waves=False) for month in (3, 6)]
    kept = portfolio.without_earlier_waves(runs)
    assert [(one.plan.name, one.made_at[5:7]) for one in kept] == [
        ("plain", "03"), ("other", "04"), ("late", "05"), ("plain", "06"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("brands", "said"),
    [
        ({"a": (4, 10), "b": (4, 10), "c": (1, 10)},
         "Least budget is left in a and b: ε = 6.00 of 10.00"),
        ({"a": (4, 10), "b": (2, 5), "c": (1, 10)}, "Least budget is left in a: ε = 6.00 of 10.00"),
        ({"a": (4, 10), "b": (4, 10)}, "The same part of the budget is left in each brand: ε = 6"),
        ({"a": (4, NAN)}, "No brand’s policy shows its budget."),
    ],
)  # fmt: skip
def test_brands_with_as_little_left_are_named_together(brands, said):
    shown = of("plain", "2026-03-01", waves=False, brands=brands)
    assert portfolio.budget_reading([shown]).startswith(said)


def test_brands_dont_differ_because_segments_do():
    frame = pd.DataFrame(
        [("clicked", "brands", 0.4), ("clicked", "by-channel", 1e-9), ("opened", "brands", 1e-9)],
        columns=["metric", "over", "p_value"],
    )
    assert portfolio.brands_differ(frame, "clicked") == "no sign that they differ"
    assert portfolio.brands_differ(frame, "opened") == "differ"
    assert portfolio.brands_differ(frame, "revenue") == "–"


def test_a_brand_is_above_another_only_beyond_both_intervals():
    def one(value, usable=True):
        return SimpleNamespace(value=value, variance=0.01**2, usable=usable)

    found = {"a": one(0.2), "b": one(0.1), "c": one(0.21), "d": one(0.4), "e": one(0.9, False)}
    assert brand._beside(*brand._compared(found, "a")) == (
        "clearly above b; clearly below d; not to be told from c"
    )
    assert brand._beside(*brand._compared(found, "e")) == ""


def test_groups_of_scores_hold_everybody_once():
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 200, (2, BINS))
    scores = ScoreHistogram(counts, 0.0)
    (everybody,) = calibration_in_groups(scores, 1)
    assert everybody.recipients == counts.sum()
    assert everybody.observed.value == pytest.approx(counts[1].sum() / counts.sum())
    groups = calibration_in_groups(scores, 8)
    assert len(groups) == 8
    assert sum(one.recipients for one in groups) == counts.sum()
    assert [one.predicted for one in groups] == sorted(one.predicted for one in groups)
    whole = sum(one.predicted * one.recipients for one in calibration(scores))
    assert sum(one.predicted * one.recipients for one in groups) == pytest.approx(whole)


def test_nobody_is_in_no_group():
    assert calibration_in_groups(ScoreHistogram(np.zeros((2, BINS), dtype=np.int64), 0.0), 8) == ()


def test_controls_that_ask_for_the_same_stand_together():
    def control(name, state, *why):
        return {"id": name, "state": state, "evidence": why, "owner": "", "asked": "a", "on": ""}

    why = ("aurora was never checked (`abfed doctor`)", "b", "c", "d")
    review = {
        "at": "2026-05-01T00:00:00Z", "sites": ["aurora"],
        "controls": [control("S1", "red", *why), control("S2", "look", *why),
                     control("S3", "red", *why), control("S4", "holds")],
    }  # fmt: skip
    html = security.asking(review)
    assert html.count("<tr>") == 3
    assert "S1, S3" in html
    assert "<code>abfed doctor</code>" in html
    assert "1 more" in html  # nothing of the evidence is dropped
    assert "2 of 4 controls do not hold: S1, S3. One holds today and asks" in security.headline(
        review
    )


def test_sentences_around_a_table_are_no_rows_of_figures():
    """The gate withheld a whole page for what is said above and below a table of releases."""
    above, below = "In 6 of 8 groups, 2 more often.", "× 1.40, +1.90 fits best, from 3.0 to 1.5."
    held = table(["a", "b"], [["1<br>2", "3"]], source="run:1")
    page = section("Calibration", paragraph(above), held, paragraph(below))
    assert not is_set_as_rows(page)
    assert is_set_as_rows(f"{page}<p>1 2 3<br>4 5 6</p>")


def test_what_was_asked_of_two_metrics_is_no_rows_of_figures():
    """Shares of arms stand in one line, counted sends in another, and neither next to the other."""
    plan = make_plan(
        metrics=[
            {"name": "clicked", "kind": "proportion", "column": "clicked"},
            {"name": "unsubscribed", "kind": "proportion", "column": "unsubscribed"},
        ],
        primary="clicked",
        guardrails=[{"metric": "unsubscribed", "harm": "increase", "margin": 0.01}],
    )
    asked = readout.asked(SimpleNamespace(plan=plan))
    assert asked.count("<br>") == 1
    assert not is_set_as_rows(asked)
    assert is_set_as_rows(f"{asked}<dl><dd>a 2 3<br></dd><dd>b 5 6</dd></dl>")


def test_what_is_due_to_intervals_follows_from_their_level():
    cells = pd.DataFrame({"epsilon": 1.0, "brands": 1, "size": [500, 900],
                          "coverage": [0.78, 0.83], "power": [0.1, 0.2]})  # fmt: skip
    grid = Grid((1.0,), (1,), (500,), 400, 1)
    assert utility.reading(cells, grid, 0.2) == (
        "Intervals covered the truth in 80.5\xa0% of experiments (80\xa0% is due), 78\xa0% to "
        "83\xa0% by setting; 400 experiments tell a setting’s share to 3.9 points. "
        "In no setting was the effect found in four of five experiments."
    )
    alone = utility.reading(cells.tail(1), grid, 0.2)
    assert "83.0\xa0% of experiments (80\xa0% is due), 83\xa0% in each setting;" in alone


@pytest.mark.parametrize("drowned", ["auc", "log_loss", None])
def test_gaps_of_curves_are_explained_where_there_are_any(drowned):
    frame = pd.DataFrame({"auc": [0.5, 0.6], "log_loss": [0.4, 0.3], "auc_se": [NAN, 0.1]})
    if drowned:
        frame.loc[1, drowned] = NAN
    said = readings.gaps_reading(SimpleNamespace(training=frame))
    assert ("noise drowns" in said) == bool(drowned)


@pytest.mark.parametrize(
    ("even", "said"),
    [
        (400.0, "; {} noise is the smaller part of the uncertainty, with 400 it is half."),
        (4000.0, "; {} noise is the greater part of the uncertainty, with 4,000 it is half."),
        (float("inf"), " {}."),
    ],
)
def test_whether_noise_or_chance_is_more_is_said_of_each_metric(even, said):
    row = {"metric": "clicked", "power": 0.8, "recipients": 2000, "break_even": even}
    said = said.format("with some 1,000 recipients an arm")
    found = design.curves_reading(SimpleNamespace(arms=(1, 2)), row)
    assert found == f"“clicked”: power 80\xa0%{said}"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.12, "12\xa0% wider"), (1.0, "2.0 times as wide"), (8.4, "9.4 times as wide"),
     (9.6, "11 times as wide")],
)  # fmt: skip
def test_what_is_twice_as_wide_is_not_a_hundred_percent_wider(share, said):
    assert readings.widened(share) == f"{said} for the noise"


def test_long_words_get_room_and_short_ones_none():
    assert roomy("30 × gaussian noise") == "30 × gaussian noise"
    assert roomy("clip 4, expected batch 1,901, steps 30").startswith('<span class="long">')
