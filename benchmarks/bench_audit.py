"""What an entry of a site's audit log costs: signed, chained and on the disk before it counts.

    python benchmarks/bench_audit.py

Prints milliseconds for each entry, for one writer and for ten processes that write at once, beside
what the disk alone takes to keep as many bytes; then what verifying costs. It ends with an error
where an entry of the ten is lost or the chain doesn't hold.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from abfed.site.audit import AuditLog  # noqa: E402
from abfed.site.keys import SiteKeys  # noqa: E402

ALONE, WRITERS, EACH = 300, 10, 40
BYTES = 450  # about an entry's
FACTS = {"plan": "0" * 64, "person": "olga@coordinator", "step": "totals"}


def main() -> int:
    """Measure and print."""
    if len(sys.argv) > 1:
        _write(Path(sys.argv[1]), int(sys.argv[2]))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = SiteKeys.create(folder / "keys", site="aurora")
        log = AuditLog(folder / "audit.jsonl", keys)
        wall, cpu = [], time.process_time()
        for _ in range(ALONE):
            started = time.perf_counter()
            log.append("release.made", **FACTS)
            wall.append(time.perf_counter() - started)
        cpu = (time.process_time() - cpu) / ALONE
        disk = _disk(folder / "plain")
        print(
            f"one writer, {ALONE} entries: {_ms(statistics.median(wall))} each "
            f"({_ms(statistics.quantiles(wall, n=20)[-1])} at 95 %), {_ms(cpu)} CPU; "
            f"the disk alone {_ms(disk)}"
        )
        command = [sys.executable, __file__, str(folder), str(EACH)]
        writers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(WRITERS)
        ]
        for one in writers:
            _pipe(one.stdout).readline()  # it is ready
        started = time.perf_counter()
        for one in writers:
            _pipe(one.stdin).close()
        failed = [one for one in writers if one.wait()]
        each = (time.perf_counter() - started) / (WRITERS * EACH)
        found = sum(one["body"]["event"] == "release.made" for one in log.entries())
        lost = ALONE + WRITERS * EACH - found
        print(f"{WRITERS} writers at once, {EACH} entries each: {_ms(each)} each; {lost} lost")
        started = time.process_time()
        log.verify()
        spent = (time.process_time() - started) / found
        print(f"verifying {found} entries: {_ms(spent)} CPU each")
        return 1 if lost or failed else 0


def _write(folder: Path, times: int) -> None:
    log = AuditLog(folder / "audit.jsonl", SiteKeys.open(folder / "keys"))
    print("ready", flush=True)
    sys.stdin.read()  # until all are
    for _ in range(times):
        log.append("release.made", **FACTS)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        message = "a writer without pipes"
        raise RuntimeError(message)
    return stream


def _disk(path: Path) -> float:
    """Median seconds to append as many bytes and have them on the disk."""
    spent = []
    with path.open("ab", buffering=0) as file:
        for _ in range(ALONE):
            started = time.perf_counter()
            file.write(b"x" * BYTES)
            os.fsync(file.fileno())
            spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
