"""What every test gets: a home of its own, no display, no telemetry, no fights over cores.

The environment is set here, before anything is imported that reads it at import time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# One font cache for all workers, although each has a home of its own.
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker already has a core: more threads only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Shared machines are slow at times: a slow example is not a failure. Where a change is judged (CI)
# examples follow from the test alone: developers' runs look for new ones, and luck judges nobody.
settings.register_profile(
    "abfed", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("abfed")

collect_ignore = ["fuzz.py"]  # a program of its own, for whoever has atheris

FONTS = Path.home() / ".cache" / "abfed" / "matplotlib"
"""One list of fonts for all kernels, although each test worker has a home of its own."""


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for the whole session, so that tests and the person's own files never meet."""
    folder = tmp_path_factory.mktemp("home")
    FONTS.mkdir(parents=True, exist_ok=True)
    (folder / ".cache" / "abfed").mkdir(parents=True)
    (folder / ".cache" / "abfed" / "matplotlib").symlink_to(FONTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("FLWR_HOME", str(folder / ".flwr"))
        for name in [*os.environ]:
            if name.startswith(("ABFED_", "XDG_")):
                patch.delenv(name)
        yield folder
