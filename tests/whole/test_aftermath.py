"""After a run: which one is reported, who is missing, what damage ends with, what machines read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from abfed.cli.main import main
from abfed.lab.workspace import Workspace
from tests.signing import sign_in
from tests.whole.story import small_plan

ALONE: dict[str, Any] = {
    "model": None,
    "training": None,
    "minimum_silos": 2,
    "privacy": {"epsilon": 2.0, "delta": 1e-6, "split": {"statistics": 2.0}},
}
FIELD = re.compile(r"^[a-z0-9][a-z0-9_.-]*$")
Capture = pytest.CaptureFixture[str]


def _said(capsys: Capture, *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_plan_is_reported_from_its_newest_run(folder: Path, capsys: Capture) -> None:
    """First without Borealis, then with it: two runs of one plan on the same data."""
    workspace, plan = folder / "workspace", small_plan(folder / "plan.yaml", **ALONE)
    options = ["-w", str(workspace)]
    long_ago = datetime.now(UTC) - timedelta(minutes=2)
    Workspace(workspace, lambda: long_ago).office("borealis").revoke(
        "dev@coordinator", by="sam", reason="away"
    )
    code, first = _said(capsys, "run", str(plan), *options)
    assert (code, list(first["missing"]), first["silos"]) == (0, ["borealis"], ["aurora", "corvid"])
    Workspace(workspace).office("borealis").restore("dev@coordinator", by="sam")
    sign_in(Workspace(workspace))
    code, second = _said(capsys, "run", str(plan), *options)
    assert (code, second["missing"], len(second["silos"])) == (0, {}, 3)
    assert first["run"] != second["run"]
    (workspace / "runs" / first["run"] / "manifest.sig").touch()  # the newer by its file's time
    code, report = _said(capsys, "report", str(plan), *options)
    assert (code, report["run"]) == (0, second["run"])
    assert second["run"] in report["report"]
    code, named = _said(capsys, "report", first["run"], *options)
    assert (code, named["run"]) == (0, first["run"])


def test_who_did_not_answer_this_time_is_not_missing_from_the_run(
    folder: Path, capsys: Capture
) -> None:
    workspace, plan = folder / "workspace", small_plan(folder / "plan.yaml", **ALONE)
    options = ["-w", str(workspace)]
    assert main(["run", str(plan), *options]) == 0
    said = capsys.readouterr().out
    assert f"Next: abfed report {Workspace(workspace).runs()[0].name} -w {workspace}" in said
    assert len(repr(Workspace(workspace).runs()[0])) < 200
    Workspace(workspace).office("aurora").revoke("dev@coordinator", by="sam", reason="away")
    assert main(["run", str(plan), *options]) == 0
    said = capsys.readouterr().out
    assert "aurora did not answer this time (refused (revoked)" in said
    assert "without aurora" not in said
    code, answer = _said(capsys, "run", str(plan), *options)
    assert (code, answer["found"], answer["missing"]) == (0, True, {})
    assert list(answer["unheard"]) == ["aurora"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def damaged(folder: Path) -> Path:
    """Corvid's rows with one byte flipped."""
    store = folder / "workspace" / "silos" / "corvid" / "store"
    _flip(max(store.glob("bucket-*"), key=lambda one: one.stat().st_size))
    return folder


def test_a_run_without_a_damaged_brand_is_told_and_ends_with_4(
    damaged: Path, capsys: Capture
) -> None:
    workspace, plan = damaged / "workspace", small_plan(damaged / "plan.yaml", **ALONE)
    options = ["-w", str(workspace)]
    assert main(["run", str(plan), *options]) == 4
    said = capsys.readouterr()
    assert "integrity: corvid:" in said.err
    assert f"abfed silo verify corvid -w {workspace}" in said.err
    assert "Run spring-subject-lines-" in said.out
    code, again = _said(capsys, "run", str(plan), *options)
    assert (code, list(again["damaged"])) == (4, ["corvid"])
    code, charges = _said(capsys, "ledger", "history", *options)
    assert (code, sorted(one["silo"] for one in charges)) == (0, ["aurora", "borealis"])
    whole = small_plan(damaged / "whole.yaml", **(ALONE | {"name": "whole", "minimum_silos": 3}))
    code, failed = _said(capsys, "run", str(whole), *options)
    assert (code, failed["error"]) == (4, "integrity")
    assert "corvid" in failed["why"]


def test_the_damage_is_found_by_the_brands_own_people(damaged: Path, capsys: Capture) -> None:
    options = ["-w", str(damaged / "workspace")]
    code, found = _said(capsys, "silo", "verify", *options)
    assert (code, found["holds"], found["broken"]) == (4, False, ["corvid"])
    wrong = [one for one in found["silos"]["corvid"] if not one["holds"]]
    assert [one["part"] for one in wrong] == ["store"]
    assert "bucket-" in wrong[0]["what"]
    assert _said(capsys, "silo", "verify", "aurora", *options)[0] == 0


def test_refusals_say_what_they_are_about_and_where_to_look(folder: Path, capsys: Capture) -> None:
    options = ["-w", str(folder / "workspace")]
    arms = [{"name": "control", "share": 0.5, "control": True}, {"name": "lukewarm", "share": 0.5}]
    plan = small_plan(folder / "arms.yaml", arms=arms, **ALONE)
    code, refused = _said(capsys, "run", str(plan), *options)
    assert (code, refused["code"]) == (3, "population")
    assert "it is about 'lukewarm'" in refused["why"]
    assert f"abfed silo show aurora -w {folder / 'workspace'}" in refused["do"]
    plan = small_plan(folder / "silos.yaml", silos=["aurora", "boreals"], **ALONE)
    code, unknown = _said(capsys, "run", str(plan), *options)
    assert code == 2
    assert "did you mean 'borealis'?" in unknown["do"]
    assert "abfed silo create boreals" in unknown["do"]


def _fields(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _fields(inner)


def test_machines_read_one_value_with_plain_fields(folder: Path, capsys: Capture) -> None:
    plan = str(small_plan(folder / "plan.yaml", **ALONE))
    exports = folder / "exports" / "aurora"
    ingest = ["silo", "ingest", "aurora", str(exports / "export.csv")]
    for command in (
        ["run", plan],
        ["ledger", "show"],
        ["ledger", "preview", plan],
        ["ledger", "history"],
        ["ledger", "settle", plan],
        ["silo", "show", "aurora"],
        ["silo", "verify"],
        [*ingest, "-m", str(exports / "mapping.yaml")],
        ["audit", "verify"],
        ["no-such-command"],
        ["silo", "show", "nobody"],
    ):
        code, said = _said(capsys, *command, "-w", str(folder / "workspace"))
        assert (code != 0) == (isinstance(said, dict) and "error" in said), command
        assert [name for name in _fields(said) if not FIELD.match(name)] == [], command


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_tells_machines_too_and_charges_nothing_twice(
    tmp_path: Path, capsys: Capture
) -> None:
    options = ["-w", str(tmp_path / "workspace")]
    code, first = _said(capsys, "demo", *options)
    assert (code, first["found"], len(first["silos"])) == (0, False, 3)
    assert Path(first["report"]).is_file()
    assert len(first["stages"]) == 5
    code, second = _said(capsys, "demo", *options)
    assert (code, second["found"], second["run"]) == (0, True, first["run"])
    assert second["ledger"] == first["ledger"]
    assert second["effects"] == first["effects"]
