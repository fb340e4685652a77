"""A run in words: one sentence for each question, computed from the numbers and from nothing else.

A sentence never says more than the decision behind it: "higher" where the adjusted test found it,
"no clear difference" otherwise, and "not shown" where a guardrail could neither be kept nor broken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pandas as pd

from abfed.lab.views.units import NBSP, Unit, level, percent, plain, unit_of
from abfed.protocol.errors import InputError
from abfed.protocol.modelling import Model
from abfed.stats.contrasts import SUPPRESSED, UNKNOWN, UNREAD
from abfed.stats.effects import DEFAULT_ALPHA, THESE

if TYPE_CHECKING:
    from abfed.lab.runs import Run

SURE = 1.96  # standard errors of a 95 % interval
MANY_TIMES = 9.0  # from here on decimals say nothing: ten times as wide, not 10.2
GUESSING = 0.5  # AUC of a ranking by lot


def effects_at(
    run: Run, alpha: float, metric: str | None = None, *, segments: bool = False
) -> pd.DataFrame:
    """Effects at a level of confidence, of one metric or of all; in segments, or but for those.

    Raises:
        InputError: the plan has no such metric, or alpha isn't between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha:g}", why="it must lie between 0 and 1", do="give 0.05")
    names = [one.name for one in run.plan.metrics]
    if metric is not None and metric not in names:
        near = get_close_matches(metric, names, n=1)
        raise InputError(
            f"the plan has no metric {metric!r}",
            where=run.name,
            why=f"its metrics are: {', '.join(names)}",
            do=f"did you mean {near[0]!r}?" if near else "name one of these",
        )
    table = run.effects_at(alpha)
    table = table[(table["segment"] != "") == segments]
    return table if metric is None else table[table["metric"] == metric]


def widest(run: Run) -> str:
    """The scope that speaks for the run: these brands, or the only one."""
    return THESE if len(run.silos) > 1 else run.silos[0]


def where(run: Run) -> str:
    """The same in words."""
    brands = len(run.silos)
    return f"over the {brands} brands together" if brands > 1 else f"in {run.silos[0]}"


def require_model(run: Run) -> Model:
    """The plan's model; showing training is refused where nothing was trained."""
    if run.plan.model is None:
        raise InputError("the plan has no model", where=run.name, do="add one to train it")
    return run.plan.model


def sentences(run: Run, metric: str, *, alpha: float = DEFAULT_ALPHA, brand: str = "") -> list[str]:
    """What the run, or one of its brands, says of a metric: one for each arm against the control.

    Raises:
        InputError: the plan has no such metric, or alpha isn't between 0 and 1.
    """
    table = effects_at(run, alpha, metric)
    rows = table[table["scope"] == (brand or widest(run))]
    unit = unit_of(run.plan, metric)
    place = f" in {brand}" if brand else f" {where(run)}"
    return [
        _sentence(run, row, unit, alpha, "" if number else place)
        for number, (_, row) in enumerate(rows.iterrows())
    ]


def reading(run: Run, metric: str, *, alpha: float = DEFAULT_ALPHA, brand: str = "") -> str:
    """The same in one piece: one sentence where the plan has one arm beside the control.

    Raises:
        InputError: the plan has no such metric, or alpha isn't between 0 and 1.
    """
    return " ".join(sentences(run, metric, alpha=alpha, brand=brand))


def _sentence(run: Run, row: pd.Series[Any], unit: Unit, alpha: float, place: str) -> str:
    arm, control, metric = row["arm"], row["control"], row["metric"]
    if row["decision"] in UNREAD:
        return f"There is no reading of “{metric}” for “{arm}”{place}: {_quoted(row['note'])}."
    figures = _figures(row, unit, alpha)
    if any(guardrail.metric == metric for guardrail in run.plan.guardrails):
        return f"{_guarded(run, row, unit, place)}. It was {figures}."
    if row["decision"] in {"better", "worse"}:
        word = "higher" if row["estimate"] > 0 else "lower"
        return f"“{metric}” was {word} for “{arm}” than for “{control}”{place}: {figures}."
    hint = ""
    if row["ci_low"] > 0 or row["ci_high"] < 0:
        hint = "; it doesn’t hold once all comparisons are counted"
    return (
        f"No clear difference in “{metric}” between “{arm}” and “{control}”{place}: "
        f"{figures}{hint}."
    )


def _figures(row: pd.Series[Any], unit: Unit, alpha: float) -> str:
    """Both arms' values, the difference, its interval, and what the noise did to it."""
    se = row["se"]
    span = unit.interval(row["ci_low"], row["ci_high"], se)
    return (
        f"{unit.value(row['mean_arm'], se)} against {unit.value(row['mean_control'], se)}, "
        f"a difference of {unit.effect(row['estimate'], se)} {unit.difference} "
        f"({level(alpha)} interval {span}{wider(row)})"
    )


