"""Sections on a trained model: how it got better, and who gains.

From noised histograms of scores on recipients held out; nobody's score left a brand.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from abfed.lab.paper.page import BLUE, INK, RULE, opening, paragraph, picture, section, table, title
from abfed.lab.sections.model import LAST, SURE, calibrated_in_short, histograms
from abfed.lab.views.curves import plot_training
from abfed.lab.views.frames import in_parts
from abfed.lab.views.plots import (
    as_svg,
    draw_estimate,
    drawing,
    explain_parts,
    row_height,
    wrapped,
)
from abfed.lab.views.readings import (
    gaps_reading,
    require_model,
    training_reading,
    widened,
    wider,
)
from abfed.lab.views.units import NBSP, NOISES_PART, NONE, percent, plain, signed
from abfed.learning.evaluation import area_under_curve
from abfed.stats.decisions import holm
from abfed.stats.effects import DEFAULT_ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run

FIRST = "train-0001"
"""The step whose histograms are of the model before the first round."""
LEAST = 2  # brands that can be read, for a picture of them


def headline(run: Run) -> str:
    """Title, and how good the model is."""
    model = require_model(run)
    said = [training_reading(run), calibrated_in_short(run)]
    return opening(
        "Engagement model",
        f"<h1>{escape(title(run))}</h1>"
        f'<div class="soft">predicts “{escape(model.outcome)}” · {len(run.silos)} brands · '
        f"run <code>{escape(run.name)}</code></div>"
        f'<div class="key">{"".join(map(paragraph, said))}</div>',
    )


def curves(run: Run) -> str:
    """How the model got better from round to round."""
    schedule = run.plan.schedule
    how = (
        f"{schedule.rounds} rounds of {schedule.local_steps} private steps in each brand."
        f"{gaps_reading(run)}"
    )
    said = helped_reading(run.training)
    svg = as_svg(plot_training(run))
    return section("Training", picture(svg, said), paragraph(how, "soft"))


def helped_reading(training: pd.DataFrame) -> str:
    """What training did: to the ranking, and to the probabilities where that drowns in noise."""
    told = _went(training, "auc", "AUC")
    if told:
        return told
    told = _went(training, "log_loss", "Log-loss")
    if told:
        return f"Whether the ranking got better can’t be told from noise at this ε. {told}"
    return "Whether training helped can’t be told from noise at this ε."


def _went(training: pd.DataFrame, column: str, name: str) -> str:
    """From where to where a figure went, and whether clearly; empty where either end is unknown."""
    first, last = training[column].iloc[0], training[column].iloc[-1]
    if not (math.isfinite(first) and math.isfinite(last)):
        return ""
    ends = training.iloc[[0, -1]]
    errors = {one: math.hypot(*ends[f"{column}_{one}"]) for one in ("se", "se_sampling")}
    se = errors["se"]
    clear = "beyond" if abs(last - first) > SURE * se else "within"
    return (
        f"{name} went from {first:.3f} before the first round to {last:.3f}: "
        f"{signed(last - first, 3)}, {clear} what chance and noise do "
        f"(± {SURE * se:.3f}{wider(errors)})."
    )


def gains(run: Run) -> pd.DataFrame:
    """AUC in each brand before training and after it: brand; before, after, gain with their parts.

    Missing where noise drowns a brand by itself.
    """
    first, last = histograms(run, FIRST), histograms(run, LAST)
    rows = []
    for silo in run.silos:
        before = area_under_curve(first[silo]) if silo in first else None
        after = area_under_curve(last[silo]) if silo in last else None
        gain = after.above(before) if before and after else None
        parts = (in_parts("before", before), in_parts("after", after), in_parts("gain", gain))
        rows.append({"brand": silo, **parts[0], **parts[1], **parts[2]})
    return pd.DataFrame(rows)


def who_gains(run: Run) -> str:
    """Which brands the common model ranks better for than an untrained one."""
    frame = gains(run)
    seen = frame[frame["gain"].notna()]
    rows = []
    for row in frame.to_dict("records"):
        gain = NONE
        if math.isfinite(row["gain"]):
            gain = f"{signed(row['gain'], 3)} ± {SURE * row['gain_se']:.3f}"
        rows.append(
            [
                escape(row["brand"]),
                plain(row["before"], 3),
                plain(row["after"], 3),
                gain,
                percent(row["gain_privacy_share"]),
            ]
        )
    shown = table(
        ["Brand", "AUC before", "AUC after", f"Gain, ± 95{NBSP}%", NOISES_PART],
        rows, source=run.source, numeric=(1, 2, 3, 4), counts=(),
    )  # fmt: skip
    parts = [paragraph(gains_reading(frame)), shown]
    if len(seen) > 1:
        parts.append(
            paragraph("Clear is what is clear after Holm’s correction over brands.", "soft")
        )
    if 0 < len(seen) < len(frame):
        parts.append(paragraph(f"{NONE} where noise drowns a brand by itself.", "soft"))
    if len(seen) >= LEAST:
        parts.append(picture(as_svg(_plot_gains(seen)), _most(seen)))
    return section("Which brands gain", *parts)


def gains_reading(frame: pd.DataFrame) -> str:
    """Where the gain is clear, where the loss is, and of how many brands nothing can be said.

    Clear after Holm's correction over brands: of twenty that gain nothing one would seem to.
    """
    seen = frame[frame["gain"].notna()]
    if seen.empty:
        return "Which brand gains can’t be told from noise at this ε."
    by_chance = [math.erfc(abs(z) / math.sqrt(2)) for z in seen["gain"] / seen["gain_se"]]
    clear = seen[[p <= DEFAULT_ALPHA for p in holm(by_chance)]]
    better = clear[clear["gain"] > 0]["brand"].tolist()
    worse = clear[clear["gain"] < 0]["brand"].tolist()
    if len(better) == len(frame) > 1:
        return "Every brand gains clearly."
    said = [f"A clear gain in {', '.join(better)}."] if better else []
    if worse:
        said.append(f"A clear loss in {', '.join(worse)}: an untrained model ranks better there.")
    if not said:
        return "No brand’s gain is clear by itself."
    if len(better) + len(worse) < len(frame):
        said.append("Of the others it can’t be said.")
    return " ".join(said)


def _most(seen: pd.DataFrame) -> str:
    """Where the model ranks best and worst, in words."""
    ordered = seen.sort_values("after")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    spread = f"from {low['after']:.3f} in {low['brand']} to {high['after']:.3f} in {high['brand']}"
    if f"{low['after']:.3f}" == f"{high['after']:.3f}":
        spread = f"{low['after']:.3f} in each brand"
    whole, chance = (math.hypot(*seen[f"gain_{part}"]) for part in ("se", "se_sampling"))
    noised = widened(whole / chance - 1)
    return f"After training AUC is {spread}. Intervals of the gain are {noised}."


def _plot_gains(frame: pd.DataFrame) -> Figure:
    with drawing(8.2, 1.1 + row_height(frame["brand"], 0.38) * len(frame)) as (figure, (axes,)):
        side: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "va": "center",
            "fontsize": 8.5,
        }
        for place, row in enumerate(frame.to_dict("records")):
            draw_estimate(axes, row, "gain", place, BLUE)
            axes.plot(row["gain"], place, "o", color=BLUE, mec=BLUE, mew=1.6, ms=6.5)
            axes.text(1.02, place, f"{row['before']:.3f} → {row['after']:.3f}", color=INK, **side)
        axes.axvline(0, color=INK, lw=0.9, zorder=0)
        axes.legend(handles=explain_parts(axes, DEFAULT_ALPHA), loc="lower left",
                    bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8.5)  # fmt: skip
        axes.set_yticks(range(len(frame)), [wrapped(one) for one in frame["brand"]])
        axes.set_ylim(len(frame) - 0.5, -0.5)
        axes.set_xlabel("gain of AUC by training; at the side before and after")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=RULE, lw=0.6)
        axes.set_axisbelow(True)
    return figure


def by_segment(run: Run) -> str:
    """What the arms do in each declared segment; nothing where the plan declares none."""
    from abfed.lab.sections.soundness import segments

    caution = (
        "An arm that was chosen because it looked best in a segment looks better than it is: try "
        "it again before a policy is built on it."
    )
    return segments(run, heading="For whom", caution=caution)
