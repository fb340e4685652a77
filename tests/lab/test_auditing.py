"""Sites of a real run remember one another's logs; a log that was cut or forked is convicted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.intake import found_and_ingest
from abfed.lab.samples.shipped import shipped
from abfed.lab.samples.synth import write_brands
from abfed.lab.upkeep.auditing import figures
from abfed.lab.workspace import Workspace
from abfed.site.anchors import Verdict
from abfed.site.audit import AuditLog, AuditState
from abfed.site.keys import SiteKeys
from tests.signing import sign_in

SILOS = ("aurora", "borealis")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two brands, and a run without a model over them, asked for twice."""
    folder = tmp_path_factory.mktemp("audit") / "ws"
    workspace = Workspace.create(folder, development=True)
    for brand in write_brands(workspace.data, seed=5, scale=0.03):
        if brand.name in SILOS:
            found_and_ingest(workspace, brand.name, brand.export, brand.mapping, synthetic=True)
    sign_in(workspace)
    values = yaml.safe_load(shipped("experiments/spring.yaml").read_text())
    for name in ("model", "training"):
        values.pop(name, None)
    values |= {"silos": list(SILOS), "minimum_silos": 2}
    values["privacy"] = {"epsilon": 2.0, "delta": 1e-6, "split": {"statistics": 2.0}}
    plan = folder.parent / "plan.yaml"
    plan.write_text(yaml.safe_dump(values))
    workspace.run(plan)
    workspace.run(plan)
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "ws", symlinks=True)
    return tmp_path / "ws"


