"""Effects: each arm against the control, in each brand and across brands, from noised totals.

A tidy frame, one row for metric × scope × arm, and for metric × segment × arm. Every row says how
wide its interval is, how much of that is the price of privacy, and what follows: a decision, or the
reason why there is none.

A plan with waves is read after each of them: effects are the means over the waves so far, weighted
by their sizes, arms being compared inside each wave; intervals and p-values are those of the plan's
sequential design. Several looks at a plan without one are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from abfed.protocol.errors import InputError
from abfed.protocol.metrics import Metric, Quantile, Ratio
from abfed.protocol.plan import Plan
from abfed.protocol.schema import DURATION_OUTCOMES
from abfed.stats import pooling
from abfed.stats.adjusting import bounds_of
from abfed.stats.contrasts import (
    COLUMNS,
    NOT_ESTIMABLE,
    SUPPRESSED,
    UNKNOWN,
    UNREAD,
    Contrast,
    empty_row,
    joined,
    pooled,
    row_of,
)
from abfed.stats.decisions import decide
from abfed.stats.layout import cells_of
from abfed.stats.once import note_of
from abfed.stats.readouts import read_arms
from abfed.stats.sequential import Looks
from abfed.stats.totals import SiloTotals

__all__ = ["COLUMNS", "DEFAULT_ALPHA", "LIKE_THESE", "NOT_ESTIMABLE", "THESE", "effects"]

DEFAULT_ALPHA = 0.05
"""One minus the confidence of intervals, where nobody asks for another."""
THESE = "these brands"
LIKE_THESE = "brands like these"
LIKE_THESE_FROM = 3
"""Brands it takes to speak of brands like these."""

AGREE = (
    f"narrower than {THESE}, whose effects happen to agree: nothing is surer of brands like them,"
    " so go by the wider of the two"
)
"""What is said of an interval that few brands made narrower than it can well be."""

HARMFUL = ("unsubscribed", "complained", *DURATION_OUTCOMES)
"""Outcomes of which less is better: harms, and waiting."""

PEEKING = "peeking at a fixed-horizon design"

Totals = Mapping[str, SiloTotals]
Rows = list[dict[str, Any]]


def effects(
    plan: Plan, totals: Totals, *, alpha: float = DEFAULT_ALPHA, earlier: Sequence[Totals] = ()
) -> pd.DataFrame:
    """Read all effects of a plan off the noised totals of its brands.

    Args:
        plan: what was asked.
        totals: noised totals by brand; of the last wave, where the plan has waves.
        alpha: one minus the confidence of the intervals, and the level of the decisions.
        earlier: those of the waves before, first wave first.

    Returns:
        The columns of `COLUMNS`. `estimate` and its interval are in the metric's unit, `relative`
        and its interval are shares of the control's value; `privacy_share` is the part of the
        variance that the noise adds (of the brands' variances, for brands like these);
        `n_effective` is how many recipients would have given the same interval without noise (not
        of brands like these, whose interval rests on how far brands lie apart).
        `p_adjusted` is corrected over arms × metrics of a scope; a guardrail has a one-sided
        p-value of its own instead. `shrunk` is a brand's effect pulled towards the brands' mean.
        `segment` names the segmentation where the scope is one of its cells, over these brands.
        Of totals that were noised once there is one scope, these brands, and the note says so.
        Where a value can't be had, it is missing and `note` says why.

    Raises:
        ValueError: no totals.
        InputError: several looks at a plan that declared one.
    """
    if not totals:
        raise ValueError("effects need the totals of at least one brand")
    if earlier and plan.analysis.sequential is None:
        raise InputError(
            PEEKING,
            where=plan.name,
            why="repeated fixed intervals reject a true null 14 to 21 % of the time in five looks",
            do="declare analysis.sequential in the plan before the first look",
        )
    waves = [*earlier, totals]
    rows = _rows(plan, waves, alpha)
    if plan.analysis.sequential is not None:
        before = [_rows(plan, waves[:look], alpha) for look in range(1, len(waves))]
        rows = _sequential(plan, [*before, rows], alpha)
    if any(one.mixture is not None for one in totals.values()):
        rows = [row | {"note": joined(row["note"], note_of(plan))} for row in rows]
    decide(rows, alpha, plan.analysis.correction)
    return pd.DataFrame(rows)[list(COLUMNS)]


def _rows(plan: Plan, waves: Sequence[Totals], alpha: float) -> Rows:
    """All rows at the last of these waves, as if it were the only look."""
    brands = sorted(set().union(*waves))
    sizes = {
        brand: sum(float(one[brand].counts()[0].sum()) for one in waves if brand in one)
        for brand in brands
    }
    rows: Rows = []
    for metric in plan.metrics:
        found = {
            brand: _contrasts(plan, metric, [one[brand] for one in waves if brand in one])
            for brand in brands
        }
        for arm in (one.name for one in plan.arms if not one.control):
            known = _known(plan, metric, arm)
            contrasts = {brand: found[brand][arm] for brand in brands}
            rows += [row | known for row in _scopes(contrasts, sizes, alpha)]
    for segment in plan.analysis.segments:
        for index, cell in enumerate(cells_of(segment, plan.features)):
            parts = [{b: one[b].cell(segment.name, index) for b in one} for one in waves]
            rows += _cell(plan, segment.name, cell, parts, alpha)
    return rows


def _cell(plan: Plan, segment: str, cell: str, waves: Sequence[Totals], alpha: float) -> Rows:
    """Effects in one cell of a segmentation, over these brands."""
    bare = plan.model_copy(
        update={"analysis": plan.analysis.model_copy(update={"segments": (), "adjust": ()})}
    )
    rows = [row for row in _rows(bare, waves, alpha) if row["scope"] in {THESE, *waves[0]}]
    many = len(set().union(*waves)) > 1
    return [
        row | {"scope": f"{segment}: {cell}", "segment": segment}
        for row in rows
        if not many or row["scope"] == THESE
    ]


def _known(plan: Plan, metric: Metric, arm: str) -> dict[str, Any]:
    """What a row is about."""
    return {
        "metric": metric.name,
        "arm": arm,
        "control": plan.control.name,
        "guardrail": next((g for g in plan.guardrails if g.metric == metric.name), None),
        "harmful": is_harmful(metric),
    }


def is_harmful(metric: Metric) -> bool:
    """Whether more of the metric is worse."""
    return (metric.numerator if isinstance(metric, Ratio) else metric.column) in HARMFUL


def _lowest(metric: Metric) -> float:
    """The least that the metric can be."""
    return metric.edges[0] if isinstance(metric, Quantile) else bounds_of(metric)[0]


def _contrasts(
    plan: Plan, metric: Metric, waves: Sequence[SiloTotals]
) -> dict[str, tuple[Contrast, str]]:
    """Each arm against the control in one brand, over its waves; with a note."""
    control = plan.control.name
    readouts = [read_arms(plan, metric, one) for one in waves]
    sizes = [float(one.counts()[0].sum()) for one in waves]
    out: dict[str, tuple[Contrast, str]] = {}
    signed = _lowest(metric) < 0
    for arm, share in ((one.name, one.share) for one in plan.arms if not one.control):
        odds = share / plan.control.share
        parts = [
            Contrast(one.arms[arm].single(), one.arms[control].single(), signed, odds)
            for one in readouts
        ]
        usable = [place for place, one in enumerate(parts) if not one.suppressed]
        if not usable:
            out[arm] = parts[-1], ""
            continue
        weights = pooling.weights_by_size([sizes[place] for place in usable])
        whole = pooled([parts[place] for place in usable], weights)
        note = readouts[usable[-1]].note
        if len(usable) < len(parts):
            note = joined(note, f"without {len(parts) - len(usable)} wave(s) that drown in noise")
        out[arm] = whole, note
    return out


def _scopes(
    found: Mapping[str, tuple[Contrast, str]], sizes: Mapping[str, float], alpha: float
) -> Rows:
    """Rows for each brand and, from two on, for these brands and brands like these."""
    contrasts = {brand: one for brand, (one, _) in found.items()}
    usable = [brand for brand, one in contrasts.items() if not one.suppressed]
    varied = _varied(contrasts, usable)
    pulled: dict[str, float] = {}
    if len(varied) > 1:
        values = pooling.shrunk(
            [contrasts[brand].effect for brand in varied],
            [contrasts[brand].variance for brand in varied],
        )
        pulled = dict(zip(varied, map(float, values), strict=True))
    rows = []
    for brand, (one, note) in found.items():
        row = row_of(brand, one, alpha) | {"contrast": one, "people": sizes[brand]}
        row["shrunk"] = pulled.get(brand, math.nan)
        row["note"] = joined(row["note"], note) if note and not one.suppressed else row["note"]
        rows.append(row)
    # Which scopes there are follows from the brands that were asked, not from the noise: a table
    # whose rows came and went with it would break whatever reads them.
    if len(contrasts) > 1:
        these = _these_brands(contrasts, usable, sizes, alpha)
        if these["decision"] not in UNREAD:
            for note in _shared_notes({brand: found[brand][1] for brand in usable}):
                these["note"] = joined(these["note"], note)
        seen = [contrasts[brand] for brand in usable]
        rows += [these, _brands_like_these(seen, len(contrasts), these, alpha)]
    return rows


def _shared_notes(notes: Mapping[str, str]) -> list[str]:
    """How brands' values were made, as the mean over them has it too: said once where all agree."""
    said = [note for note in dict.fromkeys(notes.values()) if note]
    if len(set(notes.values())) == 1:
        return said
    return [f"{', '.join(b for b, one in notes.items() if one == note)}: {note}" for note in said]


def _varied(contrasts: Mapping[str, Contrast], usable: Sequence[str]) -> list[str]:
    """Brands whose effect has a variance: one whose values are all alike can't be weighed by it."""
    return [brand for brand in usable if contrasts[brand].variance > 0]


def _these_brands(
    contrasts: Mapping[str, Contrast],
    usable: Sequence[str],
    sizes: Mapping[str, float],
    alpha: float,
) -> dict[str, Any]:
    """The size-weighted mean over the brands whose arms could be told from noise."""
    if not usable:
        return row_of(THESE, next(iter(contrasts.values())), alpha)
    kept = [sizes[brand] for brand in usable]
    whole = pooled([contrasts[brand] for brand in usable], pooling.weights_by_size(kept))
    row = row_of(THESE, whole, alpha) | {"contrast": whole, "people": sum(kept)}
    left_out = [brand for brand in contrasts if brand not in usable]
    if left_out:
        row["note"] = joined(row["note"], f"without {', '.join(left_out)} (suppressed)")
    varied = _varied(contrasts, usable)
    if len(varied) > 1:
        spread = pooling.heterogeneity(
            [contrasts[brand].effect for brand in varied],
            [contrasts[brand].variance for brand in varied],
        )
        if spread.p_value < alpha:
            p = "p < .001" if spread.p_value < 0.001 else f"p = {spread.p_value:.3f}"
            note = f"brands differ (Q {p}, I² = {spread.i_squared:.0%})"
            row["note"] = joined(row["note"], note)
    return row


def _brands_like_these(
    contrasts: Sequence[Contrast], asked: int, these: Mapping[str, Any], alpha: float
) -> dict[str, Any]:
    """The mean over brands like these: its interval holds the differences between brands too."""
    if len(contrasts) < LIKE_THESE_FROM:
        if asked < LIKE_THESE_FROM:
            note = f"it takes {LIKE_THESE_FROM} brands to tell how much brands differ"
            return empty_row(LIKE_THESE, decision=UNKNOWN, note=note)
        note = f"fewer than {LIKE_THESE_FROM} brands can be told from noise at this ε"
        return empty_row(LIKE_THESE, decision=SUPPRESSED, note=note)
    if these["decision"] in UNREAD:  # no brand's values vary
        return empty_row(LIKE_THESE, decision=these["decision"], note=these["note"])
    effects_ = [one.effect for one in contrasts]
    if len(set(effects_)) == 1:
        note = "not estimable: effects that are all the same don't show how much brands differ"
        return empty_row(LIKE_THESE, decision=UNKNOWN, note=note)
    mean = pooling.like_these(effects_, [one.variance for one in contrasts])
    low, high = (float(end) for end in mean.interval(alpha))
    privacy = sum(one.arm.privacy + one.control.privacy for one in contrasts)
    note = (
        f"each of {len(contrasts)} brands counts the same; for the relative lift and the effective"
        f" sample size see {THESE}"
    )
    return empty_row(
        LIKE_THESE,
        estimate=float(mean.estimate),
        ci_low=low,
        ci_high=high,
        p_value=float(mean.p_value()),
        se=float(mean.spread),
        mean=mean,
        privacy_share=privacy / sum(one.variance for one in contrasts),
        note=joined(AGREE if high - low < these["ci_high"] - these["ci_low"] else "", note),
    )


def _sequential(plan: Plan, tables: Sequence[Rows], alpha: float) -> Rows:
    """The last look's rows with the intervals and p-values of the sequential design."""
    design = plan.analysis.sequential
    if design is None:
        return list(tables[-1])
    keyed = [{(r["metric"], r["scope"], r["arm"]): r for r in rows} for rows in tables]
    out: Rows = []
    for key, row in keyed[-1].items():
        if row["decision"] in UNREAD:
            out.append(row)
            continue
        if "contrast" not in row:
            if len(tables) < len(design.waves):
                note = f"read once, after all {len(design.waves)} waves"
                kept = {name: row[name] for name in ("metric", "arm", "control", "guardrail")}
                row = empty_row(row["scope"], decision=UNKNOWN, note=note) | kept  # noqa: PLW2901
            out.append(row)
            continue
        seen = {
            look: (table[key]["estimate"], table[key]["se"], table[key]["people"])
            for look, table in enumerate(keyed, start=1)
            if key in table and "people" in table[key] and table[key]["decision"] not in UNREAD
        }
        looks = Looks.of(design.spending, len(design.waves), seen)
        whole = row | row_of(row["scope"], row["contrast"], alpha, looks.critical(alpha))
        kept = {name: row[name] for name in ("metric", "arm", "control", "shrunk", "segment")}
        note = joined(row["note"], looks.describe(alpha))
        out.append(whole | kept | {"p_value": looks.p_value(), "looks": looks, "note": note})
    return out
