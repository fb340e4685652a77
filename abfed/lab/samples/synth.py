"""Synthetic brands: made-up people whose true effects are known, for trying things out.

Three brands of different size, rates and lifts, one of them small; several sends a recipient; three
arms. How people react depends on pre-send features, so that there is something to learn. Recipients
join in three weekly waves, a send a week from then on. Each brand exports in its own words and
codes, with a mapping that says how they become canonical columns.

Everything follows from the seed. The seed is of the made-up people, not of the noise: releases
about them are noised as those about real ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize

from abfed.lab.samples.dialects import ARMS, BASES, DIALECTS, EXPERIMENT
from abfed.protocol.errors import InputError
from abfed.site.files import make_private_folder, write_private

Floats = npt.NDArray[np.float64]

SHARES = (0.34, 0.33, 0.33)
CHANNELS = ("web", "store", "app")
DEVICES = ("mobile", "desktop", "tablet")
SCALES = (0.01, 100.0)  # 346 recipients to 3.5 million
LARGEST_ORDER = 60.0  # dollars
MEAN_ORDER = 30.0  # dollars: orders are uniform on (0, LARGEST_ORDER)
START = np.datetime64("2026-03-02T08:00:00")
WAVES = 3
"""Weeks in which recipients get their first send."""
HOURS = (9.0, 9.0, 6.0)  # from a send to its open, on average, by arm: some subjects are urgent


@dataclass(frozen=True)
class Traits:
    """What sets a brand apart. Logits but for the shares.

    Attributes:
        recipients: how many.
        opens, clicks: baselines.
        draw: of an open by arm: subject lines differ.
        lift: of a click by arm, at average features.
        orders: share of clicks that end in an order.
        leaves: chance to unsubscribe for a send, by arm.
    """

    recipients: int
    opens: float
    clicks: float
    draw: tuple[float, float, float]
    lift: tuple[float, float, float]
    orders: float
    leaves: tuple[float, float, float]


BRANDS: dict[str, Traits] = {
    "aurora": Traits(
        24_000, -1.35, -1.35, (0.0, 0.1, 0.25), (0.0, 0.35, 0.15), 0.24, (0.002, 0.002, 0.003)
    ),
    "borealis": Traits(
        9_000, -1.05, -1.60, (0.0, 0.2, 0.1), (0.0, 0.25, 0.35), 0.18, (0.003, 0.003, 0.004)
    ),
    "corvid": Traits(
        1_600, -1.60, -1.10, (0.0, 0.15, 0.2), (0.0, 0.45, 0.05), 0.30, (0.003, 0.002, 0.004)
    ),
}


@dataclass(frozen=True)
class SyntheticBrand:
    """A brand's files.

    Attributes:
        name: the brand.
        export: its e-mail tool's CSV.
        mapping: how that becomes canonical columns.
        truth: true mean of each metric under each arm, and the hours within which three in ten have
            opened, as JSON.
    """

    name: str
    export: Path
    mapping: Path
    truth: Path


@dataclass(frozen=True)
class _People:
    tenure: Floats
    past_opens: Floats
    past_orders: Floats
    channel: npt.NDArray[np.int64]
    device: npt.NDArray[np.int64]
    arm: npt.NDArray[np.int64]
    sends: npt.NDArray[np.int64]


def write_brands(
    folder: Path, *, seed: int, scale: float = 1.0, until: date | None = None
) -> list[SyntheticBrand]:
    """Make the brands' exports, mappings and truths.

    Args:
        folder: where a folder for each brand is made.
        seed: of the people.
        scale: multiplies the number of recipients.
        until: leaves out sends from this day on, as an export that was made before it would.

    Raises:
        InputError: the scale is no number between 0.01 and 100, or the seed is negative.
    """
    if not SCALES[0] <= scale <= SCALES[1]:  # also where it is no number
        raise InputError(
            f"scale is {scale:g}", why=f"it must lie between {SCALES[0]:g} and {SCALES[1]:g}"
        )
    if seed < 0:
        raise InputError(f"seed is {seed}", why="it must not be negative")
    made = []
    for index, (name, traits) in enumerate(BRANDS.items()):
        generator = np.random.default_rng([seed, index])
        people = _people(generator, max(30, round(traits.recipients * scale)))
        place = folder / name
        make_private_folder(place)
        brand = SyntheticBrand(
            name, place / "export.csv", place / "mapping.yaml", place / "truth.json"
        )
        rows = _rows(generator, name, traits, people)
        rows = _in_time(np.random.default_rng([seed, index, 1]), rows, people)
        if until is not None:
            rows = rows[rows["sent_at"] < np.datetime64(until)]
        dialect = DIALECTS[name]
        write_private(brand.export, dialect.export(rows).to_csv(index=False).encode())
        write_private(brand.mapping, dialect.mapping().encode())
        truth = json.dumps(_truth(traits, people), indent=1, sort_keys=True)
        write_private(brand.truth, truth.encode())
        made.append(brand)
    return made


def _people(generator: np.random.Generator, count: int) -> _People:
    engaged = generator.normal(size=count)
    return _People(
        tenure=np.minimum(generator.exponential(400.0, count), 2000.0).round().astype(np.float64),
        past_opens=generator.poisson(np.exp(0.9 + 0.6 * engaged)).astype(float),
        past_orders=generator.poisson(np.exp(-0.4 + 0.5 * engaged)).astype(float),
        channel=generator.choice(3, count, p=[0.55, 0.25, 0.2]),
        device=generator.choice(3, count, p=[0.6, 0.3, 0.1]),
        arm=generator.choice(3, count, p=SHARES),
        sends=generator.integers(1, 5, count),
    )


def _opens(traits: Traits, people: _People, arm: npt.NDArray[np.int64]) -> Floats:
    """Chance that a send is opened."""
    return _sigmoid(
        traits.opens
        + np.asarray(traits.draw)[arm]
        + 0.22 * np.minimum(people.past_opens, 10)
        - 0.3 * (people.device == 1)
        - 0.0002 * people.tenure
    )


def _clicks(traits: Traits, people: _People, arm: npt.NDArray[np.int64]) -> Floats:
    """Chance that an opened send is clicked: who reacts to which arm depends on features."""
    warm, urgent = arm == 1, arm == 2
    return _sigmoid(
        traits.clicks
        - 1.2
        + np.asarray(traits.lift)[arm]
        + 0.35 * np.minimum(people.past_orders, 5)
        + 0.5 * (people.channel == 2)
        + warm * (0.5 * (people.channel == 2) - 0.25 * (people.device == 0))
        + urgent * (0.3 * (people.past_orders > 1) - 0.2 * (people.tenure > 700))
    )


def _rows(
    generator: np.random.Generator, name: str, traits: Traits, people: _People
) -> pd.DataFrame:
    """One row a send, in canonical columns."""
    count = len(people.arm)
    who = np.repeat(np.arange(count), people.sends)
    number = np.arange(len(who)) - np.repeat(np.cumsum(people.sends) - people.sends, people.sends)
    opened = generator.random(len(who)) < _opens(traits, people, people.arm)[who]
    chance = _clicks(traits, people, people.arm)[who]
    clicked = opened & (generator.random(len(who)) < chance)
    converted = clicked & (generator.random(len(who)) < traits.orders)
    amount = np.round(generator.uniform(0.0, LARGEST_ORDER, len(who)), 2)
    leaves = np.asarray(traits.leaves)[people.arm][who]
    minutes = number * 7 * 24 * 60 + generator.integers(0, 600, len(who))
    basis = np.where(generator.random(count) < 0.7, *BASES)
    return (
        pd.DataFrame(
            {
                "recipient": [f"{name}-{i:06d}@example.com" for i in range(count)],
                "experiment": EXPERIMENT,
                "tenure_days": people.tenure.astype(int),
                "past_opens": people.past_opens.astype(int),
                "past_orders": people.past_orders.astype(int),
                "channel": np.asarray(CHANNELS)[people.channel],
                "device": np.asarray(DEVICES)[people.device],
                "arm": np.asarray(ARMS)[people.arm],
                "basis": basis,
                "opted_out": generator.random(count) < 0.01,
                "region": np.where(generator.random(count) < 0.6, "EU", "US"),
            }
        )
        .iloc[who]
        .reset_index(drop=True)
        .assign(
            sent_at=START + minutes.astype("timedelta64[m]"),
            opened=opened,
            clicked=clicked,
            converted=converted,
            revenue=np.where(converted, amount, 0.0),
            unsubscribed=generator.random(len(who)) < leaves,
        )
    )


def _in_time(generator: np.random.Generator, rows: pd.DataFrame, people: _People) -> pd.DataFrame:
    """The rows with each recipient in a wave, and the moments at which sends were opened."""
    who = np.repeat(np.arange(len(people.arm)), people.sends)
    week = generator.integers(0, WAVES, len(people.arm))[who]
    hours = generator.exponential(np.asarray(HOURS)[people.arm][who])
    sent_at = rows["sent_at"] + (week * 7).astype("timedelta64[D]")
    opened_at = sent_at + np.rint(hours * 3600).astype("timedelta64[s]")
    return rows.assign(sent_at=sent_at, opened_at=opened_at.where(rows["opened"]))


def _hours_until(share: float, opens: Floats, sends: npt.NDArray[np.int64], mean: float) -> float:
    """Hours within which this share of people has opened some send, counted from that send."""

    def short(hours: float) -> float:
        reached = opens * -np.expm1(-hours / mean)
        return float(np.mean(1 - (1 - reached) ** sends)) - share

    return float(optimize.brentq(short, 0.0, 1000.0))


def _truth(traits: Traits, people: _People) -> dict[str, dict[str, float]]:
    """The expected mean over these very people of each metric, had all of them been in an arm."""
    truth: dict[str, dict[str, float]] = {}
    for code, arm in enumerate(ARMS):
        everybody = np.full(len(people.arm), code)
        opens = _opens(traits, people, everybody)
        clicks = opens * _clicks(traits, people, everybody)
        truth[arm] = {
            "opened": float(np.mean(1 - (1 - opens) ** people.sends)),
            "clicked": float(np.mean(1 - (1 - clicks) ** people.sends)),
            "revenue": float(np.mean(people.sends * clicks * traits.orders * MEAN_ORDER)),
            "unsubscribed": float(np.mean(1 - (1 - traits.leaves[code]) ** people.sends)),
            "half-opened": _hours_until(0.3, opens, people.sends, HOURS[code]),
        }
    return truth


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float64)
