"""What a coordinator may ask of training: settings outside their bounds are no plan."""

from __future__ import annotations

import math
from typing import Any

import pytest

from abfed.protocol.errors import PlanError
from tests.examples import make_model_plan

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


@pytest.mark.parametrize("hidden", [[0], [-1], [1025], [10**9], [8] * 5, [1.5]])
def test_layers_are_bounded_in_size_and_number(hidden: list[Any]) -> None:
    with pytest.raises(PlanError, match="hidden"):
        make_model_plan(model={"outcome": "clicked", "hidden": hidden})
