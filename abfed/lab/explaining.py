"""A release in plain words: what it is, what is promised about it, and what is not.

Everything is computed from the signed release and its plan. "What an attacker could learn" is what
the guarantee bounds, for an attacker who knows everything but whether one person is in the data.
"""

from __future__ import annotations

import math
from pathlib import Path

from scipy import stats

from abfed.lab.runs import Run
from abfed.lab.together import in_this_run
from abfed.lab.workspace import Workspace
from abfed.privacy.accounting import epsilon_of
from abfed.privacy.attack import most_found, surest
from abfed.privacy.charges import plan_epsilon
from abfed.privacy.once import role_of
from abfed.protocol.documents import is_file
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.messages import Charge, Release
from abfed.protocol.plan import Plan

FALSE_ALARMS = 0.01
"""An attacker's rate of false alarms, at which their hits are stated."""

Explained = dict[str, list[str]]


def find_release(workspace: Workspace, name: str) -> tuple[Run, Release]:
    """A release by its file, or as RUN/SILO/STEP; its run is verified first.

    Raises:
        WorkspaceError: there is none.
        IntegrityError: the run, or the release, was changed.
    """
    if Path(name).suffix == ".release" and is_file(name):
        path = Path(name).resolve()  # RUN/releases/SILO/STEP.release, wherever it was named from
        folder = path.parents[2] if len(path.parents) > 2 else path.parent
        run, silo, step = workspace.find_run(folder), path.parent.name, path.stem
    else:
        parts = name.strip("/").split("/")
        if len(parts) != 3:
            raise WorkspaceError(
                "no such release", where=name, do="name its file, or RUN/SILO/STEP"
            )
        run, silo, step = workspace.find_run(parts[0]), parts[1], parts[2]
    try:
        return run, run.releases[silo][step].release
    except KeyError as cause:
        known = ", ".join(f"{a}/{b}" for a, steps in run.releases.items() for b in steps)
        raise WorkspaceError(
            "no such release in this run", where=name, why=f"it holds: {known}"
        ) from cause


def explain(run: Run, release: Release) -> Explained:
    """Headings with sentences."""
    plan = run.plan
    delta = plan.privacy.delta
    alone = epsilon_of(release.charged, delta) if release.charged else 0.0
    whole = plan_epsilon(plan)
    return {
        "What was released": _what(plan, release),
        "The guarantee": [
            f"Protected is {release.unit.sentence}.",
            (
                f"This release by itself is ({alone:.3f}, {delta:g})-differentially private for "
                f"each of them; all that {release.silo} charged for the run, whether it arrived or "
                f"not, is ({whole:.3f}, {delta:g}). Both are privacy loss distributions (PLD) of "
                f"settings fixed beforehand; `abfed ledger show` counts all plans, by a Rényi "
                f"filter at the budget's own δ, and more for it."
            ),
            f"What was charged: {_charged(release)}.",
            *(in_this_run(run, release) if plan.noise_once else ()),
        ],
        "What it rests on": _assumptions(plan, release),
        "What an attacker could learn": _learnable(alone, delta, release.charged)
        if release.charged
        else ["Nothing about anybody: nobody's data are in it."],
        "What remains": _residual(plan, release),
    }


