"""A gate that answers one request in a child process, while something bad happens to the child.

`attempt` copies a house, forks, lets the caller do the bad thing in the child, and answers there.
Returns what became known outside before the child ended: nothing, a permit, or a release.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from abfed.protocol.plan import Plan
from abfed.silo.ledger import Ledger
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys
from tests.silo.asking import Asker, SetClock
from tests.silo.house import House, computed

WATCHED = tuple(
    f"/abfed/{name}.py"
    for name in (
        "silo/ledger",
        "silo/sealed_rows",
        "silo/entries",
        "silo/curves",
        "silo/gate",
        "silo/releases",
        "site/files",
        "site/audit",
    )
)
"""Where a charge is made durable and a release leaves: killed at each instruction of these."""


class Ended(NamedTuple):
    """How an attempt ended.

    Attributes:
        folder: the house that it happened to.
        permitted: a permit was handed out, so that computing may have begun.
        left: the release, where it left.
        killed: whether the child died of SIGKILL.
    """

    folder: Path
    permitted: bool
    left: bytes
    killed: bool


@contextmanager
def house_in(folder: Path) -> Iterator[House]:
    """The house that lies in a folder, opened as after a restart."""
    keys, clock = SiteKeys.open(folder / "keys"), SetClock()
    asker = Asker(SiteKeys.open(folder / "hub"), clock)
    with Ledger(folder / "ledger.db", keys, clock) as ledger:
        yield House(folder, keys, asker, ledger, AuditLog(folder / "audit.jsonl", keys, clock))


def attempt(house: Path, folder: Path, plan: Plan, misfortune: Callable[[], Any]) -> Ended:
    """Answer a plan's totals in a copy of a house, in a child to which something happens.

    Args:
        house: the house to copy.
        folder: where to.
        plan: what is asked.
        misfortune: called in the child before it answers.
    """
    shutil.copytree(house, folder)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _answer(folder, plan, misfortune, tell)
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return Ended(folder, said.startswith(b"P"), said[2:] if said[1:2] == b"R" else b"", killed)


def _answer(folder: Path, plan: Plan, misfortune: Callable[[], Any], tell: int) -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the child's own failure is expected
    misfortune()
    with house_in(folder) as house:
        permit = house.permit(house.asker.request(plan))
        os.write(tell, b"P")
        result = computed(permit)
        envelope = house.gate().release(permit, result)
        os.write(tell, b"R" + envelope)


def kill_at(instruction: int) -> Callable[[], None]:
    """Die of SIGKILL before the n-th instruction in the watched modules."""
    left = instruction

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return lambda: sys.settrace(trace)


def count_instructions(house: Path, folder: Path, plan: Plan) -> int:
    """How many instructions one answer takes in the watched modules."""
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        frame.f_trace_opcodes = True
        seen += event == "opcode"
        return trace

    shutil.copytree(house, folder)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with house_in(folder) as opened:
            opened.answer(plan)
    finally:
        sys.settrace(before)
    return seen


def no_file_beyond(size: int) -> Callable[[], None]:
    """No file can grow beyond so many bytes: as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
