"""A brand scores its list with each learner, further outcomes and revenue, personal or not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.cli.main import main
from tests.whole.story import found_brands, small_plan

PURPOSE = "email-optimisation"
MODELS: dict[str, dict[str, Any]] = {
    "t": {"learner": "t", "hidden": [4]},
    "x": {"learner": "x", "also": ["converted"], "revenue": {"high": 100.0}},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("learners")
    places = {"workspace": folder / "workspace", "exports": folder / "exports"}
    found_brands(places["workspace"], places["exports"])
    for name, model in MODELS.items():
        plan = small_plan(folder / f"{name}.yaml")
        values = yaml.safe_load(plan.read_text()) | {"name": f"learner-{name}"}
        values["model"] |= model
        plan.write_text(yaml.safe_dump(values))
        assert main(["run", str(plan), "-w", str(places["workspace"])]) == 0
    return places


def scored(
    told: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str], *more: str
) -> dict[str, dict[str, str]]:
    brand = told["exports"] / "aurora"
    files = ["--list", str(brand / "export.csv"), "-m", str(brand / "mapping.yaml")]
    where = ["--purpose", PURPOSE, "-w", str(told["workspace"]), "--json"]
    capsys.readouterr()
    assert main(["silo", "score", "aurora", f"learner-{name}", *files, *where, *more]) == 0
    path = Path(json.loads(capsys.readouterr().out)["list"])
    with path.open(newline="") as file:
        return {row["email"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_learner_recommends_and_can_be_fitted_to_the_brand(
    told: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = scored(told, name, capsys)
    assert len(common) > 500
    assert {row["recommended"] for row in common.values()} <= {"control", "warm", "urgent"}
    for row in common.values():
        assert 0.0 <= float(row["expected_uplift"]) < 1.0
        assert 0.0 < float(row["chance"]) <= 1.0
    personal = scored(told, name, capsys, "--personal")
    assert personal.keys() == common.keys()
    for row in personal.values():
        assert 0.0 <= float(row["expected_uplift"]) < 1.0
