"""Mock brands: made-up people of a plan's schema, so that it is tried before a silo is asked.

From the plan's declarations alone: its brands, arms, outcomes, features with their bounds, filters
and what it expects. Nothing of any real data is in it. Arms don't differ: a report that finds a
difference in mock data has found chance.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from abfed.protocol.errors import InputError
from abfed.protocol.metrics import Count, Mean, Ratio
from abfed.protocol.schema import AMOUNT_OUTCOMES, DURATION_OUTCOMES, NumericFeature
from abfed.site.files import make_private_folder, write_private

if TYPE_CHECKING:
    from abfed.protocol.plan import Plan

RATES = {"opened": 0.35, "clicked": 0.08, "converted": 0.02, "unsubscribed": 0.004,
         "complained": 0.001}  # fmt: skip
"""Of a send, where the plan expects nothing: what a mailing usually sees."""
OTHER_RATE, AMOUNT, HOURS = 0.05, 30.0, 8.0
SUBJECTS = ("spring is here", "your order of last year", "new in our shops", "three for two",
            "a word about spring", "only until sunday", "what our readers chose")  # fmt: skip
"""What stands in a text of a mailing, whatever the arm."""
SENT = datetime(2026, 3, 2, 8, tzinfo=UTC)  # where the plan has no waves
LEAST, MOST = 10, 5_000_000  # recipients of a brand
DEFAULT = 5_000


class MockBrand(NamedTuple):
    """A mock brand's files."""

    name: str
    export: Path
    mapping: Path


def write_mock(
    plan: Plan, folder: Path, *, seed: int, recipients: int | None = None
) -> list[MockBrand]:
    """Make an export and a mapping for each brand of a plan.

    Args:
        plan: whose schema.
        folder: where a folder for each brand is made.
        seed: of the people.
        recipients: of each brand; what the plan expects, or 5,000.

    Raises:
        InputError: too few or too many, or a negative seed.
    """
    expected = plan.analysis.recipients or DEFAULT
    count = expected if recipients is None else recipients
    if not LEAST <= count <= MOST or seed < 0:
        raise InputError(
            f"{count} recipients, seed {seed}",
            why=f"a brand has {LEAST} to {MOST:,} recipients, and a seed isn't negative",
        )
    made = []
    for index, name in enumerate(plan.silos):
        place = folder / name
        make_private_folder(place)
        brand = MockBrand(name, place / "export.csv", place / "mapping.yaml")
        rows = _rows(plan, name, np.random.default_rng([seed, index]), count)
        write_private(brand.export, rows.to_csv(index=False).encode())
        write_private(brand.mapping, _mapping(plan, name).encode())
        made.append(brand)
    return made


def _rows(plan: Plan, name: str, random: np.random.Generator, count: int) -> pd.DataFrame:
    """One row a send: 1 to as many as the plan counts."""
    arms = [arm.name for arm in plan.arms]
    shares = np.array([arm.share for arm in plan.arms])
    people = pd.DataFrame(
        {
            "recipient": [f"{name}-{number:07d}@example.com" for number in range(count)],
            "arm": random.choice(arms, count, p=shares / shares.sum()),
            "first": _first_sends(plan, random, count),
            "region": _regions(plan, random, count),
        }
    )
    for feature in plan.features:
        if isinstance(feature, NumericFeature):
            span = feature.high - feature.low
            people[feature.name] = np.round(feature.low + span * random.beta(2, 3, count), 3)
        else:
            people[feature.name] = random.choice(feature.values, count)
    sends = random.integers(1, plan.sends_per_recipient + 1, count)
    who = np.repeat(np.arange(count), sends)
    number = np.arange(len(who)) - np.repeat(np.cumsum(sends) - sends, sends)
    rows = people.iloc[who].reset_index(drop=True)
    for name_of_text in texts(plan):
        rows[name_of_text] = random.choice(SUBJECTS, len(who))
    moments = rows.pop("first") + pd.to_timedelta(number, unit="h")
    rows["sent_at"] = moments.dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    opened = random.random(len(who)) < _rate(plan, "opened")
    for outcome in outcomes(plan):
        rows[outcome] = _outcome(plan, outcome, random, opened)
    return rows