def _says(capsys: pytest.CaptureFixture[str], workspace: Path, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main([*words, *(["-w", str(workspace)] if words[1] != "check" else [])])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_what_others_keep_is_counted_and_the_cost_printed(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = _says(capsys, workspace, "audit", "verify", "--json")
    assert code == 0, told
    found = json.loads(told)
    assert found["aurora"]["anchors"] >= 2  # in the release, and in the run's manifest
    assert found["coordinator"]["anchors"] >= 3  # in both silos' logs, and in the manifest
    for one in found.values():
        assert 0 < one["bytes_per_entry"] < 2000
        assert 0 < one["microseconds_per_entry"] < 100_000
    code, told = _says(capsys, workspace, "audit", "verify")
    assert "heads that others keep are in it" in told


def test_what_an_entry_costs_is_told_of_those_that_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_bytes(b"x" * 2000)
    found = Verdict(AuditState(100, "ab"), 0, 0, 5, pruned=95)
    told = figures(found, log, 0.01)
    assert (told["entries"], told["pruned"]) == (100, 95)
    assert (told["bytes_per_entry"], told["microseconds_per_entry"]) == (400, 2000)


def _cut(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def test_a_cut_log_of_a_silo_is_convicted_by_its_own_release(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = workspace / "silos" / "aurora" / "audit.jsonl"
    numbers = [n for n, line in enumerate(log.read_bytes().splitlines()) if b"release.made" in line]
    _cut(log, lambda lines: lines[: numbers[0]])
    code, told = _says(capsys, workspace, "audit", "verify", "aurora")
    assert code == 4
    assert "the tail is missing" in told
    assert "coordinator keeps the head" in told
    assert "aurora/totals.release" in told


def test_a_log_that_is_gone_or_empty_is_no_log_that_holds(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(workspace / "runs")  # nobody keeps a head
    (workspace / "runs").mkdir(mode=0o700)
    log = workspace / "silos" / "aurora" / "audit.jsonl"
    for change in (lambda: log.write_bytes(b""), log.unlink):
        change()
        code, told = _says(capsys, workspace, "audit", "verify", "aurora")
        assert code == 4
        assert "the log is gone" in told


def test_a_cut_log_of_the_coordinator_is_convicted_by_a_silo(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = workspace / "coordinator" / "audit.jsonl"
    _cut(log, lambda lines: lines[:3])
    shutil.rmtree(workspace / "runs")  # nothing that the coordinator keeps itself is needed
    (workspace / "runs").mkdir(mode=0o700)
    code, told = _says(capsys, workspace, "audit", "verify", "coordinator")
    assert code == 4
    assert "the tail is missing" in told
    assert any(f"{silo} keeps the head" in told for silo in SILOS)


def test_a_forked_log_is_convicted(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace / "silos" / "aurora"
    _cut(folder / "audit.jsonl", lambda lines: lines[:1])
    forger = AuditLog(folder / "audit.jsonl", SiteKeys.open(folder / "keys"))
    for _ in range(9):  # by whoever has the key: every signature holds
        forger.append("release.made")
    assert forger.verify().entries == 10
    code, told = _says(capsys, workspace, "audit", "verify", "aurora")
    assert (code, "a fork" in told, "from entry 0 or later" in told) == (4, True, True), told


def test_the_first_bad_entry_is_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = workspace / "silos" / "borealis" / "audit.jsonl"
    _cut(log, lambda lines: [lines[0], lines[1].replace(b'"event":"', b'"event":"x'), *lines[2:]])
    code, told = _says(capsys, workspace, "audit", "verify", "borealis")
    assert (code, "entry 1" in told) == (4, True), told


def test_anchors_travel_to_another_machine(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "aurora.anchors"
    code, told = _says(capsys, workspace, "audit", "anchors", "aurora", str(file))
    assert code == 0
    key = told.split("--key ")[1].strip()
    shutil.rmtree(workspace / "runs")
    (workspace / "runs").mkdir(mode=0o700)
    given = ["--anchors", str(file), "--key", key]
    assert _says(capsys, workspace, "audit", "verify", "aurora", *given)[0] == 0
    _cut(workspace / "silos" / "aurora" / "audit.jsonl", lambda lines: lines[:2])
    assert _says(capsys, workspace, "audit", "verify", "aurora")[0] == 0  # nobody here remembers
    code, told = _says(capsys, workspace, "audit", "verify", "aurora", *given)
    assert (code, "coordinator keeps the head" in told) == (4, True)
    changed = bytearray(file.read_bytes())
    changed[-3] ^= 1
    file.write_bytes(bytes(changed))
    assert _says(capsys, workspace, "audit", "verify", "aurora", *given)[0] == 4


def test_it_is_asked_by_person_plan_run_and_event(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = _says(capsys, workspace, "audit", "query", "--person", "dev", "-s", "aurora")
    entries = [json.loads(line) for line in told.splitlines()]
    assert code == 0
    assert {"budget.reserved", "release.again"} <= {one["event"] for one in entries}
    plan = next(one["facts"]["plan"] for one in entries if "plan" in one["facts"])
    by_plan = _says(capsys, workspace, "audit", "query", "--plan", plan[:12], "-s", "aurora")[1]
    assert "release.made" in by_plan
    assert "silo.created" not in by_plan
    (run,) = [path.name for path in (workspace / "runs").iterdir() if path.is_dir()]
    by_run = _says(capsys, workspace, "audit", "query", "--run", run, "--event", "run.")[1]
    assert by_run.count("run.completed") == 1
    by_model = _says(capsys, workspace, "audit", "query", "--model", run, "--event", "run.")[1]
    assert by_model == by_run, "a model is called as its run is"
    asked = ("silo", "subject", "opt-out", "aurora", "aurora-000000@example.com", "--json")
    (receipt,) = json.loads(_says(capsys, workspace, *asked)[1])
    said = _says(
        capsys, workspace, "audit", "query", "-s", "aurora", "--receipt", receipt["receipt"]
    )
    (opted_out,) = map(json.loads, said[1].splitlines())
    assert opted_out["event"] == "subject.opted-out"
    own = _says(capsys, workspace, "audit", "query", "--person", "dev@coordinator")[1]
    assert "people.added" in own, "a site's own people stand in its log by their name alone"
    late = _says(capsys, workspace, "audit", "query", "--since", "2100-01-01")
    assert late == (0, "")
    every = _says(capsys, workspace, "audit", "query")
    for day in ("2020-01-01", "20200101", "2020-W01-3"):  # other ways to write a day count as well
        assert _says(capsys, workspace, "audit", "query", "--since", day) == every
    for day in ("26.11.2026", "soon"):  # compared as texts, they would find nothing, or all
        assert _says(capsys, workspace, "audit", "query", "--since", day)[0] == 2


def test_it_is_handed_out_with_proof(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.jsonl"
    code, told = _says(capsys, workspace, "audit", "export", str(file), "-s", "aurora")
    assert code == 0
    key = told.split("--key ")[1].strip()
    assert _says(capsys, workspace, "audit", "check", str(file), "--key", key)[0] == 0
    for no, mine in ((tmp_path / "no", key), (tmp_path / ("n" * 300), key), (file, key[2:]),
                     (file, "")):  # fmt: skip
        assert _says(capsys, workspace, "audit", "check", str(no), "--key", mine)[0] == 2
    lines = file.read_bytes().splitlines(keepends=True)
    assert all(isinstance(json.loads(line), dict) for line in lines)
    for number in range(len(lines)):
        dropped = b"".join(lines[:number] + lines[number + 1 :])
        twice = b"".join(lines[: number + 1] + lines[number:])
        for bad in (dropped, twice, b"".join(lines)[: -number - 1]):
            file.write_bytes(bad)
            assert _says(capsys, workspace, "audit", "check", str(file), "--key", key)[0] == 4


def test_young_entries_are_not_pruned(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = _says(capsys, workspace, "audit", "prune", "--before", "2100-01-01")
    assert (code, "365 days" in told) == (2, True)
    code, told = _says(capsys, workspace, "audit", "prune", "--before", "2020-01-01")
    assert (code, "0 entries" in told) == (0, True)
    assert _says(capsys, workspace, "audit", "prune", "--before", "soon")[0] == 2


def test_young_entries_that_were_pruned_all_the_same_convict_the_log(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has the site's key can sign what stands for pruned entries: others' heads with it."""
    folder = workspace / "silos" / "aurora"
    log = AuditLog(folder / "audit.jsonl", SiteKeys.open(folder / "keys"))
    assert log.prune(datetime.now(UTC) + timedelta(days=1), by="eve", keep="none") > 0
    log.verify()  # by itself the chain holds
    code, told = _says(capsys, workspace, "audit", "verify", "aurora")
    assert (code, "younger than a year" in told) == (4, True), told
    assert _says(capsys, workspace, "audit", "verify")[0] == 4
