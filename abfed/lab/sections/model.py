"""Sections on whether a model's scores can be believed: baselines, calibration, further outputs.

From noised tables of recipients held out; nobody's score left a brand. A reading compares with what
needs no model, and says "clearly" only beyond a 95 % interval of the difference. Both sides are of
the same recipients, so that interval is rather too wide than too narrow.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from abfed.lab.evaluating import COLUMN_ROW, MAJORITY_ROW, MODEL_ROW, Evaluation
from abfed.lab.paper.page import BLUE, INK, RULE, paragraph, picture, section, table, under
from abfed.lab.views.curves import POSSIBLE
from abfed.lab.views.frames import in_parts, noises_part
from abfed.lab.views.plots import as_svg, draw_estimate, drawing, explain_parts
from abfed.lab.views.readings import GUESSING, SURE, require_model, widened
from abfed.lab.views.units import NBSP, NOISES_PART, NONE, PARTS, count, percent, plain, signed
from abfed.learning.calibration import calibration, calibration_in_groups
from abfed.learning.evaluation import Estimate, ScoreHistogram, pool
from abfed.stats.effects import DEFAULT_ALPHA

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run

__all__ = ["LAST", "SURE", "calibrated_in_short", "histograms"]

LAST = "evaluate"
"""The step whose histograms are of the final model."""
GROUPS = 8  # of recipients by their score, for calibration
DROWNED = "can’t be told from noise at this ε"
FEWEST = 2  # bins of revenue that can be compared


def histograms(run: Run, step: str) -> dict[str, ScoreHistogram]:
    """Noised histograms of a step, by brand."""
    return {
        silo: ScoreHistogram.of_release(steps[step].arrays["histogram"], steps[step].release.noise)
        for silo, steps in run.releases.items()
        if step in steps
    }


def baselines(run: Run) -> str:
    """The model beside what needs none: everybody's mean chance, one column, the lot."""
    frame = Evaluation.of(run).outcome
    rows = [
        [escape(one["scorer"]), _spanned(one, "auc"), _spanned(one, "log_loss")]
        for one in frame.to_dict("records")
    ]
    shown = table(
        ["Told by", "AUC (higher is better)", "Log-loss (lower is better)"],
        rows, source=run.source, numeric=(1, 2), counts=(),
    )  # fmt: skip
    how = (
        f"Of “{require_model(run).outcome}”, on recipients held out, with 95{NBSP}% intervals. "
        f"{PARTS} The single column is the one that the model itself leans on most."
    )
    return section(
        "Is it better than no model?", paragraph(baselines_reading(frame)), shown,
        paragraph(how, "soft"),
    )  # fmt: skip


def baselines_reading(frame: pd.DataFrame) -> str:
    """Whether the model ranks better than one column, and is likelier than the mean chance."""
    rows = {one["scorer"]: one for one in frame.to_dict("records")}
    model, column, majority = (rows[name] for name in (MODEL_ROW, COLUMN_ROW, MAJORITY_ROW))
    ranks = _against(model, column, "auc", higher=True)
    chances = _against(model, majority, "log_loss", higher=False)
    ranking = {
        "better": "The model ranks clearly better than its best single column",
        "worse": "The model ranks clearly worse than its best single column",
        "open": "Whether the model ranks better than its best single column is open",
        "": f"How the model ranks beside its best single column {DROWNED}",
    }[ranks]
    likelier = {
        "better": "its probabilities are clearly better than everybody’s mean chance",
        "worse": "its probabilities are clearly worse than everybody’s mean chance: recalibrate "
        "them before use",
        "open": "whether its probabilities are better than everybody’s mean chance is open",
        "": f"how its probabilities do beside everybody’s mean chance {DROWNED}",
    }[chances]
    return f"{ranking}; {likelier}."


def _against(one: dict[Any, Any], other: dict[Any, Any], name: str, *, higher: bool) -> str:
    """Whether a figure is clearly better or worse than another's; "" where either is missing."""
    gap = (one[name] - other[name]) * (1 if higher else -1)
    reach = math.hypot(*(each[f"{name}_high"] - each[name] for each in (one, other)))
    if not (math.isfinite(gap) and math.isfinite(reach)):
        return ""
    return "better" if gap > reach else "worse" if gap < -reach else "open"


def _spanned(row: dict[Any, Any], name: str, places: int = 3) -> str:
    """A figure with its interval below it, which ends where such a figure does."""
    value, low, high = (float(row[one]) for one in (name, f"{name}_low", f"{name}_high"))
    lowest, highest = POSSIBLE["auc" if name == "auc" else "log_loss"]
    if not lowest <= value <= highest:  # missing, or taken beyond by noise
        return NONE
    if not low < high:
        return plain(value, places)
    span = f"{plain(max(low, lowest), places)} to {plain(min(high, highest), places)}"
    return under(plain(value, places), span, noises_part(row, name))


