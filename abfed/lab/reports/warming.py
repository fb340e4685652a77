"""The warm process that kernels and workers are forked from, seen from who starts it.

It takes seconds of imports to be made. So a batch starts it first, and reads and checks its file
meanwhile: this module imports little. Who asks it for kernels is in `forking`, what it does in
`nursery`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from abfed.lab.reports.kernel import READY, SOCKET
from abfed.lab.reports.passing import passing_folder
from abfed.lab.reports.variables import environment
from abfed.protocol.errors import ReportFailed

CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"
"""Apple's frameworks can't be used in a child of fork."""
_PATIENCE = 10.0  # seconds for its end


class Warming:
    """A warm process that is being made, or was.

    Args:
        process: it.
        at: the socket on which it is asked, once it is made.
    """

    def __init__(self, process: subprocess.Popen[bytes], at: Path) -> None:
        self._process, self._at = process, at
        self._made = False

    def ready(self) -> Path:
        """The socket on which it is asked; waits until it is made.

        Raises:
            ReportFailed: it could not be made, for instance because an import started a thread.
        """
        process = self._process
        if not self._made:
            self._made = process.stdout is not None and process.stdout.readline() == READY
        if not self._made:
            said = process.stderr.read().decode(errors="replace") if process.stderr else ""
            raise ReportFailed(
                "no warm process for kernels could be made",
                why=said.strip().rpartition("\n")[2],
                do="use --kernels spawn",
            )
        return self._at

    def end(self) -> None:
        """End it, and all that was forked from it; a second time changes nothing.

        It takes the end of its input as its own, but hears of it only once it is made.
        """
        process = self._process
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if not self._made:
            process.kill()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()  # its children see that and end too
            process.wait()


@contextmanager
def warming(*, imports: Sequence[str] = ()) -> Iterator[Warming]:
    """Start a warm process; it and all that was forked from it end with this context.

    Args:
        imports: modules to have imported besides those that reports need.
    """
    with passing_folder() as folder:
        process = subprocess.Popen(  # noqa: S603 - this Python, this package
            [sys.executable, "-m", "abfed.lab.reports.nursery", str(folder), *imports],
            env=environment(folder) | {"HOME": str(Path.home())},
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        made = Warming(process, folder / SOCKET)
        try:
            yield made
        finally:
            made.end()


@contextmanager
def warm(*, imports: Sequence[str] = ()) -> Iterator[Path]:
    """A warm process that is made: the socket on which it is asked. See `warming`."""
    with warming(imports=imports) as made:
        yield made.ready()
