"""Sections on a trained model: how it got better, whether its scores can be believed, who gains.

From noised histograms of scores on recipients held out; nobody's score left a brand.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from abfed.lab.page import (
    ARM_COLOURS,
    BLUE,
    INK,
    RULE,
    paragraph,
    picture,
    section,
    table,
    title,
)
from abfed.lab.plots import as_svg, drawing, plot_training
from abfed.lab.readings import require_model, training_reading
from abfed.lab.units import NBSP, NONE, count, percent, plain, signed
from abfed.learning.evaluation import (
    Estimate,
    ScoreHistogram,
    area_under_curve,
    calibration,
    pool,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run

SURE = 1.96  # standard errors of a 95 % interval
FIRST, LAST = "train-0001", "evaluate"
"""The steps whose histograms are of the model before the first round and of the final one."""


def histograms(run: Run, step: str) -> dict[str, ScoreHistogram]:
    """Noised histograms of a step, by brand."""
    return {
        silo: ScoreHistogram.of_release(steps[step].arrays["histogram"], steps[step].release.noise)
        for silo, steps in run.releases.items()
        if step in steps
    }


def headline(run: Run) -> str:
    """Title, and how good the model is."""
    model = require_model(run)
    said = [training_reading(run), _calibration_reading(run)]
    return (
        '<section class="first"><div class="kicker">Engagement model</div>'
        f"<h1>{escape(title(run))}</h1>"
        f'<div class="soft">predicts “{escape(model.outcome)}” · {len(run.silos)} brands · '
        f"run <code>{escape(run.name)}</code></div>"
        f'<div class="key">{"".join(map(paragraph, said))}</div></section>'
    )


def curves(run: Run) -> str:
    """How the model got better from round to round."""
    schedule = run.plan.schedule
    how = (
        f"{schedule.rounds} rounds of {schedule.local_steps} private steps in each brand. Bands "
        "are one standard error, noise included."
    )
    first, last = run.training["auc"].iloc[0], run.training["auc"].iloc[-1]
    said = "Whether training helped can’t be told from noise at this ε."
    if math.isfinite(first) and math.isfinite(last):
        se = math.hypot(run.training["auc_se"].iloc[0], run.training["auc_se"].iloc[-1])
        clear = "beyond" if abs(last - first) > SURE * se else "within"
        said = (
            f"AUC went from {first:.3f} before the first round to {last:.3f}: "
            f"{signed(last - first, 3)}, {clear} what chance and noise do (± {SURE * se:.3f})."
        )
    svg = as_svg(plot_training(run))
    return section("Training", picture(svg, said), paragraph(how, "soft"))


def calibrated(run: Run) -> str:
    """Whether predicted probabilities happen as often as they say."""
    bins = calibration(pool(histograms(run, LAST).values()))
    rows = [
        [
            f"{percent(one.predicted, 1)}",
            NONE if one.observed is None else percent(one.observed, 1),
            NONE if one.standard_error is None else f"± {100 * SURE * one.standard_error:.1f} pp",
            count(one.recipients),
        ]
        for one in bins
    ]
    shown = table(
        ["Predicted", "Happened", "95 %", "Recipients (noised)"],
        rows, source=run.source, numeric=(1, 2, 3), counts=(3,),
    )  # fmt: skip
    svg = as_svg(plot_calibration(run))
    folded = f"<details><summary>All bins</summary>{shown}</details>"
    return section("Calibration", picture(svg, _calibration_reading(run)), folded)


def _calibration_reading(run: Run) -> str:
    """In how many bins what happened is what was predicted."""
    bins = [one for one in calibration(pool(histograms(run, LAST).values())) if one.standard_error]
    if not bins:
        return "Calibration can’t be told from noise at this ε."
    held = sum(
        abs((one.observed or 0.0) - one.predicted) <= SURE * (one.standard_error or 0.0)
        for one in bins
    )
    return (
        f"In {held} of {len(bins)} bins of the score that can be told from noise, what happened is "
        f"what was predicted, within a 95{NBSP}% interval."
    )


def plot_calibration(run: Run) -> Figure:
    """Observed against predicted, with intervals; the diagonal is perfect."""
    bins = [one for one in calibration(pool(histograms(run, LAST).values())) if one.standard_error]
    with drawing(8.2, 3.6) as (figure, (axes,)):
        # Each axis as far as its own figures go: predictions are often close to one another.
        wide = min(1.0, 1.12 * max([0.02, *(one.predicted for one in bins)]))
        high = min(1.0, 1.12 * max([wide, *(one.observed or 0.0 for one in bins)]))
        axes.plot([0, wide], [0, wide], color=INK, lw=0.9, ls=":", label="perfect")
        for one in bins:
            reach = SURE * (one.standard_error or 0.0)
            axes.errorbar(one.predicted, one.observed or 0.0, yerr=reach, fmt="o", color=BLUE, ms=5)
        axes.set_xlim(0, wide)
        axes.set_ylim(0, high)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("share that did")
        axes.grid(color=RULE, lw=0.6)
        axes.legend(loc="upper left", fontsize=8.5)
    return figure


def gains(run: Run) -> pd.DataFrame:
    """AUC in each brand before training and after it: brand, before, after, gain and their errors.

    Missing where noise drowns a brand by itself.
    """
    first, last = histograms(run, FIRST), histograms(run, LAST)
    rows = []
    for silo in run.silos:
        before = area_under_curve(first[silo]) if silo in first else None
        after = area_under_curve(last[silo]) if silo in last else None
        both = before is not None and after is not None
        rows.append(
            {
                "brand": silo,
                "before": _value(before),
                "after": _value(after),
                "gain": _value(after) - _value(before),
                "gain_se": math.hypot(before.standard_error, after.standard_error)
                if both and before and after
                else math.nan,
            }
        )
    return pd.DataFrame(rows)


def _value(one: Estimate | None) -> float:
    return math.nan if one is None else one.value


def who_gains(run: Run) -> str:
    """Which brands the common model ranks better for than an untrained one."""
    frame = gains(run)
    seen = frame[frame["gain"].notna()]
    clear = seen[seen["gain"] > SURE * seen["gain_se"]]["brand"].tolist()
    if seen.empty:
        said = "Which brand gains can’t be told from noise at this ε."
    elif clear:
        said = f"A clear gain in {', '.join(clear)}; of the others it can’t be said."
        if len(clear) == len(frame):
            said = "Every brand gains clearly."
    else:
        said = "No brand’s gain is clear by itself."
    rows = []
    for row in frame.to_dict("records"):
        gain = NONE
        if math.isfinite(row["gain"]):
            gain = f"{signed(row['gain'], 3)} ± {SURE * row['gain_se']:.3f}"
        rows.append([escape(row["brand"]), plain(row["before"], 3), plain(row["after"], 3), gain])
    shown = table(
        ["Brand", "AUC before", "AUC after", "Gain, ± 95 %"],
        rows, source=run.source, numeric=(1, 2, 3),
    )  # fmt: skip
    parts = [paragraph(said), shown]
    if len(seen) < len(frame):
        parts.append(paragraph(f"{NONE} where noise drowns a brand by itself.", "soft"))
    if not seen.empty:
        parts.append(picture(as_svg(_plot_gains(seen)), "AUC by brand, before and after."))
    return section("Who gains", *parts)


def _plot_gains(frame: pd.DataFrame) -> Figure:
    with drawing(7.2, 1.3 + 0.4 * len(frame)) as (figure, (axes,)):
        for place, row in enumerate(frame.to_dict("records")):
            axes.plot([row["before"], row["after"]], [place, place], color=RULE, lw=3, zorder=0)
            axes.plot(row["before"], place, "o", color="white", mec=ARM_COLOURS[0], ms=7)
            axes.plot(row["after"], place, "o", color=ARM_COLOURS[0], ms=7)
        axes.axvline(0.5, color=INK, lw=0.9, ls=":")
        axes.set_yticks(range(len(frame)), list(frame["brand"]))
        axes.set_ylim(len(frame) - 0.5, -0.5)
        axes.set_xlabel("AUC: hollow before, full after; dotted is chance")
        axes.grid(axis="x", color=RULE, lw=0.6)
    return figure


def by_segment(run: Run) -> str:
    """What the arms do in each declared segment; nothing where the plan declares none."""
    frame = run.segments
    frame = frame[frame["metric"] == run.plan.primary]
    if frame.empty:
        return ""
    from abfed.lab.soundness import segments

    found = frame[frame["decision"] == "better"]
    said = "In no segment is an arm clearly better than the control."
    if not found.empty:
        pairs = zip(found["arm"], found["scope"], strict=True)
        named = ", ".join(f"“{arm}” for {scope}" for arm, scope in pairs)
        said = f"Clearly better than the control: {named}."
    caution = (
        "An arm that was chosen because it looked best in a segment looks better than it is: try "
        "it again before a policy is built on it."
    )
    return section("For whom", paragraph(said), paragraph(caution, "soft")) + segments(run)
