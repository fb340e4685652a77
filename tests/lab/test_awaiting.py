"""Who waits for a second person is told before anybody is asked, with what the others spend."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.lab.awaiting import awaited
from abfed.lab.intake import found_and_ingest
from abfed.lab.samples.synth import write_brands
from abfed.lab.workspace import Workspace
from abfed.privacy.charges import plan_epsilon
from abfed.protocol.plan import Plan
from abfed.site.files import write_private
from tests.examples import make_plan, plan_values
from tests.lab.test_people_commands import Desk
from tests.whole.story import small_plan


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Three brands, of which Aurora asks for a second person; an analyst is signed in."""
    made = Desk(tmp_path, capsys)
    _asks(made, "aurora")
    return made


def _asks(desk: Desk, silo: str, **four_eyes: Any) -> None:
    policy = desk.workspace / "silos" / silo / "policy.yaml"
    values = yaml.safe_load(policy.read_text())
    values["access"]["four_eyes"] = {"epsilon_above": 0.5} | four_eyes
    write_private(policy, yaml.safe_dump(values).encode())


def _approve(desk: Desk, plan: Path) -> None:
    desk.add("olga", "privacy-officer", "aurora")
    desk.login("olga", "aurora")
    desk.says("access", "approve", str(plan), "-s", "aurora")


def _charges(desk: Desk, silo: str) -> list[tuple[str, float]]:
    told = json.loads(desk.says("ledger", "history", silo, "--json"))
    return [(one["plan"], one["epsilon_pld"]) for one in told]


def test_the_others_are_charged_meanwhile_and_not_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, capsys, silo="")
    opened = Workspace(desk.workspace)
    for brand in write_brands(tmp_path / "data", seed=5, scale=0.08):
        found_and_ingest(opened, brand.name, brand.export, brand.mapping, synthetic=True)
    _asks(desk, "aurora")
    desk.add("ada", "analyst")
    desk.login("ada")
    privacy = {"epsilon": 2.0, "delta": 1e-6, "split": {"statistics": 2.0}}
    whole, goes_on = tmp_path / "whole.yaml", tmp_path / "goes-on.yaml"
    small_plan(whole, name="whole", model=None, training=None, minimum_silos=3, privacy=privacy)
    small_plan(goes_on, name="on", model=None, training=None, minimum_silos=2, privacy=privacy)
    cost = f"{plan_epsilon(Plan.load(whole)):.3f}"

    previewed = desk.says("ledger", "preview", str(whole))
    code, told = desk.types("run", str(whole))
    assert code == 3
    for text in (previewed, told):
        assert "aurora waits for a second person (ε is above 0.5)" in text
        assert f"borealis, corvid will have been charged ε = {cost} at δ = 1e-06" in text
    assert "2 silos answered and were charged" in told
    charged = _charges(desk, "borealis")
    assert [name for name, _ in charged] == ["whole"], "as was said"
    assert _charges(desk, "aurora") == []

    code, told = desk.types("run", str(goes_on))
    assert code == 0
    assert f"The run goes on without: borealis, corvid will have spent ε = {cost}" in told
    assert "went on without who waits for an approval" in told
    machine = json.loads(desk.says("ledger", "preview", str(goes_on), "--json"))
    assert list(machine["waiting"]) == ["aurora"]
    assert machine["goes_on"]

    _approve(desk, whole)
    assert "waits" not in desk.says("ledger", "preview", str(whole))
    code, told = desk.types("run", str(whole))
    assert (code, "waits" in told) == (0, False), told
    assert _charges(desk, "borealis")[:1] == charged, "no further charge"
    assert [name for name, _ in _charges(desk, "borealis")] == ["whole", "on"]


def test_an_approval_whose_run_is_used_or_whose_policy_changed_is_waited_for(desk: Desk) -> None:
    plan = desk.folder / "plan.yaml"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    desk.add("ada", "analyst")
    desk.login("ada")
    _approve(desk, plan)
    opened, loaded = Workspace(desk.workspace), Plan.load(plan)
    assert not awaited(opened, loaded).waiting
    _asks(desk, "aurora", approvers=2)
    assert awaited(opened, loaded).waiting
    _asks(desk, "aurora")
    assert not awaited(opened, loaded).waiting
    desk.types("run", str(plan))  # passes four eyes; it is the rows that are missing
    assert awaited(opened, loaded).waiting
    assert "aurora waits" in desk.refused("run", str(plan))


def test_a_plan_with_waves_is_approved_wave_by_wave(desk: Desk) -> None:
    """What a run asks is a wave, so that is what is approved, and what a batch account may ask."""
    waves = [
        {"name": "first", "until": date(2026, 3, 9)},
        {"name": "second", "until": date(2026, 3, 16)},
    ]
    values = plan_values(silos=["aurora"], guardrails=None)
    values["analysis"] = {"sequential": {"spending": "pocock", "waves": waves}}
    plan, key = desk.folder / "plan.yaml", desk.folder / "nightly.key"
    plan.write_text(yaml.safe_dump(values))
    desk.says(
        "people", "service", "nightly", "--plan", str(plan), "--key", str(key), "--reason", "batch"
    )
    desk.says("login", "--key", str(key))
    assert "approval" in desk.refused("run", str(plan))
    _approve(desk, plan)
    told = desk.types("run", str(plan))[1]
    assert "approval" not in told
    assert "waits" not in told
    assert "bound to other plans" not in told


def test_nobody_is_waited_for_where_no_policy_asks(desk: Desk) -> None:
    _asks(desk, "aurora", epsilon_above=9.0)
    assert list(awaited(Workspace(desk.workspace), make_plan()).lines()) == []
