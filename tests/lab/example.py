"""A finished run with plausible figures, from signed releases of made-up totals.

The stand-ins of `tests.coordinator.doubles` sign them; the workspace's own coordinator carries the
plan out, so that what is read back is a real run folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from abfed.coordinator.app import Coordinator, carry_out
from abfed.coordinator.courier import make_courier
from abfed.coordinator.grid import EmbeddedGrid
from abfed.lab.incidents.playbook import copy_playbooks
from abfed.lab.runs import Run
from abfed.lab.workspace import FILE as WORKSPACE
from abfed.lab.workspace import Workspace
from abfed.learning.evaluation import histogram
from abfed.learning.uplift import (
    COLUMN_EDGES,
    UPLIFT_EDGES,
    contrast_counts,
    counted_once,
    policy_counts,
)
from abfed.privacy.charges import noise_multipliers, plan_charges, plan_epsilon
from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.messages import BudgetView
from abfed.protocol.metrics import Mean, Proportion
from abfed.protocol.plan import Plan
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from abfed.stats.totals import (
    SCALE,
    Layout,
    encode_products,
    encode_ratio,
    encode_share,
    encode_square,
)
from tests.coordinator.doubles import SiloDouble, make_front

RATES = {"opened": 0.30, "clicked": 0.06, "converted": 0.02, "unsubscribed": 0.004}
LIFTS = {"opened": 0.02, "clicked": 0.012, "converted": 0.004, "unsubscribed": 0.0}


def example_values(**changes: Any) -> dict[str, Any]:
    """A plan with each kind of metric, a guardrail and a model."""
    values: dict[str, Any] = {
        "name": "subject-lines",
        "purpose": "email-optimisation",
        "experiment": "subject-lines-2026",
        "silos": ["aurora", "borealis", "corona"],
        "minimum_silos": 2,
        "population": [
            {"column": "region", "one_of": ["de", "fr"]},
            {"column": "age", "at_least": 18.0},
        ],
        "arms": [
            {"name": "plain", "share": 0.5, "control": True},
            {"name": "personal", "share": 0.25},
            {"name": "question", "share": 0.25},
        ],
        "metrics": [
            {"name": "clicked", "kind": "proportion", "column": "clicked"},
            {"name": "revenue", "kind": "mean", "column": "revenue", "high": 100.0},
            {
                "name": "click-to-open",
                "kind": "ratio",
                "numerator": "clicked",
                "denominator": "opened",
            },
            {"name": "unsubscribed", "kind": "proportion", "column": "unsubscribed"},
        ],
        "primary": "clicked",
        "guardrails": [{"metric": "unsubscribed", "harm": "increase", "margin": 0.004}],
        "features": [{"name": "age", "kind": "numeric", "low": 0.0, "high": 100.0}],
        "model": {"outcome": "clicked"},
        "training": {"rounds": 3, "local_steps": 2},
        "privacy": {
            "epsilon": 3.0,
            "delta": 1e-6,
            "split": {"statistics": 1.0, "training": 1.5, "evaluation": 0.5},
        },
        "report": {"title": "Which subject line makes people click?"},
    }
    return values | changes


def statistics_only(**changes: Any) -> dict[str, Any]:
    """The plan above without its model."""
    values = example_values(**changes)
    values.pop("model")
    values.pop("training")
    privacy = {"epsilon": 1.0, "delta": 1e-6, "split": {"statistics": 1.0}}
    return values | {"privacy": changes.get("privacy", privacy)}


def made_up_totals(plan: Plan, silo: str, size: int) -> np.ndarray[Any, Any]:
    """Noised totals of `size` made-up recipients: int64 (arms, width)."""
    seed = int.from_bytes(hashlib.sha256(silo.encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    layout = Layout.of(plan)
    totals = np.zeros(layout.shape)
    most = plan.sends_per_recipient
    for row, arm in enumerate(plan.arms):
        count = int(size * arm.share)
        boost = 0.0 if arm.control else (1.0 if row == 1 else 0.2)
        rates = {name: RATES[name] + boost * LIFTS[name] for name in RATES}
        for metric in plan.metrics:
            block = layout.block(metric.name)
            if isinstance(metric, Proportion):
                happened = random.random(count) < rates[metric.column]
                encoded = encode_share(np.asarray(happened, dtype=np.float64))
                totals[row, block.columns] = encoded.sum(axis=0)
                continue
            moments = layout.block(metric.name, moments=True)
            if isinstance(metric, Mean):
                buys = random.random(count) < rates["converted"]
                spent = np.minimum(random.gamma(2.0, 0.15, count), 1.0)
                share = np.where(buys, spent, 0.0)
                encoded = encode_share(share)
                totals[row, moments.columns] = encode_square(encoded).sum(axis=0)
            else:
                opened = random.binomial(most, rates["opened"], count)
                clicked = random.binomial(opened, rates["clicked"] / rates["opened"])
                encoded = encode_ratio(clicked, opened, most)
                totals[row, moments.columns] = encode_products(encoded).sum(axis=0)
            totals[row, block.columns] = encoded.sum(axis=0)
    sds = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks])
    sds = sds * noise_multipliers(plan).statistics * SCALE
    return np.rint(totals + random.normal(0.0, 1.0, totals.shape) * sds).astype(np.int64)


def made_up_histogram(plan: Plan, silo: str, step: str, size: int) -> np.ndarray[Any, Any]:
    """A noised histogram of scores that get better from round to round."""
    random = np.random.default_rng(int.from_bytes(f"{silo}{step}".encode()[-7:], "big"))
    rounds = plan.schedule.rounds if step == "evaluate" else int(step[-4:]) - 1
    count = int(size * plan.schedule.holdout)
    labels = (random.random(count) < 0.1).astype(np.int64)
    skill = 1.1 * (1 - np.exp(-0.7 * rounds))
    logits = -2.3 + skill * (labels - 0.1) + random.normal(0.0, 0.8, count)
    counts = histogram(logits, labels)
    sigma = noise_multipliers(plan)
    sd = sigma.evaluation
    if step == "evaluate":
        sd = sigma.final * math.sqrt(counted_once(len(plan.arms)))
    return counts + np.rint(random.normal(0.0, sd, counts.shape)).astype(np.int64)


def made_up_tables(plan: Plan, silo: str, size: int) -> dict[str, np.ndarray[Any, Any]]:
    """Noised tables of a model whose uplift is half right; the first arms react to it."""
    random = np.random.default_rng(int.from_bytes(f"{silo}tables".encode()[-7:], "big"))
    count, arms = int(size * plan.schedule.holdout), len(plan.arms)
    got = random.choice(arms, count, p=[arm.share for arm in plan.arms])
    control = [arm.control for arm in plan.arms].index(True)
    treated = [arm for arm in range(arms) if arm != control]
    true = random.uniform(0.0, 0.08, (count, len(treated)))
    chance = np.full(count, 0.1)
    for place, arm in enumerate(treated):
        chance += np.where(got == arm, true[:, place], 0.0)
    labels = (random.random(count) < chance).astype(np.int64)
    guess = true + random.normal(0.0, 0.02, true.shape)
    column = np.clip(true * 25 - 1 + random.normal(0.0, 0.5, true.shape), -1, 1)
    by_model, by_column = [], []
    for place, arm in enumerate(treated):
        here = (got == arm) | (got == control)
        facts = (got[here] == arm, labels[here])
        by_model.append(contrast_counts(guess[here, place], *facts, UPLIFT_EDGES))
        by_column.append(contrast_counts(column[here, place], *facts, COLUMN_EDGES))
    best = np.array(treated)[guess.argmax(axis=1)]
    nobody = np.zeros(count, dtype=np.bool_)
    tables = {
        "single-column": contrast_counts(column[:, 0], nobody, labels, COLUMN_EDGES)[0],
        "uplift": np.stack(by_model),
        "uplift-single-column": np.stack(by_column),
        "policy": policy_counts(best, got, labels, arms),
    }
    sd = noise_multipliers(plan).final * math.sqrt(counted_once(arms))
    return {
        name: table + np.rint(random.normal(0.0, sd, table.shape)).astype(np.int64)
        for name, table in tables.items()
    }


def make_run(
    folder: Path,
    values: dict[str, Any] | None = None,
    *,
    size: int = 40_000,
    refusing: tuple[str, ...] = (),
    show_budget: bool = True,
    tiny: tuple[str, ...] = (),
) -> Run:
    """Carry a plan out over stand-ins, and open the run.

    Args:
        folder: where the workspace is, or goes.
        values: the plan; the example's where none is given.
        size: recipients of each silo.
        refusing: silos that refuse.
        show_budget: whether silos show their budgets.
        tiny: silos that are too small to tell from noise.
    """
    plan = Plan.from_values(values or example_values())
    there = (folder / WORKSPACE).exists()
    workspace = Workspace(folder) if there else Workspace.create(folder)

    def forge(fields: dict[str, Any], arrays: dict[str, Any]) -> None:
        silo, step = fields["silo"], fields["step"]
        here = 10 if silo in tiny else size
        sigma = noise_multipliers(plan)
        if step == "totals":
            arrays["totals"] = made_up_totals(plan, silo, here)
            fields["noise"] = {"noise_multiplier": sigma.statistics}
        else:
            arrays["histogram"] = made_up_histogram(plan, silo, step, here)
            fields["noise"] = {
                "noise_multiplier": sigma.final if step == "evaluate" else sigma.training,
                "evaluation_noise_multiplier": sigma.evaluation,
            }
            if step == "evaluate":
                arrays |= made_up_tables(plan, silo, here)
                fields["noise"] = {
                    "noise_multiplier": sigma.final,
                    "sensitivity": math.sqrt(counted_once(len(plan.arms))),
                }
        fields["charged"] = plan_charges(plan)[step]
        if show_budget:
            own = plan_epsilon(plan)
            fields["budget"] = BudgetView(
                epsilon_run=own, epsilon_spent=own + len(silo) / 4, epsilon_total=10.0, delta=1e-5
            )

    silos = {}
    for name in plan.silos:
        at = folder / "silos" / name / "keys"
        keys = SiteKeys.open(at) if at.exists() else SiteKeys.create(at, site=name)
        refuses = "policy" if name in refusing else ""
        silos[name] = SiloDouble(keys, workspace.keys, forge=forge, refuses=refuses)
    pinned = {name: silo.keys.public_key for name, silo in silos.items()}
    pins = workspace.coordinator / "silos.json"
    before = json.loads(pins.read_bytes()) if pins.exists() else {}
    now = {name: key.hex() for name, key in pinned.items()}
    write_private(pins, canonical_bytes(before | now))
    coordinator = Coordinator(
        keys=workspace.keys,
        audit=workspace.audit,
        runs=workspace.runs_folder,
        silos=pinned,
        front=make_front(workspace.keys, pinned),
    )
    grid = EmbeddedGrid({name: make_courier(silo.answer) for name, silo in silos.items()})
    outcome = carry_out(plan, grid, coordinator)
    return Run.open(outcome.folder, coordinator_key=workspace.keys.public_key)


def read_playbooks_today(folder: Path) -> None:
    """A workspace's own playbooks, read through today: the shipped ones will be due one day."""
    today = f"reviewed_on: '{datetime.now(UTC):%Y-%m-%d}'"
    for path in copy_playbooks(folder):
        told = re.sub(r"(?m)^reviewed_on: .*$", today, path.read_text())
        write_private(path, told.encode())
