"""Flower's SuperExec, which bears with a SuperNode or SuperLink that hangs for a while.

Flower's own stops waiting for an answer after 30 seconds and asks again. Where what it asked was
only paused (SIGSTOP, a machine that sleeps or is overloaded), both questions are answered once it
goes on: the first gives a task to somebody who has stopped listening. Nobody works on that task,
and its silo is asked again only when Flower gives the task up, half a minute later or more. Here
an answer is waited for, for less time than after which a silo is asked once more.

This stands on half private parts of Flower; tests/coordinator/test_supernode.py names them.
"""

from __future__ import annotations

import sys
from typing import Any

from flwr.supercore.runtime import RuntimeHttpClient

ANSWER_WITHIN = 150.0
"""Seconds: fewer than a plan's `silent_seconds`, which are 180 if nobody sets them."""


class PatientRuntime(RuntimeHttpClient):
    """Flower's own, but for the time in which an answer must be there."""

    def __init__(self, base_url: str, **rest: Any) -> None:
        super().__init__(base_url, **({"timeout": ANSWER_WITHIN} | rest))


def main() -> None:
    """Run the SuperExec."""
    from flwr.supercore.cli import flower_superexec  # noqa: PLC0415 - a courier needs none of it
    from flwr.supercore.superexec.run_superexec import run_superexec  # noqa: PLC0415 - nor this

    vars(sys.modules[run_superexec.__module__])["RuntimeHttpClient"] = PatientRuntime
    flower_superexec()
