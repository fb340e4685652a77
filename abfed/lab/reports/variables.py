"""Variables of a kernel, and of what kernels are forked from: a short list, and ours."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

import abfed

PASSED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "COVERAGE_PROCESS_START")
"""Variables that a kernel inherits."""


def environment(folder: Path) -> dict[str, str]:
    """All variables of a kernel with this private folder."""
    source = str(Path(abfed.__file__).parents[1])
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    return passed | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder),
        "JUPYTER_NO_CONFIG": "1",
        "PYTHONPATH": source,  # the very package that asked, also where it isn't installed
        "PYTHONHASHSEED": "0",
        "PYTHONSAFEPATH": "1",  # the run's folder holds nothing to import
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as any Jupyter kernel has it
        "MPLCONFIGDIR": str(font_cache()),
        "MATPLOTLIBRC": str(_settings_of_matplotlib()),
        # One thread: sums come out the same whatever the machine's number of cores.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def font_cache() -> Path:
    """Where matplotlib keeps its list of fonts, which takes seconds to make.

    It's a folder of ours: a user's own one holds settings and styles too, which would change pages.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "abfed" / "matplotlib"


@functools.cache
def _settings_of_matplotlib() -> Path:
    """Those that it ships, found without importing it."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        message = "matplotlib isn't installed as a package of files"
        raise RuntimeError(message)
    return Path(spec.origin).parent / "mpl-data" / "matplotlibrc"