def widening(row: Mapping[Any, Any] | pd.Series[Any], name: str = "") -> float:
    """How much wider the interval is for the noise, as a share; NaN where it can't be split.

    Args:
        row: of effects, or of a frame whose estimate `name` has its parts (`frames.in_parts`).
        name: the estimate's; empty for an effect.
    """
    whole, chance = (row[f"{name}_{part}" if name else part] for part in ("se", "se_sampling"))
    return float(whole / chance - 1) if chance > 0 else math.nan


def wider(row: Mapping[Any, Any] | pd.Series[Any], name: str = "") -> str:
    """The same in words, to stand behind an interval; a comma before them."""
    share = widening(row, name)
    return f", {widened(share)}" if math.isfinite(share) else ""


def widened(share: float) -> str:
    """How much wider something is, in words; from twice on in times."""
    if share < 1:
        return f"{percent(share)} wider for the noise"
    return f"{plain(share + 1, 1 if share < MANY_TIMES else 0)} times as wide for the noise"


def _guarded(run: Run, row: pd.Series[Any], unit: Unit, place: str) -> str:
    guardrail = next(one for one in run.plan.guardrails if one.metric == row["metric"])
    margin = unit.amount(guardrail.margin)
    harm = "a rise" if guardrail.harm == "increase" else "a fall"
    start, end = {
        "within margin": ("“{arm}” keeps “{metric}” within its margin", "is ruled out"),
        "breached": ("“{arm}” breaks the guardrail on “{metric}”", "is shown"),
        "not shown": (
            "It is not shown that “{arm}” keeps “{metric}” within its margin",
            "can’t be ruled out",
        ),
    }[row["decision"]]
    names = start.format(arm=row["arm"], metric=row["metric"])
    return f"{names}{place}: {harm} beyond {margin} {end}"


def guardrail_reading(run: Run, *, alpha: float = DEFAULT_ALPHA) -> str:
    """All guardrails in one sentence, without figures; empty where there is none."""
    table = effects_at(run, alpha)
    guarded = [one.metric for one in run.plan.guardrails]
    rows = table[(table["scope"] == widest(run)) & table["metric"].isin(guarded)]
    words = {
        "within margin": "kept within its margin",
        "breached": "broken",
        "not shown": "not shown to be kept",
        SUPPRESSED: "not readable for noise",
        UNKNOWN: "not estimable",
    }
    grouped: dict[str, list[str]] = {}
    for _, row in rows.iterrows():
        start = f"“{row['metric']}” is {words[row['decision']]} by"
        grouped.setdefault(start, []).append(f"“{row['arm']}”")
    said = [f"{start} {' and '.join(arms)}" for start, arms in grouped.items()]
    return f"Guardrails: {'; '.join(said)}." if said else ""


def sample_ratio_reading(run: Run) -> str:
    """Whether arms hold the planned shares of recipients."""
    alarms = run.sample_ratios[run.sample_ratios["alarm"]]["scope"].tolist()
    if alarms:
        return (
            f"Sample-ratio mismatch in {', '.join(alarms)}: arms don’t hold their planned shares. "
            "Find out why before any effect is believed."
        )
    lowest = run.sample_ratios["p_value"].min()
    return f"Arms hold their planned shares of recipients (smallest p-value {lowest:.3f})."


def training_reading(run: Run) -> str:
    """How good the final model is at ranking recipients it has not seen."""
    outcome = require_model(run).outcome
    last = run.training.iloc[-1]
    if not math.isfinite(last["auc"]):
        return "How good the model is can’t be told from noise at this ε."
    return (
        f"After {int(last['model'])} rounds the model ranks a recipient who has “"
        f"{outcome}” above one who hasn’t in {percent(last['auc'])} of pairs "
        f"({auc_with_interval(last)}), on recipients held out."
        f"{against_guessing(last['auc'], last['auc_se'])}"
    )


def gaps_reading(run: Run) -> str:
    """Why the curves of training have gaps, where they have any."""
    gaps = run.training[["auc", "log_loss"]].isna().to_numpy().any()
    return " Where a round has no point, noise drowns its figure." if gaps else ""


def auc_with_interval(row: Mapping[Any, Any] | pd.Series[Any]) -> str:
    """A row's AUC with its 95 % interval, which ends where an AUC does, and the noise's doing."""
    low, high = max(0.0, row["auc_low"]), min(1.0, row["auc_high"])
    return f"AUC {row['auc']:.3f}, 95{NBSP}% interval {low:.3f} to {high:.3f}{wider(row, 'auc')}"


def against_guessing(auc: float, error: float) -> str:
    """What a ranking is worth beside one by lot, where it isn't clearly better."""
    if auc - SURE * error > GUESSING:
        return ""
    if auc + SURE * error < GUESSING:
        return " That is worse than guessing (50 %)."
    return " That can’t be told from guessing (50 %)."


def _quoted(text: str) -> str:
    """A note with the quotation marks of a sentence."""
    parts = text.split("'")
    return "".join(
        part + ("" if n == len(parts) - 1 else "“" if n % 2 == 0 else "”")
        for n, part in enumerate(parts)
    )
