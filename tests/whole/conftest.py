"""What the stories stand on: brands in their silos, founded once for all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.whole.story import found_brands


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `workspace`, where somebody is signed in, and the brands' `exports`."""
    folder = tmp_path_factory.mktemp("founded")
    found_brands(folder / "workspace", folder / "exports")
    return folder


@pytest.fixture
def folder(founded: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(founded, tmp_path / "copy")
    return tmp_path / "copy"
