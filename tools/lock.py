"""Write requirements.lock and environment.yml from pyproject.toml.

`make lock` runs this in the project's own environment. It is `pip-compile --generate-hashes`,
and four things more:

1. A file's hash is taken from the index's listing where it is given there (as pip itself does),
   instead of downloading each wheel of each platform to hash it.
2. torch and what only its GPU builds bring are left out. Which build fits depends on the machine;
   its version is pinned in one place, pyproject.toml.
3. Nothing tells from where the packages came: no host, no index address, no local path.
4. environment.yml, for those who use conda, gets the direct dependencies at the lock's versions.

Pins that stand in the lock are kept while they satisfy pyproject.toml. Arguments go to
pip-compile: `--upgrade` renews everything, `--upgrade-package=NAME` one package.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pip._internal.models.link import Link
from piptools.repositories.pypi import PyPIRepository
from piptools.scripts.compile import cli as pip_compile

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / "environment.yml"
PIN = re.compile(r"(?m)^([A-Za-z0-9][\w.-]*)==(\S+)")
LEFT_OUT = re.compile(r"(torch|triton|pytorch-triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")

LOCK_HEADER = """\
# Made by `make lock` from pyproject.toml, for Python 3.11; do not edit.
# torch is not here: pyproject.toml pins its version, the machine decides its build.
# Install with `pip install --no-deps --require-hashes -r requirements.lock` after torch.
# Resolved on {day}.

"""
ENVIRONMENT_HEADER = """\
# Made by `make lock`; do not edit. `conda env create -f environment.yml` makes an environment
# with abfed and its direct dependencies at the versions of requirements.lock, not hash-checked.
name: abfed
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""
OPTIONS = [
    "--quiet",
    "--generate-hashes",
    "--extra=dev",
    "--extra=hsm",  # not ray: see decision 34
    "--strip-extras",
    "--allow-unsafe",  # setuptools and pip are locked too
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
    "--no-emit-options",
]

_hash_by_download = PyPIRepository._get_file_hash


def _hash_of(repository: PyPIRepository, link: Link) -> str:
    """Return a file's SHA-256 as its index states it, or download the file to compute it."""
    if link.hash_name == "sha256":
        return f"sha256:{link.hash}"
    return _hash_by_download(repository, link)


def _without_torch(text: str) -> str:
    """Drop the entries of torch and of its GPU parts; an entry starts at the line's beginning."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)
    return "".join(entry for entry in entries if not LEFT_OUT.match(entry))


def _resolve(arguments: list[str]) -> str:
    """Run pip-compile on a copy of the lock and return what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / LOCK.name
        if LOCK.exists():
            draft.write_text(LOCK.read_text())
        pip_compile.main(
            [*OPTIONS, *arguments, f"--output-file={draft}", "pyproject.toml"],
            standalone_mode=False,
        )
        return _without_torch(draft.read_text())


def _environment(lock: str) -> str:
    """Return environment.yml: torch first, then the direct dependencies, then abfed itself."""
    pins = {canonicalize_name(name): version for name, version in PIN.findall(lock)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [Requirement(text) for text in project["dependencies"]]
    torch = [str(needed) for needed in direct if needed.name == "torch"]
    locked = [needed.name for needed in direct if needed.name != "torch"]
    pinned = [f"{name}=={pins[canonicalize_name(name)]}" for name in locked]
    return ENVIRONMENT_HEADER + "".join(f"      - {line}\n" for line in [*torch, *pinned, "-e ."])


def main() -> None:
    """Resolve, filter and write."""
    PyPIRepository._get_file_hash = _hash_of  # type: ignore[method-assign, assignment]
    os.chdir(ROOT)
    day = datetime.now(UTC).date()
    lock = LOCK_HEADER.format(day=day) + _resolve(sys.argv[1:]).lstrip()
    environment = _environment(lock)
    LOCK.write_text(lock)
    ENVIRONMENT.write_text(environment)
    print(f"requirements.lock: {len(PIN.findall(lock))} packages; environment.yml renewed")


if __name__ == "__main__":
    main()
