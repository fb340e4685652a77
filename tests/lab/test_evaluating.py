"""A run's model beside its baselines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from abfed.cli.main import main
from abfed.lab.evaluating import Evaluation
from abfed.lab.runs import Run
from abfed.protocol.errors import WorkspaceError
from tests.lab import example


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return example.make_run(
        tmp_path_factory.mktemp("evaluated") / "workspace", example.example_values(), size=400_000
    )


def test_baselines_stand_beside_the_model(run: Run) -> None:
    found = Evaluation.of(run)
    outcome = found.outcome.set_index("scorer")
    assert list(outcome.index) == ["model", "majority", "best single column", "random"]
    assert outcome.loc["model", "auc"] > outcome.loc["best single column", "auc"]
    assert outcome.loc["majority", "auc"] == 0.5
    uplift = found.uplift
    treated = [arm.name for arm in run.plan.arms if not arm.control]
    assert list(uplift["arm"].unique()) == treated
    for arm in treated:
        rows = uplift[uplift["arm"] == arm].set_index("scorer")
        assert rows.loc["model", "qini"] > rows.loc["random", "qini"] == 0.0
        assert rows.loc["model", "qini_low"] > 0
        assert rows.loc["model", "effect"] == pytest.approx(0.04, abs=0.01)


def test_policy_and_deciles_have_intervals(run: Run) -> None:
    found = Evaluation.of(run)
    policy = found.policy
    assert (policy["value_low"] < policy["value"]).all()
    assert (policy["value"] < policy["value_high"]).all()
    assert policy["policy"].str.contains("best single arm").sum() == 1
    assert found.deciles["decile"].max() == 10


def test_every_table_says_what_it_was_made_of(run: Run) -> None:
    found = Evaluation.of(run)
    for frame in (found.outcome, found.uplift, found.deciles, found.policy, found.calibration):
        assert frame.attrs["source"] == run.source


def test_the_command_prints_them(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-w", str(Path(run.folder).parent.parent)]
    assert main(["evaluate", run.name, "--json", *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"outcome", "uplift", "deciles", "policy", "calibration"} <= set(said)
    assert main(["evaluate", run.name, *options]) == 0
    assert "best single column" in capsys.readouterr().out


def test_a_run_without_a_model_is_told_so(tmp_path: Path) -> None:
    run = example.make_run(tmp_path / "workspace", example.statistics_only())
    with pytest.raises(WorkspaceError, match="no model"):
        Evaluation.of(run)
