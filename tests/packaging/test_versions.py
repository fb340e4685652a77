"""pyproject.toml, requirements.lock and environment.yml tell one story, and tell no places."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK_TEXT = (ROOT / "requirements.lock").read_text()
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())

ENTRY = re.compile(
    r"(?m)^([A-Za-z0-9][\w.-]*)==(\S+) \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)
LOCK = {canonicalize_name(name): Version(version) for name, version, _ in ENTRY.findall(LOCK_TEXT)}
RUNTIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
DEV = [Requirement(text) for text in PROJECT["project"]["optional-dependencies"]["dev"]]
BUILD = [Requirement(text) for text in PROJECT["build-system"]["requires"]]

GPU_PARTS = re.compile(r"torch|triton|nvidia-|cuda-")
PLACE = re.compile(
    r"://|--(index-url|extra-index-url|find-links|trusted-host)\b"
    r"|\b[a-z0-9-]+\.(org|com|net|io|dev|example|local)\b|\blocalhost\b|(^|[\s'\"=@])/(opt|home|work|tmp|root)/",
    re.MULTILINE,
)


def environment_pins() -> list[str]:
    """The pip section of environment.yml, without abfed itself."""
    (section,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    return [line for line in section if not line.startswith("-e ")]


def test_the_lock_was_read_in_full():
    starts = re.findall(r"(?m)^[A-Za-z0-9]", LOCK_TEXT)
    assert len(starts) == len(LOCK) > 100


@pytest.mark.parametrize("needed", RUNTIME + DEV + BUILD, ids=lambda needed: needed.name)
def test_each_direct_dependency_is_locked_at_a_version_that_satisfies_pyproject(needed):
    if needed.name == "torch":
        assert str(needed.specifier).startswith("==")
        return
    assert LOCK[canonicalize_name(needed.name)] in needed.specifier


def test_torch_and_its_gpu_parts_are_not_in_the_lock():
    assert not [name for name in LOCK if GPU_PARTS.match(name)]


def test_what_is_pinned_exactly_is_flower_and_torch():
    exact = [needed.name for needed in RUNTIME if str(needed.specifier).startswith("==")]
    assert sorted(exact) == ["flwr", "torch"]


def test_the_environment_equals_the_lock():
    pins = [Requirement(line) for line in environment_pins()]
    assert [canonicalize_name(pin.name) for pin in pins] == sorted(
        (canonicalize_name(needed.name) for needed in RUNTIME), key=lambda name: name != "torch"
    )
    for pin in pins[1:]:
        assert str(pin.specifier) == f"=={LOCK[canonicalize_name(pin.name)]}"


def test_torch_is_the_same_everywhere():
    (pinned,) = [needed for needed in RUNTIME if needed.name == "torch"]
    assert environment_pins()[0] == str(pinned)
    for path in ("Makefile", "requirements.lock"):
        assert not re.search(r"torch==\d", (ROOT / path).read_text()), f"{path} pins torch too"


def test_the_environment_has_the_python_that_pyproject_asks_for():
    (python,) = [entry for entry in ENVIRONMENT["dependencies"] if str(entry).startswith("python=")]
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(
        python[7:]
    )


def test_what_is_installed_fits_together():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_version_is_the_package_s_own():
    import abfed

    assert PROJECT["project"]["version"] == abfed.__version__


@pytest.mark.parametrize(
    "path",
    [
        "pyproject.toml",
        "requirements.lock",
        "environment.yml",
        "Makefile",
        ".ci/run",
        ".pre-commit-config.yaml",
    ],
)
def test_no_file_tells_from_where_packages_come(path):
    found = PLACE.search((ROOT / path).read_text())
    assert found is None, f"{path} names a place: {found.group()!r}"
