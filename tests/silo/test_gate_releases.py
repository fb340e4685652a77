"""What leaves through the gate: as reserved, signed, once; and what never does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from abfed.privacy.charges import noise_multipliers, plan_charges, plan_epsilon
from abfed.privacy.mechanisms import SystemNoise, UnsafeSeededNoise
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.messages import Release, release_key
from abfed.protocol.tensors import pack
from abfed.silo.budgets import Budget
from abfed.silo.gate import Answered
from abfed.silo.permit import Computed
from abfed.silo.releasing import WrongResult
from tests.examples import make_model_plan, make_plan
from tests.silo.asking import (
    DELTA,
    HOLDINGS,
    SILO,
    charged,
    model_arrays,
)
from tests.silo.house import House, computed

PLAN = make_plan()
MODEL_PLAN = make_model_plan()


def test_a_release_says_what_it_is(house: House) -> None:
    answer = house.answer(PLAN)
    kind, (header, arrays) = house.asker.read(answer, house.keys)
    assert kind == "release"
    assert isinstance(header, Release)
    assert (header.silo, header.step, header.payload) == (SILO, "totals", "totals")
    assert (header.plan_digest, header.epoch) == (PLAN.digest, HOLDINGS.epoch)
    assert header.incoming_digest == sha256_hex(b"")
    assert header.charged == plan_charges(PLAN)["totals"]
    assert header.noise["noise_multiplier"] == noise_multipliers(PLAN).statistics
    assert header.arrays_digest == sha256_hex(arrays)
    assert header.key == release_key(PLAN.digest, HOLDINGS.epoch, "totals", sha256_hex(b""))
    settled = list(house.audit.entries())[-1]  # once it is sealed on disk
    assert (settled["body"]["event"], settled["previous"]) == ("release.settled", header.head)
    assert header.budget is None
    assert not header.simulated


def test_the_budget_is_shown_where_the_policy_says_so(house: House) -> None:
    house.policy(show_budget=True)
    _, (header, _) = house.asker.read(house.answer(PLAN), house.keys)
    assert isinstance(header, Release)
    assert header.budget is not None
    assert header.budget.epsilon_run == plan_epsilon(PLAN)
    assert header.budget.epsilon_spent == house.ledger.spent(Budget(epsilon=10.0, delta=DELTA))
    assert header.budget.epsilon_total == 10.0


def test_asked_again_it_gives_the_same_release_at_no_charge(house: House) -> None:
    first = house.answer(PLAN)
    before = charged(house.ledger)
    house.asker.clock.forward(days=30)
    house.policy(budget={"epsilon": 0.01, "delta": DELTA})
    again = house.gate().admit(house.asker.request(PLAN), HOLDINGS)
    assert again == Answered(first)
    assert charged(house.ledger) == before


def test_a_policy_that_became_tighter_holds_for_old_releases_too(house: House) -> None:
    house.answer(PLAN)
    house.policy(purposes=None)
    with pytest.raises(Refused) as caught:
        house.gate().admit(house.asker.request(PLAN), HOLDINGS)
    assert caught.value.code == "purpose"


def test_a_new_epoch_is_a_new_charge(house: House) -> None:
    first = house.answer(PLAN)
    permit = house.permit(house.asker.request(PLAN), replace(HOLDINGS, epoch="e2" * 32))
    second = house.gate().release(permit, computed(permit))
    assert second != first
    assert len(house.ledger.reservations()) == 2


def test_a_step_serves_one_model(house: House) -> None:
    house.answer(MODEL_PLAN)
    first = house.answer(MODEL_PLAN, "train-0001", model_arrays(MODEL_PLAN))
    before = charged(house.ledger)
    other = house.asker.request(MODEL_PLAN, "train-0001", model_arrays(MODEL_PLAN, 1.0))
    with pytest.raises(Refused) as caught:
        house.gate().admit(other, HOLDINGS)
    assert caught.value.code == "step-used"
    assert charged(house.ledger) == before
    same = house.asker.request(MODEL_PLAN, "train-0001", model_arrays(MODEL_PLAN))
    assert house.gate().admit(same, HOLDINGS) == Answered(first)


def test_a_whole_plan_is_charged_once(house: House) -> None:
    model = model_arrays(MODEL_PLAN)
    house.answer(MODEL_PLAN)
    cost = house.ledger.spent_epsilon(DELTA)
    for step in ("train-0001", "train-0002", "evaluate"):
        permit = house.permit(house.asker.request(MODEL_PLAN, step, model))
        assert permit.expected_recipients == 1.0  # never below one, whatever the noise says
        assert permit.charges == plan_charges(MODEL_PLAN)[step]
        _, (header, _) = house.asker.read(
            house.gate().release(permit, computed(permit)), house.keys
        )
        assert isinstance(header, Release)
        assert header.incoming_digest == sha256_hex(pack(model))
    assert house.ledger.spent_epsilon(DELTA) == cost
    assert len(house.ledger.reservations()) == 1
    house.audit.verify()


@pytest.mark.privacy
def test_a_policy_that_became_tighter_between_rounds_stops_the_next(house: House) -> None:
    """The plan is charged already; what the silo allows is what it allows now."""
    model = model_arrays(MODEL_PLAN)
    house.answer(MODEL_PLAN)
    house.gate().release(
        permit := house.permit(house.asker.request(MODEL_PLAN, "train-0001", model)),
        computed(permit),
    )
    before = house.ledger.entries
    for change, code in (
        ({"purposes": None}, "purpose"),
        ({"columns": ["opened", "revenue", "age", "tier"]}, "columns"),
    ):
        house.policy(**change)
        with pytest.raises(Refused) as caught:
            house.gate().admit(house.asker.request(MODEL_PLAN, "train-0002", model), HOLDINGS)
        assert caught.value.code == code
    assert house.ledger.entries == before
    house.policy()
    assert house.permit(house.asker.request(MODEL_PLAN, "train-0002", model)).step == "train-0002"


def test_two_processes_cannot_release_one_step_for_two_models(house: House) -> None:
    house.answer(MODEL_PLAN)
    permits = [
        house.permit(house.asker.request(MODEL_PLAN, "train-0001", model_arrays(MODEL_PLAN, fill)))
        for fill in (0.0, 1.0)
    ]
    kept = set((house.folder / "releases").iterdir())
    with pytest.raises(Refused) as caught:
        house.gate().release(permits[0], computed(permits[0]))
    assert caught.value.code == "step-used"
    assert set((house.folder / "releases").iterdir()) == kept
    house.gate().release(permits[1], computed(permits[1]))


def test_two_processes_that_answer_at_once_give_one_release(house: House) -> None:
    permits = [house.permit(house.asker.request(PLAN)) for _ in range(2)]
    first = house.gate().release(permits[0], computed(permits[0]))
    house.asker.clock.forward(seconds=1)
    assert house.gate().release(permits[1], computed(permits[1])) == first
    assert len(list((house.folder / "releases").iterdir())) == 1


def test_noise_is_seeded_for_synthetic_brands_only(house: House) -> None:
    house.policy(synthetic=True)
    assert isinstance(house.permit(house.asker.request(PLAN)).noise, SystemNoise)
    plan = make_plan(simulation={"seed": 1})
    draws = []
    for _ in range(2):
        noise = house.permit(house.asker.request(plan)).noise
        assert isinstance(noise, UnsafeSeededNoise)
        draws.append(noise.floats(4, 1.0).tolist())
    assert draws[0] == draws[1]
    _, (header, _) = house.asker.read(house.answer(plan), house.keys)
    assert isinstance(header, Release)
    assert header.simulated


def _array(change: Callable[[Any], Any]) -> Callable[[Computed], dict[str, Any]]:
    def changes(result: Computed) -> dict[str, Any]:
        name = next(iter(result.arrays))
        return {"arrays": {**result.arrays, name: change(result.arrays[name])}}

    return changes


def _nan(array: Any) -> Any:
    array = array.copy()
    array.flat[0] = np.nan
    return array


BAD: dict[str, tuple[str, Callable[[Computed], dict[str, Any]]]] = {
    "wrong shape": ("totals", _array(lambda array: array[:, :-1])),
    "transposed": ("totals", _array(lambda array: array.T)),
    "wrong type": ("totals", _array(lambda array: array.astype(np.float64))),
    "another name": ("totals", lambda _: {"arrays": {"rows": np.zeros((2, 2), dtype=np.int64)}}),
    "one more": ("totals", lambda result: {"arrays": {**result.arrays, "more": np.zeros(1)}}),
    "nothing": ("totals", lambda _: {"arrays": {}}),
    "another kind": ("totals", lambda _: {"payload": "evaluation"}),
    "less noise": ("totals", lambda _: {"noise": {"noise_multiplier": 1.0}}),
    "no noise": ("totals", lambda _: {"noise": {}}),
    "NaN": ("train-0001", _array(_nan)),
    "infinite": ("train-0001", _array(lambda array: array + np.float32(np.inf))),
    "more steps": ("train-0001", lambda result: {"noise": {**result.noise, "steps": 3.0}}),
    "another rate": (
        "train-0001",
        lambda result: {"noise": {**result.noise, "sampling_rate": 1.0}},
    ),
    "a sharper histogram": (
        "train-0001",
        lambda result: {"noise": {**result.noise, "evaluation_noise_multiplier": 0.1}},
    ),
    "less sensitive tables": (
        "evaluate",
        lambda result: {"noise": {**result.noise, "sensitivity": 1.0}},
    ),
}


@pytest.mark.parametrize(("step", "change"), BAD.values(), ids=BAD)
def test_a_result_that_is_not_what_was_reserved_never_leaves(
    house: House, step: str, change: Callable[[Computed], dict[str, Any]]
) -> None:
    arrays = None
    if step != "totals":
        house.answer(MODEL_PLAN)
        arrays = model_arrays(MODEL_PLAN)
    permit = house.permit(house.asker.request(MODEL_PLAN, step, arrays))
    before = charged(house.ledger)
    kept = set((house.folder / "releases").iterdir())
    good = computed(permit)
    with pytest.raises(WrongResult):
        house.gate().release(permit, replace(good, **change(good)))
    assert set((house.folder / "releases").iterdir()) == kept
    assert house.ledger.released(permit.key) is None
    assert charged(house.ledger) == before
    house.gate().release(permit, good)  # the charge is still there for the right one
    assert len(house.ledger.reservations()) == 1


def test_a_damaged_release_is_not_given_again(house: House) -> None:
    house.answer(PLAN)
    (path,) = (house.folder / "releases").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    before = charged(house.ledger)
    with pytest.raises(IntegrityError):
        house.gate().admit(house.asker.request(PLAN), HOLDINGS)
    assert charged(house.ledger) == before
