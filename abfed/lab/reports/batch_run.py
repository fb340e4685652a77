"""Carrying a batch out: several workers, a fresh kernel each report, and no failure stops the rest.

1. A report whose manifest stands, signed by us, with the same content key and the same bytes on
   disk, is complete: it isn't made again. So a batch resumes where it was interrupted, and makes
   only what changed: a notebook, a parameter, a run, a version.
2. Workers make files; only this process holds the key and signs. A report's manifest is written
   last.
3. A worker that dies takes its one report with it, and another takes its place; where none can be
   started, each report that is left fails, and the batch ends.
4. Whatever happens, workers, kernels and the warm process are ended before this returns.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from abfed.lab.reports.batches import Item, job_of
from abfed.lab.reports.manifest import SUFFIX, damaged, read_manifest
from abfed.lab.reports.variables import environment
from abfed.lab.reports.warming import Warming, warming
from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.files import alone, make_private_folder, write_private
from abfed.site.keys import SiteKeys

How = Literal["fork", "spawn"]
_LONGEST_WAIT = 10.0  # seconds for a worker to end


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one report of a batch ended.

    Attributes:
        item: which one.
        status: `made`, `kept` (it was complete) or `failed`.
        seconds: what it took.
        reason: why it failed.
        partial: a file that shows how far it came; empty where there is none.
    """

    item: Item
    status: Literal["made", "kept", "failed"]
    seconds: float = 0.0
    reason: str = ""
    partial: str = ""


Tell = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Ways:
    """How a batch is carried out.

    Attributes:
        workers: how many reports are made at once.
        kernels: forked from a warm process, or spawned.
        warm: the warm process of forked kernels, where one was started already.
        timeout: seconds for one report.
        ray: address of a Ray cluster that makes the reports instead; empty where none does.
    """

    workers: int = 2
    kernels: How = "fork"
    warm: Warming | None = None
    timeout: float = 1800.0
    ray: str = ""


def carry_out(
    items: Sequence[Item], folder: Path, keys: SiteKeys, ways: Ways, tell: Tell
) -> list[Outcome]:
    """Make what isn't complete yet.

    Args:
        items: the batch.
        folder: where files go.
        keys: sign the manifests.
        ways: how.
        tell: told of each outcome, in the order in which they come.

    Returns:
        An outcome for each item, in the batch's order.

    Raises:
        KeyboardInterrupt: what was made is kept, and is found by the next attempt.
        ReportFailed: no warm process could be made.
        WorkspaceError: the folder is a link to another.
    """
    if folder.is_symlink():
        raise WorkspaceError(
            "is a link", where=str(folder), do="remove it: reports lie in a folder"
        )
    make_private_folder(folder)
    with alone(folder.with_name(f".{folder.name}.lock")):  # the second finds what the first made
        return _carry_out(items, folder, keys, ways, tell)


def _carry_out(
    items: Sequence[Item], folder: Path, keys: SiteKeys, ways: Ways, tell: Tell
) -> list[Outcome]:
    """See `carry_out`; nobody else works in the folder."""
    done: dict[str, Outcome] = {}

    def close(outcome: Outcome) -> None:
        done[outcome.item.order.name] = outcome
        tell(outcome)

    waiting = []
    for item in items:
        kept = _complete(item, folder, keys.public_key)
        if kept is None:
            waiting.append(item)
        else:
            close(kept)
    if waiting:
        source = _results
        if ways.ray:
            from abfed.lab.reports.batch_ray import results_from_ray as source
        with closing(source(waiting, folder, keys.public_key, ways)) as results:
            for item, result in results:
                close(_closed(item, result, folder, keys))
    return [done[item.order.name] for item in items]


def _complete(item: Item, folder: Path, public_key: bytes) -> Outcome | None:
    """The outcome of a report that stands as it would be made."""
    asked = item.order
    try:
        manifest = read_manifest(folder / f"{asked.name}{SUFFIX}", public_key)
    except (WorkspaceError, IntegrityError):
        return None
    wanted = {f"{asked.name}.{form}" for form in asked.formats}
    if manifest["key"] != asked.key or set(manifest["files"]) != wanted:
        return None
    return None if damaged(manifest, folder) else Outcome(item, "kept")


def _closed(item: Item, result: Mapping[str, Any], folder: Path, keys: SiteKeys) -> Outcome:
    """Sign what a worker made, or note why it couldn't."""
    if "error" in result:
        return Outcome(
            item, "failed", result["seconds"], reason=result["error"], partial=result["partial"]
        )
    signed = keys.sign("report", canonical_bytes(result["manifest"]))
    write_private(folder / f"{item.order.name}{SUFFIX}", signed)
    return Outcome(item, "made", result["seconds"])


