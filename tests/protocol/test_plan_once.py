"""Noise once in plans: part of the question, absent from older ones, refused where it can't be."""

from __future__ import annotations

from typing import Any

import pytest

from abfed.protocol.errors import PlanError
from abfed.protocol.plan import Plan
from tests.examples import make_model_plan, make_plan, model_values

ONCE = {"epsilon": 1.0, "split": {"statistics": 1.0}, "noise": "once"}


def test_noise_once_is_part_of_the_question_and_its_absence_changes_no_digest() -> None:
    plan = make_plan()
    assert b'"noise"' not in plan.canonical_bytes()
    assert b'"colluders"' not in plan.canonical_bytes()
    written = make_plan(privacy=ONCE | {"noise": "each"})
    assert written.digest == plan.digest
    once = make_plan(privacy=ONCE, silos=["a", "b", "c"], minimum_silos=3)
    assert once.digest != make_plan(silos=["a", "b", "c"], minimum_silos=3).digest
    assert Plan.from_canonical(once.canonical_bytes()) == once
    assert once.first_step == "keys"
    assert b'"shares"' not in once.canonical_bytes()
    kept = make_plan(privacy=ONCE | {"shares": "planned"}, silos=["a", "b", "c"], minimum_silos=3)
    assert kept.digest != once.digest
    assert Plan.from_canonical(kept.canonical_bytes()) == kept


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"silos": ["aurora"], "minimum_silos": 1}, "2 to 100 silos, not 1"),
        ({"minimum_silos": 2}, "minimum_silos (now 2) of at least 3"),
        ({"privacy": ONCE | {"colluders": 2}}, "minimum_silos (now 3) of at least 4"),
        (
            {"metrics": [{"name": "q", "kind": "quantile", "column": "revenue",
                          "edges": [0.0, 10.0, 20.0]}], "primary": "q", "guardrails": None},
            "metrics: 'q' (quantile)",
        ),
        ({"privacy": ONCE | {"noise": "each", "colluders": 2}}, "is for noise: once only"),
        ({"privacy": ONCE | {"noise": "each", "shares": "planned"}}, "privacy.shares: is for"),
    ],
)  # fmt: skip
def test_what_noise_once_cant_be_had_with_is_named(changes: dict[str, Any], said: str) -> None:
    values = {"silos": ["a", "b", "c"], "minimum_silos": 3, "privacy": ONCE} | changes
    with pytest.raises(PlanError) as refused:
        make_plan(**values)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("segments", [{"name": "tiers", "feature": "tier"}]),
        ("adjust", [{"metric": "clicked", "covariate": "age"}]),
        ("balance", ["tier"]),
        ("clicks_without_opens", "keep"),
    ],
)
def test_parts_of_an_analysis_that_noise_once_lacks_are_named(part: str, value: Any) -> None:
    features = model_values()["features"]
    values = {"silos": ["a", "b", "c"], "minimum_silos": 3, "privacy": ONCE, "features": features}
    with pytest.raises(PlanError) as refused:
        make_plan(**values, analysis={part: value})
    assert f"once is not built for analysis.{part}" in str(refused.value)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"local_steps": 2}, "training.local_steps above 1"),
        ({"combine": {"kind": "trimmed-mean", "cut": 0.4}}, "training.combine: trimmed-mean"),
        ({"weighting": "equal"}, "training.weighting: equal"),
        ({"proximal": 0.1}, "training.proximal"),
        ({"largest_update": 2.0}, "training.largest_update"),
    ],
)
def test_rules_that_look_at_one_silos_update_are_refused_by_name(
    training: dict[str, Any], said: str
) -> None:
    privacy = model_values()["privacy"] | {"noise": "once"}
    values = {"privacy": privacy, "silos": ["a", "b", "c"], "minimum_silos": 3}
    one_step = {"rounds": 2, "local_steps": 1}
    assert make_model_plan(**values, training=one_step).noise_once
    with pytest.raises(PlanError) as refused:
        make_model_plan(**values, training=one_step | training)
    assert f"once is not built for {said}" in str(refused.value)
