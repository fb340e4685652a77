"""Whether the parts of a plan fit one another: what no part can see by itself."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from abfed.protocol.analysis import SHARE_TOLERANCE, problem_of
from abfed.protocol.schema import RESERVED_COLUMNS

if TYPE_CHECKING:
    from abfed.protocol.plan import Plan


def incoherence(plan: Plan) -> str:
    """The first thing that doesn't fit; empty where all does."""
    checks = (_check_silos, _check_arms, _check_metrics, _check_features, _check_model)
    last = (_check_analysis, _check_noise)
    return next((problem for check in (*checks, *last) if (problem := check(plan))), "")


def _repeated(names: list[str]) -> str:
    return next((name for name, times in Counter(names).items() if times > 1), "")


def _check_silos(plan: Plan) -> str:
    if name := _repeated(list(plan.silos)):
        return f"silos: {name!r} stands twice"
    if plan.minimum_silos > len(plan.silos):
        return f"minimum_silos ({plan.minimum_silos}) is above the number of silos"
    return ""


def _check_arms(plan: Plan) -> str:
    if name := _repeated([arm.name for arm in plan.arms]):
        return f"arms: {name!r} stands twice"
    total = sum(arm.share for arm in plan.arms)
    if abs(total - 1) > SHARE_TOLERANCE:
        return f"arms: shares add up to {total:g}, not to 1"
    controls = sum(arm.control for arm in plan.arms)
    if controls != 1:
        return f"arms: exactly one arm must be the control, not {controls}"
    return ""


def _check_metrics(plan: Plan) -> str:
    names = [metric.name for metric in plan.metrics]
    if name := _repeated(names):
        return f"metrics: {name!r} stands twice"
    if plan.primary not in names:
        return f"primary: {plan.primary!r} is not one of the metrics ({', '.join(names)})"
    guarded = [guardrail.metric for guardrail in plan.guardrails]
    if name := _repeated(guarded):
        return f"guardrails: {name!r} stands twice"
    for name in guarded:
        if name not in names:
            return f"guardrails: {name!r} is not one of the metrics ({', '.join(names)})"
        if name == plan.primary:
            return f"guardrails: {name!r} is the primary metric"
    return ""


def _check_features(plan: Plan) -> str:
    names = [feature.name for feature in plan.features]
    names += [text.name for text in plan.model.texts] if plan.model else []
    if name := _repeated(names):
        return f"features: {name!r} stands twice"
    for name in names:
        if name in RESERVED_COLUMNS:
            return f"features: {name!r} is a canonical column and can't be a pre-send feature"
    kinds = {feature.name: feature.kind for feature in plan.features}
    for condition in plan.population:
        kind = "category" if condition.column == "region" else kinds.get(condition.column)
        if kind is None:
            return f"population: {condition.column!r} is neither 'region' nor a declared feature"
        if (kind == "category") != (condition.one_of is not None):
            asks = "one_of" if kind == "category" else "at_least and/or at_most"
            return f"population: {condition.column!r} is a {kind} column; use {asks}"
    return ""


def _check_analysis(plan: Plan) -> str:
    for metric in plan.metrics:
        if metric.kind == "count" and metric.most > plan.sends_per_recipient:
            return f"metrics: {metric.name!r} counts more than sends_per_recipient"
    if plan.privacy.unprotected and plan.model is not None:
        return "model: nothing is trained without privacy; leave the model out"
    arms = tuple(arm.name for arm in plan.arms)
    return problem_of(plan.analysis, plan.metrics, plan.features, arms)


def _check_model(plan: Plan) -> str:
    split = plan.privacy.split
    if plan.model is None:
        if plan.training is not None:
            return "training: is given, but there is no model to train"
        if split.training or split.evaluation:
            return "privacy.split: training and evaluation must be 0 where there is no model"
        return ""
    if not plan.features:
        return "features: a model needs at least one feature"
    if not (split.training and split.evaluation):
        return "privacy.split: a model needs ε for training and for evaluation"
    return _check_training(plan)


MOST_TOGETHER = 100
"""Silos of a plan with noise once: each shares its secrets with each other."""


def _check_noise(plan: Plan) -> str:
    """What noise once can't be had with, by name."""
    privacy, silos, least = plan.privacy, len(plan.silos), plan.minimum_silos
    if privacy.noise == "each":
        if privacy.shares != "counted":
            return "privacy.shares: is for noise: once only"
        return "" if privacy.colluders == 1 else "privacy.colluders: is for noise: once only"
    if not 2 <= silos <= MOST_TOGETHER:
        return f"privacy.noise: once is for 2 to {MOST_TOGETHER} silos, not {silos}"
    if least - privacy.colluders < 2:
        return (
            f"privacy.noise: once needs minimum_silos (now {least}) of at least "
            f"{privacy.colluders + 2}: with {privacy.colluders} colluding and fewer than two "
            "others each silo would have to add all of the noise itself"
        )
    return _not_with_noise_once(plan)


def _not_with_noise_once(plan: Plan) -> str:
    """The first part of a plan that needs each silo's own figures."""
    analysis = plan.analysis
    parts = {
        "analysis.segments": bool(analysis.segments),
        "analysis.adjust": bool(analysis.adjust),
        "analysis.balance": bool(analysis.balance),
        "analysis.clicks_without_opens": analysis.clicks_without_opens is not None,
        "analysis.sequential": analysis.sequential is not None,
    }
    parts |= {
        f"metrics: {metric.name!r} ({metric.kind})": True
        for metric in plan.metrics
        if metric.kind not in {"proportion", "mean", "count"}
    }
    if plan.model is not None:
        schedule = plan.schedule
        parts |= {
            f"training.combine: {schedule.combine.kind}": schedule.combine.kind != "mean",
            "training.local_steps above 1": schedule.local_steps > 1,
            "training.weighting: equal": schedule.weighting == "equal",
            "training.proximal": schedule.proximal > 0,
            "training.largest_update": schedule.largest_update is not None,
            "waiting.silo_share below 1": plan.waiting.silo_share < 1,
        }
    found = next((name for name, there in parts.items() if there), "")
    if not found:
        return ""
    return f"privacy.noise: once is not built for {found}; leave it out, or use noise: each"


def _check_training(plan: Plan) -> str:
    schedule = plan.schedule
    if plan.minimum_silos < (needed := schedule.silos_needed()):
        return f"training.combine: {schedule.combine.kind} needs minimum_silos of at least {needed}"
    if schedule.proximal * schedule.learning_rate >= 1:
        return "training.proximal: times learning_rate must be below 1, or steps overshoot"
    return ""
