"""Acts that are killed: each before its nth act on the disk, by SIGKILL, in a child of the test.

What lies on the disk changes by such acts only, so that killing before each of them leaves every
state that a kill between any two instructions can leave.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

ON_DISK = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link")


def killed_at(number: int, act: Callable[[], Any]) -> bool:
    """Do something in a child that dies before its `number`th act on the disk; whether it died."""
    status, _ = _in_a_child(act, number)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "it failed by itself"
    return False


def acts_of(act: Callable[[], Any]) -> int:
    """How many acts on the disk it takes; done in a child."""
    status, acts = _in_a_child(act, 0)
    assert status == 0, "it failed by itself"
    return acts


def _in_a_child(act: Callable[[], Any], number: int) -> tuple[int, int]:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        acts, code = 0, 1

        def hook(event: str, arguments: Any) -> None:
            nonlocal acts
            if event in ON_DISK and not _only_reads(event, arguments):
                acts += 1
                if acts == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            act()
            os.write(tell, str(acts).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, int(said or b"0")


def _only_reads(event: str, arguments: Any) -> bool:
    return event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
