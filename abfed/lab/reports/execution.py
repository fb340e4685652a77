"""Executing a notebook: cell after cell in a fresh kernel, and an end that leaves nothing behind.

1. A failure is a value, not an exception: it carries the cell and the reason, and the notebook as
   far as it came stands beside it.
2. A cell has a time limit, and so has the whole notebook; what it shows has a bound (`showing`).
   A kernel that dies is noticed at once.
3. Whatever happens (done, failed, too slow, dead, interrupted), the kernel and all it started are
   ended and their folder is removed before this returns.

Papermill calls this through its engine (`engine`), and is told of each cell.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.disclosure.written import Told
from abfed.lab.paper.jupyter import nbclient
from abfed.lab.paper.vouched import Vouched
from abfed.lab.reports.exporting import INJECTED
from abfed.lab.reports.kernel import STATE

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds."""

    start: float = 60.0
    cell: float = 300.0
    report: float = 1800.0


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a notebook didn't come to its end.

    Attributes:
        cell: which cell, counted from one in the notebook as it was written; 0 before the first.
        kind: `error`, `time-out`, `too-much`, `garbled`, `dead` or `interrupted`.
        reason: what was raised or happened, in a line.
    """

    cell: int
    kind: str
    reason: str

    def __str__(self) -> str:
        """For banners and messages."""
        at = f"cell {self.cell} of the notebook" if self.cell else "the notebook’s kernel"
        return {
            "error": f"{at} failed",
            "time-out": f"{at} took too long",
            "too-much": f"{at} showed too much",
            "garbled": f"{at} sent what is no output",
            "dead": f"the kernel died in cell {self.cell}" if self.cell else "no kernel started",
            "interrupted": f"interrupted in cell {self.cell}",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Executed:
    """A notebook with its outputs, and why it stopped where it didn't come to its end.

    Attributes:
        document: the notebook, as far as it came.
        failure: why it stopped; None where it came to its end.
        confinement: who confined the kernel (see `confinement`); empty where none started.
        told: the pictures that the kernel drew, and what is written in them.
        made: the sections and cards of this package that it showed.
    """

    document: NotebookNode
    failure: Failure | None
    confinement: str = ""
    told: Told = field(default_factory=Told)
    made: Vouched = field(default_factory=Vouched)


Tell = Callable[[int, int], None]
"""Told of each cell that is done: how many, of how many."""


async def carried_out(
    progress: Any, manager: AsyncKernelManager, limits: Limits, tell: Tell | None
) -> Executed:
    """Every cell in order, until one fails.

    Args:
        progress: Papermill's own view of the notebook, told of each cell.
        manager: of a kernel that isn't started yet.
        limits: how long things may take.
        tell: told of each cell that is done.
    """
    document: NotebookNode = progress.nb
    exceptions = nbclient().exceptions
    failure: Failure | None = None
    stop, way = _Stop(), _Way(tell or _nobody)
    with _signals() as interrupted:
        try:
            async with asyncio.timeout(limits.report) as whole:
                await manager.start_kernel()
                await _cells(progress, manager, limits, stop, way)
        except exceptions.CellTimeoutError as cause:
            lost = _LOST in str(cause)
            failure = _too_large(way.at) if lost else _slow(way.at, limits.cell)
        except exceptions.CellExecutionError as cause:
            progress.cell_exception(document.cells[way.at - 1], way.at - 1)
            failure = Failure(way.at, "error", f"{cause.ename}: {cause.evalue}")
        except (exceptions.DeadKernelError, _NeverReady, TimeoutError) as cause:
            late = whole.expired() or isinstance(cause, TimeoutError)
            failure = _late(way.at, limits) if late else Failure(way.at, "dead", str(cause))
        except _Garbled as cause:
            said = f"its kernel was taken over, or is broken ({cause})"
            failure = Failure(way.at, "garbled", said)
        except asyncio.CancelledError:
            failure = Failure(way.at, "interrupted", "by a signal")
        finally:
            await _ended(manager)
    if stop.asked or interrupted:  # whatever nbclient made of its end
        asked = stop.asked
        failure = _too_much(way.at) if asked else Failure(way.at, "interrupted", "by a signal")
    return Executed(document, failure and _as_written(failure, document), way.confinement)


@dataclass
class _Way:
    """How far a notebook came: its cell, and who confines its kernel."""

    told: Tell
    at: int = 0
    confinement: str = ""


async def _cells(
    progress: Any, manager: AsyncKernelManager, limits: Limits, stop: _Stop, way: _Way
) -> None:
    """Every cell in order, in a kernel that has started."""
    client = manager.client(context=manager.context)  # with what is set for it
    # Nobody answers: a cell that asks fails at once. Its process is looked after: no heartbeat.
    client.start_channels(stdin=False, hb=False)
    try:
        await _ready(manager, client, limits.start)
        way.confinement = _confinement(manager)
        runner = _runner(progress, manager, client, limits, stop)
        for index, cell in enumerate(progress.nb.cells):
            way.at = index + 1
            progress.cell_start(cell, index)
            await _executed(runner, cell, index)
            progress.cell_complete(cell, index)
            way.told(way.at, len(progress.nb.cells))
    finally:
        await _nobody_listens()
        client.stop_channels()


def _confinement(manager: AsyncKernelManager) -> str:
    """Who confined a kernel that listens: it says so before it does.

    Not after a cell was executed, which could say what it likes: this stands in the manifest.
    """
    state = Path(manager.connection_file).with_name(STATE)
    return str(json.loads(state.read_bytes())["confinement"])


class _Garbled(Exception):
    """The kernel sent what nbclient can't make anything of."""


