"""A run's model beside its baselines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abfed.cli.main import main
from abfed.coordinator.registry import Standing
from abfed.lab.evaluating import Evaluation
from abfed.lab.models import registry_of
from abfed.lab.runs import Run
from abfed.lab.sections import model, training, uplift
from abfed.lab.views.curves import plot_training
from abfed.lab.views.model_cards import model_card
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import WorkspaceError
from tests.lab import example

PARTS = ("se", "se_sampling", "privacy_share")


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


def test_each_figure_says_what_of_it_is_chance_and_what_is_noise(run: Run) -> None:
    found = Evaluation.of(run)
    for frame, names in (
        (run.training, ["auc", "log_loss"]), (found.outcome, ["auc", "log_loss"]),
        (found.uplift, ["effect", "qini", "auuc"]), (found.deciles, ["uplift"]),
        (found.policy, ["value", "gain"]), (found.calibration, ["observed"]),
        (found.recalibrated, ["log_loss"]),
    ):  # fmt: skip
        for name in names:
            se, chance, share = (frame[f"{name}_{one}"] for one in PARTS)
            drawn = se > 0  # a random order has none
            assert drawn.any(), name
            assert (chance[drawn] > 0).all()
            assert share[drawn].to_numpy() == pytest.approx((1 - chance**2 / se**2)[drawn])
            assert ((share[drawn] > 0) & (share[drawn] < 1)).all(), name
            reach = (frame[f"{name}_high"] - frame[f"{name}_low"])[drawn] / 2
            assert reach.to_numpy() == pytest.approx(1.96 * se[drawn], rel=1e-4)


def drawn_parts(axes: Any) -> list[tuple[float, float]]:
    """Lengths of the two parts of each upright interval: the whole and chance's."""
    lines = [one for one in axes.lines if len(set(one.get_xdata())) == 1 and one.get_lw() > 2]
    lengths = [float(abs(np.diff(one.get_ydata())[0])) for one in lines if len(one.get_ydata()) > 1]
    return list(zip(lengths[::2], lengths[1::2], strict=True))


def test_both_parts_are_drawn_and_said(run: Run) -> None:
    found = Evaluation.of(run)
    (axes,) = uplift._plot_deciles(found.deciles).axes
    parts = drawn_parts(axes)
    assert len(parts) == len(found.deciles)
    for name, part in (("se", 0), ("se_sampling", 1)):
        told = sorted(2 * 196 * found.deciles[f"uplift_{name}"])
        assert sorted(one[part] for one in parts) == pytest.approx(told, rel=1e-3)
    (axes,) = model.plot_calibration(run).axes
    assert all(0 < chance <= whole for whole, chance in drawn_parts(axes))
    for axes in plot_training(run).axes:
        outer, inner = (np.ptp(one.get_paths()[0].vertices[:, 1]) for one in axes.collections)
        assert outer > inner
    for page, said in (
        (training.curves(run), "for the noise)"),
        (model.baselines(run), "noise "),
        (model.calibrated(run), "for the noise."),
        (uplift.ranking(run), "noise "),
        (uplift.targeting(run), "for the noise)"),
        (training.headline(run), "for the noise)"),
        (model_card(registered(run)), "(chance 0.0"),
    ):
        assert said in page


def test_where_noise_is_nearly_all_a_page_says_that_chances_part_is_said_too_large(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    loudest = Evaluation.of(run).uplift["qini_privacy_share"].max()
    monkeypatch.setattr(uplift, "LOUD", loudest + 1e-9)
    assert uplift.LOUD_NOTE not in uplift.ranking(run)
    monkeypatch.setattr(uplift, "LOUD", loudest - 1e-9)
    assert "1.5 times" in uplift.ranking(run)


def registered(run: Run) -> Standing:
    workspace = Workspace(Path(run.folder).parent.parent)
    (one,) = registry_of(workspace).standings()
    return one


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
    said = capsys.readouterr().out
    assert "best single column" in said
    assert re.search(r"0\.\d+ \(0\.\d+ to 0\.\d+; noise \d+ %\)", said)


def test_a_run_without_a_model_is_told_so(tmp_path: Path) -> None:
    run = example.make_run(tmp_path / "workspace", example.statistics_only())
    with pytest.raises(WorkspaceError, match="no model"):
        Evaluation.of(run)
