"""Embedded federation beside NVIDIA FLARE's simulator and Flower's own simulation.

    python benchmarks/bench_peers.py [--times 3]

Four silos, ten rounds of a job that does nothing, from starting Python to the result: wall seconds,
CPU seconds of all processes that were waited for, and the largest memory of all together (their own
pages and a share of common ones). FLARE mostly waits: where other programs want the processors,
abfed's wall seconds grow and FLARE's don't. Each peer runs in an environment of its own; where one
isn't there, it says how to make it:

    python3 -m venv /tmp/flare && /tmp/flare/bin/pip install nvflare==2.9.0
    python3 -m venv /tmp/flower && /tmp/flower/bin/pip install "flwr[simulation]==1.41.0"

ABFED_FLARE and ABFED_FLOWER name other places of their `bin/python`. abfed also signs, verifies,
journals and seals each round, which the peers don't.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROUNDS = 10
LONGEST = 300.0  # seconds, for one peer
WALL_BAR, MEMORY_BAR = 10.0, 4.0


class Took(NamedTuple):
    """What a run took."""

    seconds: float
    cpu: float
    mebibytes: float


def tree(root: int) -> set[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory(pids: set[int]) -> float:
    """Proportional set size of processes, MiB."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measure(command: list[str], folder: Path) -> Took | None:
    """Run a command to its end; None where it fails or takes too long."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "HOME": str(folder)}
    quiet["RAY_ADDRESS"] = "local"  # or Flower's simulation waits for a cluster that ended long ago
    spoilt = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # compiled modules are anybody's default
    environment = {k: v for k, v in os.environ.items() if k not in spoilt} | quiet
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = str(HERE.parent)
    with (folder / "log.txt").open("w") as log:
        began, worked, peak = time.perf_counter(), _cpu(), 0.0
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        ended = os.pidfd_open(process.pid)
        while process.poll() is None:
            peak = max(peak, memory(tree(process.pid)))
            if time.perf_counter() - began > LONGEST:
                for pid in tree(process.pid):
                    os.kill(pid, 9)
                process.wait()
                return None
            select.select([ended], [], [], 0.1)  # no longer than it lives
    took = time.perf_counter() - began
    os.close(ended)
    if process.returncode != 0:
        return None
    return Took(took, _cpu() - worked, peak)


def _cpu() -> float:
    """CPU seconds of all children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    flare = os.environ.get("ABFED_FLARE", "/tmp/flare/bin/python")
    flower = os.environ.get("ABFED_FLOWER", "/tmp/flower/bin/python")
    contenders = {
        "abfed": [sys.executable, str(HERE / "bench_federation.py")],
        "NVIDIA FLARE": [flare, str(HERE / "peers/flare_job.py"), "work", str(ROUNDS)],
        "Flower": [flower, str(HERE / "peers/flower_sim.py"), str(ROUNDS)],
    }
    found: dict[str, list[Took]] = {name: [] for name in contenders}
    for _ in range(options.times):  # one after another in each round
        for name, command in contenders.items():
            if not Path(command[0]).exists():
                continue
            with tempfile.TemporaryDirectory() as folder:
                took = measure(command, Path(folder))
                if took is not None:
                    found[name].append(took)
    ours = found.pop("abfed")
    show("abfed", ours)
    for name, theirs in found.items():
        if not theirs:
            print(f"{name:14s} did not run: see this file's first lines")
            continue
        show(name, theirs)
        pairs = list(zip(ours, theirs, strict=False))
        wall = statistics.median(other.seconds / own.seconds for own, other in pairs)
        room = statistics.median(other.mebibytes / own.mebibytes for own, other in pairs)
        work = statistics.median(other.cpu / own.cpu for own, other in pairs)
        print(f"{'':14s} time × {wall:.1f} (bar {WALL_BAR:g}: {verdict(wall, WALL_BAR)})", end="")
        print(f", CPU × {work:.1f}", end="")
        print(f", memory × {room:.1f} (bar {MEMORY_BAR:g}: {verdict(room, MEMORY_BAR)})")


def show(name: str, took: list[Took]) -> None:
    """One contender's medians."""
    seconds = statistics.median(one.seconds for one in took)
    cpu = statistics.median(one.cpu for one in took)
    room = statistics.median(one.mebibytes for one in took)
    print(f"{name:14s} {seconds:7.1f} s {cpu:7.1f} CPU s {room:7.0f} MiB   ({len(took)} times)")


def verdict(ratio: float, bar: float) -> str:
    """Whether a bar was reached."""
    return "met" if ratio >= bar else "MISSED"


if __name__ == "__main__":
    main()
