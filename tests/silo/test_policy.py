"""A policy: what isn't in it is a no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.protocol.errors import InputError, IntegrityError, Refused
from abfed.silo.policy import Policy
from tests.examples import make_model_plan, make_plan
from tests.silo.asking import policy_values, write_policy

KEY = bytes(range(32))


def _policy(**changes: Any) -> Policy:
    text = yaml.safe_dump(policy_values(KEY, **changes)).encode()
    return Policy.parse(text, where="policy.yaml")


def test_a_policy_is_read_from_its_file(tmp_path: Path) -> None:
    write_policy(tmp_path / "policy.yaml", KEY)
    assert Policy.load(tmp_path / "policy.yaml") == _policy()


def test_a_missing_policy_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allows nothing"):
        Policy.load(tmp_path / "policy.yaml")


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_a_policy_that_others_can_change_is_not_followed(tmp_path: Path, mode: int) -> None:
    write_policy(tmp_path / "policy.yaml", KEY)
    (tmp_path / "policy.yaml").chmod(mode)
    with pytest.raises(IntegrityError, match="mode"):
        Policy.load(tmp_path / "policy.yaml")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"budget": None}, "budget: is missing"),
        ({"per_plan": None}, "per_plan: is missing"),
        ({"silo": None}, "silo: is missing"),
        ({"bugdet": {}}, "bugdet: unknown key; did you mean 'budget'"),
        ({"budget": {"epsilon": 0.0, "delta": 1e-6}}, "budget.epsilon:"),
        ({"budget": {"epsilon": float("inf"), "delta": 1e-6}}, "budget.epsilon:"),
        ({"budget": {"epsilon": 1.0, "delta": 1.0}}, "budget.delta:"),
        ({"budget": {"epsilon": 1.0, "delta": 0.0}}, "budget.delta:"),
        ({"purposes": [{"name": "x", "bases": []}]}, "purposes[0].bases:"),
        ({"purposes": [{"name": "x", "bases": ["habit"]}]}, "purposes[0].bases[0]:"),
        ({"coordinators": [{"name": "hub", "public_key": "ab"}]}, "coordinators[0].public_key:"),
        ({"synthetic": "yes"}, "synthetic:"),
        ({"columns": "clicked"}, "columns:"),
    ],
)
def test_a_malformed_policy_is_refused_and_the_field_is_named(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError) as caught:
        _policy(**changes)
    assert named in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"# nothing yet\n", b"[]", b"silo: a\nsilo: b\n", b"\xff"])
def test_a_file_that_is_no_policy_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        Policy.parse(data, where="policy.yaml")


def test_a_bare_policy_trusts_and_allows_nobody() -> None:
    bare = _policy(coordinators=None, purposes=None, columns=None, largest_amounts=None)
    assert bare.trusted_keys() == {}
    assert not bare.synthetic
    assert not bare.show_budget
    with pytest.raises(Refused) as caught:
        bare.lawful_bases(make_plan())
    assert caught.value.code == "purpose"
    with pytest.raises(Refused) as caught:
        bare.check_columns(make_plan())
    assert caught.value.code == "columns"


def test_each_purpose_has_its_own_bases() -> None:
    policy = _policy(
        purposes=[
            {"name": "email-optimisation", "bases": ["consent", "contract"]},
            {"name": "research", "bases": ["legitimate-interests"]},
        ]
    )
    assert policy.lawful_bases(make_plan()) == ("consent", "contract")
    assert policy.lawful_bases(make_plan(purpose="research")) == ("legitimate-interests",)
    with pytest.raises(Refused, match="profiling"):
        policy.lawful_bases(make_plan(purpose="profiling"))


@pytest.mark.parametrize("missing", ["clicked", "revenue", "age", "tier"])
def test_each_column_must_be_listed(missing: str) -> None:
    columns = ["clicked", "revenue", "age", "tier"]
    _policy(columns=columns).check_columns(make_model_plan())
    columns.remove(missing)
    with pytest.raises(Refused, match=missing) as caught:
        _policy(columns=columns).check_columns(make_model_plan())
    assert caught.value.code == "columns"


@pytest.mark.parametrize(
    ("low", "high", "allowed"),
    [(0.0, 100.0, True), (0.0, 100.1, False), (-100.0, 1.0, True), (-100.1, 1.0, False)],
)
def test_bounds_of_amounts_are_limited(low: float, high: float, allowed: bool) -> None:
    metrics = [{"name": "m", "kind": "mean", "column": "revenue", "low": low, "high": high}]
    plan = make_plan(metrics=metrics, primary="m", guardrails=None)
    if allowed:
        _policy().check_columns(plan)
        return
    with pytest.raises(Refused) as caught:
        _policy().check_columns(plan)
    assert caught.value.code == "columns"


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        ({"epsilon": 1.0, "delta": 1e-6}, True),
        ({"epsilon": 0.99, "delta": 1e-6}, False),
        ({"epsilon": 5.0, "delta": 9e-7}, False),
    ],
)
def test_one_plan_may_ask_so_much(limit: dict[str, float], allowed: bool) -> None:
    policy = _policy(per_plan=limit)
    if allowed:
        policy.check_plan_budget(make_plan())
        return
    with pytest.raises(Refused) as caught:
        policy.check_plan_budget(make_plan())
    assert caught.value.code == "plan-epsilon"
