"""Malformed plans, mappings and exports: each its own clear error, and every file as it was.

The tables stand beside the parts that read them; here they go in by the command line, over brands
that hold data.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.cli.main import main
from tests.examples import plan_values
from tests.protocol.test_plan import FILES, MALFORMED
from tests.silo.bad_inputs import BAD, SECRETS
from tests.whole.story import contents, small_plan

Capture = pytest.CaptureFixture[str]


def _refused(capsys: Capture, *arguments: str, code: int = 2) -> dict[str, Any]:
    """What a command says that must be refused, its paths left out."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code, arguments
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["what"]
    assert not any(secret in str(said) for secret in SECRETS)
    return said


def _message(said: dict[str, Any]) -> str:
    return re.sub(r"/\S+/", "", f"{said['what']} {said['why']}")


def test_a_bad_plan_changes_no_byte(folder: Path, capsys: Capture) -> None:
    before = contents(folder / "workspace")
    options = ["-w", str(folder / "workspace")]
    plan, said = folder / "bad.yaml", []
    for _, changes, _ in MALFORMED:
        plan.write_text(yaml.safe_dump(plan_values(**changes)))
        said.append(_message(_refused(capsys, "run", str(plan), *options)))
    for data, _ in FILES.values():
        plan.write_bytes(data)
        said.append(_message(_refused(capsys, "run", str(plan), *options)))
    assert len(said) >= 65
    assert len(set(said)) >= 60  # a few are one fault in two places
    assert contents(folder / "workspace") == before


def test_a_bad_mapping_or_export_changes_no_byte_but_of_the_log(
    folder: Path, capsys: Capture
) -> None:
    before = contents(folder / "workspace")
    options = ["-w", str(folder / "workspace")]
    export, mapping, said = folder / "export.csv", folder / "mapping.yaml", []
    for bad in BAD:
        mapping.write_text(bad.mapping)
        export.write_bytes(bad.export)
        ingest = ["silo", "ingest", "corvid", str(export), "-m", str(mapping)]
        told = _refused(capsys, *ingest, *options)
        assert told["where"], bad.name
        said.append(_message(told))
    assert len(said) >= 70
    assert len(set(said)) >= 65
    after = contents(folder / "workspace")
    log = "silos/corvid/audit.jsonl"
    assert {name for name in after if after[name] != before.get(name)} == {log}
    assert after[log].startswith(before[log])
    assert len(after) == len(before)


def test_what_the_silos_do_not_hold_is_refused_and_only_logged(
    folder: Path, capsys: Capture
) -> None:
    """An unknown arm, experiment, column or purpose; a brand that is not here."""
    before = contents(folder / "workspace")
    options = ["-w", str(folder / "workspace")]
    alone: dict[str, Any] = {
        "model": None,
        "training": None,
        "privacy": {"epsilon": 2.0, "delta": 1e-6, "split": {"statistics": 2.0}},
    }
    arms = [{"name": "control", "share": 0.5, "control": True}, {"name": "cool", "share": 0.5}]
    visited = [{"name": "visited", "kind": "proportion", "column": "visited"}]
    asked: dict[str, tuple[dict[str, Any], int]] = {
        "arm": ({"arms": arms}, 3),
        "experiment": ({"experiment": "autumn-2026"}, 3),
        "column": ({"metrics": visited, "primary": "visited", "guardrails": []}, 3),
        "purpose": ({"purpose": "profiling"}, 3),
        "epsilon": ({"privacy": {"epsilon": 9.0, "split": {"statistics": 9.0}}}, 3),
        "one silo missing": ({"silos": ["aurora", "dawn"]}, 2),
    }
    said = set()
    for name, (changes, code) in asked.items():
        plan = small_plan(folder / "asked.yaml", **(alone | changes))
        told = _refused(capsys, "run", str(plan), *options, code=code)
        assert told["do"], name
        said.add(_message(told))
    assert len(said) == len(asked)
    after = contents(folder / "workspace")
    changed = {name for name in after if after[name] != before.get(name)}
    assert {Path(name).name for name in changed} <= {"audit.jsonl", "session-coordinator.json"}
