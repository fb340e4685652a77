"""Model cards (Mitchell et al. 2019) from facts: nothing in one is typed by hand.

Everything comes from the signed registration: the plan, what training cost, how the model was
evaluated, and what it was made of. What nobody measured is said not to have been measured.
"""

from __future__ import annotations

import math

from abfed.coordinator.registry import Registration, Standing
from abfed.lab.views.cards import shape_of
from abfed.protocol.plan import Plan


def model_card(standing: Standing) -> str:
    """A model's card as Markdown."""
    model = standing.registration
    plan = model.read_plan()
    parts = [
        f"# {model.label}: {standing.stage}",
        _intended(model, plan),
        _made(model, plan),
        _privacy(model, plan),
        _evaluation(model),
        _limits(model, plan),
        _history(standing),
    ]
    return "\n\n".join(parts) + "\n"


def _intended(model: Registration, plan: Plan) -> str:
    spec = plan.model
    assert spec is not None  # noqa: S101 - a registration without a model can't be made
    arms = ", ".join(arm.name for arm in plan.arms)
    return (
        "## What it is for\n\n"
        f"- Predicts `{spec.outcome}` of a send from what is known before it; arms {arms}.\n"
        f"- Purpose that the silos allowed: {plan.purpose}. Other uses were not asked for.\n"
        f"- A {shape_of(spec)} ({spec.learner.upper()}-learner); digest `{model.digest[:16]}`."
    )


def _made(model: Registration, plan: Plan) -> str:
    lines = [
        "## What it was made of\n",
        f"- Plan {plan.name}, `{plan.digest[:16]}`, by {model.asked_by}; run {model.run}.",
    ]
    for silo, steps in sorted(model.releases.items()):
        epoch = model.epochs.get(silo, "")[:16]
        rounds = sum(step.startswith("train-") for step in steps)
        lines.append(f"- {silo}: {rounds} rounds on the data as of epoch `{epoch}`.")
    lines.append("\n| feature | kind | public bounds or values |\n|---|---|---|")
    for one in plan.features:
        said = f"{one.low:g} to {one.high:g}" if one.kind == "numeric" else ", ".join(one.values)
        lines.append(f"| {one.name} | {one.kind} | {said} |")
    versions = ", ".join(f"{name} {one}" for name, one in sorted(model.versions.items()) if one)
    return "\n".join([*lines, f"\nComputed by {versions}."])


def _privacy(model: Registration, plan: Plan) -> str:
    if plan.privacy.unprotected:
        return "## Privacy\n\nNONE: it was trained without noise, on made-up people only."
    lines = ["## Privacy\n", "| silo | ε of the whole run | δ |\n|---|---|---|"]
    for silo, epsilon in sorted(model.epsilon.items()):
        shown = "–" if epsilon is None else f"{epsilon:.3f}"
        lines.append(f"| {silo} | {shown} | {model.delta:g} |")
    seeded = " Its noise was seeded: a SIMULATION, private for nobody." if model.simulated else ""
    lines.append(
        "\nProtected: one recipient with all their e-mails in one silo. Somebody known to several"
        f" silos bears the sum.{seeded}"
    )
    return "\n".join(lines)


def _evaluation(model: Registration) -> str:
    found = model.evaluation
    if found.get("auc") is None:
        figures = "Not estimable: the noise drowns it."
    else:
        figures = f"AUC {_with_errors(found, 'auc', 3)}"
        if found.get("log_loss") is not None:
            figures += f", log loss {_with_errors(found, 'log_loss', 4)}"
        figures += ", on recipients held out, from noised histograms; errors are standard errors."
    return f"## How it was evaluated\n\n{figures}"


def _with_errors(found: dict[str, float | None], name: str, places: int) -> str:
    """A figure, its standard error, and what of that is chance's and what the noise's."""
    value, error, chance = (found.get(f"{name}{part}") for part in ("", "_se", "_se_sampling"))
    said = f"{value:.{places}f}"
    if error is None:
        return said
    said += f" ± {error:.{places}f}"
    if chance is None:  # registered before the parts were
        return said
    noise = math.sqrt(max(0.0, error**2 - chance**2))
    return f"{said} (chance {chance:.{places}f}, noise {noise:.{places}f})"


def _limits(model: Registration, plan: Plan) -> str:
    where = (
        f"Only people with {' and '.join(sorted({one.column for one in plan.population}))} as the"
        " plan says were in it."
        if plan.population
        else "All lawful recipients of the experiment were in it."
    )
    return (
        "## Limits\n\n"
        f"- {where} Nothing is known of others.\n"
        f"- Brands: {', '.join(sorted(model.releases))}. Others were not asked.\n"
        "- Whether it serves groups of people equally well was not measured: a release about groups"
        " would cost privacy, and none was asked for.\n"
        "- It can be stolen and queried like any model; what it can tell of one recipient is"
        " bounded by ε above."
    )


def _history(standing: Standing) -> str:
    made = standing.registration.registered_at[:10]
    lines = ["## Stages\n", f"- {made} candidate, registered"]
    lines += [f"- {one.at[:10]} {one.stage}, by {one.by}: {one.reason}" for one in standing.steps]
    return "\n".join(lines)
