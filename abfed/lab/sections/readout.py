"""The sections of the A/B read-out, as markup: each answers one question of its reader.

All text is computed from the run. Names in a plan are a researcher's words, so they are escaped.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from abfed.lab.paper.page import facts, opening, paragraph, picture, section, table
from abfed.lab.sections.known_attacks import known_attacks
from abfed.lab.together import guarantee
from abfed.lab.views.curves import plot_training
from abfed.lab.views.display import effects_by_scope, effects_table, title
from abfed.lab.views.figures import left_out_rows
from abfed.lab.views.plots import as_svg, plot_budget, plot_effects
from abfed.lab.views.readings import (
    gaps_reading,
    guardrail_reading,
    reading,
    sample_ratio_reading,
    sentences,
    training_reading,
    where,
)
from abfed.lab.views.units import NBSP, count, p_value, percent, plain, unit_of
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Condition
from abfed.stats.effects import DEFAULT_ALPHA
from abfed.stats.once import NOTE

if TYPE_CHECKING:
    from abfed.lab.runs import Run

SIMULATED = (
    "This is a simulation on made-up brands. Its noise is seeded and protects nobody; "
    "no figure here says anything about real people."
)
UNPROTECTED = (
    "This run is NOT PRIVATE: its totals were released exact, without any noise. That is for "
    "development on made-up brands only; nothing like it may be asked about real people."
)
SHOWN_HEX = 16  # characters of a digest that tell it from others; the manifest holds all of it


def headline(run: Run, *, alpha: float = DEFAULT_ALPHA) -> str:
    """Title, and what follows from the run in a few sentences."""
    plan = run.plan
    day = str(run.manifest["created_at"])[:10]
    said = sentences(run, plan.primary, alpha=alpha)
    if plan.guardrails:
        said.append(guardrail_reading(run, alpha=alpha))
    alarm = bool(run.sample_ratios["alarm"].any())
    notes = f'<div class="warn">{paragraph(SIMULATED)}</div>' if plan.simulation else ""
    if plan.privacy.unprotected:
        notes += f'<div class="warn">{paragraph(UNPROTECTED)}</div>'
    if alarm:
        notes += f'<div class="warn">{paragraph(sample_ratio_reading(run))}</div>'
    brands = f"{len(run.silos)} brand{'s' if len(run.silos) != 1 else ''}{_wave(run)}"
    return opening(
        "A/B read-out",
        f"<h1>{escape(title(run))}</h1>"
        f'<div class="soft">{brands} · {day} · ε = {plan.privacy.epsilon:g} for each recipient · '
        f"run <code>{escape(run.name)}</code></div>{notes}"
        f'<div class="key">{"".join(map(paragraph, said))}</div>',
    )


def _wave(run: Run) -> str:
    """Which look at a sequential design it is."""
    analysis = run.plan.analysis
    if analysis.sequential is None or not analysis.wave:
        return ""
    name = escape(analysis.sequential.waves[analysis.wave - 1].name)
    return f" · wave {analysis.wave} of {len(analysis.sequential.waves)} ({name})"


def one_brand(run: Run, brand: str, *, alpha: float = DEFAULT_ALPHA) -> str:
    """Effects in one brand alone, the primary one beside all brands; nothing where none is named.

    Raises:
        InputError: the run has no such brand.
    """
    if not brand:
        return ""
    if run.plan.noise_once:
        raise InputError(f"{NOTE}; leave the brand out", where=run.name)
    if brand not in run.silos:
        raise InputError(
            f"the run has no brand {brand!r}", why=f"its brands are: {', '.join(run.silos)}"
        )
    how = "This brand by itself: intervals are wider than over all brands, and tests count its own."
    return section(
        f"In {brand}",
        _forest(run, run.plan.primary, alpha, brand=brand),
        paragraph(how, "soft"),
        effects_table(run, alpha=alpha, scope=brand),
    )


def asked(run: Run) -> str:
    """What was asked: whom, what they got, what was measured, and why."""
    plan = run.plan
    arms = ", ".join(
        f"{escape(arm.name)} ({100 * arm.share:g}{NBSP}%{', control' if arm.control else ''})"
        for arm in plan.arms
    )
    metrics = "<br>".join(
        f"{escape(one.name)}: {escape(unit_of(plan, one.name).per)}"
        f"{' <strong>(primary)</strong>' if one.name == plan.primary else ''}"
        for one in plan.metrics
    )
    guardrails = "<br>".join(
        f"{escape(one.metric)} must not {one.harm} by more than "
        f"{escape(unit_of(plan, one.metric).amount(one.margin))}"
        for one in plan.guardrails
    )
    people = " and ".join(escape(_condition(one)) for one in plan.population)
    pairs = [
        ("Purpose", escape(plan.purpose)),
        ("Experiment", escape(plan.experiment)),
        ("Population", people or "everybody who was sent the experiment’s e-mails"),
        ("Arms", arms),
        ("Metrics", metrics),
        ("Guardrails", guardrails or "none"),
        ("Counted", f"at most {plan.sends_per_recipient} sends of each recipient"),
    ]
    return section("What was asked", facts(pairs))


def _condition(one: Condition) -> str:
    """A filter in words."""
    if one.one_of is not None:
        return f"{one.column} is {' or '.join(one.one_of)}"
    bounds = []
    if one.at_least is not None:
        bounds.append(f"at least {one.at_least:g}")
    if one.at_most is not None:
        bounds.append(f"at most {one.at_most:g}")
    return f"{one.column} is {' and '.join(bounds)}"


SAID_ONCE = "Noise was added once, to the sum of all brands: nothing is known of effects by brand."


def took_part(run: Run) -> str:
    """Which brands answered, how many recipients they have, and who was left out and why."""
    rows = []
    for silo in run.silos:
        counts, noise = run.counts(silo)
        spread = 1.96 * noise * len(counts) ** 0.5
        steps = len(run.releases[silo])
        size = f"{count(float(counts.sum()))} ± {count(spread)}"
        rows.append([escape(silo), size, str(steps), _short(run.manifest["epochs"][silo])])
    shown = table(
        ["Brand", "Recipients (noised, ± 95 %)", "Releases", "Its data’s epoch"],
        rows, source=run.source, numeric=(2,), counts=(1,),
    )  # fmt: skip
    once = paragraph(f"{SAID_ONCE} {guarantee(run.plan)}") if run.plan.noise_once else ""
    return section("Who took part", shown, once, _left_out(run))


def _left_out(run: Run) -> str:
    if run.left_out.empty:
        return paragraph("No brand that was asked was left out.", "soft")
    rows = [[escape(part) for part in one] for one in left_out_rows(run)]
    return "<h3>Left out</h3>" + table(["Brand", "Of", "Why"], rows, source=run.source, counts=())


def results(run: Run, *, alpha: float = DEFAULT_ALPHA) -> str:
    """All metrics in one table, and how to read it."""
    correction = run.plan.analysis.correction.title()
    how = (
        f"Each arm against “{run.plan.control.name}”, {where(run)}. Intervals hold both chance and "
        "the noise that protects people. Under the noise’s part of their variance stands what they "
        "are worth: how many recipients would have given the same without noise. p-values are "
        f"adjusted for all comparisons in the table ({correction}), those of guardrails test the "
        "margin."
    )
    return section(
        "Effects", paragraph(how, "soft"), effects_table(run, alpha=alpha),
        effects_by_scope(run, alpha=alpha),
    )  # fmt: skip


def metric_by_metric(run: Run, *, alpha: float = DEFAULT_ALPHA) -> str:
    """A forest plot for each metric but guardrails, the primary one first, each with its reading.

    Those of guardrails stand in a section of their own (`guardrails`): once on a page.
    """
    guarded = {one.metric for one in run.plan.guardrails}
    names = [one.name for one in run.plan.metrics if one.name not in guarded]
    names.sort(key=lambda name: name != run.plan.primary)
    parts = []
    for name in names:
        heading = f"{name} (primary)" if name == run.plan.primary else name
        parts += [f"<h3>{escape(heading)}</h3>", _forest(run, name, alpha)]
    return section("Metric by metric", *parts)


def guardrails(run: Run, *, alpha: float = DEFAULT_ALPHA) -> str:
    """Whether each guardrail was kept, beside its margin; nothing where there is none."""
    if not run.plan.guardrails:
        return ""
    parts = []
    for one in run.plan.guardrails:
        parts += [f"<h3>{escape(one.metric)}</h3>", _forest(run, one.metric, alpha)]
    note = "A guardrail is kept where harm beyond its margin is ruled out, not where none is seen."
    return section("Guardrails", *parts, paragraph(note, "soft"))


def _forest(run: Run, name: str, alpha: float, *, brand: str = "") -> str:
    figure = plot_effects(run, name, alpha=alpha, brand=brand)
    return picture(as_svg(figure), reading(run, name, alpha=alpha, brand=brand))


def sample_ratio(run: Run) -> str:
    """Whether arms hold their planned shares."""
    arms = [arm.name for arm in run.plan.arms]
    rows = []
    for _, row in run.sample_ratios.iterrows():
        cells = [count(row[arm]) for arm in arms]
        verdict = "alarm" if row["alarm"] else "as planned"
        rows.append([escape(row["scope"]), *cells, p_value(row["p_value"]), verdict])
    last = len(arms) + 1
    shown = table(
        ["Brand", *arms, "p", "Shares"], rows,
        source=run.source, numeric=(last,), counts=range(1, last),
    )  # fmt: skip
    note = "Recipients in each arm, noised; the test allows for the noise and alarms below 0.001."
    return section(
        "Sample-ratio check", paragraph(sample_ratio_reading(run)), shown, paragraph(note, "soft")
    )


def training(run: Run) -> str:
    """How the model got better; nothing where there is none."""
    if run.plan.model is None:
        return ""
    svg = as_svg(plot_training(run))
    where_from = "Figures come from noised histograms of scores; nobody’s score left a brand."
    note = f"{where_from}{gaps_reading(run)}"
    return section("Model", picture(svg, training_reading(run)), paragraph(note, "soft"))


def privacy(run: Run) -> str:
    """What the run cost each recipient, and what is left."""
    plan, ledger = run.plan, run.ledger
    cost = plain(ledger["epsilon_run"].max(), 2)
    text = (
        f"The protected unit is {plan.privacy.unit.sentence}. "
        f"The run cost each recipient of a brand that took part ε = {cost} at δ = "
        f"{plan.privacy.delta:g} (asked for: {plan.privacy.epsilon:g}), computed from privacy loss "
        "distributions (PLD) over all that was released. Somebody known to two brands is two "
        "recipients: costs add."
    )
    rows = []
    for row in ledger.to_dict("records"):
        budget = [row[name] for name in ("epsilon_spent", "epsilon_left", "epsilon_total")]
        # Missing where the silo's policy doesn't show them.
        shown = [plain(one, 2) if math.isfinite(one) else "not shown" for one in budget]
        rows.append([escape(row["silo"]), plain(row["epsilon_run"], 2), *shown])
    head = ["Brand", "ε of this run", "ε spent, all plans", "ε left", "ε in all"]
    parts = [paragraph(text), table(head, rows, source=run.source, numeric=(1, 2, 3, 4), counts=())]
    if ledger["epsilon_total"].notna().any():
        parts.append(picture(as_svg(plot_budget(run)), budget_reading(run)))
    return section("Privacy spent and left", *parts, known_attacks(run))


def budget_reading(run: Run) -> str:
    """Which brand has the smallest part of its budget left."""
    rows = [one for one in run.ledger.to_dict("records") if math.isfinite(one["epsilon_total"])]
    parts = [round(one["epsilon_left"] / one["epsilon_total"], 9) for one in rows]
    least = min(parts)
    row = rows[parts.index(least)]
    amount = f"ε = {plain(row['epsilon_left'], 2)} of {plain(row['epsilon_total'], 2)}"
    if len(rows) == 1:
        return f"When it answered, {row['silo']} had {amount} left ({percent(least)})."
    who = f"least was left in {row['silo']}"
    if len(set(parts)) == 1:
        who = "the same part was left in each brand"
    return f"When they answered, {who}: {amount} ({percent(least)})."


def provenance(run: Run) -> str:
    """How the report was made, so that it can be made again and checked."""
    manifest = run.manifest
    heads = "<br>".join(
        f"{escape(site)}: {_short(head)}" for site, head in sorted(manifest["audit_heads"].items())
    )
    versions = ", ".join(
        f"{escape(a)} {escape(b)}" for a, b in sorted(manifest["versions"].items())
    )
    pairs = [
        ("Run", f"<code>{escape(run.name)}</code>, completed {escape(manifest['created_at'])}"),
        ("Plan’s digest", f"<code>{escape(manifest['plan'])}</code>"),
        ("Manifest’s digest", f"<code>{sha256_hex(canonical_bytes(manifest))}</code>"),
        ("Audit heads", heads),
        ("Versions", versions),
    ]
    note = (
        "Every figure was computed from signed, noised releases; their signatures and the "
        "manifest’s were checked when this page was made. It can be made again from the run, "
        "without asking a brand and at no cost."
    )
    return section("How this was made", paragraph(note, "soft"), facts(pairs))


def _short(digest: str) -> str:
    return f"<code>{escape(digest[:SHOWN_HEX])}</code>"
