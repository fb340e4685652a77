"""`abfed run`: carry a plan out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abfed.cli.output import complain, say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption, typed

FOUND = ("better", "worse", "breached")
"""Decisions in segments that are shown of every metric: the others fill pages."""

if TYPE_CHECKING:
    import pandas as pd

    from abfed.coordinator.app import Event, Progress
    from abfed.lab.runs import Run


def run(
    plan: Annotated[Path, typer.Argument(help="The plan.")],
    workspace: WorkspaceOption,
    federation: Annotated[
        bool, typer.Option("--federation", help="Over this coordinator's federation.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with a run that was begun.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Carry a plan out, or find the run that did: the same plan on the same data is free."""
    from abfed.lab.awaiting import awaited
    from abfed.lab.federation import expect_begun, run_over_federation
    from abfed.lab.waves import wave_to_run
    from abfed.lab.workspace import Workspace
    from abfed.protocol.plan import Plan

    opened = Workspace(workspace)
    asked = wave_to_run(opened.runs_folder, Plan.load(plan), today=opened.clock().date())
    if resume:
        expect_begun(opened.runs_folder, asked, opened.audit)
    for line in awaited(opened, asked).lines():
        complain(line)
    with progress_bar(quiet=as_json) as progress:
        if federation:
            done = run_over_federation(opened, plan, progress)
        else:
            done = opened.run(plan, progress=progress)
    if as_json:
        say_json(summary(done))
    else:
        show_run(done)
        say(f"Next: {typed('report ' + done.name, workspace)}")
    end_by_integrity(done, workspace)


def end_by_integrity(done: Run, workspace: Path) -> None:
    """End with 4 where something of a silo didn't hold, though the others sufficed for a run."""
    for silo, why in done.damaged.items():
        complain(f"integrity: {silo}: {why}")
        complain(f"  do:  where its files lie: {typed(f'silo verify {silo}', workspace)}")
    if done.damaged:
        raise typer.Exit(4)


def summary(done: Run) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "run": done.name,
        "folder": done.folder,
        "found": done.found,
        "plan": done.plan.digest,
        "silos": list(done.silos),
        "missing": done.absent,
        "unheard": done.unheard,
        "damaged": done.damaged,
        "left_out": done.left_out.to_dict(orient="records"),
        "private": not done.plan.privacy.unprotected,
        "wave": done.plan.analysis.wave,
        "effects": done.effects.to_dict(orient="records"),
        "heterogeneity": done.heterogeneity.to_dict(orient="records"),
        "checks": {
            "all": done.checks.to_dict(orient="records"),
            "sample_ratios": done.sample_ratios.to_dict(orient="records"),
            "balance": done.balance.to_dict(orient="records"),
            "dead_cells": done.dead_cells.to_dict(orient="records"),
            "orphans": done.orphans.to_dict(orient="records"),
            "novelty": done.novelty.to_dict(orient="records"),
        },
        "training": done.training.to_dict(orient="records"),
        "ledger": done.ledger.to_dict(orient="records"),
    }


def show_run(done: Run) -> None:
    """A run for people: its effects over these brands, and what it cost."""
    state = "was found: nothing was charged" if done.found else "is complete"
    say(f"Run {done.name} {state}. Folder: {done.folder}")
    if done.plan.privacy.unprotected:
        say("NOT PRIVATE: these totals are exact. For development on made-up brands only.")
    design = done.plan.analysis.sequential
    if design is not None:
        wave = done.plan.analysis.wave
        say(
            f"Wave {wave} of {len(design.waves)} ({design.waves[wave - 1].name}); effects are those"
        )
        say(f"of all waves so far, by the sequential design {design.spending}.")
    _show_left_out(done)
    scope = "these brands" if len(done.silos) > 1 else done.silos[0]
    effects = done.effects[done.effects["segment"] == ""]
    _show_effects(done, effects[effects["scope"] == scope], f"Effects against the control: {scope}")
    others = effects[effects["scope"] != scope]
    others = others[others["metric"] == done.plan.primary]
    if len(others):
        _show_effects(done, others, f"{done.plan.primary}, brand by brand", scoped=True)
    if len(done.segments):
        from abfed.lab.views.figures import readable

        shown, hidden = readable(done.segments)
        few = shown[(shown["metric"] == done.plan.primary) | shown["decision"].isin(FOUND)]
        _show_effects(done, few, "Effects in segments, over these brands", scoped=True)
        if hidden:
            say(f"  {hidden}")
        if len(few) < len(shown):
            say(f"  Shown: {done.plan.primary}, and what was found. All: the report, --json.")
    _show_checks(done)
    _show_cost(done)


