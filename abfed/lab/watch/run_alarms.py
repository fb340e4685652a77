"""Alarms from a run (S14): updates that no honest silo sends, losses that go up, checks that fail.

What an honest update looks like follows from what was charged. A round of T steps at learning rate
η, clip C, noise multiplier σ and expected batch B over d parameters moves by noise whose length is
about η σ C √(T d) / B, and by at most η C T (realised over expected batch) of signal. Longer than
both together is an outlier; much shorter than the noise means that the noise is not there. A silo
that pulls against all others, further than chance would, is named too.

Everything is computed from releases: it costs nothing, and says nothing more about anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from abfed.coordinator.inbox import Accepted
from abfed.lab.runs import Run, is_scored
from abfed.learning.evaluation import ScoreHistogram, log_loss
from abfed.learning.shapes import UPDATE, unprefixed
from abfed.site.alarms import CHECKS, STATES, Alarm

BATCHES = 1.5
"""How far realised batches may be above the expected one, on average over a round's steps."""

ENOUGH_NOISE = 20
"""Steps times parameters from which on the length of the noise is known to a few percent."""

DECLARED = frozenset({"clip", "expected_batch", "noise_multiplier", "steps"})
"""What a training release says about its noise."""

OPPOSED = 0.5
CHANCE = 6.0  # sds of the cosine of independent noise, 1/√d
LOSS_SDS = 5.0

Floats = npt.NDArray[np.float64]


def judge_run(run: Run) -> Iterator[Alarm]:
    """The alarms of a run, dated by when it was complete."""
    if run.plan.model is not None:
        yield from _updates(run)
        yield from _opposed(run)
        yield from _losses(run)
    yield from _checks(run)


def honest_lengths(accepted: Accepted, learning_rate: float, size: int) -> tuple[float, float]:
    """What an honest update's noise is long, and how long its signal can be at most.

    Args:
        accepted: a training release.
        learning_rate: of the plan.
        size: parameters.
    """
    noise = accepted.release.noise
    step = learning_rate * noise["clip"] / noise["expected_batch"]
    drowned = step * noise["noise_multiplier"] * math.sqrt(noise["steps"] * size)
    signal = learning_rate * noise["clip"] * noise["steps"] * BATCHES
    return drowned, signal


def _updates(run: Run) -> Iterator[Alarm]:
    rate = run.plan.schedule.learning_rate
    for silo, steps in run.releases.items():
        for step, accepted in steps.items():
            if not step.startswith("train-") or run.plan.noise_once:
                continue  # under masks nothing can be told of one silo's step
            if not set(accepted.release.noise) >= DECLARED:
                what = f"its release of {step} does not say by which noise it was made"
                yield _alarm(run, "noise-untold", silo, what, "ask which version it runs")
                continue
            update = _flat(accepted)
            length = float(np.linalg.norm(update))
            noise, signal = honest_lengths(accepted, rate, update.size)
            if length > 1.3 * noise + signal:
                what = f"its update in {step} is {length / (noise + signal):.1f} × what is possible"
                yield _alarm(run, "update-norm", silo, what, "playbook poisoned-silo")
            enough = update.size * accepted.release.noise["steps"] >= ENOUGH_NOISE
            free = run.plan.schedule.proximal == 0  # a pull shortens the noise too
            if enough and free and length < 0.4 * noise:
                what = f"its update in {step} is {length / noise:.2f} × as long as its noise"
                yield _alarm(run, "noise-missing", silo, what, "ask the silo to verify")


def _opposed(run: Run) -> Iterator[Alarm]:
    """Silos whose whole way points against that of the others."""
    ways = {
        silo: np.sum([_flat(steps[name]) for name in _trained(steps)], axis=0)
        for silo, steps in run.releases.items()
        if _trained(steps) and not run.plan.noise_once
    }
    if len(ways) < 3:
        return
    for silo, way in ways.items():
        others = np.sum([other for name, other in ways.items() if name != silo], axis=0)
        cosine = float(way @ others / (np.linalg.norm(way) * np.linalg.norm(others) or 1.0))
        if cosine < -max(OPPOSED, CHANCE / math.sqrt(way.size)):
            what = f"it pulls against all other silos (cosine {cosine:.2f})"
            yield _alarm(run, "update-direction", silo, what, "playbook poisoned-silo")


def _losses(run: Run) -> Iterator[Alarm]:
    """Silos on whose held-out recipients the model became worse while it was trained."""
    for silo, steps in run.releases.items():
        seen = sorted(filter(is_scored, steps), key=lambda s: (s == "evaluate", s))
        losses = [log_loss(_histogram(steps[name])) for name in seen]
        known = [one for one in losses if one is not None]
        if len(known) < 2:
            continue
        rise = known[-1].value - known[0].value
        error = math.hypot(known[-1].standard_error, known[0].standard_error)
        if rise > LOSS_SDS * error:
            what = f"the model's log-loss rose by {rise:.3g} (± {error:.2g}) over the run"
            yield _alarm(run, "loss-rises", silo, what, "see the training curve")


def _checks(run: Run) -> Iterator[Alarm]:
    """Checks of the experiment that say that something is wrong with it."""
    for row in run.checks.to_dict("records"):
        if row["alarm"]:
            rule = f"check-{str(row['check']).replace(' ', '-')}"
            what = f"{row['scope']}, {row['subject']}: {row['reading']}"
            yield _alarm(run, rule, run.name, what[:300], "see the report's checks")


def _alarm(run: Run, rule: str, subject: str, what: str, do: str) -> Alarm:
    return Alarm(
        rule=rule,
        severity=CHECKS if rule.startswith("check-") else STATES[rule],
        site=run.name,
        subject=subject,
        at=run.made_at,
        what=what,
        do=do,
    )


def _flat(accepted: Accepted) -> Floats:
    update = unprefixed(UPDATE, accepted.arrays)
    return np.concatenate([np.ravel(update[name]).astype(np.float64) for name in sorted(update)])


def _trained(steps: Mapping[str, Any]) -> list[str]:
    return [name for name in steps if name.startswith("train-")]


def _histogram(accepted: Accepted) -> ScoreHistogram:
    return ScoreHistogram.of_release(accepted.arrays["histogram"], accepted.release.noise)
