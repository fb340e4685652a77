"""What a keeper has started ends with it, however it ends: also what its programs had started.

The kernel kills a program when its keeper dies, and does nothing about that program's own children:
of a killed nginx the workers lived on and held the port. So a small process stands by, told the
group of each program through a pipe. The pipe is closed when the keeper dies, even by a SIGKILL;
then the groups that are still known are killed, and the process ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

_STAND_BY = """import os, signal, sys
known = set()
for line in sys.stdin:
    word, group = line.split()
    (known.add if word == "begun" else known.discard)(int(group))
for group in known:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


def end_group(group: int) -> None:
    """End what is left of a program and of what it started: it leads a group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


class Orphans:
    """Stands by for the groups of a keeper's programs; begins at the first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()

    def begun(self, group: int) -> None:
        """A program leads this group from now on."""
        self._groups.add(group)
        self._tell(f"begun {group}")

    def ended(self, group: int) -> None:
        """A program has ended: what is left of its group is ended too."""
        end_group(group)
        self._groups.discard(group)
        self._tell(f"ended {group}")

    def close(self) -> None:
        """The keeper ends in order; nobody has to stand by."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _tell(self, line: str) -> None:
        told = [line]
        if self._process is None or self._process.poll() is not None:
            self._process = _stand_by()
            told = [f"begun {group}" for group in sorted(self._groups)]
        pipe = self._process.stdin
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # it was killed: the next word finds out
                pipe.write("".join(f"{one}\n" for one in told).encode())
                pipe.flush()


def _stand_by() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-IS", "-c", _STAND_BY],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C ends the keeper, and this after it
    )
