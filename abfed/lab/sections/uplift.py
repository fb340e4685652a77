"""Sections on uplift: does the model know whom an arm moves, and is it worth following?

From one noised release over recipients held out (`evaluating`); beside the best single column and
random order, because a model that doesn't beat those isn't needed.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from abfed.lab.evaluating import COLUMN_ROW, MODEL_ROW, Evaluation
from abfed.lab.paper.page import ARM_COLOURS, INK, RULE, paragraph, picture, section, table, under
from abfed.lab.views.frames import noises_part
from abfed.lab.views.plots import as_svg, draw_estimate, drawing, explain_parts, mark_of
from abfed.lab.views.readings import require_model, wider
from abfed.lab.views.units import NBSP, NONE, PARTS, percent, plain, signed
from abfed.stats.effects import DEFAULT_ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run

_RANKED = ("effect", "qini", "auuc")
APART = 0.64  # of a tenth: how far its arms stand apart in a drawing
DROWNED = "Noise drowns it at this ε: nothing can be said."
LOUD = 0.95  # of an interval's variance: where the noise has more, chance's part is said too large
LOUD_NOTE = (
    "Where noise has nearly all of an interval’s variance, the rest is said too large: in "
    "simulations chance came out at up to 1.5 times what it was. It hardly widens the interval."
)
UNRANKED = "Nothing can be said: noise drowns it, or the model says the same of nearly everybody."


def ranking(run: Run) -> str:
    """How well each arm's effect is ranked, by the model and by what needs none."""
    found = Evaluation.of(run)
    rows, seen = [], ""
    for row in found.uplift.to_dict("records"):
        arm = escape(row["arm"])
        named = f'<span class="unseen">{arm}</span>' if row["arm"] == seen else arm
        figures = [_points(row, name) for name in _RANKED]
        rows.append([named, escape(row["scorer"]), *figures])
        seen = row["arm"]
    head = ["Arm", "Ranked by", "Effect if all got it", "Qini", "AUUC"]
    shown = table(head, rows, source=run.source, numeric=(2, 3, 4), counts=())
    how = (
        f"In percentage points of “{require_model(run).outcome}”, with 95{NBSP}% intervals, on "
        f"recipients held out. {PARTS} Qini is what following the ranking gains over random "
        "order; AUUC is the mean gain over all shares of recipients. Each ranking has "
        "noise of its own, so an arm’s effect is told twice."
    )
    parts = [paragraph(_ranking_reading(found.uplift)), shown, paragraph(how, "soft")]
    shares = found.uplift[[f"{name}_privacy_share" for name in _RANKED]]
    if (shares > LOUD).any(axis=None):
        parts.append(paragraph(LOUD_NOTE, "soft"))
    if len(found.deciles):
        parts.append(picture(as_svg(_plot_deciles(found.deciles)), _decile_reading(found)))
    return section("Does it know whom an arm moves?", *parts)


def _points(row: dict[Any, Any], name: str) -> str:
    """A figure in percentage points with its interval below it."""
    names = (name, f"{name}_low", f"{name}_high")
    value, low, high = (100 * float(row.get(one, math.nan)) for one in names)
    if not math.isfinite(value):
        return NONE
    if not low < high:
        return plain(value, 2)
    span = f"{signed(low, 2)} to {signed(high, 2)}"
    return under(signed(value, 2), span, noises_part(row, name))


def _ranking_reading(frame: pd.DataFrame) -> str:
    """For which arms the model ranks better than random, and than the best single column."""
    model = frame[frame["scorer"] == MODEL_ROW]
    if model["qini"].isna().all():
        return UNRANKED
    clear = model[model["qini_low"] > 0]["arm"].tolist()
    if not clear:
        return "For no arm is the model’s ranking clearly better than random order."
    single = frame[frame["scorer"] == COLUMN_ROW].set_index("arm")["qini"]
    qini = model.set_index("arm")["qini"]
    beaten = [arm for arm in clear if qini[arm] > single[arm]]
    said = f"Better than random order for {', '.join(clear)}"
    return f"{said}; above the best single column for {', '.join(beaten) or 'none of them'}."


