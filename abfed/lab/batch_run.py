"""Carrying a batch out: several workers, a fresh kernel each report, and no failure stops the rest.

1. A report whose manifest stands, signed by us, with the same content key and the same bytes on
   disk, is complete: it isn't made again. So a batch resumes where it was interrupted, and makes
   only what changed: a notebook, a parameter, a run, a version.
2. Workers make files; only this process holds the key and signs. A report's manifest is written
   last.
3. A worker that dies takes its one report with it, and another takes its place.
4. Whatever happens, workers, kernels and the warm process are ended before this returns.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from abfed.lab.batches import Item, job_of
from abfed.lab.kernels import environment
from abfed.lab.report_manifest import SUFFIX, damaged, read_manifest
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
        imports: modules that the warm process imports besides.
        timeout: seconds for one report.
        ray: address of a Ray cluster that makes the reports instead; empty where none does.
    """

    workers: int = 2
    kernels: How = "fork"
    imports: tuple[str, ...] = ()
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
            from abfed.lab.batch_ray import results_from_ray as source
        for item, result in source(waiting, folder, keys.public_key, ways):
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
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Results as they come, from several workers at once."""
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    results: queue.SimpleQueue[tuple[Item, dict[str, Any]]] = queue.SimpleQueue()
    with ExitStack() as stack:
        settings: dict[str, Any] = {}
        if ways.kernels == "fork":
            from abfed.lab.forking import warm

            settings["nursery"] = str(stack.enter_context(warm(imports=ways.imports)))
        stop = threading.Event()
        feeders = [
            threading.Thread(
                target=_feed,
                args=(todo, results, settings, folder, public_key, ways.timeout, stop),
                name=f"abfed-batch-{number}",
                daemon=True,
            )
            for number in range(max(1, min(ways.workers, len(items))))
        ]
        for feeder in feeders:
            feeder.start()
        try:
            for _ in items:
                yield results.get()
        finally:
            stop.set()


def _feed(
    todo: queue.SimpleQueue[Item],
    results: queue.SimpleQueue[tuple[Item, dict[str, Any]]],
    settings: dict[str, Any],
    folder: Path,
    public_key: bytes,
    timeout: float,
    stop: threading.Event,
) -> None:
    """Give one worker job after job; replace it where it died."""
    while not stop.is_set():
        with _worker(settings) as (jobs, answers):
            while not stop.is_set():
                try:
                    item = todo.get_nowait()
                except queue.Empty:
                    return
                started = time.monotonic()
                try:
                    jobs.write(
                        json.dumps(job_of(item, folder, public_key, timeout)).encode() + b"\n"
                    )
                    jobs.flush()
                    line = answers.readline()
                except OSError:
                    line = b""
                if line:
                    results.put((item, json.loads(line)))
                    continue
                seconds = time.monotonic() - started
                results.put((item, {"error": "its worker died", "partial": "", "seconds": seconds}))
                break


@contextmanager
def _worker(settings: Mapping[str, Any]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Streams to and from a worker; it ends with this context."""
    if settings:
        from abfed.lab.forking import forked_worker

        with forked_worker(Path(settings["nursery"]), dict(settings)) as stream:
            yield stream, stream
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "abfed.lab.worker"],
        env=environment(Path.cwd()) | {"HOME": str(Path.home()), "TMPDIR": _temporary()},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    if process.stdin is None or process.stdout is None:
        message = "a worker without pipes"
        raise RuntimeError(message)
    try:
        yield process.stdin, process.stdout
    finally:
        process.stdin.close()
        process.terminate()
        try:
            process.wait(_LONGEST_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()
