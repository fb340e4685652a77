"""Exact totals, for development: never of real people, and called NOT PRIVATE wherever they are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.records.record import records_of
from abfed.lab.samples.synth import write_brands
from abfed.lab.sections import readout
from abfed.lab.workspace import Workspace
from abfed.silo.subjects import Subjects
from tests.whole.story import small_plan


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Path, Path]:
    """A workspace with a silo that holds real people (as far as it knows); a plan for exact totals.

    The silo of the second brand is declared synthetic.
    """
    workspace = tmp_path / "workspace"
    options = ["-w", str(workspace)]
    assert main(["init", *options]) == 0
    assert main(["login", "--development", *options]) == 0
    for brand in write_brands(tmp_path / "exports", seed=5, scale=0.03)[:2]:
        mapping = ["-m", str(brand.mapping)]
        made_up = ["--synthetic"] if brand.name == "borealis" else []
        assert main(["silo", "create", brand.name, *mapping, *made_up, *options]) == 0
        assert main(["silo", "ingest", brand.name, str(brand.export), *mapping, *options]) == 0
    plan = small_plan(
        tmp_path / "exact.yaml", name="exact", privacy="none", model=None, training=None,
        silos=["aurora"], minimum_silos=1,
    )  # fmt: skip
    return workspace, plan


@pytest.mark.privacy
def test_a_silo_of_real_people_refuses_a_plan_without_privacy(
    asked: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, plan = asked
    with Workspace(workspace).silo("aurora") as service:
        before = service.ledger.entries
    assert main(["run", str(plan), "-w", str(workspace)]) == 3
    said = capsys.readouterr().err
    assert "plans without privacy" in said
    assert not list((workspace / "runs").glob("*/manifest.sig"))
    with Workspace(workspace).silo("aurora") as service:
        assert service.ledger.entries == before


def test_a_synthetic_brand_answers_exactly_and_everything_says_so(
    asked: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, plan = asked
    values = yaml.safe_load(plan.read_text()) | {"silos": ["borealis"]}
    plan.write_text(yaml.safe_dump(values))
    capsys.readouterr()
    for command in (["plan", "check"], ["ledger", "preview", "-w", str(workspace)]):
        assert main([*command, str(plan)]) == 0
        said = capsys.readouterr().out
        assert "NOT PRIVATE" in said
        assert "ε" not in said  # it has none
    assert main(["run", str(plan), "-w", str(workspace)]) == 0
    assert "NOT PRIVATE" in capsys.readouterr().out
    run = Workspace(workspace).find_run("exact")
    assert "NOT PRIVATE" in readout.headline(run)
    assert (run.effects["privacy_share"].dropna() == 0).all()
    sums = run.totals["borealis"].values
    clicks, rest = sums[0, run.totals["borealis"].layout.block("clicked").columns]
    assert clicks == round(clicks)  # whole people: no noise at all
    assert rest == round(rest)


def test_nobody_is_told_that_noise_covers_them_in_exact_totals(
    asked: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, plan = asked
    plan.write_text(yaml.safe_dump(yaml.safe_load(plan.read_text()) | {"silos": ["borealis"]}))
    assert main(["run", str(plan), "-w", str(workspace)]) == 0
    opened = Workspace(workspace)
    with opened.silo("borealis") as service:
        who = "borealis-000001@example.com"
        (receipt,) = Subjects(service).carry_out("erase", [who], by="pat@borealis")
        made = records_of(service, opened.office("borealis"), datetime.now(UTC))
    assert receipt.request.held
    assert "differentially private" not in receipt.why_they_stand
    assert "NOT PRIVATE: exact." in receipt.why_they_stand
    assert [one["exact"] for one in receipt.as_dict()["affected"]] == [True]
    (processing,) = [one.facts for one in made if one.kind == "processing"]
    assert processing["what was done"][0]["epsilon"] == "no bound"
    assert "exact ones of 1 plan" in str(processing["who gets what"])
    assert "exact releases of 1 plan: no bound" in processing["security measures"]["privacy"]
    (assessment,) = [one.facts for one in made if one.kind == "assessment"]
    risks = assessment["risks to people"]
    assert risks["to be told apart by all releases so far"].startswith("no bound")
    assert "exact releases of 1 plan: no bound" in risks["bound for each person"]
    capsys.readouterr()
    assert main(["ledger", "history", "borealis", "-w", str(workspace), "--json"]) == 0
    assert '"NOT PRIVATE"' in capsys.readouterr().out
