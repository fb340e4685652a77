"""Plots of a run. Each returns a figure of its own and leaves matplotlib's settings as they were.

An interval is drawn in two parts: the thick bar is what chance alone would give, the thin one adds
the noise that protects people. What can't be told from noise stands as words where its mark would
be. Figures become pictures that are the same bytes each time.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy import stats

from abfed.lab.paper.page import ARM_COLOURS, BLUE, INK, ORANGE, RULE, SOFT_INK, VERMILLION
from abfed.lab.views.readings import SURE, effects_at, widest
from abfed.lab.views.units import Unit, level, unit_of
from abfed.stats.contrasts import SUPPRESSED
from abfed.stats.effects import LIKE_THESE, THESE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from abfed.lab.runs import Run

NAME_WIDTH = 22  # characters of a brand's name before it wraps
UNIT = 0.36  # inches that a forest plot's rows are measured in
LINE = 0.17  # inches of a line of a name
LEGEND_ROW = 3  # arms whose names stand in one line
LEGEND_WIDTH, LEGEND_MARK = 90, 5  # characters beside one another; what a mark takes of them
MARKS = "osD^vP"
SHARP = 144  # dots per inch of a figure in a notebook
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": SOFT_INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "abfed",
    "legend.frameon": False,
}


class Drawn(Figure):
    """A figure that shows itself in a notebook: it belongs to no window, so nobody else would."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        with our_style():
            self.savefig(target, format="png", dpi=SHARP, metadata={"Software": None})
        return target.getvalue()


@contextmanager
def our_style() -> Iterator[None]:
    """Matplotlib's own defaults with ours on top: nobody's settings or style sheets show."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


@contextmanager
def drawing(width: float, height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure (inches) in our style, belonging to no window and no global list."""
    with our_style():
        figure = Drawn(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)
        yield figure, list(axes[0])


def as_svg(figure: Figure) -> bytes:
    """A figure as a picture; the same figure gives the same bytes.

    They are those of `savefig`, which draws a figure whose layout is computed twice.
    """
    target, dpi, layout = io.BytesIO(), figure.dpi, figure.get_layout_engine()
    canvas: Any = FigureCanvasSVG(figure)
    with our_style():
        if layout is not None:
            layout.execute(figure)
        try:
            figure.dpi = dpi
            figure.set_layout_engine("none")
            canvas.print_svg(target, metadata={"Date": None, "Creator": None})
        finally:
            figure.dpi = dpi
            figure.set_layout_engine(layout)
    return target.getvalue()


def plot_effects(run: Run, metric: str, *, alpha: float = 0.05, brand: str = "") -> Figure:
    """A forest plot: each arm against the control, in each brand and over brands.

    Args:
        run: whose effects.
        metric: one of the plan's metrics.
        alpha: one minus the confidence of the intervals.
        brand: the only one beside what is over brands; each of them where empty.

    Raises:
        InputError: the plan has no such metric, or alpha isn't between 0 and 1.
    """
    table = effects_at(run, alpha, metric)
    if brand:
        table = table[table["scope"].isin({brand, THESE, LIKE_THESE})]
    unit = unit_of(run.plan, metric)
    scopes, arms = list(dict.fromkeys(table["scope"])), list(dict.fromkeys(table["arm"]))
    step = 0.34 if len(arms) > 1 else 0.45
    pitch = max(1.0, step * (len(arms) + 0.6)) if len(arms) > 1 else 0.8
    pitch = max(pitch, row_height(scopes, 0) / UNIT)
    height = 1.25 + UNIT * pitch * len(scopes) + 0.14 * len(arms) * (len(arms) > 1)
    height += 0.05 * len(arms) * (len(arms) > LEGEND_ROW)
    z = float(stats.norm.ppf(1 - alpha / 2))
    # One exactness for all rows: that of what speaks for the run.
    exact = float(table[table["scope"] == widest(run)]["se"].max())
    rows = {(row["scope"], row["arm"]): row for row in table.to_dict("records")}
    with drawing(8.2, height) as (figure, (axes,)):
        centres = [_place(number, scope, pitch) for number, scope in enumerate(scopes)]
        for centre, scope in zip(centres, scopes, strict=True):
            for number, arm in enumerate(arms):
                y = centre + (number - (len(arms) - 1) / 2) * step
                _draw_row(axes, rows[scope, arm], y, ARM_COLOURS[number % 6], mark_of(number),
                          unit, (z, exact))  # fmt: skip
        _dress_forest(axes, centres, scopes, pitch)
        _draw_margin(axes, run, metric, unit)
        axes.set_xlabel(f"difference from {run.plan.control.name} ({unit.difference})")
        _explain(axes, arms, alpha)
    return figure


