"""The kernel that a report runs in: this Python, this package, a folder of its own.

1. It is described in memory: no kernel that somebody installed is looked up or trusted.
2. It talks over sockets in a private temporary folder (IPC); no port is opened.
3. It needs no home: its profile and its history lie in that folder, and go with it.
4. What is random in Python is fixed, so that a report is the same bytes each time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

import abfed

NAME = "python3"


@contextmanager
def report_kernel() -> Iterator[type[AsyncKernelManager]]:
    """A class of kernel managers for one execution; their folder is removed afterwards."""
    with TemporaryDirectory(prefix="abfed-") as folder:
        spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            env=_environment(Path(folder)),
            display_name="abfed",
            language="python",
        )

        class ReportKernel(AsyncKernelManager):
            """Starts the kernel above, whatever name it is asked for."""

            def __init__(self, **settings: object) -> None:
                file = str(Path(folder) / "kernel.json")
                super().__init__(**settings, transport="ipc", connection_file=file)
                self._kernel_spec = spec

        yield ReportKernel


def _environment(folder: Path) -> dict[str, str]:
    """Variables on top of this process's own."""
    source = str(Path(abfed.__file__).parents[1])
    return {
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder),
        "JUPYTER_NO_CONFIG": "1",
        "PYTHONPATH": source,  # the very package that asked, also where it isn't installed
        "PYTHONHASHSEED": "0",
        "PYTHONSAFEPATH": "1",  # the run's folder holds nothing to import
        "MPLBACKEND": "Agg",
    }
