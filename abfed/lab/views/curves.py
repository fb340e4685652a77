"""Curves of training, round by round, in the house style (`plots`).

A band has two parts, as an interval has: the darker one is what chance alone would give, the
lighter one adds the noise that protects people.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from abfed.lab.paper.page import BLUE, INK, RULE, SOFT_INK, VERMILLION
from abfed.lab.views.plots import draw_estimate, drawing
from abfed.lab.views.readings import GUESSING, SURE, require_model
from abfed.lab.views.units import level
from abfed.stats.effects import DEFAULT_ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run

BANDS = {"se": 0.18, "se_sampling": 0.34}
"""How strongly the two parts of a band are drawn, one on the other."""
POSSIBLE = {"auc": (0.0, 1.0), "log_loss": (0.0, math.inf)}
"""What a figure can be; unbiased estimates from noise can lie outside, and stand at the edge."""


def plot_training(run: Run) -> Figure:
    """How the model got better: AUC and log-loss by round, each with a band of 95 % in two parts.

    A round whose figure noise drowns is a gap; what needs no model is dotted.

    Raises:
        InputError: the plan has no model.
    """
    require_model(run)
    table = run.training
    without = {
        "auc": (GUESSING, "guessing"),
        "log_loss": (table["majority_log_loss"].iloc[-1], "mean chance"),
    }
    with drawing(8.2, 2.7, columns=2) as (figure, panels):
        for axes, name, title, colour in zip(
            panels, ("auc", "log_loss"), ("AUC", "log-loss"), (BLUE, VERMILLION), strict=True
        ):
            x, y = table["model"], table[name]
            lowest, highest = POSSIBLE[name]
            for part, alpha in BANDS.items():
                reach = SURE * table[f"{name}_{part}"]
                axes.fill_between(x, (y - reach).clip(lowest, highest),
                                  (y + reach).clip(lowest, highest),
                                  color=colour, alpha=alpha, lw=0)  # fmt: skip
            axes.plot(x, y.clip(lowest, highest), "o-", color=colour, lw=1.8, ms=4.5)
            alone = y.notna() & y.shift().isna() & y.shift(-1).isna()  # a band has no width there
            for row in table[alone].to_dict("records"):
                draw_estimate(axes, row, name, row["model"], colour, upright=True,
                              within=(lowest, highest))  # fmt: skip
            axes.set_xlim(-0.3, max(x.max(), 1) + 0.3)
            _draw_reference(axes, *without[name])
            if ((y < lowest) | (y > highest)).any():
                axes.text(0.02, 0.03, "at the edge: noise took it beyond", fontsize=8,
                          transform=axes.transAxes, style="italic", color=SOFT_INK)  # fmt: skip
            better = "higher" if name == "auc" else "lower"
            axes.set_title(f"{title} ({better} is better)", loc="left")
            axes.set_xlabel("rounds behind the model")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(color=RULE, lw=0.6)
            if y.isna().all():
                axes.text(0.5, 0.5, "can’t be told from noise", transform=axes.transAxes,
                          ha="center", style="italic", color=SOFT_INK)  # fmt: skip
        figure.legend(handles=explain_bands(DEFAULT_ALPHA), loc="outside lower left", ncols=2,
                      fontsize=8.5)  # fmt: skip
    return figure


def _draw_reference(axes: Axes, at: float, words: str) -> None:
    """What needs no model, where it is known: a dotted line with its name at its end."""
    if not math.isfinite(at):
        return
    axes.axhline(at, color=INK, lw=0.9, ls=":")
    axes.annotate(
        words, (1, at), xycoords=axes.get_yaxis_transform(), ha="right", va="bottom",
        xytext=(0, 2), textcoords="offset points", fontsize=8, color=SOFT_INK,
    )  # fmt: skip


def explain_bands(alpha: float) -> list[Patch]:
    """What the two parts of a band are, for a legend."""
    strengths = (sum(BANDS.values()), BANDS["se"])
    words = (f"{level(alpha)} interval: chance alone", "with privacy noise")
    return [
        Patch(color=SOFT_INK, alpha=strength, lw=0, label=label)
        for strength, label in zip(strengths, words, strict=True)
    ]
