"""A brand scores its own list with a model of the federation, and nothing of it leaves."""

from __future__ import annotations

import csv
import json
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.models import registry_of
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import IntegrityError, Refused
from abfed.silo.permit import Computed
from abfed.silo.pseudonyms import Pseudonyms
from abfed.silo.rewriting import Rewriting
from abfed.site.files import write_private
from abfed.site.freezes import Freezes
from tests.whole.story import CANARY_ID, contents, found_brands, small_plan

PURPOSE, MODEL = "email-optimisation", "spring-subject-lines"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scoring")
    places = {"workspace": folder / "workspace", "exports": folder / "exports"}
    found_brands(places["workspace"], places["exports"])
    places["plan"] = small_plan(folder / "plan.yaml")
    assert main(["run", str(places["plan"]), "-w", str(places["workspace"])]) == 0
    return places


def words(told: dict[str, Path], *more: str, purpose: str = PURPOSE) -> list[str]:
    brand = told["exports"] / "aurora"
    files = ["--list", str(brand / "export.csv"), "-m", str(brand / "mapping.yaml")]
    where = ["--purpose", purpose, "-w", str(told["workspace"])]
    return ["silo", "score", "aurora", MODEL, *files, *where, *more]


@pytest.fixture(scope="module")
def lists(told: dict[str, Path]) -> tuple[list[dict[str, str]], Path]:
    before = set((told["workspace"] / "silos/aurora").glob("lists/*"))
    assert main(words(told)) == 0
    (path,) = set((told["workspace"] / "silos/aurora").glob("lists/*")) - before
    with path.open(newline="") as file:
        return list(csv.DictReader(file)), path


def test_the_list_names_the_brands_own_people(
    told: dict[str, Path], lists: tuple[list[dict[str, str]], Path]
) -> None:
    rows, path = lists
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    arms = {"control", "warm", "urgent"}
    emails = [row["email"] for row in rows]
    assert CANARY_ID in emails
    assert len(set(emails)) == len(emails) > 500
    assert {row["recommended"] for row in rows} <= arms
    assert {row["send"] for row in rows} <= arms
    for row in rows:
        assert 0.0 <= float(row["expected_uplift"]) < 1.0
        assert 0.0 < float(row["explore"]) <= 0.1
        other = float(row["explore"]) / len(arms)  # four digits were off by .5 % of the least
        best = row["send"] == row["recommended"]
        told_chance = 1 - other * (len(arms) - 1) if best else other
        assert float(row["chance"]) == pytest.approx(told_chance, rel=1e-5)


def test_nothing_of_the_list_is_anywhere_but_in_the_list(
    told: dict[str, Path], lists: tuple[list[dict[str, str]], Path]
) -> None:
    rows, path = lists
    scored = [row for row in rows if row["email"] == CANARY_ID]
    # A figure as a number of its own: the same digits stand by chance in moments and counts
    uplift = re.compile(rb"(?<![\d.])" + re.escape(scored[0]["expected_uplift"].encode()))
    assert uplift.search(path.read_bytes())
    for name, data in contents(told["workspace"]).items():
        if name == str(path.relative_to(told["workspace"])) or "/lists/" in name:
            continue
        assert CANARY_ID.encode() not in data, name
        if "/models/" in name or name.endswith((".jsonl", ".json", ".yaml", ".release")):
            assert not uplift.search(data), name


def test_the_log_says_who_scored_with_what_and_why(
    told: dict[str, Path], lists: tuple[list[dict[str, str]], Path]
) -> None:
    workspace = Workspace(told["workspace"])
    entries = [entry["body"] for entry in workspace.office("aurora").audit.entries()]
    (scored, *_) = [one for one in entries if one["event"] == "model.scored"]
    assert scored["facts"]["person"] == "dev@coordinator"
    assert scored["facts"]["purpose"] == PURPOSE
    assert len(scored["facts"]["model"]) == 64
    assert set(scored["facts"]) == {"person", "purpose", "model", "plan"}  # no figure of a row