def _first_sends(plan: Plan, random: np.random.Generator, count: int) -> Any:
    """In each wave alike; on one day where there are none."""
    waves = plan.analysis.sequential.waves if plan.analysis.sequential else ()
    if not waves:
        return pd.Series([SENT] * count)
    ends = [datetime(w.until.year, w.until.month, w.until.day, tzinfo=UTC) for w in waves]
    starts = [end - timedelta(days=2) for end in ends]
    return pd.Series([starts[n] for n in random.integers(0, len(starts), count)])


def _regions(plan: Plan, random: np.random.Generator, count: int) -> Any:
    """Those that the plan asks for, and one that it doesn't."""
    asked = [one for c in plan.population if c.column == "region" for one in c.one_of or ()]
    return random.choice([*(asked or ["EU", "US"]), "elsewhere"], count)


def outcomes(plan: Plan) -> tuple[str, ...]:
    """The outcomes that the plan's metrics and model need."""
    named: list[str] = ["opened"]
    for metric in plan.metrics:
        found = (metric.numerator, metric.denominator) if isinstance(metric, Ratio) else ()
        named += found or (getattr(metric, "column", ""),)
    if plan.model is not None:
        named += plan.model.outcome_columns
    return tuple(one for one in dict.fromkeys(named) if one and one != "sends")


def texts(plan: Plan) -> tuple[str, ...]:
    """The texts that the plan's model reads."""
    return () if plan.model is None else tuple(text.name for text in plan.model.texts)


def _rate(plan: Plan, outcome: str) -> float:
    """Of a send: so that a recipient's figure is what the plan expects of it."""
    sends = (1 + plan.sends_per_recipient) / 2
    for metric in plan.metrics:
        expected = plan.analysis.expects(metric.name)
        if expected is None or getattr(metric, "column", "") != outcome:
            continue
        if isinstance(metric, Count):
            return float(min(0.95, max(0.0, expected.mean / sends)))
        if metric.kind == "proportion":
            return float(1 - (1 - min(0.95, max(0.0, expected.mean))) ** (1 / sends))
    return RATES.get(outcome, OTHER_RATE)


def _outcome(plan: Plan, outcome: str, random: np.random.Generator, opened: Any) -> Any:
    size = len(opened)
    if outcome == "opened":
        return opened.astype(int)
    if outcome in DURATION_OUTCOMES:
        hours = np.round(random.exponential(HOURS, size), 3)
        return pd.Series(hours).where(pd.Series(opened))
    if outcome in AMOUNT_OUTCOMES:
        bought = random.random(size) < RATES["converted"]
        tops = [m.high for m in plan.metrics if isinstance(m, Mean) and m.column == outcome]
        most = max(tops, default=AMOUNT)
        return np.where(bought, np.round(random.gamma(2.0, most / 8, size).clip(0, most), 2), 0.0)
    rate = _rate(plan, outcome)
    if outcome == "clicked":  # nobody clicks on what they didn't open
        return (opened & (random.random(size) < min(1.0, rate / _rate(plan, "opened")))).astype(int)
    return (random.random(size) < rate).astype(int)


def _mapping(plan: Plan, name: str) -> str:
    """How the export becomes canonical rows: every column has its own name already."""
    numeric = (*AMOUNT_OUTCOMES, *DURATION_OUTCOMES)
    flag = {"yes": ["1"], "no": ["0"]}
    values = {
        "experiment": {"constant": plan.experiment},
        "recipient": {"columns": ["recipient"]},
        "arm": {"column": "arm", "values": {arm.name: arm.name for arm in plan.arms}},
        "sent_at": {"column": "sent_at"},
        "outcomes": {
            one: {"column": one} | ({} if one in numeric else flag) for one in outcomes(plan)
        },
        "basis": {"constant": "consent"},
        "opted_out": {"constant": False},
        "region": {"column": "region"},
    }
    kinds = {one.name: one.kind for one in plan.features} | dict.fromkeys(texts(plan), "category")
    if kinds:
        values["features"] = {one: {"kind": kind, "column": one} for one, kind in kinds.items()}
    text = yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True)
    return (
        f"# Made up from the declarations of plan {plan.name}, for {name}: nobody's data.\n{text}"
    )