def calibrated(run: Run) -> str:
    """Whether predicted probabilities happen as often as they say, and what would mend them."""
    found = Evaluation.of(run)
    rows = [
        [
            f"{percent(one.predicted, 1)}",
            *_happened(one.observed),
            count(one.recipients),
        ]
        for one in calibration(found.scores)
    ]
    bins = table(
        ["Predicted", "Happened", f"95{NBSP}%", NOISES_PART, "Recipients (noised)"],
        rows, source=run.source, numeric=(1, 2, 3, 4), counts=(4,),
    )  # fmt: skip
    shown = picture(as_svg(plot_calibration(run)), calibration_reading(run))
    if not _readable(run):
        shown = paragraph(calibration_reading(run))
    folded = f"<details><summary>All bins of the score</summary>{bins}</details>"
    mended = []
    if len(found.recalibrated):
        rows = [
            [
                escape(one["scores"]),
                _spanned(one, "log_loss"),
                f"{plain(100 * one['reliability'], 1)} pp",
                f"{plain(100 * one['reliability_by_chance'], 1)} pp",
                f"{plain(100 * one['reliability_by_both'], 1)} pp",
            ]
            for one in found.recalibrated.to_dict("records")
        ]
        head = [
            "Scores", "Log-loss", "Predicted from happened, mean distance",
            "Chance alone would show", "Chance and noise",
        ]  # fmt: skip
        mended = [
            "<h3>Recalibrated</h3>", paragraph(recalibration_reading(found)),
            table(head, rows, source=run.source, numeric=(1, 2, 3, 4), counts=()),
            paragraph("Fitted to the counts that were released, so it costs nothing.", "soft"),
        ]  # fmt: skip
    return section("Calibration", shown, folded, *mended)


def _happened(one: Estimate | None) -> tuple[str, str, str]:
    """What happened in a bin, within how much, and how much of that is noise."""
    if one is None:
        return NONE, NONE, NONE
    reach = f"± {100 * SURE * one.standard_error:.1f} pp"
    return percent(one.value, 1), reach, percent(one.noise_share)


def recalibration_reading(found: Evaluation) -> str:
    """What the two numbers do, in words."""
    if found.recalibration is None:
        return f"Recalibration {DROWNED}."
    slope, shift = found.recalibration
    before, after = found.recalibrated["reliability"].tolist()
    said = f"Log-odds × {plain(slope, 2)}, {signed(shift, 2)}, would fit best (1 and 0: as trained)"
    if not (math.isfinite(before) and math.isfinite(after)):
        return f"{said}."
    word = "falls" if after < before else "doesn’t fall"
    least = found.recalibrated["reliability_by_both"].iloc[-1]
    return (
        f"{said}: the mean distance between predicted and happened {word}, from "
        f"{plain(100 * before, 1)} to {plain(100 * after, 1)} percentage points; chance and noise "
        f"would show {plain(100 * least, 1)} of a model that is right."
    )


def _readable(run: Run) -> list[tuple[float, Estimate]]:
    """Groups of recipients by score of which noise leaves something: predicted, and observed."""
    scores = pool(histograms(run, LAST).values())
    groups = calibration_in_groups(scores, GROUPS)
    return [(one.predicted, one.observed) for one in groups if one.observed is not None]


def calibration_reading(run: Run) -> str:
    """In how many groups what happened is what was predicted."""
    groups = _readable(run)
    if not groups:
        return f"Calibration {DROWNED}."
    off = [one.value - predicted for predicted, one in groups]
    reach = [SURE * one.standard_error for _, one in groups]
    above = sum(gap > most for gap, most in zip(off, reach, strict=True))
    below = sum(-gap > most for gap, most in zip(off, reach, strict=True))
    held = len(groups) - above - below
    many = f"{held} of {len(groups)} groups of recipients by score"
    if len(groups) == 1:
        many = "all recipients together" if held else "none"
    said = f"What happened agrees with what was predicted, within 95{NBSP}% intervals, for {many}"
    if above or below:
        parts = [f"more often in {above}"] * bool(above) + [f"less often in {below}"] * bool(below)
        said += f"; it happened {' and '.join(parts)}"
    errors = (math.hypot(*(one.standard_error for _, one in groups)),
              math.hypot(*(one.sampling_error for _, one in groups)))  # fmt: skip
    return f"{said}. Taken together, intervals are {widened(errors[0] / errors[1] - 1)}."


def calibrated_in_short(run: Run) -> str:
    """The same for the head of a page, where nothing is said that is said again below."""
    groups = _readable(run)
    if not groups:
        return f"Calibration {DROWNED}."
    held = sum(abs(one.value - said) <= SURE * one.standard_error for said, one in groups)
    return (
        f"Its probabilities agree with what happened, within 95{NBSP}% intervals, for {held} of "
        f"{len(groups)} groups of recipients."
    )