def _what(plan: Plan, release: Release) -> list[str]:
    arms, metrics = len(plan.arms), ", ".join(metric.name for metric in plan.metrics)
    kinds = {
        "totals": f"Sums over the recipients of each of {arms} arms, for {metrics}: bounded, "
        "noised, and nothing beside them.",
        "training": "How one round of training moved the model in this brand, clipped for each "
        "recipient and noised; and how the model that came in scored people kept for evaluation, "
        "as a noised histogram.",
        "keys": f"Public keys for one question, and the noised number of recipients in each of "
        f"{arms} arms.",
        "shares": "Secrets in shares, each sealed to another silo, so that a silo that drops out "
        "doesn't spoil the sum.",
        "answered": "Which silos' masked sums this silo saw.",
        "opening": "A share of one secret of each silo: it takes masks off the sum of all.",
        "evaluation": "How the final model scored people kept for evaluation, and what it and its "
        "single leading column say of who reacts to which arm, as noised counts.",
    }
    if plan.noise_once:
        kinds["keys"] = kinds["keys"] if release.step == "keys" else "Public keys for one round."
        kinds["training"] = "The sum of one batch's clipped gradients with a share of the noise, "
        kinds["training"] += "under masks that come off in the sum of all only; and how the model "
        kinds["training"] += "that came in scored people kept for evaluation, noised by itself."
        kinds["totals"] = f"For {metrics}, sums over the recipients of each of {arms} arms, with a "
        kinds["totals"] += "share of the noise, under masks that come off in the sum of all only."
    made = [kinds[release.payload], f"Made by {release.silo} at {release.made_at}."]
    if release.simulated:
        made.append("A SIMULATION on people who don't exist: its noise may be known to others.")
    return made


def _charged(release: Release) -> str:
    """All that was charged for it, in words."""
    return "; ".join(_event(charge) for charge in release.charged) or "nothing"


def _event(charge: Charge) -> str:
    times = "once" if charge.count == 1 else f"{charge.count} times"
    noise = f"Gaussian noise of {charge.noise_multiplier:g} times one person's largest influence"
    if charge.event == "sampled-gaussian":
        return f"{noise}, {times}, on a random {charge.sampling_rate:.3g} of the recipients"
    return f"{noise}, {times}"


def _assumptions(plan: Plan, release: Release) -> list[str]:
    said = [
        (
            "Each person's rows carry the same pseudonym in this brand: someone with two addresses "
            "is two recipients."
        ),
        "Bounds, arms and categories stand in the plan; none was taken from the data.",
        "The noise came from the brand's operating system and nobody else knows it.",
        "The brand's machine ran abfed as published; the release is signed by the brand's key.",
    ]
    if release.payload == "training":
        said.append("Who was in a step was drawn by independent coins, and stayed secret.")
    if plan.noise_once and role_of(release.step) == "masked":
        said[2] = (
            f"At most {plan.privacy.colluders} of the other silos tell what they added; each "
            "silo's noise came from its own operating system."
        )
    if release.simulated:
        said[2] = "None of the above about noise: it was seeded."
    return said


def _learnable(epsilon: float, delta: float, charges: tuple[Charge, ...]) -> list[str]:
    hits = most_found(epsilon, delta, FALSE_ALARMS)
    if all(charge.event == "gaussian" for charge in charges):
        # Gaussian releases compose to one; its exact trade-off (Dong, Roth and Su 2022)
        mu = math.sqrt(sum(one.count / one.noise_multiplier**2 for one in charges))
        hits = min(hits, float(stats.norm.sf(stats.norm.isf(FALSE_ALARMS) - mu)))
    return [
        (
            "Whoever knows everything except whether one person is in the data, and thinks it as "
            f"likely as not, can become at most {surest(epsilon):.1%} sure by this release (but "
            f"for a chance of {delta:g})."
        ),
        (
            f"A test for one person that raises a false alarm in {FALSE_ALARMS:.0%} of cases finds "
            f"them in at most {hits:.1%} of cases."
        ),
        (
            "Facts about the group, such as that an arm did better, can be learnt, and are meant "
            "to be; they also tell something likely about people who never were in the data."
        ),
    ]


def _residual(plan: Plan, release: Release) -> list[str]:
    said = [
        (
            f"Somebody known to {len(plan.silos)} brands is {len(plan.silos)} recipients: what "
            "they lose adds up over brands."
        ),
        "Other plans cost more: the brand's ledger adds all of them (`abfed ledger show`).",
        "That a brand took part, the plan itself and the time of the answer are not hidden.",
        "The brand's own administrators see their own rows; the guarantee is against all others.",
    ]
    if release.payload == "training":
        said.append(
            "A model repeats what is common in its data. Within the guarantee it tells little of "
            "one person, and it is not a statement about them."
        )
    return said
