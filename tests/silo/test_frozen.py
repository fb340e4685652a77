"""What is frozen at a silo is refused from the next message on, and nothing is charged."""

from __future__ import annotations

import numpy as np
import pytest

from abfed.learning.shapes import names_of
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import InputError, IntegrityError, Refused
from abfed.protocol.tensors import pack
from abfed.silo.permit import Permit
from abfed.site.checkups import Checkups, Finding
from abfed.site.freezes import FILE, Freezes
from tests.examples import make_model_plan, make_plan
from tests.silo.asking import HOLDINGS, model_arrays
from tests.silo.house import House

PLAN = make_plan()


def frozen(house: House) -> Freezes:
    return Freezes(house.folder, house.keys, house.asker.clock)


def freeze(house: House, kind, name) -> None:
    frozen(house).freeze(kind, name, house.audit, by="sam@aurora", reason="a test")


def code_of(house: House, envelope: bytes) -> str:
    with pytest.raises(Refused) as caught:
        house.gate().admit(envelope, HOLDINGS)
    return caught.value.code


def test_freezes_take_effect_at_the_next_message_and_say_when(house: House) -> None:
    freeze(house, "plan", PLAN.digest)
    assert code_of(house, house.asker.request(PLAN)) == "frozen"
    (one,) = frozen(house).list()
    assert one.durable_ms > 0
    assert one.refused_after_ms is not None
    assert not house.ledger.reservations()
    frozen(house).lift("plan", PLAN.digest, house.audit, by="sam@aurora")
    house.gate().admit(house.asker.request(PLAN), HOLDINGS)
    assert house.ledger.reservations()


@pytest.mark.parametrize("kind", ["silo", "key"])
def test_a_frozen_silo_or_key_answers_nothing(house: House, kind) -> None:
    name = {"silo": house.keys.site, "key": house.asker.keys.key_id}[kind]
    freeze(house, kind, name)
    assert code_of(house, house.asker.request(PLAN)) == "frozen"
    assert not house.ledger.reservations()


def test_a_silo_that_was_not_checked_in_time_answers_nothing(house: House) -> None:
    house.policy(checkup_within_days=7)
    assert code_of(house, house.asker.request(PLAN)) == "checkup"
    checkups = Checkups(house.folder, house.keys)
    worst = Finding(check="seals", severity="critical", what="a test")
    checkups.keep(["seals"], [worst], house.audit, house.asker.clock())
    assert code_of(house, house.asker.request(PLAN)) == "checkup"
    assert not house.ledger.reservations()
    checkups.keep(["seals"], [], house.audit, house.asker.clock())
    assert isinstance(house.gate().admit(house.asker.request(PLAN), HOLDINGS), Permit)
    house.asker.clock.forward(days=8)
    assert code_of(house, house.asker.request(make_plan(name="another"))) == "checkup"


def test_a_frozen_model_is_not_trained_on(house: House) -> None:
    plan = make_model_plan()
    arrays = model_arrays(plan)
    for name in names_of(arrays):  # a registry's people and a silo's name it differently
        freeze(house, "model", name)
        assert code_of(house, house.asker.request(plan, "train-0001", arrays)) == "frozen"
        frozen(house).lift("model", name, house.audit, by="sam@aurora")
    freeze(house, "model", sha256_hex(pack(arrays)))
    other = {name: array + np.float32(1) for name, array in arrays.items()}
    assert code_of(house, house.asker.request(plan, "train-0001", other)) != "frozen"


def test_other_plans_and_keys_go_on(house: House) -> None:
    freeze(house, "plan", "0" * 64)
    freeze(house, "key", "0" * 32)
    freeze(house, "silo", "borealis")
    house.gate().admit(house.asker.request(PLAN), HOLDINGS)


def test_a_damaged_list_refuses_everything(house: House) -> None:
    freeze(house, "plan", "0" * 64)
    path = house.folder / FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError):
        house.gate().admit(house.asker.request(PLAN), HOLDINGS)


def test_freezing_twice_or_lifting_what_is_not_frozen_is_said(house: House) -> None:
    freeze(house, "plan", PLAN.digest)
    with pytest.raises(InputError, match="already"):
        freeze(house, "plan", PLAN.digest)
    with pytest.raises(InputError, match="not frozen"):
        frozen(house).lift("key", "0" * 32, house.audit, by="sam@aurora")
    with pytest.raises(InputError):
        freeze(house, "plan", "../../etc")
    for kind, word in {"plan": "spring", "model": "spring", "key": "aurora"}.items():
        with pytest.raises(InputError, match=f"is no {kind}"):
            freeze(house, kind, word)
