"""A warm executor: what an app needs is loaded once; each task gets a fork of it.

Flower starts a process for each message, and most of that process's life is imports. The command on
the PATH only passes the task on to a process that has them, through a socket in the site's own
folder, and waits. Each task still runs in a process of its own, which sees nothing of another's.
Where no warm executor is running, the command does the work itself.

The socket is open to the site's own user only: it says which task, and nothing that comes through
it is run. Where the executor ends, however it ends, the kernel ends its forks: what is tied to the
keeper of a site is tied through it; it isn't to the SuperExec that passed the task on.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from abfed.site.processes import end_with_parent

LARGEST_TASK = 65_536  # bytes of a command line
PARENT = "--parent-pid"
Work = Callable[[list[str]], int]


def serve(path: Path, work: dict[str, Work], modules: list[str]) -> None:
    """Wait for tasks until SIGTERM.

    Args:
        path: the socket.
        work: what may be asked for, by name.
        modules: loaded before the first task.
    """
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # forks share these pages
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        listener.bind(str(path))
        os.umask(before)
        listener.listen(16)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel clears up
        try:
            while True:
                line, _ = listener.accept()
                ours = os.getpid()
                if os.fork() == 0:
                    end_with_parent(ours)
                    listener.close()
                    _work(line, work)
                line.close()
        finally:
            path.unlink(missing_ok=True)


def _work(line: socket.socket, work: dict[str, Work]) -> None:
    """A fork's whole life; it ends here."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        task = _read(line)
        if task and task[0] in work:
            code = work[task[0]](_untied(task[1:]))
    except BaseException as error:  # noqa: BLE001 - a fork must never run on into the loop
        sys.stderr.write(f"executor: {type(error).__name__}\n")
    finally:
        try:
            line.sendall(bytes([code]))
        except OSError:
            code = 1  # nobody waits any longer
        sys.stderr.flush()
        os._exit(code)


def _untied(words: list[str]) -> list[str]:
    """A task's words without the process that Flower would have it end with.

    That is the SuperExec, which is started again when it is killed. A fork that ended with it would
    tell Flower that its task has failed, and so a run would fail whose every part goes on.
    """
    kept = list(words)
    while PARENT in kept:
        place = kept.index(PARENT)
        del kept[place : place + 2]
    return kept


def _read(line: socket.socket) -> list[str]:
    """The task's words, up to the end of the line."""
    line.settimeout(10)
    content = b""
    while not content.endswith(b"\n") and len(content) < LARGEST_TASK:
        piece = line.recv(LARGEST_TASK)
        if not piece:
            return []
        content += piece
    line.settimeout(None)
    words = json.loads(content)
    return [str(word) for word in words] if isinstance(words, list) else []


def main() -> None:
    """`python -m abfed.coordinator.warm SOCKET ROLE`."""
    from abfed.coordinator import executor  # noqa: PLC0415

    path, role = sys.argv[1:]
    loaded = {
        "clientapp": ["abfed.coordinator.executing", "abfed.coordinator.courier"],
        "serverapp": ["abfed.coordinator.executing", "abfed.coordinator.hosted"],
    }
    serve(Path(path), {role: getattr(executor, role)}, loaded[role])


if __name__ == "__main__":
    main()