def test_the_gate_releases_nothing_of_it(
    told: dict[str, Path], lists: tuple[list[dict[str, str]], Path]
) -> None:
    with Workspace(told["workspace"]).silo("aurora") as service:
        model = service.models.find(MODEL)
        permit = service._gate.admit_own(model, PURPOSE, service.store.epoch, "dev@coordinator")
        smuggled = Computed("evaluation", {}, {"noise_multiplier": 1.0})
        for one in (permit, replace(permit, step="evaluate"), replace(permit, step="train-0001")):
            with pytest.raises(IntegrityError, match="never leaves"):
                service._gate.release(one, smuggled)


def test_a_purpose_that_the_policy_does_not_name_is_refused(
    told: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(told, purpose="credit-scoring")) == 3
    assert "credit-scoring" in capsys.readouterr().err


def named(told: dict[str, Path], name: str) -> list[str]:
    return [name if word == MODEL else word for word in words(told)]


def test_a_model_that_there_is_not_is_told_from_ones_own_and_not_from_anothers(
    told: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with Workspace(told["workspace"]).silo("aurora") as service:
        kept = service.models.find(MODEL)
        theirs = replace(
            kept,
            plan=kept.plan.model_copy(update={"name": "theirs"}),
            arrays={name: array + 1 for name, array in kept.arrays.items()},
            submitter="eve@coordinator",
        )
        digest = service.models.keep(theirs)
    path = told["workspace"] / "silos/aurora/models" / f"{digest}.sealed"
    said = []
    try:
        for name in ("theirs", "nobodys"):
            assert main(named(told, name)) == 3
            said.append(capsys.readouterr().err.replace(name, "…"))
    finally:
        path.unlink()
    assert said[0] == said[1], "which models are kept for others is told"
    assert "keeps no model called '…' that you may score with" in said[0]
    assert "abfed model list" in said[0]


def test_two_models_of_ones_own_plan_are_named_by_their_digests(
    told: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same plan on later data: both are one's own, which isn't a missing right."""
    with Workspace(told["workspace"]).silo("aurora") as service:
        kept = service.models.find(MODEL)
        again = replace(kept, arrays={name: array + 1 for name, array in kept.arrays.items()})
        digest = service.models.keep(again)
    try:
        assert main(words(told)) == 2
        err = capsys.readouterr().err
        assert "2 models here are called" in err
        assert digest[:12] in err
        assert main(named(told, digest[:12])) == 0
    finally:
        (told["workspace"] / "silos/aurora/models" / f"{digest}.sealed").unlink()


def test_no_link_leads_a_list_out_of_the_silo(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, aside = told["workspace"] / "silos/aurora/lists", tmp_path / "aside"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if folder.exists():
        folder.rename(aside)
    folder.symlink_to(elsewhere)
    try:
        assert main(words(told)) == 4
    finally:
        folder.unlink()
        if aside.exists():
            aside.rename(folder)
    assert "out of the silo" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


def test_a_frozen_model_scores_nobody(told: dict[str, Path]) -> None:
    workspace = Workspace(told["workspace"])
    with workspace.silo("aurora") as service:
        model = service.models.find(MODEL)
        freezes = Freezes(service.paths.folder, service.keys)
        (registered,) = (one.registration.digest for one in registry_of(workspace).standings())
        assert registered != model.digest, "a registry names it otherwise"
        for name in (registered, model.digest):
            freezes.freeze("model", name, service.audit, by="sam", reason="leaked")
            try:
                with pytest.raises(Refused, match="frozen"):
                    service._gate.admit_own(model, PURPOSE, service.store.epoch, "dev@coordinator")
            finally:
                freezes.lift("model", name, service.audit, by="sam")


def test_a_personal_head_changes_scores_here_and_the_kept_model_nowhere(
    told: dict[str, Path],
    lists: tuple[list[dict[str, str]], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = {name: data for name, data in contents(told["workspace"]).items() if "model" in name}
    capsys.readouterr()
    assert main(words(told, "--personal", "--json")) == 0
    path = Path(json.loads(capsys.readouterr().out)["list"])
    with path.open(newline="") as file:
        personal = {row["email"]: row["expected_uplift"] for row in csv.DictReader(file)}
    common = {row["email"]: row["expected_uplift"] for row in lists[0]}
    assert personal.keys() == common.keys()
    assert personal != common
    after = {name: data for name, data in contents(told["workspace"]).items() if "model" in name}
    assert after == models


def test_who_is_erased_goes_from_the_list_that_was_made(
    told: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(told["workspace"], tmp_path / "ws", symlinks=True)
    where = {**told, "workspace": tmp_path / "ws"}
    assert main(words(where)) == 0
    (path, *_) = sorted(
        (tmp_path / "ws/silos/aurora/lists").iterdir(),
        key=lambda one: one.stat().st_mtime_ns,
        reverse=True,
    )
    before = path.read_text().splitlines()
    assert sum(CANARY_ID in line for line in before) == 1
    assert main(["silo", "subject", "erase", "aurora", CANARY_ID, "-w", str(tmp_path / "ws")]) == 0
    after = path.read_text().splitlines()
    assert after == [line for line in before if CANARY_ID not in line]
    for file in (tmp_path / "ws" / "silos").rglob("*"):
        assert not file.is_file() or CANARY_ID.encode() not in file.read_bytes(), file


def test_what_is_past_retention_is_gone_before_a_list_is_scored(
    told: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(told["workspace"], tmp_path / "ws", symlinks=True)
    policy = tmp_path / "ws/silos/aurora/policy.yaml"
    values = yaml.safe_load(policy.read_text()) | {"retention_days": 30}
    write_private(policy, yaml.safe_dump(values).encode())
    with Workspace(tmp_path / "ws").silo("aurora") as service:
        assert service.store.describe().sends > 0
    main(words({**told, "workspace": tmp_path / "ws"}))
    with Workspace(tmp_path / "ws").silo("aurora") as service:
        assert service.store.describe().sends == 0, "the made-up sends are of last spring"


def test_who_opted_out_since_is_left_out(
    told: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with Workspace(told["workspace"]).silo("aurora") as service:
        pseudonym = Pseudonyms(service.keys).of(CANARY_ID)
        Rewriting(service.paths.store, service.keys).bar([pseudonym], "restricted")
    capsys.readouterr()
    assert main(words(told, "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert CANARY_ID not in Path(answer["list"]).read_text()
    assert sum(count for why, count in answer["left_out"].items() if "restricted" in why) >= 1


def test_who_opted_out_is_left_out_of_a_list_that_counts_capitals_too(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Workspace(told["workspace"]).silo("aurora") as service:
        pseudonym = Pseudonyms(service.keys).of(CANARY_ID)
        Rewriting(service.paths.store, service.keys).bar([pseudonym], "opted-out")
    brand = told["exports"] / "aurora"
    text = (brand / "mapping.yaml").read_text()
    mapping = text.replace("recipient: {", "recipient: {normalise: trim, ")
    (tmp_path / "mapping.yaml").write_text(mapping)
    export = (brand / "export.csv").read_text().replace(CANARY_ID, CANARY_ID.upper())
    (tmp_path / "export.csv").write_text(export)
    files = ["--list", str(tmp_path / "export.csv"), "-m", str(tmp_path / "mapping.yaml")]
    where = ["--purpose", PURPOSE, "-w", str(told["workspace"]), "--json"]
    capsys.readouterr()
    assert main(["silo", "score", "aurora", MODEL, *files, *where]) == 0
    made = Path(json.loads(capsys.readouterr().out)["list"]).read_text()
    assert CANARY_ID.upper() in export
    assert CANARY_ID.upper() not in made


def test_a_changed_model_is_found(told: dict[str, Path], tmp_path: Path) -> None:
    with Workspace(told["workspace"]).silo("aurora") as service:
        (path,) = (service.paths.folder / "models").glob("*.sealed")
        whole = path.read_bytes()
        try:
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            with pytest.raises(IntegrityError):
                service.models.find(MODEL)
        finally:
            path.write_bytes(whole)
