"""Answers one request in copies of a silo, and kills itself at a chosen point of each.

Run as `python killed.py FOLDER REQUEST`: for each point, FOLDER/silo is copied to FOLDER/<point>, a
child answers the request there and dies of SIGKILL at the point. The points are wrapped here; the
production code knows nothing of them. Prints each point with the signal that its child died of.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from abfed.silo import totals
from abfed.silo.ledger import Ledger
from abfed.silo.releases import Releases
from abfed.silo.service import SiloService
from abfed.site.audit import AuditLog
from tests.silo.asking import SetClock

POINTS: dict[str, tuple[Any, str, bool]] = {
    "before-reserve": (Ledger, "reserve", False),
    "within-a-transaction": (Ledger, "_append", True),
    "after-reserve": (Ledger, "reserve", True),
    "before-begin": (Ledger, "begin", False),
    "after-begin": (Ledger, "begin", True),
    "before-computing": (totals, "compute_totals", False),
    "after-computing": (totals, "compute_totals", True),
    "after-logging": (AuditLog, "append", True),
    "before-keep": (Releases, "keep", False),
    "amid-keep": (Path, "replace", False),
    "after-keep": (Releases, "keep", True),
    "before-settle": (Ledger, "settle", False),
    "after-settle": (Ledger, "settle", True),
}
"""What is wrapped, and whether it dies after the call or before it."""


def dying(call: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """The call, and death before or after it."""

    def wrapped(*args: Any, **named: Any) -> Any:
        if after:
            call(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return wrapped


def answer_and_die(folder: Path, point: str, request: bytes) -> None:
    """In a child: open the silo, wrap the point, answer."""
    service = SiloService(folder, SetClock())
    owner, name, after = POINTS[point]
    setattr(owner, name, dying(getattr(owner, name), after=after))
    service.answer(request)


def warm(folder: Path, request: bytes) -> None:
    """Answer once without dying, so that each child needn't load and count everything again."""
    shutil.copytree(folder / "silo", folder / "warm")
    service = SiloService(folder / "warm", SetClock())
    service.answer(request)
    service.close()


def main(folder: Path, request: bytes) -> None:
    """One child for each point."""
    warm(folder, request)
    for point in POINTS:
        shutil.copytree(folder / "silo", folder / point)
        child = os.fork()
        if child == 0:
            try:
                answer_and_die(folder / point, point, request)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        print(point, os.WTERMSIG(status) if os.WIFSIGNALED(status) else "alive", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes())
