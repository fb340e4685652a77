"""What runs in a report's kernel before its first cell, spawned or forked alike.

1. Python's own generators start from the report's seed at each cell, so that what is drawn is the
   same each time, and another thing in each report; what an import drew meanwhile doesn't matter.
2. What an import decided because it saw no IPython yet is decided again.
3. matplotlib is imported before the kernel goes to where it works: a `matplotlibrc` that lies there
   would change the page.
4. What is written in pictures is noted for the disclosure gate, which can't read pixels; so is what
   sections and cards of this package say.
5. The kernel confines itself. Only then does it listen. It has no debugger, which would take half
   of its start, and would open a port if it were asked.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from abfed.lab.disclosure.overhearing import watch
from abfed.lab.paper import vouched
from abfed.lab.reports.confinement import confine

START, CONNECTION, STATE = "start.json", "kernel.json", "state.json"
SOCKET, READY = "nursery.sock", b"ready\n"
"""Where a warm process is asked, and what it says first."""
DEBUGGER = "debugpy"
_PARENT_DEATH_SIGNAL = 1  # prctl
TORCH_SEED = 67_280_421_310_721
"""torch's own default: a fork whose parent imported torch starts where an import would have."""
_DETECTING = ("tqdm.auto", "tqdm.autonotebook")
"""Modules that look for IPython once, when they are imported: they are imported again."""


def run(folder: Path) -> None:
    """Be the kernel whose private folder this is, until it is ended."""
    start = json.loads((folder / START).read_bytes())
    os.environ.clear()
    os.environ.update(start["environment"])
    end_with_parent()
    _make_font_list(Path(os.environ["MPLCONFIGDIR"]))
    watch(folder)
    vouched.begin(folder)
    os.chdir(start["cwd"])
    tempfile.tempdir = None  # a parent's idea of it
    state = confine(folder, [*map(Path, start["read"]), Path(os.environ["MPLCONFIGDIR"])])
    (folder / STATE).write_text(json.dumps({"confinement": state}))
    _listen(folder, start["seed"])


def end_with_parent() -> None:
    """Ask Linux to end this process when the one that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _reseed(seed: int) -> None:
    """Start Python's and numpy's global generators; a fork would repeat its parent's."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that a notebook gets without asking


def _make_font_list(cache: Path) -> None:
    """Matplotlib's list of fonts is made before the kernel may no longer write it."""
    import matplotlib as mpl  # here, where no settings lie

    mpl.rcParams["backend"]
    if not any(cache.glob("fontlist-*.json")):
        import matplotlib.font_manager  # noqa: F401


def _listen(folder: Path, seed: int) -> None:
    """Answer as a Jupyter kernel."""
    sys.modules[DEBUGGER] = None  # type: ignore[assignment]  # Python's way to say: not there
    import zmq
    from ipykernel import iostream, ipkernel, kernelapp

    class Undebugged(ipkernel.IPythonKernel):
        """A kernel that waits for no event of a debugger."""

        async def poll_stopped_queue(self) -> None:
            """There is none."""

    class NoPort(iostream.IOPubThread):
        """ipykernel opens a port for what child processes print; a report has none."""

        def _setup_pipe_in(self) -> None:
            self._pipe_flag = False

    class Whole(kernelapp.IPKernelApp):
        """A kernel that loses no output: zmq drops what is more than a thousand messages ahead."""

        def init_iopub(self, context: Any) -> None:
            context.setsockopt(zmq.SNDHWM, 0)
            super().init_iopub(context)  # type: ignore[no-untyped-call]

    app: Any = Whole.instance(kernel_class=Undebugged)
    vars(kernelapp)["IOPubThread"] = NoPort
    app.initialize(["-f", str(folder / CONNECTION), "--HistoryManager.enabled=False",
                    "--IPKernelApp.quiet=True"])  # fmt: skip
    _see_ipython(app.shell)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(TORCH_SEED)
    seeds = itertools.count(seed)
    app.shell.events.register("pre_run_cell", lambda _: _reseed(next(seeds)))
    app.start()


def _see_ipython(shell: Any) -> None:
    """Undo what imports decided without IPython, and show what is ours as its cards and tables."""
    for name in _DETECTING:
        sys.modules.pop(name, None)
    if pandas := sys.modules.get("pandas"):
        pandas.set_option("display.max_columns", 20)  # its default where a notebook is seen
    from abfed.lab.views.ipython import register

    register(shell)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
