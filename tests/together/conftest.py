"""Four silos that add one noise together, founded once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from abfed.silo.service import SiloService
from abfed.site.keys import SiteKeys
from tests.together.kin import SILOS, Kin, table


def tables() -> dict:
    """Silos of unlike size, whose recipients click unlike."""
    return {name: table(600 + 300 * place, place) for place, name in enumerate(SILOS)}


@pytest.fixture(scope="session")
def founded_kin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four silos that pin one another."""
    folder = tmp_path_factory.mktemp("kin")
    Kin.found(folder, tables()).close()
    return folder


@pytest.fixture
def kin(founded_kin: Path, tmp_path: Path) -> Iterator[Kin]:
    """A copy of them that a test may change."""
    shutil.copytree(founded_kin, tmp_path / "kin")
    folder = tmp_path / "kin"
    services = {name: SiloService(folder / name) for name in SILOS}
    made = Kin(folder, SiteKeys.open(folder / "hub"), tables(), services)
    yield made
    made.close()
