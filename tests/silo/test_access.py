"""The silo judges people itself, at each message, by its own records (S11, S12, S13)."""

from __future__ import annotations

import pytest

from abfed.protocol.errors import Refused
from abfed.site.stops import FILE, Stops
from tests.examples import make_plan
from tests.signing import access_values
from tests.silo.asking import HOLDINGS, charged
from tests.silo.house import House

PLAN = make_plan()


def code(house: House, **changes: object) -> str:
    with pytest.raises(Refused) as caught:
        house.gate().admit(house.asker.request(PLAN, **changes), HOLDINGS)
    return caught.value.code


def test_a_stop_takes_effect_at_the_next_message_and_is_timed(house: House) -> None:
    assert house.permit(house.asker.request(PLAN))
    stops = Stops(house.folder, house.keys, house.asker.clock)
    stops.stop("ada@hub", house.audit, by="sam", reason="left")
    before = charged(house.ledger)
    house.asker.clock.forward(seconds=1.5)
    assert code(house) == "revoked"
    assert stops.list()["ada@hub"].refused_after_ms == 1500
    assert charged(house.ledger) == before
    stops.lift("ada@hub", house.audit, by="sam")
    assert code(house) == "sign-in"  # the session that was stopped stays so, wherever it lies
    assert charged(house.ledger) == before


def test_a_policy_that_hears_nobody_refuses_everybody(house: House) -> None:
    house.policy(access={})
    assert code(house) == "sign-in"
    house.policy(access=None)
    assert code(house) == "sign-in"


def test_a_role_that_was_taken_back_counts_no_more(house: House) -> None:
    people = house.asker.session._people
    people.take_back("ada", "analyst", by="test")
    assert code(house) == "rights"


def test_a_list_of_stops_that_was_changed_lets_nobody_in(house: House) -> None:
    Stops(house.folder, house.keys).stop("eve@hub", house.audit, by="sam", reason="test")
    file = house.folder / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert code(house) == "sign-in"


def test_four_eyes_are_asked_for_before_any_budget(house: House) -> None:
    access = access_values(house.asker.keys.public_key) | {"four_eyes": {"epsilon_above": 0.5}}
    house.policy(access=access)
    before = charged(house.ledger)
    assert code(house) == "approval"
    assert charged(house.ledger) == before


def test_who_asked_stands_in_the_log(house: House) -> None:
    house.permit(house.asker.request(PLAN))
    facts = [entry["body"] for entry in house.audit.entries()]
    (reserved,) = [one["facts"] for one in facts if one["event"] == "budget.reserved"]
    assert (reserved["person"], reserved["approved_by"]) == ("ada@hub", "")


def test_no_token_stands_in_any_file_of_the_silo(house: House) -> None:
    house.answer(PLAN)
    code_of = house.asker.presented(make_plan(name="other"))
    Stops(house.folder, house.keys).stop("ada@hub", house.audit, by="sam", reason="x")
    assert code(house) == "revoked"
    shown = house.asker.session.present(PLAN)
    for path in house.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in (shown.token, shown.submission, code_of.token, code_of.submission):
                assert secret[80:].encode() not in data, path
