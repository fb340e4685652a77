"""Sections of a brand's profile: what a silo may say about its data, and what it paid to say it.

Everything is from the releases of one run; a figure that was not released isn't here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from abfed.lab.paper.page import (
    ARM_COLOURS,
    RULE,
    SOFT_INK,
    facts,
    opening,
    paragraph,
    picture,
    roomy,
    section,
    table,
    title,
)
from abfed.lab.sections.known_attacks import known_attacks
from abfed.lab.views.cards import charge, setting
from abfed.lab.views.plots import as_svg, draw_parts, drawing, explain_parts, row_height, wrapped
from abfed.lab.views.readings import SURE, widened
from abfed.lab.views.units import NONE, count, p_value, percent, plain, unit_of
from abfed.protocol.errors import InputError
from abfed.protocol.printable import counted
from abfed.stats.effects import DEFAULT_ALPHA
from abfed.stats.readouts import read_arms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from abfed.lab.runs import Run

SHORT_OF = 0.2  # of its budget: where a brand has less left, the page says so


def chosen(run: Run, brand: str) -> str:
    """The brand that was named, or the first.

    Raises:
        InputError: the run has no such brand.
    """
    if run.plan.noise_once:
        raise InputError(
            "noise was added once, to the sum of all brands: there is nothing to say of one",
            where=run.name,
            do="ask with noise: each for a page by brand",
        )
    if not brand:
        return run.silos[0]
    if brand not in run.silos:
        raise InputError(
            f"the run has no brand {brand!r}", why=f"its brands are: {', '.join(run.silos)}"
        )
    return brand


def headline(run: Run, brand: str) -> str:
    """Title, size and what is left of the budget."""
    counts, noise = run.counts(brand)
    spread = SURE * noise * math.sqrt(len(counts))
    size = f"{count(float(counts.sum()))} ± {count(spread)} recipients took part"
    ledger = _ledger(run, brand)
    left = ledger["epsilon_left"]
    budget = "Its policy doesn’t show what is left of its budget."
    if math.isfinite(left):
        share = left / ledger["epsilon_total"]
        low = "; little is left" if share < SHORT_OF else ""
        budget = (
            f"Of its budget of ε = {plain(ledger['epsilon_total'], 2)} for each recipient, "
            f"{plain(left, 2)} ({percent(share)}) was left when it answered{low}."
        )

    said = [f"{brand}: {size} in “{run.plan.experiment}”.", budget]
    return opening(
        "Brand profile",
        f"<h1>{escape(brand)}</h1>"
        f'<div class="soft">from {escape(title(run))} · run <code>{escape(run.name)}</code></div>'
        f'<div class="key">{"".join(map(paragraph, said))}</div>',
    )


def _ledger(run: Run, brand: str) -> dict[str, float]:
    """What the brand's budget looked like when it answered."""
    rows = run.ledger.to_dict("records")
    return next({str(k): v for k, v in row.items()} for row in rows if row["silo"] == brand)


def levels(run: Run, brand: str) -> str:
    """Where each metric stands under the control, beside the other brands."""
    rows, control = [], run.plan.control.name
    for metric in run.plan.metrics:
        unit = unit_of(run.plan, metric.name)
        readings = {
            one: read_arms(run.plan, metric, run.totals[one]).arms[control] for one in run.silos
        }
        mine = readings[brand]
        shown = span = NONE
        if bool(mine.usable):
            se = math.sqrt(float(mine.variance))
            value = float(mine.value)
            shown = unit.value(value, se)
            span = f"{unit.value(value - SURE * se, se)} to {unit.value(value + SURE * se, se)}"
        beside = roomy(escape(_beside(*_compared(readings, brand)))) or NONE
        rows.append([escape(metric.name), escape(unit.per), shown, span, beside])
    table_ = table(
        ["Metric", "Counted as", "Under the control", "95 % interval", "Other brands"],
        rows, source=run.source, numeric=(2, 3), counts=(),
    )  # fmt: skip
    return section(
        "Where the brand stands", table_, picture(as_svg(_plot(run, brand)), _said(run, brand))
    )


def _compared(readings: Mapping[str, Any], brand: str) -> tuple[list[str], list[str], list[str]]:
    """Brands that this one clearly lies above, below, and those it can't be told from."""
    mine = readings[brand]
    above: list[str] = []
    below: list[str] = []
    alike: list[str] = []
    if not bool(mine.usable):
        return above, below, alike
    for name, one in readings.items():
        if name == brand or not one.usable:
            continue
        gap = float(mine.value) - float(one.value)
        reach = SURE * math.sqrt(float(mine.variance) + float(one.variance))
        (above if gap > reach else below if gap < -reach else alike).append(name)
    return above, below, alike


def _beside(above: Sequence[str], below: Sequence[str], alike: Sequence[str]) -> str:
    """The same in words; empty where there is nobody to compare with."""
    said = [
        f"{words} {', '.join(names)}"
        for words, names in (
            ("clearly above", above), ("clearly below", below), ("not to be told from", alike),
        )
        if names
    ]  # fmt: skip
    return "; ".join(said)


