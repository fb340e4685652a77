"""Executing a notebook: cell after cell in a fresh kernel, and an end that leaves nothing behind.

1. A failure is a value, not an exception: it carries the cell and the reason, and the notebook as
   far as it came stands beside it.
2. A cell has a time limit, and so has the whole notebook. A kernel that dies is noticed at once.
3. Whatever happens (done, failed, too slow, dead, interrupted), the kernel and all it started are
   ended and their folder is removed before this returns.
4. The parameters stand in a cell of their own behind the notebook's, as Papermill puts them; its id
   is always the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.jupyter import nbclient, nbformat
from abfed.lab.kernel import STATE
from abfed.protocol.errors import InputError

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

    from abfed.lab.kernels import Kernels, Place

INJECTED = "injected-parameters"
"""Tag and id of the cell that sets the parameters' values."""


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
        kind: `error`, `time-out`, `dead` or `interrupted`.
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
    """

    document: NotebookNode
    failure: Failure | None
    confinement: str = ""


Tell = Callable[[int, int], None]
"""Told of each cell that is done: how many, of how many."""


def with_parameters(document: NotebookNode, values: Mapping[str, Any]) -> NotebookNode:
    """The notebook with a cell that sets parameters, behind its own cell that declares them.

    Values are of the plain types that `notebooks` checks, so `repr` is their source.
    """
    parameterised = deepcopy(document)
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    cell = nbformat().v4.new_code_cell("\n".join(lines), metadata={"tags": [INJECTED]})
    cell["id"] = INJECTED
    cells = [one for one in parameterised.cells if INJECTED not in one.metadata.get("tags", [])]
    at = [n for n, one in enumerate(cells) if "parameters" in one.metadata.get("tags", [])]
    if len(at) != 1:
        raise InputError(f"{len(at)} cells are tagged 'parameters'", do="tag exactly one")
    cells.insert(at[0] + 1, cell)
    parameterised.cells = cells
    parameterised.metadata.pop("papermill", None)
    return parameterised


def execute(
    document: NotebookNode,
    values: Mapping[str, Any],
    place: Place,
    kernels: Kernels,
    *,
    limits: Limits = DEFAULT_LIMITS,
    tell: Tell | None = None,
) -> Executed:
    """Execute a notebook with parameters in a kernel of its own.

    Args:
        document: the notebook; left as it is.
        values: its parameters' values, checked.
        place: what the kernel works in and may read.
        kernels: how kernels are started.
        limits: how long things may take.
        tell: told of each cell that is done.

    Raises:
        KeyboardInterrupt: somebody interrupted; the kernel is gone.
    """
    prepared = with_parameters(document, values)
    found: list[Executed] = []

    def work() -> None:
        with kernels.opened(place) as manager:
            done = asyncio.run(_carried_out(prepared, manager, limits, tell))
            state = Path(manager.connection_file).with_name(STATE)
            said = json.loads(state.read_bytes())["confinement"] if state.is_file() else ""
            found.append(replace(done, confinement=said))

    if _inside_a_loop():  # in a notebook, whose own loop can't wait for another
        thread = threading.Thread(target=work, name="abfed-report")
        thread.start()
        thread.join()
    else:
        work()
    if not found:
        message = "the notebook's execution ended without an outcome"
        raise RuntimeError(message)
    failure = found[0].failure
    if failure is not None and failure.kind == "interrupted":
        raise KeyboardInterrupt
    return found[0]


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _carried_out(
    document: NotebookNode, manager: AsyncKernelManager, limits: Limits, tell: Tell | None
) -> Executed:
    """Every cell in order, until one fails."""
    exceptions = nbclient().exceptions
    at = 0
    failure: Failure | None = None
    with _signals() as interrupted:
        try:
            async with asyncio.timeout(limits.report):
                await manager.start_kernel()
                client = manager.client()
                client.start_channels()
                try:
                    await _ready(manager, client, limits.start)
                    runner = nbclient().NotebookClient(
                        document, km=manager, timeout=int(limits.cell), record_timing=False,
                        coalesce_streams=True, allow_errors=False, force_raise_errors=True,
                    )  # fmt: skip
                    runner.kc = client
                    for index, cell in enumerate(document.cells):
                        at = index + 1
                        await runner.async_execute_cell(cell, index)
                        if tell is not None:
                            tell(at, len(document.cells))
                finally:
                    client.stop_channels()
        except exceptions.CellTimeoutError:
            failure = Failure(at, "time-out", f"more than {limits.cell:g} seconds")
        except exceptions.CellExecutionError as cause:
            failure = Failure(at, "error", f"{cause.ename}: {cause.evalue}")
        except (exceptions.DeadKernelError, _NeverReady) as cause:
            failure = Failure(at, "dead", str(cause))
        except TimeoutError:
            failure = Failure(at, "time-out", f"more than {limits.report:g} seconds in all")
        except asyncio.CancelledError:
            failure = Failure(at, "interrupted", "by a signal")
        finally:
            await _ended(manager)
    if interrupted:
        failure = Failure(at, "interrupted", "by a signal")
    return Executed(document, failure and _as_written(failure, document))


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


async def _ended(manager: AsyncKernelManager) -> None:
    """End the kernel and what it started; it holds nothing that is worth a farewell."""
    if manager.has_kernel:
        await manager.shutdown_kernel(now=True)
    await manager.cleanup_resources()


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Interrupt and termination cancel the task, in the main thread; others get no signals."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    seen: list[int] = []

    def stop(number: int) -> None:
        seen.append(number)
        if task is not None:
            task.cancel()

    numbers = [signal.SIGINT, signal.SIGTERM]
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
