"""What a coordinator may ask of training: settings outside their bounds are no plan."""

from __future__ import annotations

import math
from typing import Any

import pytest

from abfed.privacy.charges import plan_charges
from abfed.protocol.errors import PlanError
from tests.examples import make_model_plan, make_plan

NOT_NUMBERS = (math.nan, math.inf, -math.inf)
BAD: dict[str, tuple[Any, ...]] = {
    "rounds": (0, -1, 1001, 1.5),
    "local_steps": (0, -3, 10_001),
    "sampling_rate": (0.0, -0.1, 1.01, *NOT_NUMBERS),
    "clip": (0.0, -1.0, 1e9, *NOT_NUMBERS),
    "learning_rate": (0.0, -1.0, 1e9, *NOT_NUMBERS),
    "holdout": (0.0, 1.0, *NOT_NUMBERS),
    "proximal": (-1.0, *NOT_NUMBERS),
    "averaged": (-0.1, 1.1, *NOT_NUMBERS),
    "largest_update": (0.0, -1.0, *NOT_NUMBERS),
    "server": (
        {"kind": "fedsgd"},
        {"kind": "fedavgm", "momentum": 1.0},
        {"kind": "fedavgm", "learning_rate": math.nan},
        {"kind": "fedadam", "beta_2": 1.0},
        {"kind": "fedyogi", "tau": 0.0},
    ),
    "combine": (
        {"kind": "median"},
        {"kind": "trimmed-mean", "cut": 0.5},
        {"kind": "trimmed-mean", "cut": math.nan},
        {"kind": "multi-krum", "hostile": 0},
    ),
}


@pytest.mark.privacy
@pytest.mark.parametrize("name", BAD)
def test_settings_outside_their_bounds_are_no_plan(name: str) -> None:
    for value in BAD[name]:
        with pytest.raises(PlanError, match=name):
            make_model_plan(training={name: value})


@pytest.mark.privacy
def test_what_nobody_can_account_for_is_no_plan() -> None:
    """Counting either took a silo minutes, or never ended; the first step would have failed."""
    with pytest.raises(PlanError, match=r"10,000,000; it must be at most 100,000"):
        make_model_plan(training={"rounds": 1000, "local_steps": 10_000})
    with pytest.raises(PlanError, match="delta"):
        make_plan(privacy={"epsilon": 1.0, "delta": 1e-15, "split": {"statistics": 1.0}})
    split = {"statistics": 1.0, "training": 0.001, "evaluation": 0.1}
    drowned = make_model_plan(
        privacy={"epsilon": 1.101, "delta": 1e-6, "split": split},
        training={"rounds": 100, "local_steps": 1000, "sampling_rate": 1.0},
    )
    with pytest.raises(PlanError, match=r"noise of [\d,]+ clips"):
        plan_charges(drowned)


@pytest.mark.parametrize("hidden", [[0], [-1], [1025], [10**9], [8] * 5, [1.5]])
def test_layers_are_bounded_in_size_and_number(hidden: list[Any]) -> None:
    with pytest.raises(PlanError, match="hidden"):
        make_model_plan(model={"outcome": "clicked", "hidden": hidden})
