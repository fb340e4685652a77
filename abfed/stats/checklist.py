"""All checks of an experiment in one tidy frame, each with a sentence that says what was found.

Every check is there whether it found something or not: an experiment nobody looked at isn't sound.
Alarms are at p < .001 as for sample ratios, because checks run on every report.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from abfed.protocol.plan import Plan
from abfed.stats.checks import SRM_ALARM, sample_ratios
from abfed.stats.soundness import balance, dead_cells, novelty, orphans, orphans_alike
from abfed.stats.suppression import SUPPRESS_BELOW
from abfed.stats.totals import SiloTotals

SAMPLE_RATIO, BALANCE, DEAD, ORPHANS, NOVELTY, DRIFT = (
    "sample ratio",
    "balance",
    "dead cells",
    "clicks without opens",
    "novelty",
    "drift",
)
CHECKS = (SAMPLE_RATIO, BALANCE, DEAD, ORPHANS, NOVELTY, DRIFT)
COLUMNS = ("check", "scope", "subject", "p_value", "alarm", "reading")
EVERYWHERE = "all brands"

Totals = Mapping[str, SiloTotals]
Rows = Iterator[dict[str, Any]]

TOO_FEW = "too few recipients to tell arms' shares"
NONE_DEAD = (
    "as far as the noise shows, no metric is all zero in one arm only, and none stands still"
)


def checklist(plan: Plan, waves: Sequence[Totals]) -> pd.DataFrame:
    """Every check of a run.

    Args:
        plan: what was asked.
        waves: noised totals by brand, of each wave so far; the checks of one wave are of the last.

    Returns:
        One row for each test: check (one of `CHECKS`), scope, subject (arm, metric or feature),
        p_value (missing where it isn't a test), alarm, reading. A check that can't be made has one
        row that says why.
    """
    last = waves[-1]
    rows = [
        *_sample_ratio(plan, last),
        *_balance(plan, last),
        *_dead(plan, last),
        *_orphans(plan, last),
        *_from_wave_to_wave(plan, waves),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def by_check(frame: pd.DataFrame) -> pd.DataFrame:
    """The checklist in short.

    Returns:
        One row a check: check, tests, alarms, smallest_p, reading (of its first alarm, or of its
        first row that could be told).
    """
    rows = []
    for check, seen in frame.groupby("check", sort=False):
        told = seen.assign(untold=seen["reading"].eq(TOO_FEW))
        first = told.sort_values(["alarm", "untold"], ascending=[False, True], kind="stable").iloc[
            0
        ]
        rows.append(
            {
                "check": check,
                "tests": int(seen["p_value"].notna().sum()),
                "alarms": int(seen["alarm"].sum()),
                "smallest_p": float(seen["p_value"].min()),
                "reading": first["reading"],
            }
        )
    return pd.DataFrame(rows, columns=["check", "tests", "alarms", "smallest_p", "reading"])


def _of(
    check: str, scope: str, subject: str, p_value: float, reading: str, *, alarm: bool
) -> dict[str, Any]:
    return dict(zip(COLUMNS, (check, scope, subject, p_value, alarm, reading), strict=True))


def _untold(check: str, why: str) -> dict[str, Any]:
    """A check without a test: what would have been needed, or that there is nothing to tell."""
    return _of(check, EVERYWHERE, "", math.nan, why, alarm=False)


def _sample_ratio(plan: Plan, totals: Totals) -> Rows:
    for row in sample_ratios(plan, totals).to_dict("records"):
        reading = "arms hold their planned shares of recipients"
        people = sum(row[arm.name] for arm in plan.arms)
        if people <= SUPPRESS_BELOW * row["noise_sd"] * math.sqrt(len(plan.arms)):
            reading = TOO_FEW
        if row["alarm"]:
            reading = (
                "arms don't hold their planned shares of recipients: find out why before any "
                "effect is believed"
            )
        alarm, p = bool(row["alarm"]), float(row["p_value"])
        yield _of(SAMPLE_RATIO, row["scope"], "arms", p, reading, alarm=alarm)


def _balance(plan: Plan, totals: Totals) -> Rows:
    found = balance(plan, totals).to_dict("records")
    if not found:
        yield _untold(BALANCE, "not checked: the plan names no feature under analysis.balance")
    for row in found:
        verb = "differ" if row["alarm"] else "are alike"
        reading = f"arms {verb} in {row['feature']}, which was known before the send"
        alarm, p = bool(row["alarm"]), float(row["p_value"])
        yield _of(BALANCE, row["scope"], row["feature"], p, reading, alarm=alarm)


def _dead(plan: Plan, totals: Totals) -> Rows:
    found = dead_cells(plan, totals).to_dict("records")
    if not found:
        yield _untold(DEAD, NONE_DEAD)
    for row in found:
        subject = f"{row['metric']}, {row['arm']}"
        reading = f"{row['metric']} for {row['arm']}: {row['reason']}; look before you believe it"
        yield _of(DEAD, row["scope"], subject, math.nan, reading, alarm=True)


def _orphans(plan: Plan, totals: Totals) -> Rows:
    frame = orphans(plan, totals)
    if frame.empty:
        why = "not counted: the plan has no rule under analysis.clicks_without_opens"
        yield _untold(ORPHANS, why)
    alike = orphans_alike(totals)
    for scope, seen in frame.groupby("scope"):
        size = max(float(totals[str(scope)].counts()[0].sum()), 1.0)
        share = max(0.0, float(seen["recipients"].sum())) / size
        noise = 1.96 * math.hypot(*seen["noise_sd"]) / size
        p = alike[str(scope)]
        reading = (
            f"{share:.1%} (± {noise:.1%} of noise) of recipients clicked a send that wasn't "
            f"opened; rule: {seen['rule'].iloc[0]}"
        )
        if p < SRM_ALARM:
            reading += "; arms differ in it: is one arm's tracking broken?"
        yield _of(ORPHANS, str(scope), "arms", p, reading, alarm=p < SRM_ALARM)


def _from_wave_to_wave(plan: Plan, waves: Sequence[Totals]) -> Rows:
    if len(waves) < 2:
        why = "one wave so far: it takes two to see a change"
        if plan.analysis.sequential is None:
            why = "not checked: the plan has no waves"
        yield from (_untold(check, why) for check in (NOVELTY, DRIFT))
        return
    for row in novelty(plan, waves).to_dict("records"):
        what = f"the effect of {row['arm']} on {row['metric']}"
        if row["what"] == DRIFT:
            what = f"{row['metric']} under {row['arm']}"
        subject, p = f"{row['metric']}, {row['arm']}", float(row["p_value"])
        alarm = p < SRM_ALARM
        reading = f"{what} doesn't change from wave to wave"
        if math.isnan(p):
            reading = f"{what} can't be read in two waves"
        elif alarm:
            reading = f"{what} changes by {row['slope']:+.3g} ± {1.96 * row['se']:.2g} a wave"
        yield _of(row["what"], EVERYWHERE, subject, p, reading, alarm=alarm)