def plot_calibration(run: Run) -> Figure:
    """Observed against predicted, with intervals; the diagonal is perfect."""
    groups = _readable(run)
    with drawing(8.2, 3.6) as (figure, (axes,)):
        # Each axis as far as its own figures go: predictions are often close to one another.
        wide = min(1.0, 1.12 * max([0.02, *(predicted for predicted, _ in groups)]))
        tops = [one.value + SURE * one.standard_error for _, one in groups]
        high = min(1.0, 1.06 * max([wide, *tops]))
        axes.plot([0, 100 * wide], [0, 100 * wide], color=INK, lw=0.9, ls=":", label="perfect")
        for predicted, one in groups:
            draw_estimate(axes, in_parts("observed", one), "observed", 100 * predicted, BLUE,
                          scale=100, upright=True, within=(0, 100))  # fmt: skip
            axes.plot(100 * predicted, 100 * one.value, "o", color="white", mec=BLUE, mew=1.6, ms=6,
                      clip_on=False, zorder=3)  # fmt: skip
        axes.set_xlim(0, 100 * wide)
        axes.set_ylim(0, 100 * high)
        axes.set_xlabel("predicted probability, %")
        axes.set_ylabel("share that did, %")
        axes.grid(color=RULE, lw=0.6)
        perfect = axes.get_legend_handles_labels()[0]
        axes.legend(handles=[*perfect, *explain_parts(axes, DEFAULT_ALPHA)], loc="lower left",
                    bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8.5)  # fmt: skip
    return figure


def further(run: Run) -> str:
    """How well the other outcomes are told by the same network; nothing where there is none."""
    frame = Evaluation.of(run).further
    if frame.empty:
        return ""
    rows = [
        [
            escape(one["outcome"]),
            _spanned(one, "auc"),
            _spanned(one, "log_loss"),
            _spanned(one, "majority_log_loss"),
        ]
        for one in frame.to_dict("records")
    ]
    shown = table(
        ["Outcome", "AUC", "Log-loss", "Log-loss of the mean chance"],
        rows, source=run.source, numeric=(1, 2, 3), counts=(),
    )  # fmt: skip
    how = f"From the same network, in the same pass, with 95{NBSP}% intervals."
    return section(
        "Further outcomes", paragraph(further_reading(frame)), shown, paragraph(how, "soft")
    )


def further_reading(frame: pd.DataFrame) -> str:
    """Which of them are ranked better than by lot."""
    kinds: dict[str, list[str]] = {"better": [], "worse": [], "open": [], "drowned": []}
    for one in frame.to_dict("records"):
        kind = "drowned"
        if math.isfinite(one["auc"]):
            kind = "better" if one["auc_low"] > GUESSING else "open"
            kind = "worse" if one["auc_high"] < GUESSING else kind
        kinds[kind].append(f"“{one['outcome']}”")
    words = {
        "better": "Ranked clearly better than by lot: {}.",
        "worse": "Ranked clearly worse than by lot: {}.",
        "open": "Not told from guessing: {}.",
        "drowned": "Drowned in noise: {}.",
    }
    return " ".join(words[kind].format(", ".join(named)) for kind, named in kinds.items() if named)


def revenue(run: Run) -> str:
    """Revenue by what was predicted; nothing where the model has no such output."""
    frame = Evaluation.of(run).revenue
    if frame.empty:
        return ""
    rows, lower = [], ""
    for one in frame.to_dict("records"):
        top = plain(one["predicted_up_to"], 2)
        spent = NONE
        if math.isfinite(one["observed"]):
            reach = SURE * one["observed_se"]
            spent = f"{plain(one['observed'], 2)} ± {plain(reach, 2)}"
        named = f"over {lower}, up to {top}" if lower else "nothing"
        part = percent(one["observed_privacy_share"])
        rows.append([named, count(one["recipients"]), spent, part])
        lower = top
    shown = table(
        ["Predicted", "Recipients (noised)", f"Spent on average, ± 95{NBSP}%", NOISES_PART],
        rows, source=run.source, numeric=(1, 2, 3), counts=(1,),
    )  # fmt: skip
    how = (
        "Currency per recipient. Predicted is the chance to buy times the size of a purchase. "
        f"{NONE} where noise drowns a bin."
    )
    return section("Revenue", paragraph(revenue_reading(frame)), shown, paragraph(how, "soft"))


def revenue_reading(frame: pd.DataFrame) -> str:
    """Whether those of whom more was predicted spent more."""
    seen = frame[frame["observed"].notna()]
    if len(seen) < FEWEST:
        return f"Whether revenue follows what was predicted {DROWNED}."
    low, high = seen.iloc[0], seen.iloc[-1]
    gap = high["observed"] - low["observed"]
    reach = SURE * math.hypot(low["observed_se"], high["observed_se"])
    clear = (
        "clearly more" if gap > reach else "clearly less" if gap < -reach else "not clearly more"
    )
    return (
        f"Those of whom most was predicted spent {clear} than those of whom least was: "
        f"{plain(high['observed'], 2)} against {plain(low['observed'], 2)}, in the highest and "
        f"lowest bin that can be read (difference {signed(gap, 2)} ±{NBSP}{plain(reach, 2)})."
    )
