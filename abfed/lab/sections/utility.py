"""Privacy against utility: a grid of ε × brands × sizes on made-up brands whose truth is known.

Each cell simulates the plan's primary question many times: brands differ in size and baseline,
recipients are drawn, totals get the noise that a silo would add, and the shipped estimators read
them. What is reported is how often they are right. No silo is asked; nothing is charged; figures
are about made-up people and say so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from abfed.lab.paper.page import (
    ARM_COLOURS,
    INK,
    RULE,
    SYNTHETIC,
    opening,
    paragraph,
    picture,
    section,
    table,
)
from abfed.lab.views.plots import as_svg, drawing, mark_of
from abfed.lab.views.units import NBSP, count, level, percent, plain
from abfed.privacy.accounting import gaussian_multiplier
from abfed.protocol.errors import InputError
from abfed.protocol.metrics import Proportion
from abfed.protocol.plan import Plan
from abfed.protocol.printable import counted
from abfed.stats.readouts import read_arms
from abfed.stats.totals import SCALE, Layout, SiloTotals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (0.5, 0.75, 1.0, 1.75)
BASELINES = (1.0, 0.6, 1.4, 0.9)
"""How brands differ, in turn: their sizes and their baselines, as multiples."""
DEFAULT_MEAN, DEFAULT_LIFT = 0.1, 0.1
"""Where the plan expects nothing of its primary metric."""
MOST_CELLS = 200


@dataclass(frozen=True)
class Grid:
    """What is simulated.

    Attributes:
        epsilons: of the totals.
        brands: how many.
        sizes: recipients in a middling brand.
        repetitions: experiments in each cell.
        seed: of people and noise alike: made-up people need no protection.
    """

    epsilons: tuple[float, ...]
    brands: tuple[int, ...]
    sizes: tuple[int, ...]
    repetitions: int
    seed: int

    @classmethod
    def of_texts(cls, epsilons: str, brands: str, sizes: str, repetitions: int, seed: int) -> Grid:
        """From lists as a notebook's parameters hold them: `"0.3, 1, 3"`.

        Raises:
            InputError: an entry is no number, or out of range, or there are too many cells.
        """
        grid = cls(
            tuple(_numbers(epsilons, "epsilons", 0.01, 100.0)),
            tuple(int(one) for one in _numbers(brands, "brands", 1, 1000)),
            tuple(int(one) for one in _numbers(sizes, "sizes", 10, 10_000_000)),
            repetitions,
            seed,
        )
        cells = len(grid.epsilons) * len(grid.brands) * len(grid.sizes)
        if cells > MOST_CELLS or not 2 <= repetitions <= 100_000:
            raise InputError(
                f"{cells} cells of {repetitions} experiments",
                why=f"at most {MOST_CELLS} cells, and 2 to 100,000 experiments in each",
            )
        return grid


def _numbers(text: str, name: str, low: float, high: float) -> list[float]:
    try:
        found = [float(one) for one in text.split(",") if one.strip()]
    except ValueError as cause:
        raise InputError(f"{name} aren't numbers", do='write them as "0.3, 1, 3"') from cause
    if not found or not all(low <= one <= high for one in found):
        raise InputError(f"{name} are out of range", why=f"each lies from {low:g} to {high:g}")
    return found


def question(plan: Plan) -> Plan:
    """The plan's primary question alone, as a simulation with two arms.

    Raises:
        InputError: its primary metric is no proportion.
    """
    primary = next(one for one in plan.metrics if one.name == plan.primary)
    if not isinstance(primary, Proportion):
        raise InputError(
            "the grid simulates proportions", where=plan.name,
            why=f"the plan’s primary metric is a {primary.kind}", do="name another plan",
        )  # fmt: skip
    return Plan.from_values(
        {
            "name": plan.name,
            "purpose": plan.purpose,
            "experiment": plan.experiment,
            "silos": ["made-up"],
            "arms": [
                {"name": "control", "share": 0.5, "control": True},
                {"name": "arm", "share": 0.5},
            ],
            "metrics": [primary.model_dump(mode="json")],
            "primary": primary.name,
            "privacy": {"epsilon": 1.0, "delta": plan.privacy.delta, "split": {"statistics": 1.0}},
            "simulation": {"seed": 1},
        }
    )


def simulate(plan: Plan, grid: Grid, *, alpha: float = 0.05) -> pd.DataFrame:
    """Carry the grid out.

    Returns:
        One row a cell: epsilon, brands, size, truth (percentage points), error (mean absolute),
        coverage, power (share that found it), wrong (share that found the opposite), widening.
    """
    asked = question(plan)
    expected = plan.analysis.expects(plan.primary)
    mean = expected.mean if expected else DEFAULT_MEAN
    lift = expected.lift if expected else DEFAULT_LIFT
    random = np.random.default_rng(grid.seed)
    rows = []
    for epsilon, brands, size in itertools.product(grid.epsilons, grid.brands, grid.sizes):
        sigma = gaussian_multiplier(epsilon, plan.privacy.delta)
        effects, variances, sampling, sizes, truths = [], [], [], [], []
        for number in range(brands):
            people = max(2, int(size * SIZES[number % 4]))
            base = min(0.9, mean * BASELINES[number % 4])
            rates = (base, min(0.99, base * (1 + lift)))
            totals = _totals(asked, people, rates, sigma, grid.repetitions, random)
            arms = read_arms(asked, asked.metrics[0], totals).arms
            effects.append(arms["arm"].value - arms["control"].value)
            variances.append(arms["arm"].variance + arms["control"].variance)
            sampling.append(arms["arm"].sampling + arms["control"].sampling)
            sizes.append(people)
            truths.append(rates[1] - rates[0])
        rows.append(
            {"epsilon": epsilon, "brands": brands, "size": size}
            | _judged(effects, variances, sampling, sizes, truths, alpha)
        )
    return pd.DataFrame(rows)


def _totals(
    plan: Plan,
    people: int,
    rates: tuple[float, float],
    sigma: float,
    times: int,
    random: np.random.Generator,
) -> SiloTotals:
    """Noised totals of many experiments in one brand: (times, arms, coordinates)."""
    layout = Layout.of(plan)
    values = np.zeros((times, *layout.shape))
    block = layout.block(plan.primary)
    for row, rate in enumerate(rates):
        half = people // 2
        did = random.binomial(half, rate, times)
        values[:, row, block.columns] = np.stack([did, half - did], axis=-1)
    sds = np.concatenate([np.full(one.width, one.sd) for one in layout.blocks]) * sigma
    noised = values + random.normal(0.0, 1.0, values.shape) * sds
    return SiloTotals.of(plan, np.rint(noised * SCALE).astype(np.int64), sigma)


def _judged(
    effects: Sequence[np.ndarray],
    variances: Sequence[np.ndarray],
    sampling: Sequence[np.ndarray],
    sizes: Sequence[int],
    truths: Sequence[float],
    alpha: float,
) -> dict[str, float]:
    """How often the size-weighted mean over brands was right."""
    weights = np.asarray(sizes) / sum(sizes)
    effect = sum(w * one for w, one in zip(weights, effects, strict=True))
    variance = sum(w**2 * one for w, one in zip(weights, variances, strict=True))
    alone = sum(w**2 * one for w, one in zip(weights, sampling, strict=True))
    truth = float(weights @ np.asarray(truths))
    se = np.sqrt(variance)
    reach = float(special.ndtri(1 - alpha / 2)) * se
    found = np.abs(effect) > reach
    usable = np.isfinite(effect) & np.isfinite(se)
    with np.errstate(invalid="ignore", divide="ignore"):
        widening = np.sqrt(variance / alone)
    return {
        "truth": 100 * truth,
        "error": 100 * float(np.nanmean(np.abs(effect - truth))),
        "coverage": float(np.mean((np.abs(effect - truth) <= reach)[usable])),
        "power": float(np.mean(found & (np.sign(effect) == math.copysign(1, truth)) & usable)),
        "wrong": float(np.mean(found & (np.sign(effect) != math.copysign(1, truth)) & usable)),
        "widening": float(np.nanmedian(widening)),
    }


def headline(plan: Plan, grid: Grid, found: pd.DataFrame, *, alpha: float = 0.05) -> str:
    """Title, and what the grid says."""
    said = [reading(found, grid, alpha)]
    note = "Made-up brands with known truth. No figure here says anything about real people."
    return opening(
        "Privacy and utility",
        f"<h1>{escape(plan.report.title or plan.name)}: what privacy costs</h1>"
        f'<div class="soft">{counted(len(found), "setting")}, {grid.repetitions:,} experiments '
        "each</div>"
        f'<div class="warn">{paragraph(note)}</div>'
        f'<div class="key">{"".join(map(paragraph, said))}</div>',
    )


def reading(found: pd.DataFrame, grid: Grid, alpha: float) -> str:
    """The grid in words."""
    spread = 1.96 * math.sqrt(alpha * (1 - alpha) / grid.repetitions)
    enough = found[found["power"] >= 0.8].sort_values(["epsilon", "brands", "size"])
    start = (
        f"Intervals covered the truth in {percent(found['coverage'].mean(), 1)} of experiments "
        f"({level(alpha)} is due), {_ends(found['coverage'])}; {grid.repetitions:,} experiments "
        f"tell a setting’s share to {100 * spread:.1f} points."
    )
    if enough.empty:
        return f"{start} In no setting was the effect found in four of five experiments."
    best = enough.iloc[0]
    return (
        f"{start} The effect was found in at least four of five experiments from ε = "
        f"{best['epsilon']:g} on, there with {int(best['brands'])} "
        f"brand{'s' if best['brands'] != 1 else ''} of about {count(best['size'])} recipients."
    )


def _ends(shares: pd.Series[float]) -> str:
    """The lowest and the highest of some shares, where they can be told apart."""
    low, high = percent(shares.min()), percent(shares.max())
    return f"{low} in each setting" if low == high else f"{low} to {high} by setting"


def results(found: pd.DataFrame) -> str:
    """The grid as a table."""
    rows = [
        [
            f"ε{NBSP}={NBSP}{row['epsilon']:g}",
            f"{row['brands']}",
            f"{row['size']:,}",
            f"{plain(row['truth'], 2)} pp",
            f"{plain(row['error'], 2)} pp",
            percent(row["coverage"]),
            percent(row["power"]),
            percent(row["wrong"]),
            f"{plain(row['widening'], 2)} ×",
        ]
        for row in found.to_dict("records")
    ]
    head = ["Privacy", "Brands", "Size of each", "Truth", "Mean error", "Covered", "Found",
            "Found the opposite", "Width for the noise"]  # fmt: skip
    return section(
        "Every setting", table(head, rows, source=SYNTHETIC, numeric=range(1, 9), counts=())
    )


def pictures(found: pd.DataFrame) -> str:
    """Power and width over ε, for each number of brands and size."""
    worst = found.sort_values("widening").iloc[-1]
    said = (
        f"Noise widens intervals most at ε = {worst['epsilon']:g} with {int(worst['brands'])} "
        f"brand{'s' if worst['brands'] != 1 else ''} of {count(worst['size'])}: "
        f"{plain(worst['widening'], 1)} times. More recipients in each brand help most, as noise "
        "is added once for each brand whatever its size."
    )
    return section("Power and width", picture(as_svg(plot_utility(found)), said))


def plot_utility(found: pd.DataFrame) -> Figure:
    """Two panels over ε."""
    with drawing(9.2, 3.6, columns=2) as (figure, panels):
        for number, ((brands, size), line) in enumerate(found.groupby(["brands", "size"])):
            ordered = line.sort_values("epsilon")
            style: dict[str, Any] = {
                "color": ARM_COLOURS[number % 6],
                "marker": mark_of(number),
                "lw": 1.6,
            }
            label = f"{brands} × {size:,}"
            panels[0].plot(ordered["epsilon"], 100 * ordered["power"], label=label, **style)
            panels[1].plot(ordered["epsilon"], ordered["widening"], label=label, **style)
        panels[0].axhline(80, color=INK, lw=0.8, ls=":")
        panels[0].set_ylim(-3, 103)
        panels[0].set_title("experiments that found the effect, %", loc="left")
        panels[1].axhline(1, color=INK, lw=0.8, ls=":")
        panels[1].set_title("width of the interval, without noise = 1", loc="left")
        for axes in panels:
            axes.set_xscale("log")
            axes.set_xticks(sorted(found["epsilon"].unique()))
            axes.get_xaxis().set_major_formatter(lambda value, _: f"{value:g}")
            axes.minorticks_off()
            axes.set_xlabel("ε of the totals")
            axes.grid(color=RULE, lw=0.6)
        panels[1].legend(title="brands × recipients", fontsize=8, title_fontsize=8)
    return figure
