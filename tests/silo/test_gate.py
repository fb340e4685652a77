"""The gate: each no has its code and costs nothing; each yes is charged once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from abfed.privacy.charges import plan_charges
from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.messages import PROTOCOL_VERSION, Refusal
from abfed.protocol.plan import Plan
from abfed.silo import gate as gate_module
from abfed.silo.ledger import Ledger
from abfed.site.clock import stamp
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from tests.examples import make_model_plan, make_plan
from tests.silo.asking import (
    DELTA,
    HOLDINGS,
    Asker,
    charged,
    model_arrays,
)
from tests.silo.house import House

PLAN = make_plan()
MODEL_PLAN = make_model_plan()


Make = Callable[[House], bytes]


def _stranger(house: House) -> bytes:
    keys = SiteKeys.create(house.folder / "stranger", site="hub")
    return Asker(keys, house.asker.clock).request(PLAN)


def _spoiled(house: House) -> bytes:
    envelope = house.asker.request(PLAN)
    return envelope[:-1] + bytes([envelope[-1] ^ 1])


def _policy(**changes: Any) -> Make:
    def make(house: House) -> bytes:
        house.policy(**changes)
        return house.asker.request(PLAN)

    return make


def _asked(
    plan: Plan = PLAN,
    step: str = "totals",
    arrays: Any = None,
    *,
    plan_text: str = "",
    **changes: Any,
) -> Make:
    if plan_text:
        changes["plan"] = plan_text
    return lambda house: house.asker.request(plan, step, arrays, **changes)


def _written(data: bytes) -> Make:
    def make(house: House) -> bytes:
        write_private(house.folder / "policy.yaml", data)
        return house.asker.request(PLAN)

    return make


def _without_policy(house: House) -> bytes:
    (house.folder / "policy.yaml").unlink()
    return house.asker.request(PLAN)


def _late(**parts: float) -> Make:
    return lambda house: house.asker.request(
        PLAN, issued_at=stamp(house.asker.clock() + timedelta(**parts))
    )


def _spend(epsilon: float, split: dict[str, float] | None = None) -> dict[str, Any]:
    return {"epsilon": epsilon, "delta": DELTA, "split": split or {"statistics": epsilon}}


METRIC = {"name": "clicked", "kind": "mean", "column": "revenue", "high": 101.0}
WRONG_MODEL = {"model/output.weight": np.zeros((1, 9), dtype=np.float32)}


def _not_held(house: House) -> bytes:
    house.policy(columns=["converted"])
    metrics = [{"name": "m", "kind": "proportion", "column": "converted"}]
    return house.asker.request(make_plan(metrics=metrics, primary="m", guardrails=None))


REFUSED: dict[str, tuple[str, Make]] = {
    "signed by a stranger": ("untrusted", _stranger),
    "changed on the way": ("untrusted", _spoiled),
    "no bytes": ("untrusted", lambda _: b""),
    "not a request": ("untrusted", lambda house: house.asker.keys.sign("manifest", b"x")),
    "nobody trusted": ("untrusted", _policy(coordinators=None)),
    "signed by the silo itself": ("untrusted", lambda house: house.keys.sign("request", b"x")),
    "no message": ("version", lambda house: house.asker.keys.sign("request", b"x")),
    "a later version": ("version", _asked(version=PROTOCOL_VERSION + 1)),
    "a plan spelled otherwise": (
        "version",
        _asked(plan_text=PLAN.canonical_bytes().decode().replace(":1.0", ": 1.0", 1)),
    ),
    "no plan": ("version", _asked(plan_text="{}")),
    "a missing policy": ("policy", _without_policy),
    "an empty policy": ("policy", _written(b"")),
    "a malformed policy": ("policy", _written(b"silo: [")),
    "the policy of another silo": ("policy", _policy(silo="borealis")),
    "too old": ("stale", _late(seconds=-301)),
    "too new": ("stale", _late(seconds=301)),
    "a date that isn't one": ("stale", _asked(issued_at="2026-13-01T12:00:00Z")),
    "for another silo": ("not-for-us", _asked(silo="borealis")),
    "a plan for other silos": ("not-for-us", _asked(make_plan(silos=["borealis"]))),
    "a simulation on real people": ("simulation", _asked(make_plan(simulation={"seed": 1}))),
    "exact totals of real people": ("simulation", _asked(make_plan(privacy="none"))),
    "another purpose": ("purpose", _asked(make_plan(purpose="profiling"))),
    "no purpose": ("purpose", _policy(purposes=None)),
    "a column that isn't allowed": ("columns", _policy(columns=["revenue"])),
    "an outcome that isn't held": ("columns", _not_held),
    "a feature of another kind": (
        "columns",
        _asked(
            make_model_plan(features=[{"name": "tier", "kind": "numeric", "low": 0.0, "high": 1.0}])
        ),
    ),
    "a bound above the limit": ("columns", _asked(make_plan(metrics=[METRIC], guardrails=None))),
    "an unknown experiment": ("population", _asked(make_plan(experiment="autumn"))),
    "an unknown arm": (
        "population",
        _asked(
            make_plan(
                arms=[
                    {"name": "a", "share": 0.5, "control": True},
                    {"name": "z", "share": 0.5},
                ]
            )
        ),
    ),
    "too much for one plan": ("plan-epsilon", _asked(make_plan(privacy=_spend(4.1)))),
    "a delta too large": (
        "plan-epsilon",
        _asked(make_plan(privacy=_spend(1.0) | {"delta": 1e-5})),
    ),
    "far too much for one plan": ("plan-epsilon", _asked(make_plan(privacy=_spend(50.0)))),
    "beyond the budget": ("budget", _policy(budget={"epsilon": 1.0, "delta": DELTA})),
    "training before totals": (
        "order",
        _asked(MODEL_PLAN, "train-0001", model_arrays(MODEL_PLAN)),
    ),
    "evaluating before totals": ("order", _asked(MODEL_PLAN, "evaluate", model_arrays(MODEL_PLAN))),
    "training without a model": ("order", _asked(PLAN, "train-0001")),
    "a round too many": ("order", _asked(MODEL_PLAN, "train-0003", model_arrays(MODEL_PLAN))),
    "totals with a model": ("version", _asked(MODEL_PLAN, "totals", model_arrays(MODEL_PLAN))),
    "another model": ("version", _asked(MODEL_PLAN, "train-0001", WRONG_MODEL)),
    "no model": ("version", _asked(MODEL_PLAN, "train-0001")),
    "a model of NaN": (
        "version",
        _asked(MODEL_PLAN, "train-0001", model_arrays(MODEL_PLAN, float("nan"))),
    ),
}


@pytest.mark.parametrize(("code", "make"), REFUSED.values(), ids=REFUSED)
def test_each_refusal_has_its_code_and_costs_nothing(house: House, code: str, make: Make) -> None:
    before = charged(house.ledger)
    envelope = make(house)
    gate = house.gate()
    with pytest.raises(Refused) as caught:
        gate.admit(envelope, HOLDINGS)
    assert caught.value.code == code
    assert charged(house.ledger) == before
    assert house.ledger.entries == 0
    assert not list((house.folder / "releases").iterdir())
    refusal = _check_refusal(house, gate.refuse(caught.value, envelope))
    assert refusal.code == code


def _check_refusal(house: House, answer: bytes) -> Refusal:
    """A refusal is signed, bound to the log's head, and says the code only."""
    kind, (header, arrays) = house.asker.read(answer, house.keys)
    assert (kind, arrays) == ("refusal", b"")
    assert isinstance(header, Refusal)
    assert header.head == house.audit.head
    *_, last = house.audit.entries()
    assert last["body"]["event"] == "request.refused"
    assert last["body"]["facts"]["code"] == header.code
    return header


