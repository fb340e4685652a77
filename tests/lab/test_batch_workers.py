"""Workers that vanish at any moment, and a warm process whose askers do: the batch ends, and tells.

Nothing is forked here: a socket stands in for the warm process and its workers.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abfed.cli.main import main
from abfed.lab.reports import batch_run, forking, nursery
from abfed.lab.reports.batch_ray import results_from_ray
from abfed.lab.reports.batch_run import Ways
from abfed.lab.reports.batches import BatchSpec
from abfed.lab.reports.kernel import SOCKET
from abfed.lab.reports.warming import CAN_FORK, warming
from abfed.lab.reports.worker import work
from abfed.protocol.errors import InputError

Worker = Callable[[socket.socket], None]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose name is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="abfed-") as name:
        yield Path(name)


def unread(connection: socket.socket) -> None:
    """It is gone before it took the job."""
    connection.recv(1 << 16)


def unanswered(connection: socket.socket) -> None:
    """It dies of the job."""
    lines = connection.makefile("rb")
    lines.readline(), lines.readline()


def half_answered(connection: socket.socket) -> None:
    """It dies while it answers."""
    unanswered(connection)
    connection.sendall(b'{"manifest": {"for')


def good(connection: socket.socket) -> None:
    """It answers each job."""
    lines = connection.makefile("rb")
    lines.readline()
    for line in lines:
        answer = {"manifest": json.loads(line), "seconds": 0}
        connection.sendall(json.dumps(answer).encode() + b"\n")


def results(place: Path, monkeypatch: pytest.MonkeyPatch, workers: list[Worker]) -> list[Any]:
    """What came of three jobs, where each worker that is asked for does as one of these."""
    at = place / SOCKET
    with socket.socket(socket.AF_UNIX) as listening:
        if workers:
            listening.bind(str(at))
            listening.listen()

        def serve() -> None:
            for worker in workers:
                connection, _ = listening.accept()
                with connection:
                    worker(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        warm: Any = SimpleNamespace(ready=lambda: at, end=lambda: None)
        monkeypatch.setattr(batch_run, "job_of", lambda item, *_: {"item": item})
        items: Any = ["one", "two", "three"]
        found = list(batch_run._results(items, place, bytes(32), Ways(1, warm=warm)))
        thread.join(5)
    assert not any(one.name == "abfed-batch" for one in threading.enumerate())
    assert [item for item, _ in found] == items
    return [result.get("error", "made") for _, result in found]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("worker", [unread, unanswered, half_answered])
def test_a_worker_that_dies_takes_one_report_and_the_batch_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, worker: Worker
) -> None:
    died = "its worker died"
    assert results(place, monkeypatch, [worker] * 3) == [died] * 3
    (place / SOCKET).unlink()
    assert results(place, monkeypatch, [worker, good]) == [died, "made", "made"]


@pytest.mark.timeout(120)
def test_where_no_worker_can_be_had_the_batch_ends_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert results(place, monkeypatch, []) == ["its worker died"] * 3


@pytest.mark.timeout(120)
def test_who_ends_a_batch_ends_the_workers_that_were_spawned(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = place / "busy"
    busy.write_text("#!/bin/sh\nexec sleep 60\n")
    busy.chmod(busy.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(batch_run, "sys", SimpleNamespace(executable=str(busy)))
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    todo.put("one"), todo.put("two")
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    feeder = batch_run._Feeder(todo, done, {}, lambda _: b"{}\n")
    feeder.start()
    while (worker := feeder._worker) is None:
        time.sleep(0.01)
    feeder.end()
    feeder.join(40)
    assert not feeder.is_alive()
    assert worker._process is not None
    assert worker._process.returncode is not None  # waited for: nothing is left of it
    assert done.get()[1]["error"]
    assert todo.get() == "two"


@pytest.mark.privacy
def test_why_a_report_failed_is_told_without_a_path(place: Path) -> None:
    """It stands on the index of the batch."""
    about = {"kind": "run", "folder": str(place / "runs" / "spring-0a1b2c3d4e")}
    job = {"about": about, "folder": str(place), "public_key": "00" * 32, "name": "spring"}
    told = work(job, kernels=None)["error"]  # type: ignore[arg-type]
    assert "spring-0a1b2c3d4e" in told
    assert "/" not in told


@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")
@pytest.mark.timeout(120)
def test_a_warm_process_outlives_those_who_ask_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, tell = os.pipe()
    with os.fdopen(told) as stdin, os.fdopen(tell, "w") as parent:
        monkeypatch.setattr(nursery, "sys", SimpleNamespace(stdin=stdin))
        warm = nursery.Nursery(place)
        thread = threading.Thread(target=warm.serve, daemon=True)
        thread.start()
        for said in (b'{"do": "poll", "pid": 1}\n', b'{"do": "po', b"nonsense\n", b""):
            with socket.socket(socket.AF_UNIX) as asker:
                asker.connect(str(place / SOCKET))
                asker.sendall(said)
                asker.shutdown(socket.SHUT_RD)  # gone before the answer
            assert forking.ask(place / SOCKET, do="poll", pid=1) == {"code": 1}
        parent.close()
        thread.join(10)
        warm.end_all()
        assert not thread.is_alive()


@pytest.mark.skipif(not CAN_FORK, reason="kernels are spawned on this system")
def test_who_needs_no_warm_process_after_all_doesnt_wait_until_it_is_made() -> None:
    with warming() as made:
        pass
    made.end()
    assert made._process.returncode == -signal.SIGKILL


@pytest.mark.skipif(not CAN_FORK, reason="kernels are spawned on this system")
def test_a_warm_process_is_made_while_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    @contextmanager
    def started(*, imports: list[str]) -> Iterator[None]:
        said.append(f"started with {imports}")
        try:
            yield
        finally:
            said.append("ended")

    def read(_: Path) -> None:
        said.append("read")
        raise InputError("no batch")

    monkeypatch.setattr("abfed.lab.workspace.Workspace", Path)
    monkeypatch.setattr("abfed.lab.reports.warming.warming", started)
    monkeypatch.setattr(BatchSpec, "load", read)
    given = ["batch", "grid.yaml", "-w", str(tmp_path), "--preload", "json"]
    for more in ([], ["--kernels", "spawn"], ["--ray", "127.0.0.1:1"]):
        assert main([*given, *more]) == 2
    assert said == ["started with ['json']", "read", "ended", "read", "read"]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "127.0.0.1:{}00000"])
def test_a_ray_cluster_that_has_ended_is_refused_at_once(form, tmp_path):
    with socket.socket() as nobody:  # bound, and nobody listens
        nobody.bind(("127.0.0.1", 0))
        address = form.format(nobody.getsockname()[1])
        with pytest.raises(InputError, match="no Ray cluster at this address"):
            next(results_from_ray([], tmp_path, b"", Ways(ray=address)))
