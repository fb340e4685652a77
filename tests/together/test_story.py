"""Noise once from the command line, with a marked person in the data: nothing of them crosses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.samples.shipped import shipped
from abfed.lab.workspace import Workspace
from abfed.site.files import write_private
from tests.whole.story import contents, found_brands, given_away, overheard

pytestmark = [pytest.mark.slow, pytest.mark.privacy]
BRANDS = ("aurora", "borealis", "corvid")
SCALE = 0.15
"""Corvid's arms lie 10 standard deviations of their noised counts above what is left out."""


def once_values() -> dict[str, object]:
    """The question of the demo in few rounds, over three brands of whom one may collude."""
    values = yaml.safe_load(shipped("experiments/spring.yaml").read_text())
    kept = ("purpose", "experiment", "arms", "features", "model")
    return {name: values[name] for name in kept} | {
        "name": "together",
        "silos": list(BRANDS),
        "minimum_silos": 3,
        "metrics": [
            {"name": "clicked", "kind": "proportion", "column": "clicked"},
            {"name": "revenue", "kind": "mean", "column": "revenue", "high": 100.0},
        ],
        "primary": "clicked",
        "training": {"rounds": 2, "local_steps": 1, "sampling_rate": 0.3},
        "privacy": {
            "epsilon": 5.0,
            "split": {"statistics": 3.0, "training": 1.0, "evaluation": 1.0},
            "noise": "once",
        },
    }


def pin(workspace: Path) -> None:
    """Write into each brand's policy that it adds its noise with the others, and their keys."""
    keys = json.loads((workspace / "coordinator" / "silos.json").read_text())
    for brand in BRANDS:
        path = workspace / "silos" / brand / "policy.yaml"
        values = yaml.safe_load(path.read_text())
        peers = [{"name": one, "public_key": keys[one]} for one in BRANDS if one != brand]
        values["noise_once"] = {"allowed": True, "peers": peers, "least_share": 0.2}
        write_private(path, yaml.safe_dump(values).encode())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Brands founded, refused, pinned; the plan run; temporary files and messages watched."""
    folder = tmp_path_factory.mktemp("together")
    places = {name: folder / name for name in ("workspace", "exports", "tmp", "messages")}
    places["tmp"].mkdir()
    places["plan"] = folder / "plan.yaml"
    places["plan"].write_text(yaml.safe_dump(once_values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(places["tmp"]))
        found_brands(places["workspace"], places["exports"], SCALE)
        options = ["-w", str(places["workspace"])]
        assert main(["run", str(places["plan"]), *options]) == 3  # no policy allows it yet
        pin(places["workspace"])
        with overheard(places["messages"], places["tmp"]):
            assert main(["run", str(places["plan"]), *options]) == 0
        assert main(["report", "together", "--to", "html", *options]) == 0
    return places


def test_it_ends_with_effects_of_all_brands_together(told: dict[str, Path]) -> None:
    run = Workspace(told["workspace"]).find_run("together")
    assert run.silos == BRANDS
    assert set(run.effects["scope"]) == {"these brands"}
    assert run.effects["estimate"].notna().all()
    assert list(run.training["model"]) == [0, 1, 2]
    assert (run.folder / "model.sealed").stat().st_size > 1000
    (page,) = (told["workspace"] / "reports").glob("*.html")
    assert "Noise was added once" in page.read_text()


def test_nothing_of_the_marked_person_crosses_or_lies_about(told: dict[str, Path]) -> None:
    said = contents(told["messages"])
    assert len([name for name in said if name.endswith("-in")]) == 48  # (5 + 2·5 + 1)·3
    assert given_away(said) == []
    assert given_away(contents(told["tmp"])) == []
    for place in ("runs", "reports", "coordinator", "lab"):
        assert given_away(contents(told["workspace"] / place)) == []


def test_the_same_plan_again_is_found_and_charges_nothing(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(told["workspace"], tmp_path / "w")
    options = ["-w", str(tmp_path / "w")]
    heads = {}
    for brand in BRANDS:
        with Workspace(tmp_path / "w").silo(brand) as service:
            heads[brand] = service.ledger.head
    assert main(["run", str(told["plan"]), *options]) == 0
    for brand in BRANDS:
        with Workspace(tmp_path / "w").silo(brand) as service:
            assert service.ledger.head == heads[brand]
    printed = " ".join(capsys.readouterr().out.split())
    assert "Noise once: with 1 colluding silo the guarantee is ε = " in printed


def test_the_guarantee_is_printed_before_and_after(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-w", str(told["workspace"])]
    fresh = tmp_path / "fresh.yaml"
    fresh.write_text(yaml.safe_dump(once_values() | {"name": "fresh"}))
    assert main(["ledger", "preview", str(fresh), *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "with 1 colluding silo the guarantee is ε = " in said
    assert "at δ = 1e-06; alone, by this silo's own share" in said
    assert main(["ledger", "preview", str(fresh), "--json", *options]) == 0
    figures = json.loads(capsys.readouterr().out)["noise_once"]
    assert figures["colluders"] == 1
    assert figures["epsilon"] <= 5.0
    assert figures["epsilon"] < min(figures["alone"].values())
    assert main(["ledger", "show", *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "corvid: 1 charge is of noise once. Spent is ε = " in said
    assert main(["ledger", "show", "corvid", "--json", *options]) == 0
    (shown, *_) = json.loads(capsys.readouterr().out)
    assert shown["noise_once"]["colluders"] == 1
    assert shown["noise_once"]["spent"] == shown["spent"] < shown["noise_once"]["alone"]
    assert main(["ledger", "history", "corvid", "--json", *options]) == 0
    (charge,) = json.loads(capsys.readouterr().out)
    assert charge["epsilon_pld"] < charge["epsilon_alone"]
    run = Workspace(told["workspace"]).find_run("together").name
    assert main(["explain", f"{run}/corvid/totals", *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Whatever 1 of the others tell, noise of" in said
    assert main(["explain", f"{run}/corvid/opening", *options]) == 0
    assert "nobody's data are in it" in capsys.readouterr().out


def test_a_page_about_one_brand_is_refused(
    told: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-w", str(told["workspace"]), "--to", "html"]
    assert main(["report", "together", "--notebook", "brand_profile", *options]) != 0
    assert "noise" in capsys.readouterr().err
