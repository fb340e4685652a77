"""A report that is made inside a notebook, whose own loop runs: errors and Ctrl-C come through."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from jupyter_client.manager import AsyncKernelManager
from nbformat.v4 import new_code_cell, new_notebook

from abfed.lab.reports import engine
from abfed.lab.reports.execution import Executed, Failure, Limits, carried_out
from abfed.lab.reports.kernels import RECONNECT, Place, SpawningProvisioner, report_kernel
from abfed.lab.reports.notebooks import KERNEL
from abfed.protocol.errors import ReportFailed


class Kernels:
    """None is started: an error instead, or one that is never ready."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        self.folder, self.error, self.closed = folder, error, False

    @contextmanager
    def opened(self, place: Place) -> Iterator[Any]:
        """A manager of nothing."""
        del place
        if self.error is not None:
            raise self.error
        try:
            yield SimpleNamespace(connection_file=str(self.folder / "kernel.json"))
        finally:
            self.closed = True


def execute(kernels: Kernels) -> Any:
    cell = new_code_cell('x: str = ""', metadata={"tags": ["parameters"]})
    document = new_notebook(cells=[cell], metadata={"kernelspec": KERNEL})

    async def in_a_notebook() -> Any:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as ipykernel does for a cell
        return engine.execute(document, {}, Place(cwd=None), kernels)  # type: ignore[arg-type]

    return asyncio.run(in_a_notebook())


def test_an_error_of_the_kernels_is_raised_where_the_report_was_asked(tmp_path: Path) -> None:
    for error in (ReportFailed("no kernel"), OSError(28, "No space left on device")):
        with pytest.raises(type(error), match=str(error.args[-1])):
            execute(Kernels(tmp_path, error))


def test_who_interrupts_waits_for_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    async def carried_out(progress: Any, *_: Any) -> Executed:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return Executed(progress.nb, Failure(0, "interrupted", "by a signal"))
        raise AssertionError

    def interrupt() -> None:
        begun.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr(engine, "carried_out", carried_out)
    for _ in range(100):  # one in some hundred signals comes just before a wait
        begun.clear()
        kernels = Kernels(tmp_path)
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            execute(kernels)
        assert kernels.closed


class Ended(BaseException):
    """What isn't Ctrl-C and ends the waiting all the same, as a time limit does."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("error", [KeyboardInterrupt, Ended])
def test_whatever_ends_the_waiting_ends_the_report_also_while_its_thread_starts(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    async def carried_out(progress: Any, *_: Any) -> Executed:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        return Executed(progress.nb, Failure(0, "interrupted", "by a signal"))

    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("abfed-report"):
            assert begun.wait(60)
            raise error

    monkeypatch.setattr(engine, "carried_out", carried_out)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    kernels = Kernels(tmp_path)
    at = time.monotonic()
    with pytest.raises(error):
        execute(kernels)
    assert kernels.closed
    assert time.monotonic() - at < 90


def test_an_interrupt_before_it_begins_counts_too() -> None:
    async def carried_out() -> Executed:
        await asyncio.sleep(3600)
        raise AssertionError

    under_way = engine._UnderWay()
    under_way.interrupt()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(under_way.held(carried_out()))


def test_a_kernel_that_starts_is_tried_at_our_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zmq's own is 100 milliseconds, for which each report would wait."""
    seen, client = [], AsyncKernelManager.client

    async def started(self: Any) -> None:
        self.write_connection_file()

    def asked(self: Any, **given: Any) -> None:
        made = client(self, **given)
        seen.append(made.shell_channel.socket.getsockopt(zmq.RECONNECT_IVL))
        made.stop_channels()
        raise TimeoutError

    monkeypatch.setattr(AsyncKernelManager, "start_kernel", started)
    monkeypatch.setattr(AsyncKernelManager, "client", asked)
    manager = report_kernel(tmp_path, SpawningProvisioner(folder=tmp_path))
    nothing = SimpleNamespace(nb=new_notebook())
    done = asyncio.run(carried_out(nothing, manager, Limits(), None))
    assert done.failure is not None
    assert seen == [RECONNECT]
