"""The warm process that kernels and workers are forked from (POSIX).

1. It imports what reports need, once, and does nothing else: it starts no thread, opens no
   connection, reads no run and knows no key. With more than one thread it refuses to fork.
2. It answers on a socket in a private folder: fork a kernel, fork a worker, tell whether a child
   lives, pass a signal on. It signals its own children only, so a number that was given to another
   process meanwhile is never hit.
3. When the process that started it ends, however it ends, it ends its children and itself, and
   removes its folder, in which theirs lie.
4. A child closes all that was open, takes a session of its own, and then is what a new Python would
   have become (`kernel.run`, `worker.serve`).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from abfed.lab.reports.kernel import DEBUGGER, READY, SOCKET
from abfed.lab.reports.passing import remove

IMPORTS = (
    "numpy", "pandas", "matplotlib.figure", "matplotlib.font_manager",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "IPython.core.interactiveshell", "IPython.core.completerlib", "IPython.core.debugger",
    "IPython.core.logger", "IPython.core.oinspect", "IPython.extensions.storemagic",
    "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.debugger", "faulthandler",
    "matplotlib.style.core", "pandas.core.methods.to_dict", "pyarrow.pandas_compat",
    "pyarrow.vendored.version", "tornado.platform.asyncio", "zmq.utils.garbage",
    "abfed.lab.sections.readout", "abfed.lab.sections.soundness", "abfed.lab.runs",
    "abfed.lab.views.frames", "abfed.lab.views.cards", "abfed.lab.views.ipython",
    "abfed.lab.reports.kernel", "abfed.lab.reports.worker", "abfed.lab.reports.engine",
    "abfed.lab.reports.kernels", "abfed.lab.disclosure.gate", "abfed.lab.reports.report",
    "abfed.lab.reports.subjects", "abfed.lab.reports.exporting", "abfed.lab.paper.exporters",
    "abfed.lab.reports.forking",
    "mistune",
)  # fmt: skip
_LONGEST = 65_536  # bytes of a request; a job is a few hundred
_HIGHEST_FILE = 4096


class Nursery:
    """Forks on request.

    Args:
        folder: private; the socket lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self._children: dict[int, int | None] = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / SOCKET))
        self._socket.listen(64)

    def serve(self) -> None:
        """Answer until whoever started this process closes its end of standard input."""
        while True:
            ready, _, _ = select.select([self._socket, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = self._socket.accept()
            # Who asked may be gone before the answer, or in the middle of its question.
            with connection, suppress(OSError, ValueError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        line = _line(connection)
        asked: dict[str, Any] = json.loads(line) if line else {}
        match asked:
            case {"do": "kernel", "folder": str(folder)}:
                pid = self._fork()
                if pid == 0:
                    _be_kernel(Path(folder))
                reply: dict[str, Any] = {"pid": pid}
            case {"do": "worker", "with": dict(settings)}:
                pid = self._fork(connection)
                if pid == 0:
                    _be_worker(connection, settings)
                return  # the connection is the worker's now
            case {"do": "poll", "pid": int(pid)}:
                reply = {"code": self._poll(pid)}
            case {"do": "signal", "pid": int(pid), "number": int(number)}:
                self._signal(pid, number)
                reply = {}
            case _:
                reply = {"error": "unknown request"}
        connection.sendall(json.dumps(reply).encode() + b"\n")

    def _fork(self, kept: socket.socket | None = None) -> int:
        """A child in a session of its own, with nothing open but what it keeps."""
        pid = os.fork()
        if pid:
            self._children[pid] = None
            return pid
        signal.set_wakeup_fd(-1)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        keep = kept.fileno() if kept else _HIGHEST_FILE
        os.closerange(3, keep)
        os.closerange(keep + 1, _HIGHEST_FILE)
        return 0

    def _poll(self, pid: int) -> int | None:
        """A child's exit code; None while it lives."""
        if pid not in self._children:
            return 1
        if self._children[pid] is None:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._children[pid] = os.waitstatus_to_exitcode(status)
                _signal_group(pid, signal.SIGKILL)  # what it started itself
        return self._children[pid]

    def _signal(self, pid: int, number: int) -> None:
        if self._poll(pid) is None and pid in self._children:
            _signal_group(pid, number)

    def end_all(self) -> None:
        """End every child and what it started; nobody is heard any more."""
        self._socket.close()
        for pid in self._children:
            self._signal(pid, signal.SIGKILL)
        for pid, code in self._children.items():
            if code is None:
                os.waitpid(pid, 0)


def _line(connection: socket.socket) -> bytes:
    """The first line, and not a byte more: what follows is for the worker that takes over."""
    line = b""
    while len(line) < _LONGEST and (byte := connection.recv(1)):
        if byte == b"\n":
            break
        line += byte
    return line


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # it has just ended, or isn't in its own session yet: then it will see our end


def _be_kernel(folder: Path) -> None:
    from abfed.lab.reports.kernel import run

    try:
        run(folder)
    finally:
        os._exit(1)


def _be_worker(connection: socket.socket, settings: dict[str, Any]) -> None:
    from abfed.lab.reports.kernel import end_with_parent
    from abfed.lab.reports.worker import serve

    code = 1
    try:
        end_with_parent()
        stream = connection.makefile("rwb")
        serve(cast("BinaryIO", stream), cast("BinaryIO", stream), settings)
        code = 0
    finally:
        os._exit(code)


HARMLESS = "jemalloc_bg_thd"
"""Arrow's allocator tidies up in a thread of its own, which it stops and restarts around a fork."""


def threads() -> int:
    """How many threads this process has that a fork would lose."""
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        names = [(task / "comm").read_text().strip() for task in tasks.iterdir()]
        return sum(name != HARMLESS for name in names)
    import threading

    return threading.active_count()


def _rehearse() -> None:
    """Do once what each worker would do first: read the templates, and this package's own code."""
    from abfed.lab.paper.exporters import body_of
    from abfed.lab.paper.jupyter import nbformat
    from abfed.lab.reports.manifest import code_digest, versions

    written = nbformat().v4
    body_of(written.new_notebook(cells=[written.new_markdown_cell("nothing")]))
    code_digest()
    versions()


def main(folder: Path, more: list[str]) -> int:
    """Be the nursery."""
    from abfed.lab.paper.jupyter import nbclient

    gc.disable()  # imports leave next to nothing to collect, and looking for it takes long
    nbclient()
    sys.modules[DEBUGGER] = None  # type: ignore[assignment]  # as in each kernel
    for name in (*IMPORTS, *more):
        importlib.import_module(name)
    _rehearse()
    if threads() > 1:
        sys.stderr.write("an import started a thread: kernels can't be forked safely\n")
        return 2
    gc.freeze()  # what lives now lives on: children don't copy pages to find that out
    gc.enable()
    nursery = Nursery(folder)
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    try:
        nursery.serve()
    finally:
        nursery.end_all()
        with suppress(OSError):
            remove(folder)  # whoever made it may be gone
    return 0


if __name__ == "__main__":
    # To take apart all that was imported takes a fifth of a second, which whoever ends it waits for
    os._exit(main(Path(sys.argv[1]), sys.argv[2:]))
