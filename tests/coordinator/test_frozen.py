"""What is frozen at the coordinator is not asked, and not believed where it was asked before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from abfed.coordinator.app import carry_out
from abfed.protocol.errors import Refused
from abfed.site.freezes import Freezes, Kind
from tests.coordinator.doubles import Federation, statistics_plan


class Hub:
    """A federation whose coordinator has a list of freezes."""

    def __init__(self, folder: Path) -> None:
        self.federation = Federation(folder)
        keys = self.federation.keys
        self.freezes = Freezes(folder, keys)
        self.federation.front = dataclasses.replace(
            self.federation.front, freezes=self.freezes, key=keys.key_id
        )
        self.audit = self.federation.coordinator.audit

    def freeze(self, kind: Kind, name: str) -> None:
        self.freezes.freeze(kind, name, self.audit, by="sam@hub", reason="a test")

    def left_out(self, **changes: object) -> dict[str, tuple[str, str]]:
        plan = statistics_plan(**{"minimum_silos": 1} | changes)
        grid = self.federation.grid()
        outcome = carry_out(plan, grid, self.federation.coordinator)
        return {silo: tuple(one) for silo, one in outcome.missing_now.items()}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


@pytest.mark.parametrize("kind", ["silo", "key"])
def test_a_silo_that_is_frozen_or_whose_key_is_gets_no_request(hub: Hub, kind: Kind) -> None:
    first, *others = hub.federation.silos
    name = {"silo": first, "key": hub.federation.silos[first].keys.key_id}[kind]
    assert hub.left_out() == {}
    hub.freeze(kind, name)
    asked = len(hub.federation.silos[first].asked)
    assert hub.left_out(name="second") == {first: ("frozen", "not asked")}
    assert len(hub.federation.silos[first].asked) == asked
    assert all(len(hub.federation.silos[one].asked) > asked for one in others)
    (row,) = hub.freezes.list()
    assert row.refused_after_ms is not None, "it is known when it first took effect"
    hub.freezes.lift(kind, name, hub.audit, by="sam@hub")
    assert hub.left_out(name="third") == {}


def test_a_plan_that_needs_a_frozen_silo_is_refused_as_frozen(hub: Hub) -> None:
    first, *_ = hub.federation.silos
    hub.freeze("silo", first)
    with pytest.raises(Refused, match="frozen at this coordinator") as caught:
        hub.left_out(minimum_silos=len(hub.federation.silos))
    assert caught.value.code == "frozen"


def test_an_answer_that_was_under_way_is_not_believed(hub: Hub) -> None:
    first, *_ = hub.federation.silos
    silo = hub.federation.silos[first]

    def late(envelope: bytes) -> bytes:
        answered = silo.answer(envelope)
        hub.freeze("silo", first)
        return answered

    plan = statistics_plan(minimum_silos=1)
    outcome = carry_out(plan, hub.federation.grid(**{first: late}), hub.federation.coordinator)
    assert outcome.missing_now[first] == ("frozen", "while it answered")


@pytest.mark.parametrize("kind", ["silo", "key"])
def test_a_coordinator_that_is_frozen_asks_nothing(hub: Hub, kind: Kind) -> None:
    keys = hub.federation.keys
    hub.freeze(kind, {"silo": keys.site, "key": keys.key_id}[kind])
    with pytest.raises(Refused, match="is frozen"):
        hub.left_out()
    assert not any(one.asked for one in hub.federation.silos.values())