def _results(
    items: Sequence[Item], folder: Path, public_key: bytes, ways: Ways
) -> Generator[tuple[Item, dict[str, Any]]]:
    """Results as they come, from several workers at once."""
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    results: queue.SimpleQueue[tuple[Item, dict[str, Any]]] = queue.SimpleQueue()
    with ExitStack() as stack:
        settings: dict[str, Any] = {}
        feeders: list[_Feeder] = []
        stack.callback(_join, feeders)  # once the warm process is, and with it what it forked
        if ways.kernels == "fork":
            warm = ways.warm or stack.enter_context(warming())
            stack.callback(warm.end)
            settings["nursery"] = str(warm.ready())

        def job(item: Item) -> bytes:
            told = job_of(item, folder, public_key, ways.timeout)
            return json.dumps(told).encode() + b"\n"

        feeders += [
            _Feeder(todo, results, settings, job) for _ in range(min(ways.workers, len(items)) or 1)
        ]
        for feeder in feeders:
            stack.callback(feeder.end)
            feeder.start()
        for _ in items:
            yield results.get()


def _join(feeders: Sequence[_Feeder]) -> None:
    for feeder in feeders:
        feeder.join(2 * _LONGEST_WAIT)


class _Feeder(threading.Thread):
    """Gives one worker job after job, and replaces it where it died.

    Each job that it takes gets a result, whatever happens: the batch waits for it.

    Args:
        todo: what is to be made.
        results: where what came of it goes.
        settings: of the workers (`worker.serve`).
        job: what a worker is told of an item, in a line.
    """

    def __init__(
        self,
        todo: queue.SimpleQueue[Item],
        results: queue.SimpleQueue[tuple[Item, dict[str, Any]]],
        settings: Mapping[str, Any],
        job: Callable[[Item], bytes],
    ) -> None:
        super().__init__(name="abfed-batch", daemon=True)
        self._todo, self._results = todo, results
        self._settings, self._job = settings, job
        self._worker: _Worker | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Until nothing is to be done any more."""
        while not self._ended.is_set():
            try:
                item = self._todo.get_nowait()
            except queue.Empty:
                break
            started = time.monotonic()
            try:
                result = self._made(item)
            except (OSError, ValueError):  # gone before, or in the middle of its answer
                self._let_go()
                seconds = time.monotonic() - started
                result = {"error": "its worker died", "partial": "", "seconds": seconds}
            self._results.put((item, result))
        self._let_go()

    def end(self) -> None:
        """Take no further job, and end the worker at the one that it is at."""
        self._ended.set()
        if (worker := self._worker) is not None:
            worker.interrupt()

    def _made(self, item: Item) -> dict[str, Any]:
        """What the worker says of a job.

        Raises:
            OSError: none could be started, or it is gone.
            ValueError: what it says is cut short.
        """
        if self._worker is None:
            self._worker = _Worker(self._settings)
        if self._ended.is_set():  # since it was asked whether it is; nobody saw this worker then
            raise InterruptedError
        answer: dict[str, Any] = json.loads(self._worker.answered(self._job(item)))
        return answer

    def _let_go(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class _Worker:
    """A worker: forked from the warm process, or a Python of its own."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if settings:
            from abfed.lab.reports.forking import forked_worker

            stream = forked_worker(Path(settings["nursery"]), dict(settings))
            self._jobs: IO[bytes] = stream
            self._answers: IO[bytes] = stream
            return
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "abfed.lab.reports.worker"],
            env=environment(Path.cwd()) | {"HOME": str(Path.home()), "TMPDIR": _temporary()},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        if process.stdin is None or process.stdout is None:
            message = "a worker without pipes"
            raise OSError(message)
        self._jobs, self._answers = process.stdin, process.stdout

    def answered(self, job: bytes) -> bytes:
        """Its answer to a job: a line, empty or cut short where it died.

        Raises:
            OSError: it is gone.
        """
        self._jobs.write(job)
        self._jobs.flush()
        return self._answers.readline()

    def interrupt(self) -> None:
        """End the job that it is at; a forked one goes with the warm process."""
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """End it."""
        for stream in (self._jobs, self._answers):
            with suppress(OSError):  # what it never took can't be flushed to it any more
                stream.close()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_LONGEST_WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()
