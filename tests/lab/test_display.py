"""How a run shows itself: plots say what the numbers say, sentences no more than the decisions."""

import math
import re
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from scipy import stats

from abfed.lab.sections import readout
from abfed.lab.views.display import (
    effects_table,
    plot_budget,
    plot_effects,
    plot_training,
    reading,
    run_card,
    title,
)
from abfed.lab.views.plots import as_svg, wrapped
from abfed.lab.views.readings import guardrail_reading, sample_ratio_reading
from abfed.lab.views.units import interval, p_value, percent, places_for, plain, signed, unit_of
from abfed.protocol.errors import InputError
from abfed.stats.effects import DEFAULT_ALPHA
from tests.lab.example import example_values, make_run, statistics_only


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("display") / "workspace"
    return make_run(folder, example_values(silos=["aurora", "borealis", "corona", "dawn"]),
                    refusing=("dawn",))  # fmt: skip


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """No model, budgets not shown, one brand too small to read, and words that look like markup."""
    folder = tmp_path_factory.mktemp("plain") / "workspace"
    values = statistics_only(report={"title": "<b>Spring</b> & more"}, simulation={"seed": 1})
    return make_run(folder, values, show_budget=False, tiny=("corona",))


def bars(figure):
    """Horizontal bars of a forest plot: (low, high, thickness)."""
    (axes,) = figure.axes
    found = []
    for line in axes.lines:
        x, y = line.get_xdata(), line.get_ydata()
        if len(x) == 2 and y[0] == y[1] and line.get_linewidth() > 2:
            found.append((x[0], x[1], line.get_linewidth()))
    return found


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_forest_plot_has_both_parts_of_each_interval(run):
    table = run.effects[run.effects["metric"] == "clicked"]
    drawn = bars(plot_effects(run, "clicked"))
    z = stats.norm.ppf(0.975)
    for row in table.itertuples():
        outer = (100 * row.ci_low, 100 * row.ci_high)
        assert any((low, high) == pytest.approx(outer) for low, high, _ in drawn)
        if not math.isnan(row.se_sampling):
            reach = 100 * z * row.se_sampling
            inner = (100 * row.estimate - reach, 100 * row.estimate + reach)
            thick = [w for low, high, w in drawn if (low, high) == pytest.approx(inner)]
            thin = [w for low, high, w in drawn if (low, high) == pytest.approx(outer)]
            assert max(thick) > min(thin)


def test_forest_plot_follows_alpha(run):
    wide = max(high - low for low, high, _ in bars(plot_effects(run, "clicked", alpha=0.01)))
    narrow = max(high - low for low, high, _ in bars(plot_effects(run, "clicked", alpha=0.2)))
    assert wide > 1.5 * narrow


def test_a_brand_looked_at_closely_has_a_figure_and_a_reading_of_its_own(run):
    axes = plot_effects(run, "clicked", brand="aurora").axes[0]
    scopes = {label.get_text() for label in axes.get_yticklabels()}
    assert scopes == {"aurora", "these brands", "brands like these"}
    said = reading(run, "clicked", brand="aurora")
    assert " in aurora: " in said
    assert said != reading(run, "clicked", brand="borealis")
    aurora, borealis = (readout.one_brand(run, name) for name in ("aurora", "borealis"))
    first = [one[one.index("<img") :].split(">", 1)[0] for one in (aurora, borealis)]
    assert first[0] != first[1]


def test_axis_says_the_unit(run):
    units = {name: plot_effects(run, name).axes[0].get_xlabel() for name in ("clicked", "revenue")}
    assert "percentage points" in units["clicked"]
    assert "currency" in units["revenue"]


def test_a_margin_is_named_inside_the_axes(run):
    """Outside stand the figures of each row."""
    figure = plot_effects(run, "unsubscribed")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    (label,) = [one for one in axes.texts if one.get_text() == "margin"]
    assert label.get_window_extent().x1 <= axes.get_window_extent().x1