def _said(run: Run, brand: str) -> str:
    """Where the primary metric stands among the brands."""
    metric = next(one for one in run.plan.metrics if one.name == run.plan.primary)
    control = run.plan.control.name
    readings = {
        silo: read_arms(run.plan, metric, run.totals[silo]).arms[control] for silo in run.silos
    }
    mine = readings[brand]
    if not bool(mine.usable):
        return f"“{metric.name}” in {brand} can’t be told from noise."
    words = _beside(*_compared(readings, brand)) or "no other brand can be read"
    said = f"“{metric.name}” under the control in {brand}: {words}."
    if not float(mine.sampling) > 0:
        return said
    noised = widened(math.sqrt(float(mine.variance) / float(mine.sampling)) - 1)
    return f"{said} Its interval is {noised}."


def _plot(run: Run, brand: str) -> Figure:
    """The primary metric under the control, in each brand."""
    metric = next(one for one in run.plan.metrics if one.name == run.plan.primary)
    unit = unit_of(run.plan, metric.name)
    with drawing(8.2, 1.3 + row_height(run.silos, 0.38) * len(run.silos)) as (figure, (axes,)):
        for place, silo in enumerate(run.silos):
            reading = read_arms(run.plan, metric, run.totals[silo]).arms[run.plan.control.name]
            if not bool(reading.usable):
                axes.text(0.02, place, "can’t be told from noise", va="center", style="italic",
                          color=SOFT_INK, transform=axes.get_yaxis_transform())  # fmt: skip
                continue
            middle = float(reading.value) * unit.scale
            whole, chance = (
                SURE * math.sqrt(float(one)) * unit.scale
                for one in (reading.variance, reading.sampling)
            )
            colour = ARM_COLOURS[1] if silo == brand else ARM_COLOURS[0]
            draw_parts(axes, (middle - whole, middle + whole),
                       (middle - chance, middle + chance), place, colour)  # fmt: skip
            axes.plot(middle, place, "o", color=colour, ms=6)
        axes.set_yticks(range(len(run.silos)), [wrapped(one) for one in run.silos])
        axes.tick_params(axis="y", length=0)
        for label, silo in zip(axes.get_yticklabels(), run.silos, strict=True):
            label.set_fontweight("bold" if silo == brand else "normal")
        axes.set_ylim(len(run.silos) - 0.5, -0.5)
        axes.set_xlabel(f"{metric.name}{' (%)' if unit.scale == 100 else f' ({unit.per})'}")
        axes.grid(axis="x", color=RULE, lw=0.6)
        axes.legend(handles=explain_parts(axes, DEFAULT_ALPHA), loc="lower left",
                    bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8.5)  # fmt: skip
    return figure


def soundness(run: Run, brand: str) -> str:
    """The checks that concern this brand."""
    frame = run.checks
    mine = frame[frame["scope"].astype(str) == brand]
    alarms = mine[mine["alarm"]]
    lead = "No check raised an alarm in this brand."
    if len(alarms):
        many = "alarms" if len(alarms) != 1 else "alarm"
        lead = f"{len(alarms)} {many} in this brand: look before you believe."
    rows = [
        [escape(row["check"]), escape(str(row["subject"])), p_value(row["p_value"]),
         escape(row["reading"])]
        for row in mine.to_dict("records")
    ]  # fmt: skip
    shown = table(["Check", "Of", "p", "Found"], rows, source=run.source, numeric=(2,), counts=())
    return section("Can its data be believed?", paragraph(lead), shown if rows else "")


def paid(run: Run, brand: str) -> str:
    """Each release, its noise and its charge; what they cost together, and what is left."""
    steps = run.releases[brand]
    rows = [
        [
            f"<code>{escape(step)}</code>",
            roomy(", ".join(map(setting, one.release.noise.items()))) or "none",
            "<br>".join(roomy(charge(each)) for each in one.release.charged) or NONE,
            f"<code>{one.digest[:16]}</code>",
        ]
        for step, one in sorted(steps.items(), key=lambda item: _when(item[0]))
    ]
    ledger = _ledger(run, brand)
    pairs = [
        ("This run", f"ε = {plain(ledger['epsilon_run'], 2)} at δ = {run.plan.privacy.delta:g}")
    ]
    if math.isfinite(ledger["epsilon_total"]):
        pairs += [
            ("Spent, all plans", f"ε = {plain(ledger['epsilon_spent'], 2)}"),
            ("Left", f"ε = {plain(ledger['epsilon_left'], 2)}"),
        ]
    released = counted(len(steps), "noised release")
    said = (
        f"{brand} let {released} out of its walls, and nothing else. Asking again gives the same "
        f"{released.partition(' noised ')[2]} at no further cost."
    )
    shown = table(["Release", "Noise", "Charged", "Digest"], rows, source=run.source, counts=())
    return section(
        "What was said, and paid", paragraph(said), facts(pairs), shown, known_attacks(run)
    )


def _when(step: str) -> tuple[int, str]:
    """Where a step stands among others: totals, training, evaluation."""
    return (2 if step == "evaluate" else int(step.startswith("train")), step)
