"""Whether the parts of a plan fit one another: what no part can see by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abfed.protocol.analysis import SHARE_TOLERANCE, problem_of
from abfed.protocol.schema import RESERVED_COLUMNS

if TYPE_CHECKING:
    from abfed.protocol.plan import Plan


def incoherence(plan: Plan) -> str:
    """The first thing that doesn't fit; empty where all does."""
    checks = (_check_silos, _check_arms, _check_metrics, _check_features, _check_model)
    return next((problem for check in (*checks, _check_analysis) if (problem := check(plan))), "")


def _repeated(names: list[str]) -> str:
    return next((name for name in names if names.count(name) > 1), "")


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


def _check_training(plan: Plan) -> str:
    schedule = plan.schedule
    if plan.minimum_silos < (needed := schedule.silos_needed()):
        return f"training.combine: {schedule.combine.kind} needs minimum_silos of at least {needed}"
    if schedule.proximal * schedule.learning_rate >= 1:
        return "training.proximal: times learning_rate must be below 1, or steps overshoot"
    return ""