def test_what_is_suppressed_stands_as_words(plain_run):
    rows = plain_run.effects
    suppressed = rows[(rows["metric"] == "clicked") & (rows["decision"] == "suppressed")]
    # Whether three brands are left for brands like these depends on the draw.
    assert "corona" in set(suppressed["scope"]) <= {"corona", "brands like these"}
    said = words(plot_effects(plain_run, "clicked"))
    assert said.count("can’t be told from noise") == len(suppressed)


def test_drawing_leaves_matplotlib_as_it_was(run):
    before = dict(mpl.rcParams)
    plot_effects(run, "clicked")
    plot_training(run)
    as_svg(plot_budget(run))
    assert dict(mpl.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_the_same_picture_is_the_same_bytes(run):
    assert as_svg(plot_effects(run, "clicked")) == as_svg(plot_effects(run, "clicked"))


def test_training_plot_shows_each_round(run):
    auc, loss = plot_training(run).axes
    assert np.asarray(auc.lines[0].get_ydata()).tolist() == pytest.approx(
        run.training["auc"].tolist()
    )
    assert np.asarray(loss.lines[0].get_ydata()).tolist() == pytest.approx(
        run.training["log_loss"].tolist()
    )


def test_no_training_without_a_model(plain_run):
    assert readout.training(plain_run) == ""
    with pytest.raises(InputError, match="no model"):
        plot_training(plain_run)


def test_budget_plot(run, plain_run):
    widths = [
        patch.get_width()
        for patch in plot_budget(run).axes[0].patches
        if isinstance(patch, Rectangle)
    ]
    spent, left = run.ledger["epsilon_spent"].tolist(), run.ledger["epsilon_left"].tolist()
    assert widths == pytest.approx(spent + left)
    assert " not shown by this silo’s policy" in words(plot_budget(plain_run))
    assert "not shown" in readout.privacy(plain_run)


def test_reading_repeats_the_numbers(run):
    rows = run.effects[(run.effects["metric"] == "clicked")]
    row = rows[(rows["scope"] == "these brands") & (rows["arm"] == "personal")].iloc[0]
    assert row["decision"] == "better"
    said = reading(run, "clicked")
    assert said.startswith("“clicked” was higher for “personal” than for “plain”")
    assert f"{100 * row['mean_arm']:.2f}\u00a0% against {100 * row['mean_control']:.2f}" in said
    assert f"+{100 * row['estimate']:.2f} percentage points" in said
    assert f"+{100 * row['ci_low']:.2f} to +{100 * row['ci_high']:.2f}" in said
    assert f"{row['se'] / row['se_sampling'] - 1:.0%}".replace("%", "\u00a0% wider") in said


def test_reading_follows_alpha(run):
    assert "99\u00a0% interval" in reading(run, "clicked", alpha=0.01)
    assert reading(run, "clicked", alpha=0.01) != reading(run, "clicked")


@pytest.mark.parametrize(
    ("decision", "start"),
    [
        ("better", "“clicked” was higher for “personal”"),
        ("worse", "“clicked” was lower for “personal”"),
        ("inconclusive", "No clear difference in “clicked”"),
        ("suppressed", "There is no reading of “clicked” for “personal”"),
    ],
)
def test_reading_says_no_more_than_the_decision(run, monkeypatch, decision, start):
    changed = run.effects.copy()
    changed["decision"] = decision
    changed["note"] = "arm 'personal' is too small to tell from noise at this ε"
    changed["estimate"] = -1.0 if decision == "worse" else 1.0
    monkeypatch.setitem(run._by_level, DEFAULT_ALPHA, changed)
    assert reading(run, "clicked").startswith(start)


@pytest.mark.parametrize(
    ("decision", "part"),
    [
        ("within margin", "0.4 percentage points is ruled out"),
        ("breached", "0.4 percentage points is shown"),
        ("not shown", "0.4 percentage points can’t be ruled out"),
    ],
)
def test_guardrails_in_words(run, monkeypatch, decision, part):
    changed = run.effects.copy()
    changed.loc[changed["metric"] == "unsubscribed", "decision"] = decision
    monkeypatch.setitem(run._by_level, DEFAULT_ALPHA, changed)
    assert part in reading(run, "unsubscribed")
    assert part in readout.guardrails(run)
    assert "“unsubscribed” is" in guardrail_reading(run)


def test_a_sample_ratio_alarm_is_on_top(run, monkeypatch):
    assert "hold their planned shares" in sample_ratio_reading(run)
    assert "mismatch" not in readout.headline(run)
    changed = run.sample_ratios.copy()
    changed.loc[0, "alarm"] = True
    monkeypatch.setitem(run.__dict__, "sample_ratios", changed)
    assert "Sample-ratio mismatch in aurora" in readout.headline(run)


def test_unknown_metric_and_alpha(run):
    with pytest.raises(InputError, match="did you mean 'clicked'"):
        reading(run, "cliked")
    with pytest.raises(InputError, match="between 0 and 1"):
        plot_effects(run, "clicked", alpha=1.0)


def test_table_has_a_row_for_each_metric_and_arm(run):
    table = effects_table(run)
    assert table.count("<tr>") == 1 + 4 * 2
    over = run.effects[(run.effects["scope"] == "these brands") & (run.effects["segment"] == "")]
    shown = re.findall(r'class="pill \w+">([^<]+)<', table)
    assert shown == over["decision"].tolist()  # the words of the frame, here and in a terminal
    assert "within margin" in table


def test_card_and_title(run, plain_run):
    card = run_card(run)
    assert run.name in card
    assert "Left out" in card
    assert "dawn" in card
    assert title(run) == "Which subject line makes people click?"
    assert title(plain_run) == "SIMULATION: <b>Spring</b> & more"


def test_what_people_wrote_is_escaped(plain_run):
    for shown in (run_card(plain_run), readout.headline(plain_run)):
        assert "<b>Spring" not in shown
        assert "SIMULATION: &lt;b&gt;Spring&lt;/b&gt; &amp; more" in shown


def test_who_was_left_out_and_why(run):
    shown = readout.took_part(run)
    assert "dawn" in shown.partition("Left out")[2]
    assert "no policy that allows requests" in shown


def test_privacy_section_says_what_is_protected(run):
    shown = readout.privacy(run)
    for part in ("one recipient of one silo", "added or removed", "PLD", "costs add"):
        assert part in shown


def test_provenance_names_what_was_signed(run):
    shown = readout.provenance(run)
    assert run.plan.digest in shown
    assert run.manifest["audit_heads"]["aurora"][:16] in shown
    assert run.manifest["versions"]["flwr"] in shown


def test_numbers():
    assert plain(-1234.5, 1) == "\N{MINUS SIGN}1,234.5"
    assert signed(0.004, 2) == "+0.00"
    assert signed(0.0) == "0.00"
    assert interval(-0.004, 1.0) == "\N{MINUS SIGN}0.00 to +1.00"
    assert interval(math.nan, 1.0) == plain(math.nan) == percent(math.nan) == "–"
    assert [p_value(p) for p in (0.0001, 0.02, math.nan)] == ["< 0.001", "0.020", "–"]
    assert [places_for(se) for se in (12.0, 1.2, 0.12, 0.012, 0.0, math.nan)] == [0, 1, 2, 3, 2, 2]


def test_units(run):
    assert unit_of(run.plan, "click-to-open").per == "share of opened sends"
    assert unit_of(run.plan, "revenue").value(0.5, 0.01) == "0.500"
    assert unit_of(run.plan, "clicked").effect(0.0123, 0.001) == "+1.23"


def test_long_names_wrap():
    assert max(map(len, wrapped("the-house-of-fine-garden-furniture-and-seeds").split("\n"))) <= 22


def test_eight_arms_with_long_names_stay_apart(tmp_path):
    """The legend leaves the plot its room (matplotlib would warn); no two arms look alike."""
    names = [f"variant-with-a-really-long-name-number-{number}" for number in range(8)]
    arms = [{"name": "plain", "share": 0.2, "control": True}]
    arms += [{"name": name, "share": 0.1} for name in names]
    figure = plot_effects(make_run(tmp_path / "ws", statistics_only(arms=arms)), "clicked")
    as_svg(figure)
    assert figure.axes[0].get_position().width > 0.5
    looks = {(line.get_marker(), line.get_color()) for line in figure.axes[0].get_lines()
             if line.get_label() in names}  # fmt: skip
    assert len(looks) == 8