async def _executed(runner: Any, cell: NotebookNode, index: int) -> None:
    """Execute a cell.

    Raises:
        _Garbled: whatever nbclient, which trusts kernels, tripped over in what this one sent.
    """
    known = nbclient().exceptions
    try:
        await runner.async_execute_cell(cell, index)
    except (known.CellControlSignal, known.DeadKernelError, TimeoutError):
        raise
    except Exception as cause:
        raise _Garbled(type(cause).__name__) from cause


UNHEARD = 30  # seconds between a cell's end and that of its outputs, of which few are left then
_LOST = "Timeout waiting for IOPub output"  # as nbclient says it: the cell is done, its end unseen


def _too_large(at: int) -> Failure:
    """A message that isn't taken ends the connection, and with it what comes right after."""
    from abfed.lab.reports.kernels import LARGEST

    return Failure(at, "too-much", f"a single output of more than {LARGEST >> 20} MiB")


def _slow(at: int, seconds: float) -> Failure:
    return Failure(at, "time-out", f"more than {seconds:g} seconds")


def _late(at: int, limits: Limits) -> Failure:
    """The time for all cells is over; nbclient calls a cell that was cancelled a dead kernel."""
    return Failure(at, "time-out", f"more than {limits.report:g} seconds in all")


def _too_much(at: int) -> Failure:
    """What a page could never carry."""
    from abfed.lab.reports.showing import MOST

    return Failure(at, "too-much", f"more than {MOST >> 20} million characters in all")


def _nobody(done: int, of: int) -> None:
    """Is told of cells that are done."""


class _Stop:
    """Cancels the task that executes a notebook, once, from a callback."""

    def __init__(self) -> None:
        self.asked = False
        self._task = asyncio.current_task()

    def __call__(self) -> None:
        """Ask for it."""
        self.asked = True
        if self._task is not None:
            self._task.cancel()


def _runner(
    progress: Any, manager: AsyncKernelManager, client: Any, limits: Limits, stop: _Stop
) -> Any:
    """Papermill's client, on a kernel that has started."""
    from abfed.lab.reports.showing import BoundedClient

    runner = BoundedClient(
        progress, over=stop, km=manager, timeout=int(limits.cell), record_timing=False,
        iopub_timeout=UNHEARD, coalesce_streams=True, allow_errors=False, force_raise_errors=True,
    )  # fmt: skip
    runner.kc = client
    return runner


def _as_written(failure: Failure, document: NotebookNode) -> Failure:
    """The failure with its cell counted without the one that was put in."""
    before = [INJECTED in one.metadata.get("tags", []) for one in document.cells[: failure.cell]]
    return Failure(failure.cell - sum(before), failure.kind, failure.reason)


class _NeverReady(Exception):
    """The kernel didn't answer."""


async def _ready(manager: AsyncKernelManager, client: Any, seconds: float) -> None:
    """Wait until the kernel answers on both channels.

    It is asked again and again: what it publishes before our channel is joined is lost.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client.kernel_info()
        with contextlib.suppress(Exception):
            await client.shell_channel.get_msg(timeout=1)
            await client.iopub_channel.get_msg(timeout=0.2)
            return
        if not await manager.is_alive():
            message = "it ended before it answered"
            raise _NeverReady(message)
    message = f"it did not answer in {seconds:g} seconds"
    raise _NeverReady(message)


async def _nobody_listens() -> None:
    """End what nbclient left waiting for messages; it would complain of the closed channel."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_PATIENCE)


_LOOKS = 0.005  # seconds between two looks at whether a kernel is gone
_PATIENCE = 5.0  # seconds for it to be gone


async def _ended(manager: AsyncKernelManager) -> None:
    """End the kernel and what it started; it holds nothing that is worth a farewell.

    The manager's own way looks every 0.1 seconds; it is kept for a kernel that won't go.
    """
    provisioner = manager.provisioner
    if manager.has_kernel and provisioner is not None:
        await provisioner.kill()
        until = time.monotonic() + _PATIENCE
        while await provisioner.poll() is None and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOKS)
        if await provisioner.poll() is not None:
            await provisioner.wait()
    if manager.has_kernel:
        await manager.shutdown_kernel(now=True)
    await manager.cleanup_resources()


def endings() -> list[signal.Signals]:
    """Signals that end this process: also that its terminal was closed, unless `nohup` says no."""
    hung_up = signal.getsignal(signal.SIGHUP)
    return [signal.SIGTERM] if hung_up is signal.SIG_IGN else [signal.SIGTERM, signal.SIGHUP]


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Interrupt, termination and hang-up cancel the task, in the main thread; others get none."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    seen: list[int] = []

    def stop(number: int) -> None:
        seen.append(number)
        if task is not None:
            task.cancel()

    numbers = [signal.SIGINT, *endings()]
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield seen
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
