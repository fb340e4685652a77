"""What a name stands for when it is frozen, and what a killed command leaves."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from abfed.lab.incidents.containing import contain_everywhere, meant, still_frozen
from abfed.lab.incidents.responding import frozen_at, incidents_of
from abfed.lab.models import registry_of
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import key_id
from abfed.protocol.errors import AbfedError, InputError
from tests.examples import model_values
from tests.killing import killed_at
from tests.lab.example import make_run
from tests.lab.test_people_commands import Desk, desk

__all__ = ["desk"]  # a fixture, used by its name

NAME = f"inc-{datetime.now(UTC).year}-001"


def test_a_slip_of_the_pen_freezes_nothing(desk: Desk) -> None:
    desk.says("incident", "open", "a test", "--playbook", "poisoned-silo")
    slips = {"silo": "auroa", "key": "aurora2", "plan": "spring", "model": "spring", "vendor": "x"}
    for kind, name in slips.items():
        said = desk.refused("incident", "contain", NAME, kind, name)
        assert "no " in said, kind
    assert "no model 'spring@7'" in desk.refused("incident", "contain", NAME, "model", "spring@7")
    wrong = ["incident", "contain", NAME, "silo", "coordinator", "--at", "aurora"]
    assert "stops nothing" in desk.refused(*wrong)
    shown = json.loads(desk.says("incident", "show", "--json"))
    assert shown["frozen"] == []


def test_a_key_a_model_and_a_plan_are_found_by_what_people_call_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "ws", model_values())
    workspace = Workspace(tmp_path / "ws")
    (model,) = (one.registration for one in registry_of(workspace).standings())
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(model_values()))
    assert meant(workspace, "model", model.label, "coordinator") == model.digest
    assert meant(workspace, "plan", run.name, "coordinator") == run.plan.digest
    assert meant(workspace, "plan", str(plan), "coordinator") == run.plan.digest
    assert meant(workspace, "plan", "ab" * 32, "coordinator") == "ab" * 32
    assert meant(workspace, "key", "coordinator", "coordinator") == workspace.keys.key_id
    silo, pinned = next(iter(workspace.pinned_keys().items()))
    assert meant(workspace, "key", silo, "coordinator") == key_id(pinned)
    assert sha256_hex(run.plan.canonical_bytes()) == run.plan.digest
    with pytest.raises(InputError, match="is no plan"):
        meant(workspace, "plan", "../runs", "coordinator")


@pytest.mark.parametrize("kind", ["plan", "person"])
def test_killed_at_any_act_on_the_disk_nothing_is_frozen_that_nobody_is_told_of(
    kind: str, tmp_path: Path
) -> None:
    """Frozen or not, written down or not: it is told, can be asked again, and is one in the end."""
    name = {"plan": "ab" * 32, "person": "dev"}[kind]
    halves = set()
    start = Workspace.create(tmp_path / "start", development=True)
    incidents_of(start.office()).open("a test", by="sam@hub", playbook="leaked-report")
    for number in range(1, 60):
        shutil.copytree(start.path, tmp_path / f"{number}")
        workspace = Workspace(tmp_path / f"{number}")
        kept = incidents_of(workspace.office())

        def act(workspace: Workspace = workspace) -> object:
            who = {"coordinator": "sam@coordinator"}
            return contain_everywhere(workspace, NAME, kind, name, site="coordinator", actors=who)

        died = killed_at(number, act)
        frozen = len(frozen_at(workspace.office()))
        noted = len(kept.find(NAME).contained)
        halves.add((frozen, noted))
        assert len(still_frozen(workspace, kept.find(NAME))) == frozen, "all that holds is told"
        assert noted <= frozen, "what isn't frozen is not said to be"
        workspace.office().audit.verify()
        if not died:
            break
        if not noted:
            act()
        assert len(frozen_at(workspace.office())) == len(kept.find(NAME).contained) == 1
        with pytest.raises(AbfedError, match="already"):
            act()
    assert halves == {(0, 0), (1, 0), (1, 1)}
