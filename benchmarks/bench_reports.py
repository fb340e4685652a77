"""What reports cost: a batch over forked and over spawned kernels, against the command lines.

The same notebook with the same parameters, three ways: `abfed batch` with kernels forked from a
warm process, the same with spawned ones, and a shell loop of `papermill` and `jupyter nbconvert`.
Prints wall and CPU seconds for a report, and two peaks of memory over all processes of a way, each
counted alike for all ways: PSS, where a page that n processes share counts a n-th in each of them,
so once in all; and RSS, where it counts n times. The bar is held to PSS: RSS says of kernels forked
from one process that they hold its memory many times over, which they don't. Then how long
`abfed --help` and `import abfed` take.

On a machine that others use, compare CPU seconds; `--reports 20` is the bar's number. (PSS also
shares with processes outside: run nothing else on this Python when memory is measured.)
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.lab.example import make_run, statistics_only  # noqa: E402

BIN = Path(sys.executable).parent
NOTEBOOK = ROOT / "notebooks" / "ab_readout.ipynb"


class Cost(NamedTuple):
    """Of all reports together: wall and CPU seconds, and peaks of memory in MiB."""

    wall: float
    cpu: float
    peak: float
    resident: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder / "workspace", statistics_only(simulation={"seed": 1}), size=20_000)
        alphas = [round(0.01 + 0.002 * n, 4) for n in range(given.reports)]
        shell(["true"], folder)
        ways: dict[str, Callable[[], None]] = {
            "forked kernels": lambda: batch(folder, run.name, alphas, given.workers, "fork"),
            "spawned kernels": lambda: batch(folder, run.name, alphas, given.workers, "spawn"),
            "papermill + nbconvert": lambda: loop(folder, run.name, alphas),
        }
        costs = {way: measured(make) for way, make in ways.items()}
    base = costs["papermill + nbconvert"]
    print(f"{given.reports} reports, {given.workers} workers, a fresh kernel each\n")
    print(
        f"{'':24}{'wall s each':>12}{'CPU s each':>12}{'PSS MiB':>9}{'RSS MiB':>9}"
        f"{'wall':>8}{'CPU':>8}{'PSS':>8}{'RSS':>8}"
    )
    for way, cost in costs.items():
        print(
            f"{way:24}{cost.wall / given.reports:12.2f}{cost.cpu / given.reports:12.2f}"
            f"{cost.peak:9.0f}{cost.resident:9.0f}"
            f"{base.wall / cost.wall:7.1f}×{base.cpu / cost.cpu:7.1f}×"
            f"{cost.peak / base.peak:7.2f}×{cost.resident / base.resident:7.2f}×"
        )
    print("\nbars: wall ≥ 8× forked and ≥ 3× spawned; PSS ≤ 2×")
    starts = {
        "abfed --help": ("from abfed.cli.main import main; main(['--help'])", 0.3),
        "import abfed": ("import abfed", 0.15),
    }
    for what, (code, bar) in starts.items():
        start = functools.partial(shell, [sys.executable, "-c", code], ROOT)
        seconds = [measured(start) for _ in range(7)]
        wall = statistics.median(one.wall for one in seconds)
        cpu = statistics.median(one.cpu for one in seconds)
        print(f"{what:24}{wall:7.3f} s wall, {cpu:6.3f} s CPU (bar {bar})")


def batch(folder: Path, run: str, alphas: list[float], workers: int, kernels: str) -> None:
    """`abfed batch`, from nothing."""
    file = folder / f"{kernels}.yaml"
    file.write_text(f"name: {kernels}\nruns: [{run}]\nparameters: {{alpha: {alphas}}}\n")
    code = "import sys; from abfed.cli.main import main; sys.exit(main(sys.argv[1:]))"
    shell(
        [sys.executable, "-c", code, "batch", str(file), "-w", str(folder / "workspace"),
         "--workers", str(workers), "--kernels", kernels],
        folder,
    )  # fmt: skip


def loop(folder: Path, run: str, alphas: list[float]) -> None:
    """The command lines, one report after the other."""
    for number, alpha in enumerate(alphas):
        made = folder / f"report-{number}.ipynb"
        shell(
            [str(BIN / "papermill"), str(NOTEBOOK), str(made),
             "--cwd", str(folder / "workspace" / "runs"),
             "-p", "run_folder", run, "-p", "alpha", str(alpha)],
            folder,
        )  # fmt: skip
        shell([str(BIN / "jupyter"), "nbconvert", "--to", "html", "--no-input", str(made)], folder)


def shell(command: list[str], cwd: Path) -> None:
    """Run one command; it must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True)


def measured(work: Callable[[], None]) -> Cost:
    """What some work costs in child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = [0.0, 0.0]
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(peak, done))
    watcher.start()
    started = time.perf_counter()
    work()
    wall = time.perf_counter() - started
    done.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, *peak)


def watch(peak: list[float], done: threading.Event) -> None:
    """Note the highest sums of PSS and of RSS over all descendants."""
    while not done.wait(0.5):
        seen = [memory(one) for one in descendants(os.getpid())]
        for at in (0, 1):
            peak[at] = max(peak[at], sum(one[at] for one in seen))


def descendants(process: int) -> list[int]:
    """All processes below one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
            parents.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [process]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def memory(process: int) -> tuple[float, float]:
    """A process's proportional and resident set sizes in MiB."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0  # it has ended
    sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith("kB")}
    return sizes.get("Pss:", 0.0), sizes.get("Rss:", 0.0)


if __name__ == "__main__":
    main()