def _place(number: int, scope: str, pitch: float) -> float:
    """Where a scope stands; those over brands stand a little apart from brands."""
    return number * pitch + (0.35 if scope in {THESE, LIKE_THESE} else 0.0)


def _draw_row(
    axes: Axes,
    row: Mapping[Any, Any],
    y: float,
    colour: str,
    mark: str,
    unit: Unit,
    scale: tuple[float, float],
) -> None:
    """A row's bars, mark and figures; `scale` is z and the standard error that sets decimals."""
    z, exact = scale
    side: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "va": "center",
        "fontsize": 8.5,
    }
    if not math.isfinite(row["estimate"]):
        words = "can’t be told from noise" if row["decision"] == SUPPRESSED else row["decision"]
        axes.text(1.02, y, words, color=SOFT_INK, style="italic", **side)
        return
    middle, low, high = (row[name] * unit.scale for name in ("estimate", "ci_low", "ci_high"))
    reach = z * row["se_sampling"] * unit.scale
    draw_parts(axes, (low, high), (middle - reach, middle + reach), y, colour)
    over = row["scope"] in {THESE, LIKE_THESE}
    axes.plot(middle, y, mark, color="white" if over else colour, mec=colour, mew=1.6, ms=6.5)
    span = unit.interval(row["ci_low"], row["ci_high"], exact)
    words = f"{unit.effect(row['estimate'], exact)}  ({span})"
    weight = "bold" if row["scope"] == THESE else "normal"
    axes.text(1.02, y, words, color=INK, weight=weight, **side)


def draw_parts(
    axes: Axes,
    whole: tuple[float, float],
    chance: tuple[float, float],
    at: float,
    colour: str,
    *,
    upright: bool = False,
) -> None:
    """An interval in its two parts; whole only, where chance's part isn't known."""
    for ends, width, alpha in ((whole, 2.2, 0.42), (chance, 5.5, 0.9)):
        if not math.isfinite(ends[0]):
            continue
        line = ((at, at), ends) if upright else (ends, (at, at))
        axes.plot(*line, color=colour, lw=width, alpha=alpha, solid_capstyle="butt")


