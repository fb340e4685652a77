"""Waves inside a silo: everybody is in exactly one, by their first send; and who may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from abfed.protocol.errors import Refused
from abfed.protocol.plan import Plan
from tests.examples import make_plan
from tests.silo.house import House
from tests.silo.made import founded, people, pseudonym, put, seen, send, spring_plan

WAVES = {
    "sequential": {
        "waves": [
            {"name": "one", "until": "2026-03-04"},
            {"name": "two", "until": "2026-03-06"},
        ]
    }
}


def wave_plan(wave: int, **changes: Any) -> Plan:
    return spring_plan(analysis=WAVES | {"wave": wave}, **changes)


def test_each_recipient_is_in_the_wave_of_their_first_send(tmp_path: Path) -> None:
    store, _ = founded(tmp_path / "store")
    days = {1: (0,), 2: (0, 3), 3: (3,), 4: (30,)}
    put(store, [send(who, day) for who, sent in days.items() for day in sent])
    first = people(seen(store, wave_plan(1)))
    second = people(seen(store, wave_plan(2)))
    assert not first & second
    everybody = people(seen(store))
    assert {pseudonym(4)} == everybody - first - second  # after the last wave's end
    assert {pseudonym(1), pseudonym(2)} == first


def test_a_plan_with_waves_must_say_which(house: House) -> None:
    house.policy()
    with pytest.raises(Refused, match="asks for one of them"):
        house.permit(house.asker.request(make_plan(analysis=WAVES)))
