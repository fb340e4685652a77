"""What a wrong silo sends in a round, under each rule there is: left out, recorded, no model bent.

A fault that can be seen in the release itself (inf, NaN, a wrong shape) is left out whatever the
rule. One that can't (a turned sign, an update that is too long, but finite) is what robust rules
are for: with each of them the model is that of the others; the plain mean shows what it'd cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from abfed.coordinator.app import carry_out
from abfed.coordinator.vault import Vault
from abfed.learning.shapes import UPDATE, parameter_shapes
from tests.coordinator.doubles import Federation, SiloDouble, make_plan

NAMES = ("aurora", "borealis", "corona", "dawn", "ember")
EVIL, ROUND = "corona", "train-0002"

RULES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavgm": {"server": {"kind": "fedavgm"}},
    "fedadam": {"server": {"kind": "fedadam"}},
    "fedyogi": {"server": {"kind": "fedyogi"}},
    "fedprox": {"proximal": 0.1},
    "fedsgd": {"local_steps": 1},
    "norm bound": {"largest_update": 2.0},
    "trimmed mean": {"combine": {"kind": "trimmed-mean", "cut": 0.25}},
    "multi-krum": {"combine": {"kind": "multi-krum", "hostile": 1}},
}


def bent(value):
    """The arrays of an update, each changed."""

    def change(arrays):
        for name in arrays:
            if name.startswith(UPDATE):
                arrays[name] = value(arrays[name])

    return change


def one_number(number):
    def change(array):
        array = array.copy()
        array.flat[-1] = number
        return array

    return bent(change)


FAULTS = {
    "inf": one_number(np.inf),
    "nan": one_number(np.nan),
    "a wrong shape": bent(lambda array: np.zeros((1, *array.shape), array.dtype)),
    "a shape that broadcasts": bent(lambda array: np.zeros((1,) * array.ndim, array.dtype)),
    "another type": bent(lambda array: array.astype(np.float64)),
    "no arrays": dict.clear,
    "beyond all parameters": one_number(3e38),
}


def plan_for(rule: str, **changes: Any):
    """Three rounds of five silos, of whom four must answer."""
    training = {"rounds": 3, "local_steps": 2, "averaged": 0.0} | RULES[rule] | changes
    least = 5 if rule == "multi-krum" else 4
    return make_plan(silos=list(NAMES), minimum_silos=least, training=training)


def signal(fields: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Honest silos agree on a direction, up to noise."""
    if fields["step"].startswith("train-"):
        for name, noise in arrays.items():
            if name.startswith(UPDATE):
                arrays[name] = (0.5 + 0.1 * noise).astype(np.float32)


def federation_of(folder, fault=None) -> Federation:
    """Five silos that agree; one has a fault in the second round."""
    made = Federation(folder, NAMES)
    for silo in made.silos.values():
        silo.forge = signal
    if fault is not None:

        def forge(fields, arrays):
            signal(fields, arrays)
            if fields["step"] == ROUND:
                fault(arrays)

        made.silos[EVIL].forge = forge
    return made


def carried(plan, made: Federation):
    """The run, and its final model as one vector."""
    outcome = carry_out(plan, made.grid(), made.coordinator)
    sealed = (outcome.folder / "model.sealed").read_bytes()
    model = Vault(made.keys).open(sealed, parameter_shapes(plan), name=outcome.run, version="final")
    return outcome, np.concatenate([model[name].ravel() for name in sorted(model)])


@pytest.mark.parametrize("rule", [one for one in RULES if one != "multi-krum"])
@pytest.mark.parametrize("fault", ["inf", "a shape that broadcasts"])
def test_it_is_left_out_of_the_round_whatever_the_rule(rule, fault, tmp_path):
    left_out_of_one_round(rule, fault, tmp_path)


@pytest.mark.slow
@pytest.mark.privacy
@pytest.mark.parametrize("rule", [one for one in RULES if one != "multi-krum"])
@pytest.mark.parametrize(
    "fault", [one for one in FAULTS if one not in {"inf", "a shape that broadcasts"}]
)
def test_any_other_fault_too(rule, fault, tmp_path):
    left_out_of_one_round(rule, fault, tmp_path)


def left_out_of_one_round(rule, fault, folder):
    """Left out of that round only, in manifest and log, and the model is finite and the others'."""
    made = federation_of(folder, FAULTS[fault])
    outcome, model = carried(plan_for(rule), made)
    left = outcome.manifest["left_out"][ROUND][EVIL]
    assert left["reason"] == ("outlier" if fault == "beyond all parameters" else "integrity")
    assert EVIL not in outcome.manifest["weights"][ROUND]
    assert set(outcome.manifest["weights"]["train-0003"]) == set(NAMES)  # asked again
    assert list(outcome.manifest["left_out"]) == [ROUND]
    logged = [one["body"]["facts"] for one in made.coordinator.audit.entries()]
    assert {"silo": EVIL, "step": ROUND, "why": left["why"]}.items() <= next(
        one for one in logged if one.get("silo") == EVIL and one.get("step") == ROUND
    ).items()
    assert np.isfinite(model).all()
    assert np.abs(model).max() < 10


WRONG = {
    "a turned sign": bent(lambda array: -10 * array),
    "an outlier": bent(lambda array: np.full_like(array, 1e4)),
}


@pytest.mark.parametrize("wrong", sorted(WRONG))
@pytest.mark.parametrize("rule", ["norm bound", "trimmed mean", "multi-krum"])
def test_robust_rules_give_the_model_of_the_others(rule, wrong, tmp_path):
    """Every honest step is between .4 and .6: so must be each step of the model."""
    outcome, model = carried(plan_for(rule), federation_of(tmp_path, WRONG[wrong]))
    assert np.abs(model - 1.5).max() < 0.3
    if rule == "norm bound":
        assert outcome.manifest["left_out"][ROUND][EVIL]["reason"] == "outlier"
    if rule == "multi-krum":
        assert outcome.manifest["weights"][ROUND][EVIL] == 0.0


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedprox", "fedsgd"])
def test_the_plain_mean_is_bent_which_is_why_there_are_others(rule, tmp_path):
    _, model = carried(plan_for(rule), federation_of(tmp_path, WRONG["an outlier"]))
    assert np.abs(model).max() > 100


def test_fewer_left_than_multi_krum_needs_ends_the_run_and_says_so(tmp_path):
    """Five must answer: one with a fault can't be spared, and no model is made of four."""
    from abfed.protocol.errors import IntegrityError

    made = federation_of(tmp_path, FAULTS["nan"])
    with pytest.raises(IntegrityError, match="4 of at least 5") as few:
        carry_out(plan_for("multi-krum"), made.grid(), made.coordinator)
    assert f"{EVIL}: integrity" in few.value.why
    assert isinstance(made.silos[EVIL], SiloDouble)
    assert not list(tmp_path.glob("runs/*/manifest.sig"))