def draw_estimate(
    axes: Axes,
    row: Mapping[Any, Any],
    name: str,
    at: float,
    colour: str,
    *,
    scale: float = 1.0,
    upright: bool = False,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> None:
    """The interval of a frame's estimate (`frames.in_parts`), as far as such a figure can go."""
    lowest, highest = within
    whole, chance = (
        tuple(
            min(highest, max(lowest, scale * (row[name] + way * SURE * row[f"{name}_{part}"])))
            for way in (-1, 1)
        )
        for part in ("se", "se_sampling")
    )
    draw_parts(axes, whole, chance, at, colour, upright=upright)


def explain_parts(axes: Axes, alpha: float) -> list[Line2D]:
    """What the two parts are, for a legend."""
    words = f"{level(alpha)} interval: chance alone"
    return [
        *axes.plot([], [], color=SOFT_INK, lw=5.5, label=words),
        *axes.plot([], [], color=SOFT_INK, lw=2.2, alpha=0.5, label="with privacy noise"),
    ]


def _dress_forest(
    axes: Axes, centres: Sequence[float], scopes: Sequence[str], pitch: float
) -> None:
    """Names, zero line and order: first brand on top, what is over brands below a rule."""
    axes.axvline(0, color=INK, lw=0.9, zorder=0)
    axes.margins(x=0.06)
    axes.set_yticks(centres, [wrapped(scope) for scope in scopes])
    for label, scope in zip(axes.get_yticklabels(), scopes, strict=True):
        label.set_fontweight("bold" if scope == THESE else "normal")
    axes.set_ylim(max(centres) + pitch / 2 + 0.1, min(centres) - pitch / 2 - 0.1)
    over = [place for place, scope in zip(centres, scopes, strict=True) if scope == THESE]
    if over:
        axes.axhline(over[0] - pitch / 2 - 0.17, color=RULE, lw=1)
    axes.grid(axis="x", color=RULE, lw=0.6, zorder=-1)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _draw_margin(axes: Axes, run: Run, metric: str, unit: Unit) -> None:
    """A guardrail's margin: what lies beyond it is harm."""
    for one in run.plan.guardrails:
        if one.metric != metric:
            continue
        at = one.margin * unit.scale * (1 if one.harm == "increase" else -1)
        axes.axvline(at, color=VERMILLION, lw=1.1, ls=(0, (4, 3)), zorder=0)
        side = "right" if one.harm == "increase" else "left"  # inside: figures stand outside
        axes.annotate(
            "margin", (at, 1), xycoords=axes.get_xaxis_transform(), ha=side, va="top",
            xytext=(3 if side == "left" else -3, -2), textcoords="offset points",
            color=VERMILLION, fontsize=8,
        )  # fmt: skip


def _explain(axes: Axes, arms: Sequence[str], alpha: float) -> None:
    """Which arm is which, and what the two parts of a bar are."""
    handles = [
        axes.plot([], [], mark_of(n), color=ARM_COLOURS[n % 6], ms=6, label=arm)[0]
        for n, arm in enumerate(arms)
    ]
    handles += explain_parts(axes, alpha)
    longest = max(len(str(one.get_label())) for one in handles[: len(arms)])
    columns = max(1, min(5, len(handles), LEGEND_WIDTH // (longest + LEGEND_MARK)))
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns,
        fontsize=8.5, borderaxespad=0.2, handletextpad=0.6, columnspacing=1.4,
    )  # fmt: skip


def plot_budget(run: Run) -> Figure:
    """What each silo's recipients had spent when the run asked, and what was left."""
    table = run.ledger
    names = [wrapped(silo) for silo in table["silo"]]
    most = table["epsilon_total"].max()
    with drawing(8.2, 1.1 + row_height(table["silo"], 0.38) * len(table)) as (figure, (axes,)):
        axes.barh(names, table["epsilon_spent"], color=ORANGE, height=0.55, label="spent")
        axes.barh(names, table["epsilon_left"], left=table["epsilon_spent"], color=BLUE,
                  alpha=0.28, height=0.55, label="left")  # fmt: skip
        for place, row in enumerate(table.to_dict("records")):
            if math.isnan(row["epsilon_total"]):
                axes.text(0, place, " not shown by this silo’s policy", va="center",
                          style="italic", color=SOFT_INK)  # fmt: skip
                continue
            words = f"{row['epsilon_left']:.2f} left"
            axes.text(1.02, place, words, va="center", transform=axes.get_yaxis_transform())
        axes.set_xlim(0, most if math.isfinite(most) else 1)
        axes.set_xlabel("ε of the silo’s budget, over all plans")
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8.5)
    return figure


def mark_of(number: int) -> str:
    """The mark of an arm: where colours begin again, marks don't."""
    return MARKS[(number + number // len(ARM_COLOURS)) % len(MARKS)]


def row_height(names: Iterable[str], least: float) -> float:
    """Inches for a row of each name: lines of a long one must not touch its neighbours'."""
    lines = max((wrapped(one).count("\n") + 1 for one in names), default=1)
    return max(least, LINE * lines + 0.08)


def wrapped(name: str) -> str:
    """A long name over several lines, broken at its hyphens first."""
    return textwrap.fill(name.replace("_", "_\u200b"), NAME_WIDTH).replace("\u200b", "")