def _decile_reading(found: Evaluation) -> str:
    """Whether an arm's effect falls from those whom the model ranks highest to the lowest."""
    words = []
    for arm in dict.fromkeys(found.uplift["arm"]):
        rows = found.deciles[found.deciles["arm"] == arm]
        ordered = rows.dropna(subset=["uplift"]).sort_values("decile")
        if len(ordered) < 2:
            words.append(f"{arm}: can’t be told from noise")
            continue
        first, last = ordered.iloc[0], ordered.iloc[-1]
        gap = first["uplift"] - last["uplift"]
        reach = math.hypot(*(one["uplift_high"] - one["uplift"] for one in (first, last)))
        clear = "falls" if gap > reach else "rises" if gap < -reach else "doesn’t clearly fall"
        words.append(
            f"{arm}: the effect {clear}, {signed(100 * first['uplift'], 1)} points in tenth "
            f"{int(first['decile'])} and {signed(100 * last['uplift'], 1)} in tenth "
            f"{int(last['decile'])}"
        )
    return f"{'; '.join(words)}."


def _plot_deciles(frame: pd.DataFrame) -> Figure:
    """An arm's effect by tenths of the model's uplift."""
    with drawing(8.2, 3.2) as (figure, (axes,)):
        arms = [
            arm for arm, rows in frame.groupby("arm", sort=False) if rows["uplift"].notna().any()
        ]
        for number, arm in enumerate(arms):
            rows = frame[(frame["arm"] == arm) & frame["uplift"].notna()]
            place = rows["decile"] + APART / max(4, len(arms)) * (number - (len(arms) - 1) / 2)
            colour = ARM_COLOURS[number % 6]
            for at, row in zip(place, rows.to_dict("records"), strict=True):
                draw_estimate(axes, row, "uplift", at, colour, scale=100, upright=True)
            axes.plot(place, 100 * rows["uplift"], mark_of(number), color="white", mec=colour,
                      mew=1.6, ms=6, label=arm)  # fmt: skip
        axes.axhline(0, color=INK, lw=0.9)
        axes.set_xticks(sorted(frame["decile"].unique()))
        axes.set_xlabel("tenth of recipients by the model’s uplift, the highest first")
        axes.set_ylabel("effect (percentage points)")
        axes.grid(axis="y", color=RULE, lw=0.6)
        if arms:
            named = axes.get_legend_handles_labels()[0]
            axes.legend(handles=[*named, *explain_parts(axes, DEFAULT_ALPHA)], loc="lower left",
                        bbox_to_anchor=(0, 1.0), ncols=4, fontsize=8.5)  # fmt: skip
    return figure


def targeting(run: Run) -> str:
    """What the model's recommendations are worth, against one arm for everybody."""
    frame = Evaluation.of(run).policy
    if frame.empty:
        return section("Is it worth following?", paragraph(DROWNED))
    row = frame[frame["policy"] == MODEL_ROW].to_dict("records")[0]
    gain, low, high = (100 * row[name] for name in ("gain", "gain_low", "gain_high"))
    said = DROWNED
    if math.isfinite(gain):
        word = "no clear gain"
        if low > 0:
            word = "a clear gain"
        elif high < 0:
            word = "a clear loss"
        said = (
            f"Sending each recipient the arm that the model recommends, instead of the best single "
            f"arm to all, is {word}: {signed(gain, 2)} percentage points "
            f"({signed(low, 2)} to {signed(high, 2)}{wider(row, 'gain')})."
        )
    rows = [
        [
            escape(_policy(str(one["policy"]))),
            _shares(one, "value"),
            percent(one["share"], 1) if math.isfinite(one["share"]) else NONE,
        ]
        for one in frame.to_dict("records")
    ]
    outcome = require_model(run).outcome
    head = ["Everybody gets", f"Share that {outcome}", "The model recommends it to"]
    shown = table(head, rows, source=run.source, numeric=(1, 2), counts=())
    how = f"On recipients held out, by inverse propensity, with 95{NBSP}% intervals. {PARTS}"
    return section("Is it worth following?", paragraph(said), shown, paragraph(how, "soft"))


def _shares(row: dict[Any, Any], name: str) -> str:
    """A share of recipients with its interval below it."""
    value, low, high = (float(row[one]) for one in (name, f"{name}_low", f"{name}_high"))
    if not math.isfinite(value):
        return NONE
    span = f"{percent(low, 2)} to {percent(high, 2)}"
    return under(percent(value, 2), span, noises_part(row, name))


def _policy(name: str) -> str:
    """What everybody gets under a policy."""
    return "what the model recommends" if name == MODEL_ROW else name.replace(" for everybody", "")
