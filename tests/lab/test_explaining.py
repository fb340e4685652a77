"""A release in plain words, with figures that follow from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from abfed.lab.explaining import _learnable, explain, find_release
from abfed.lab.workspace import Workspace
from abfed.privacy.accounting import epsilon_of
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.messages import Charge
from tests.lab.example import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("lab") / "workspace"
    run = make_run(folder)
    return Workspace(folder), run


def test_each_release_says_what_it_is_and_what_it_costs(made) -> None:
    workspace, run = made
    for silo, steps in run.releases.items():
        for step, accepted in steps.items():
            found, release = find_release(workspace, f"{run.name}/{silo}/{step}")
            assert release == accepted.release
            parts = explain(found, release)
            text = " ".join(sentence for part in parts.values() for sentence in part)
            cost = epsilon_of(release.charged, run.plan.privacy.delta)
            assert f"({cost:.3f}, 1e-06)-differentially private" in text
            assert release.unit.sentence in text
            assert silo in text
            assert list(parts)[-1] == "What remains"


def test_a_release_is_found_by_its_file(made, tmp_path, monkeypatch) -> None:
    workspace, run = made
    (file, *_) = sorted(Path(run.folder).glob("releases/*/totals.release"))
    assert find_release(workspace, str(file))[1].silo == file.parent.name
    monkeypatch.chdir(file.parent)
    assert find_release(workspace, file.name)[1].silo == file.parent.name
    (tmp_path / "lone.release").write_bytes(b"")
    lone = str(tmp_path / "lone.release")
    for wrong in (
        lone,
        "n" * 300 + ".release",
        "nonsense",
        f"{run.name}/{run.silos[0]}/train-0999",
        f"{run.name}/x/totals",
    ):
        with pytest.raises(WorkspaceError):
            find_release(workspace, wrong)


def test_what_can_be_learnt_is_what_the_guarantee_bounds() -> None:
    charge = Charge(event="gaussian", noise_multiplier=4.0)
    epsilon = epsilon_of([charge], 1e-6)
    sure, hits, _ = _learnable(epsilon, 1e-6, (charge,))
    assert f"{1 / (1 + math.exp(-epsilon)):.1%}" in sure
    # Φ(Φ⁻¹(0.01) + 1/4), from a table of the normal distribution
    assert "1.9%" in hits
