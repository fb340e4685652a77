"""Papermill's way through a notebook, with kernels of ours.

Papermill puts the parameters in, keeps the state of each cell and says where a notebook failed.
How a cell gets its kernel is an engine's business there; ours is registered as `abfed`: it takes
kernels that `kernels` describes (spawned, or forked from a warm process), confined, with limits of
time, and leaves nothing behind (`execution`). It looks up no kernel by name, whatever the notebook
asks for.

Papermill warns of a parameter that it doesn't know; ours was refused before (`notebooks`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.disclosure.overhearing import FILE
from abfed.lab.disclosure.written import Told
from abfed.lab.paper import vouched
from abfed.lab.paper.jupyter import papermill
from abfed.lab.paper.vouched import Vouched
from abfed.lab.reports.execution import (
    DEFAULT_LIMITS,
    Executed,
    Limits,
    Tell,
    carried_out,
)
from abfed.lab.reports.exporting import INJECTED

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from abfed.lab.reports.kernels import Kernels, Place

NAME = "abfed"
"""Of the engine, in Papermill's registry."""
LISTENS = 0.2  # seconds between two looks for a signal
STARTS_WITHIN = 5.0  # seconds, for a thread whose start was interrupted; it may never have begun
_papermill = papermill()
_Engine: Any = _papermill.engines.Engine


class _UnderWay:
    """An execution that another thread can interrupt, at whatever moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self._interrupted = False

    async def held(self, execution: Awaitable[Executed]) -> Executed:
        """The execution's outcome; it is interrupted by cancelling this task."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        with self._lock:
            if task is not None:
                self._cancel = partial(loop.call_soon_threadsafe, task.cancel)
            asked = self._interrupted
        if asked and self._cancel is not None:
            self._cancel()
        return await execution

    def interrupt(self) -> None:
        """End it: now, or as soon as it begins."""
        with self._lock:
            self._interrupted, cancel = True, self._cancel
        if cancel is not None:
            with suppress(RuntimeError):  # its loop has just closed: it is over
                cancel()


class ReportEngine(_Engine):  # type: ignore[misc]
    """Executes a notebook's cells in a kernel of its own, confined and timed."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        place: Place,
        kernels: Kernels,
        limits: Limits,
        tell: Tell | None,
        found: list[Executed],
        under_way: _UnderWay,
        **ignored: Any,
    ) -> None:
        """Every cell in order, until one fails; the outcome is put in `found`."""
        del kernel_name, ignored  # Papermill's own words for what `place` and `limits` say
        _fix_ids(nb_man.nb)
        with kernels.opened(place) as manager:
            done = asyncio.run(under_way.held(carried_out(nb_man, manager, limits, tell)))
            file = Path(manager.connection_file)
            told = Told.read(file.with_name(FILE))
            made = Vouched.read(file.with_name(vouched.FILE))
            found.append(replace(done, told=told, made=made))


def _fix_ids(document: NotebookNode) -> None:
    """Papermill gives its cell another id each time: pages and notebooks would differ by it."""
    for cell in document.cells:
        if INJECTED in cell.metadata.get("tags", []):
            cell["id"] = INJECTED


_papermill.engines.papermill_engines.register(NAME, ReportEngine)


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
    found: list[Executed] = []
    under_way = _UnderWay()

    def work() -> None:
        try:
            _papermill.execute_notebook(
                document, None, parameters=dict(values), engine_name=NAME, kernel_name="python3",
                language="python", progress_bar=False, place=place, kernels=kernels, limits=limits,
                tell=tell, found=found, under_way=under_way,
            )  # fmt: skip
        except _papermill.exceptions.PapermillExecutionError:
            if not found:
                raise
            # Said in `found` already; Papermill's markers in the notebook give way to our banner.
            _papermill.execute.remove_error_markers(found[0].document)

    if _inside_a_loop():  # in a notebook, whose own loop can't wait for another
        _in_a_thread(work, under_way)
    else:
        work()
    if not found:
        message = "the notebook's execution ended without an outcome"
        raise RuntimeError(message)
    failure = found[0].failure
    if failure is not None and failure.kind == "interrupted":
        raise KeyboardInterrupt
    return found[0]


def _in_a_thread(work: Callable[[], None], under_way: _UnderWay) -> None:
    """Work elsewhere and wait for it: what is raised there is raised here.

    Ctrl-C ends it, and so does whatever else ends the waiting, at whatever moment it comes: also
    while the thread is being started. Nobody is left waiting for a report that nobody wants.
    """
    began, ended = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def carry_out() -> None:
        began.set()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again where the report was asked
            raised.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=carry_out, name="abfed-report").start()
        while not ended.wait(LISTENS):  # a signal that comes just before a wait doesn't end it
            pass
    except BaseException:
        under_way.interrupt()
        if began.wait(STARTS_WITHIN):
            ended.wait()
        raise
    if raised:
        raise raised[0]


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
