"""What the ledger's commands say: which ε is which, and whether a plan fits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from abfed.cli.ledger import charges_told
from abfed.cli.main import main
from abfed.lab.workspace import Workspace
from abfed.privacy.charges import plan_epsilon
from abfed.protocol.errors import Refused
from abfed.protocol.plan import Plan
from abfed.silo.service import SiloService
from tests.examples import plan_values
from tests.lab.example import make_run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "ws"
    Workspace.create(folder, development=True).create_silo("aurora", synthetic=True)
    return folder


def said(capsys: Capture, *arguments: str, workspace: Path) -> str:
    assert main(["ledger", *arguments, "-w", str(workspace)]) == 0
    return capsys.readouterr().out


def a_plan(folder: Path, epsilon: float) -> str:
    path = folder / "plan.yaml"
    privacy = {"epsilon": epsilon, "split": {"statistics": epsilon}}
    path.write_text(yaml.safe_dump(plan_values(privacy=privacy, silos=["aurora"])))
    return str(path)


def test_show_names_method_and_delta(workspace: Path, capsys: Capture) -> None:
    shown = json.loads(said(capsys, "show", "--json", workspace=workspace))
    assert {one["method"] for one in shown} == {"Rényi filter"}
    assert all(0 < one["delta"] < 1e-3 for one in shown)
    words = said(capsys, "show", workspace=workspace)
    assert "A run's own ε is" in words
    assert "PLD" in words


@pytest.mark.parametrize(("epsilon", "fits"), [(0.1, True), (49.0, False)])
def test_preview_says_whether_a_plan_fits(
    workspace: Path, tmp_path: Path, capsys: Capture, epsilon: float, fits: bool
) -> None:
    plan = a_plan(tmp_path, epsilon)
    found = json.loads(said(capsys, "preview", plan, "--json", workspace=workspace))
    assert found["fits"] is fits
    assert (found["method"], found["delta"]) == ("PLD", 1e-6)
    words = said(capsys, "preview", plan, workspace=workspace)
    assert ("It fits in each silo" in words) is fits
    assert ("aurora would refuse it" in words) is not fits


@pytest.mark.privacy
def test_a_run_counts_what_was_charged_and_lost(tmp_path: Path) -> None:
    """The whole plan is charged at its first step; whose answer was lost has charged it too."""
    run = make_run(tmp_path / "ws")
    whole = plan_epsilon(run.plan)
    assert run.ledger["epsilon_run"].tolist() == [whole] * len(run.plan.silos)

    lost = make_run(tmp_path / "lost")
    first, *others = lost.plan.silos
    del lost.releases[first]["evaluate"]
    del lost.releases[others[0]]
    assert lost.ledger["silo"].tolist() == list(lost.plan.silos)
    assert lost.ledger["epsilon_run"].tolist() == [whole] * len(lost.plan.silos)
    assert math.isnan(lost.ledger["epsilon_spent"].tolist()[1])

    refused = make_run(tmp_path / "refused")
    del refused.releases[others[0]]
    for why, counted in (("budget", False), ("failed", True), ("too-few:a", True)):
        refused.manifest["left_out"]["totals"] = {others[0]: {"reason": "refused", "why": why}}
        refused.__dict__.pop("ledger", None)
        assert (others[0] in refused.ledger["silo"].tolist()) is counted


@pytest.mark.privacy
def test_an_epsilon_out_of_reach_is_refused_with_its_bounds(tmp_path: Path) -> None:
    for wrong in (1e-300, 1e-4, 51.0, 1e300):
        privacy = {"epsilon": wrong, "split": {"statistics": wrong}}
        with pytest.raises(Exception, match=r"must be from 0.001 to 50"):
            Plan.from_values(plan_values(privacy=privacy))


def test_a_history_has_columns_of_noise_once_only_where_it_was_used() -> None:
    charge = {"silo": "aurora", "at": "2026-11-26T10:22:18.033594Z", "colluders": None,
              "ε alone": None}  # fmt: skip
    assert charges_told([charge]) == [{"silo": "aurora", "at": "2026-11-26 10:22Z"}]
    shared = charge | {"colluders": 2, "ε alone": 4.5}
    assert charges_told([charge, shared])[1] == shared | {"at": "2026-11-26 10:22Z"}


@pytest.mark.parametrize("charged", [["borealis"], []])
def test_a_silo_that_reserved_nothing_keeps_no_other_from_giving_back(
    charged: list[str], workspace: Path, tmp_path: Path, monkeypatch, capsys: Capture
) -> None:
    """One that refused at once was never charged, and is often the first of the plan."""
    opened = Workspace(workspace)
    if "borealis" not in opened.silos:
        opened.create_silo("borealis", synthetic=True)

    def returned(service: SiloService, _: Plan) -> tuple[str, ...]:
        if service.keys.site not in charged:
            raise Refused("nothing is reserved for this plan", code="order")
        return ("totals",)

    monkeypatch.setattr(Workspace, "authorise", lambda *_: None)
    monkeypatch.setattr(SiloService, "return_unused", returned)
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora", "borealis"])))
    told = main(["ledger", "settle", str(plan), "-w", str(workspace), "--json"])
    assert told == (0 if charged else 3)
    if charged:
        rows = {row["silo"]: row for row in json.loads(capsys.readouterr().out)}
        assert (rows["aurora"]["returned_steps"], rows["borealis"]["returned_steps"]) == (0, 1)
        assert rows["aurora"]["why"] == "nothing is reserved for this plan"