def _show_left_out(done: Run) -> None:
    """Who isn't in the run, didn't answer this time, or was left out of some of its steps."""
    from abfed.lab.views.figures import left_out_rows

    for silo, why in done.absent.items():
        say(f"  without {silo}: {why}")
    if any(why.startswith("refused (approval)") for why in done.absent.values()):
        say("  The run went on without who waits for an approval, and was charged to the others;")
        say("  approved, ask the same plan again: they answer as before, at no charge.")
    for silo, why in done.unheard.items():
        say(f"  {silo} did not answer this time ({why}); what it released is in the run")
    for silo, steps, why in left_out_rows(done):
        if silo in done.silos:  # the others are not in the run at all
            say(f"  without {silo} in {steps} ({why}); what it was charged for the run stays")


def _show_cost(done: Run) -> None:
    """ε of this run beside each silo's budget, with the δ and the method of each."""
    delta = done.plan.privacy.delta
    rows = []
    for one in done.ledger.to_dict(orient="records"):
        left, of = one["epsilon_left"], one["epsilon_total"]
        shown = math.isfinite(of)
        rows.append(
            {
                "silo": one["silo"],
                "ε of this run": one["epsilon_run"],
                "ε spent, all plans": one["epsilon_spent"],
                "of": of,
                "ε left": left,
                "budget": ("remains" if left > 0 else "used up") if shown else "not shown",
            }
        )
    table(rows, title="What it cost each recipient")
    deltas = sorted({one for one in done.ledger["budget_delta"] if math.isfinite(one)})
    at = " and ".join(f"{one:g}" for one in deltas) or "the budget's own"
    say(f"  This run: at δ = {delta:g}, all that it charged, arrived or not (PLD).")
    if done.plan.noise_once:
        from abfed.lab.together import guarantee

        say(f"  {guarantee(done.plan)}")
    say(f"  Budgets: at δ = {at}, over all plans and people (Rényi filter); runs don't simply add.")


def _show_effects(done: Run, frame: pd.DataFrame, title: str, *, scoped: bool = False) -> None:
    """Effects, and below them what is to be known of them."""
    from abfed.lab.views.figures import effect_rows, remarks

    table(effect_rows(done, frame, scoped=scoped), title=title)
    for remark in remarks(frame, scoped=scoped):
        say(f"  {remark}")


def _show_checks(done: Run) -> None:
    """Whether effects agree, and what the checks found."""
    from abfed.lab.views.figures import agreement_rows, alarm_rows, check_rows

    if agreement := agreement_rows(done):
        table(agreement, title="Do effects differ, beyond chance and noise?")
    table(check_rows(done), title="Checks (alarm: p < 0.001)")
    if alarms := alarm_rows(done):
        table(alarms, title="ALARMS: look at these before any effect is believed")


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """One bar over the steps of a run, and one line for each that is closed, on standard error."""
    if quiet:
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(
        total=1, unit="step", file=sys.stderr, bar_format="{desc:<34}|{bar:30}| {n_fmt}/{total_fmt}"
    ) as bar:
        answered, asked = 0, time.monotonic()

        def tell(event: Event) -> None:
            nonlocal answered, asked
            bar.total = event.of
            if event.stage == "ask":
                answered, asked = 0, time.monotonic()
                bar.set_description_str(f"{event.step}: asking the silos", refresh=False)
            elif event.stage == "answer":
                answered += 1
                return
            elif event.stage == "closed":
                seconds = time.monotonic() - asked
                silos = "1 silo" if answered == 1 else f"{answered} silos"
                bar.write(f"{event.step}: {silos}, {seconds:.1f} s", file=sys.stderr)
                bar.n = event.n
            elif event.stage in {"found", "complete"}:
                bar.n = event.of
                bar.set_description_str(event.stage, refresh=False)
            elif event.stage == "left-out":
                bar.write(f"{event.step}: without {event.silo}", file=sys.stderr)
            else:
                return
            bar.refresh()

        yield tell
