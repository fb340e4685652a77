"""A brand scores its list with each learner, further outcomes and revenue, personal or not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.cli.main import main
from tests.whole.story import contents, found_brands, small_plan

PURPOSE = "email-optimisation"
MODELS: dict[str, dict[str, Any]] = {
    "t": {"learner": "t", "hidden": [4], "also": ["opened"]},
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


def told_of(row: dict[str, str]) -> list[str]:
    """What a line says of a person's future, the draws of what to send left out."""
    return [row["recommended"], *(row[name] for name in sorted(row) if "expected" in name)]


@pytest.mark.slow
@pytest.mark.privacy
@pytest.mark.parametrize("name", MODELS)
def test_a_brands_own_head_changes_each_learners_scores_and_stays_in_the_list(
    told: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = scored(told, name, capsys)
    assert len(common) > 500
    assert {row["recommended"] for row in common.values()} <= {"control", "warm", "urgent"}
    for row in common.values():
        assert 0.0 <= float(row["expected_uplift"]) < 1.0
        assert 0.0 < float(row["chance"]) <= 1.0
    before = contents(told["workspace"])
    personal = scored(told, name, capsys, "--personal")
    assert personal.keys() == common.keys()
    for row in personal.values():
        assert 0.0 <= float(row["expected_uplift"]) < 1.0
    changed = sum(told_of(row) != told_of(common[who]) for who, row in personal.items())
    assert changed > len(common) / 2
    after = contents(told["workspace"])
    written = {one for one in after if after[one] != before.get(one)}
    (made,) = {one for one in written if "/lists/" in one}
    assert made.startswith("silos/aurora/")
    logs = written - {made}
    assert all(not one.startswith(("runs/", "lab/", "coordinator/")) for one in logs), logs
    assert all("model" not in one and "release" not in one for one in logs), logs
    scores = {one.encode() for row in personal.values() for one in told_of(row)[1:]}
    scores -= {one.encode() for row in common.values() for one in told_of(row)[1:]}
    assert len(scores) > 10
    # As numbers of their own: the same digits stand by chance in a moment's seconds
    figure = re.compile(rb"(?<![\d.])\d+\.\d{9}")
    assert scores & set(figure.findall(after[made]))
    for one in logs:
        added = after[one].removeprefix(before.get(one, b""))
        assert not scores & set(figure.findall(added)), one