def test_a_policy_open_to_others_stops_everything(house: House) -> None:
    (house.folder / "policy.yaml").chmod(0o644)
    with pytest.raises(IntegrityError):
        house.gate().admit(house.asker.request(PLAN), HOLDINGS)
    assert house.ledger.entries == 0


def test_a_request_seen_before_is_stale(house: House) -> None:
    gate = house.gate()
    envelope = house.asker.request(PLAN)
    gate.admit(envelope, HOLDINGS)
    before = charged(house.ledger)
    with pytest.raises(Refused) as caught:
        gate.admit(envelope, HOLDINGS)
    assert caught.value.code == "stale"
    # also where it was refused the first time
    refused = house.asker.request(make_plan(purpose="profiling"))
    for code in ("purpose", "stale"):
        with pytest.raises(Refused) as caught:
            gate.admit(refused, HOLDINGS)
        assert caught.value.code == code
    assert charged(house.ledger) == before


def test_a_replay_stays_stale_for_as_long_as_it_is_fresh(house: House) -> None:
    gate = house.gate()
    issued = stamp(house.asker.clock() + timedelta(seconds=299))
    envelope = house.asker.request(PLAN, issued_at=issued)
    gate.admit(envelope, HOLDINGS)
    for _ in range(10):
        house.asker.clock.forward(seconds=59)
        gate.admit(house.asker.request(PLAN), HOLDINGS)
        with pytest.raises(Refused) as caught:
            gate.admit(envelope, HOLDINGS)
        assert caught.value.code == "stale"
    house.asker.clock.forward(hours=1)
    gate.admit(house.asker.request(PLAN), HOLDINGS)
    assert len(gate._judge._seen) == 1


