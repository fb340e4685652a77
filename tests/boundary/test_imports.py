"""The wall between the sides, as imports: what the contracts say and what a fresh process loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COORDINATOR = sorted(
    f"abfed.coordinator.{path.stem}"
    for path in (ROOT / "abfed" / "coordinator").glob("*.py")
    if path.stem != "__init__"
)
SIDES = ("abfed.silo", "abfed.coordinator", "abfed.lab")
OPENS_ROWS = ("abfed.silo", "duckdb", "pyarrow", "opacus")
HEAVY = ("torch", "pandas", "opacus")

LONGEST = 399  # lines of a file: under 400
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers"}
FOLDERS = ("abfed", "tests", "tools", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def loaded_by(module: str, folder: Path) -> set[str]:
    """The names in sys.modules after a new interpreter, in an empty folder, imported `module`."""
    script = f"import json, sys, {module}; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def forbidden(loaded: set[str], names: tuple[str, ...]) -> list[str]:
    """The loaded modules that are one of `names` or lie inside one."""
    return sorted(
        module
        for module in loaded
        if module.startswith(tuple(f"{name}." for name in names)) or module in names
    )


def test_the_contracts_hold():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_coordinator_has_its_entry_and_its_courier():
    assert {"abfed.coordinator.app", "abfed.coordinator.courier"} <= set(COORDINATOR)


@pytest.mark.privacy
@pytest.mark.parametrize("module", COORDINATOR)
def test_no_module_of_the_coordinator_loads_a_silo_or_a_tool_that_opens_rows(module, tmp_path):
    assert forbidden(loaded_by(module, tmp_path), OPENS_ROWS) == []


@pytest.mark.privacy
def test_the_courier_is_light(tmp_path):
    loaded = loaded_by("abfed.coordinator.courier", tmp_path)
    assert forbidden(loaded, (*HEAVY, "abfed.silo", "abfed.learning")) == []


def test_the_package_alone_loads_neither_side(tmp_path):
    assert forbidden(loaded_by("abfed", tmp_path), (*SIDES, *HEAVY, "flwr")) == []


def test_reading_a_run_loads_nothing_that_carries_one_out(tmp_path):
    loaded = loaded_by("abfed.lab.sections.readout, abfed.lab.runs", tmp_path)
    assert forbidden(loaded, ("flwr", "grpc", "httpx", "abfed.coordinator.rounds")) == []


def test_the_silo_loads_nothing_of_flower(tmp_path):
    assert (
        forbidden(
            loaded_by("abfed.silo.service", tmp_path), ("flwr", "abfed.coordinator", "abfed.lab")
        )
        == []
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{path.relative_to(ROOT)} has {lines} lines: split it by what it does"


def test_every_module_has_a_name_that_says_something():
    package = ROOT / "abfed"
    shapeless = [
        path for path in package.rglob("*") if path.stem in SHAPELESS and path.suffix in {".py", ""}
    ]
    assert shapeless == []


def test_the_files_were_found():
    assert len(FILES) > 50
