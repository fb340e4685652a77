"""Nothing about a handful of people, decided on figures that are no secret; kept, then gone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from abfed.protocol.errors import IntegrityError, Refused
from abfed.silo import disclosure
from abfed.silo.gate import Answered
from abfed.silo.permit import Permit
from abfed.silo.releasing import expected_shapes
from abfed.site.keys import SiteKeys
from abfed.stats.encoding import SCALE
from abfed.stats.layout import Layout
from tests.examples import make_model_plan, make_plan
from tests.signing import access_values
from tests.silo.asking import HOLDINGS, Asker, charged, model_arrays
from tests.silo.house import House, computed

PLAN = make_plan()
MODEL_PLAN = make_model_plan()


def counting(permit: Permit, *recipients: float) -> np.ndarray:
    """Totals in which each arm counts so many recipients."""
    layout = Layout.of(permit.plan)
    totals = np.zeros(expected_shapes(permit.plan, "totals")["totals"].shape, dtype=np.int64)
    for arm, count in enumerate(recipients):
        for block in layout.blocks:
            if block.counts:
                totals[..., arm, block.columns.start] = round(count * SCALE)
    return totals


def release(house: House, plan=PLAN, *recipients: float) -> bytes:
    permit = house.permit(house.asker.request(plan))
    result = computed(permit, arrays={"totals": counting(permit, *recipients)})
    return house.gate().release(permit, result)


def code_of(house: House, *asked, **arrays) -> str:
    with pytest.raises(Refused) as caught:
        house.gate().admit(house.asker.request(*asked, **arrays), HOLDINGS)
    return caught.value.code


@pytest.mark.privacy
def test_totals_of_too_few_are_withheld_for_good(house: House) -> None:
    house.policy(minimum_recipients=20)
    with pytest.raises(Refused) as caught:
        release(house, MODEL_PLAN, 500, 19.9)
    assert caught.value.code == "too-few"
    before = charged(house.ledger)
    assert before[0] == 1  # the no is an answer: it stays paid for
    assert not list((house.folder / "releases").iterdir())
    for _ in range(3):  # no second draw in the hope of other noise
        assert code_of(house, MODEL_PLAN) == "too-few"
    model = model_arrays(MODEL_PLAN)
    assert code_of(house, MODEL_PLAN, "train-0001", model) == "too-few"  # before it is computed
    house.policy(minimum_recipients=5)
    assert code_of(house, MODEL_PLAN) == "too-few"
    assert charged(house.ledger) == before
    events = [entry["body"]["event"] for entry in house.audit.entries()]
    assert "release.withheld" in events


def test_totals_of_enough_are_released(house: House) -> None:
    house.policy(minimum_recipients=20)
    assert release(house, PLAN, 20.1, 21)
    house.policy()
    assert release(house, make_plan(name="other"), 0, 0)  # no minimum


def test_it_is_decided_on_noised_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule sees the release's own array and the policy, and there is no row in reach."""
    names = set(vars(disclosure))
    assert not names & {"Store", "pa", "Permit", "Ledger"}
    assert "read" not in disclosure.too_few.__code__.co_names


def test_an_arm_that_was_declared_too_small_is_refused_before_anything(house: House) -> None:
    declared = [{"experiment": "spring-2026", "arm": "b", "recipients": 19}]
    house.policy(minimum_recipients=20, declared_sizes=declared)
    assert code_of(house, PLAN) == "too-few"
    assert house.ledger.entries == 0
    house.policy(minimum_recipients=19, declared_sizes=declared)
    house.permit(house.asker.request(PLAN))


def test_a_segments_cells_count_too(house: House) -> None:
    plan = make_plan(
        features=[{"name": "tier", "kind": "category", "values": ["basic", "gold"]}],
        analysis={"segments": [{"name": "tier", "feature": "tier", "share": 0.3}]},
    )
    layout = Layout.of(plan)
    totals = np.zeros(layout.shape, dtype=np.int64)
    for block in layout.blocks:
        if block.counts:
            for cell in range(block.cells):
                totals[:, block.cell(cell).start] = round((500, 30, 0)[cell] * SCALE)
    for minimum, few in ((29, False), (31, True)):
        house.policy(minimum_recipients=minimum)
        policy = house.gate()._judge.policy()
        assert disclosure.too_few(policy, plan, totals) is few


@pytest.mark.privacy
def test_a_release_is_kept_as_long_as_the_policy_says_and_never_made_anew(house: House) -> None:
    house.policy(keep_releases_days=30)
    first = house.answer(PLAN)
    house.asker.clock.forward(days=30)
    assert house.answer_again(PLAN) == first
    house.asker.clock.forward(days=1)
    before = charged(house.ledger)[:2]
    assert code_of(house, PLAN) == "expired"
    assert not list((house.folder / "releases").iterdir())
    house.policy(keep_releases_days=3000)  # a longer time brings nothing back
    assert code_of(house, PLAN) == "expired"
    assert charged(house.ledger)[:2] == before
    permit = house.permit(house.asker.request(PLAN), replace(HOLDINGS, epoch="e2" * 32))
    assert house.gate().release(permit, computed(permit)) != first  # another state of the data


def test_training_needs_totals_that_are_kept(house: House) -> None:
    house.policy(keep_releases_days=1)
    house.answer(MODEL_PLAN)
    house.asker.clock.forward(days=2)
    assert code_of(house, MODEL_PLAN, "train-0001", model_arrays(MODEL_PLAN)) == "expired"


def test_a_release_that_was_lost_is_not_made_anew(house: House) -> None:
    house.answer(PLAN)
    for path in (house.folder / "releases").iterdir():
        path.unlink()
    with pytest.raises(Exception, match="missing"):
        house.gate().admit(house.asker.request(PLAN), HOLDINGS)


@pytest.mark.privacy
def test_another_person_through_another_coordinator_gets_the_same_bytes(house: House) -> None:
    first = house.answer(PLAN)
    other = Asker(SiteKeys.create(house.folder / "other", site="lab"), house.asker.clock)
    keys = [house.asker.keys.public_key, other.keys.public_key]
    house.policy(
        coordinators=[
            {"name": name, "public_key": key.hex()}
            for name, key in zip(("hub", "lab"), keys, strict=True)
        ],
        access=access_values(other.keys.public_key, "lab"),
    )
    before = charged(house.ledger)
    answered = house.gate().admit(other.request(PLAN), HOLDINGS)
    assert answered == Answered(first)
    assert charged(house.ledger) == before


def test_a_damaged_release_is_an_integrity_error(house: House) -> None:
    house.answer(PLAN)
    (path,) = (house.folder / "releases").iterdir()
    path.write_bytes(b"x" * 200)
    with pytest.raises(IntegrityError):
        house.gate().admit(house.asker.request(PLAN), HOLDINGS)