def test_the_first_no_ends_it(house: House) -> None:
    """Purpose comes before columns, columns before what one plan may ask."""
    house.policy(columns=["opened"], per_plan={"epsilon": 0.1, "delta": DELTA})
    for plan, code in ((make_plan(purpose="x"), "purpose"), (PLAN, "columns")):
        with pytest.raises(Refused) as caught:
            house.gate().admit(house.asker.request(plan), HOLDINGS)
        assert caught.value.code == code


def test_a_plan_that_asks_for_too_much_is_not_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(_: Plan) -> None:
        raise AssertionError

    monkeypatch.setattr(gate_module, "plan_charges", count)
    with pytest.raises(Refused, match="one plan may ask"):
        house.gate().admit(house.asker.request(make_plan(privacy=_spend(9.0))), HOLDINGS)


def test_the_charge_is_on_disk_before_there_is_a_permit(house: House) -> None:
    permit = house.permit(house.asker.request(PLAN))
    assert permit.charges == plan_charges(PLAN)["totals"]
    assert isinstance(permit.noise, SystemNoise)
    assert (permit.lawful_bases, permit.incoming) == (("consent",), {})
    assert permit.expected_recipients is None
    with Ledger(house.folder / "ledger.db", house.keys) as again:
        (reserved,) = again.reservations()
    assert reserved.plan_digest == PLAN.digest
    assert reserved.epoch == HOLDINGS.epoch
    events = [entry["body"]["event"] for entry in house.audit.entries()]
    assert events == ["budget.reserved"]


def test_no_secret_stands_in_a_permit_that_is_shown(house: House) -> None:
    permit = house.permit(house.asker.request(PLAN))
    assert repr(permit.holdout_key)[2:-1] not in repr(permit)
    assert permit.holdout_key == house.keys.derive("holdout:spring-2026")


def test_a_refusal_repeats_only_what_was_signed(house: House) -> None:
    refused = Refused("x", code="purpose")
    header = _check_refusal(house, house.gate().refuse(refused, house.asker.request(PLAN)))
    assert (header.plan_digest, header.step) == (PLAN.digest, "totals")
    for envelope in (_spoiled(house), _stranger(house), secrets.token_bytes(50)):
        header = _check_refusal(house, house.gate().refuse(refused, envelope))
        assert (header.plan_digest, header.step) == ("", "")
