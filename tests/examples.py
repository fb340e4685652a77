"""Plans that many tests start from."""

from __future__ import annotations

from typing import Any

from abfed.protocol.plan import Plan


def plan_values(**changes: Any) -> dict[str, Any]:
    """A small plan without a model, as YAML would give it; a change to None removes the key."""
    values: dict[str, Any] = {
        "name": "spring",
        "purpose": "email-optimisation",
        "experiment": "spring-2026",
        "silos": ["aurora", "borealis"],
        "arms": [
            {"name": "a", "share": 0.5, "control": True},
            {"name": "b", "share": 0.5},
        ],
        "metrics": [
            {"name": "clicked", "kind": "proportion", "column": "clicked"},
            {"name": "spend", "kind": "mean", "column": "revenue", "high": 50.0},
        ],
        "primary": "clicked",
        "guardrails": [{"metric": "spend", "harm": "decrease", "margin": 0.5}],
        "privacy": {"epsilon": 1.0, "delta": 1e-6, "split": {"statistics": 1.0}},
    } | changes
    return {key: value for key, value in values.items() if value is not None}


def model_values(**changes: Any) -> dict[str, Any]:
    """The plan above with a model and two rounds of training."""
    values: dict[str, Any] = {
        "features": [
            {"name": "age", "kind": "numeric", "low": 0.0, "high": 100.0},
            {"name": "tier", "kind": "category", "values": ["basic", "gold"]},
        ],
        "model": {"outcome": "clicked"},
        "training": {"rounds": 2, "local_steps": 2},
        "privacy": {
            "epsilon": 3.0,
            "delta": 1e-6,
            "split": {"statistics": 1.0, "training": 1.5, "evaluation": 0.5},
        },
    }
    return plan_values(**(values | changes))


def make_plan(**changes: Any) -> Plan:
    """`plan_values` as a plan."""
    return Plan.from_values(plan_values(**changes))


def make_model_plan(**changes: Any) -> Plan:
    """`model_values` as a plan."""
    return Plan.from_values(model_values(**changes))
