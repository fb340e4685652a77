"""Totals of a silo against DuckDB's same aggregation on plain Parquet, in one run.

Ten million encrypted rows (QUICK=1: two million; ROWS=n), one to five sends a recipient, three
metrics, three arms. The silo decrypts, selects lawful rows, bounds, encodes and sums; DuckDB only
aggregates, per recipient and then per arm, on one unencrypted file. Both are measured in processes
of their own, in turn; the medians of CPU seconds and of wall seconds, and the peak memory of each.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peak import peak  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
ROWS = int(os.environ.get("ROWS", "2000000" if os.environ.get("QUICK") else "10000000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
WARM = 20_000
BAR = 2.0
CHUNK = 500_000

PLAN: dict[str, Any] = {
    "name": "bench",
    "purpose": "email-optimisation",
    "experiment": "bench",
    "silos": ["bench"],
    "arms": [
        {"name": "a", "share": 0.5, "control": True},
        {"name": "b", "share": 0.25},
        {"name": "c", "share": 0.25},
    ],
    "metrics": [
        {"name": "clicked", "kind": "proportion", "column": "clicked"},
        {"name": "spend", "kind": "mean", "column": "revenue", "high": 200.0},
        {"name": "ctor", "kind": "ratio", "numerator": "clicked", "denominator": "opened"},
    ],
    "primary": "clicked",
    "sends_per_recipient": 5,
    "privacy": {"epsilon": 1.0, "split": {"statistics": 1.0}},
}

QUERY = """
WITH each AS (
  SELECT recipient, any_value(arm) AS arm, bool_or(clicked) AS clicked,
    least(greatest(sum(revenue), 0), 200) / 200 AS u,
    least(count_if(opened AND clicked), 5) / 5 AS a, least(count_if(opened), 5) / 5 AS b
  FROM read_parquet('{path}') WHERE NOT opted_out AND basis = 'consent' AND experiment = 'bench'
  GROUP BY recipient)
SELECT arm, count(*), count_if(clicked), sum(u), sum(u * u), sum(a), sum(b),
  sum(a * a), sum(a * (b - a)), sum((b - a) * (b - a)) FROM each GROUP BY arm ORDER BY arm
"""


def rows(start: int, many: int) -> Any:
    """Canonical rows of whole recipients. Made up."""
    import numpy as np
    import pyarrow as pa

    from abfed.silo.rows import canonical_schema

    rng = np.random.default_rng(start)
    sends = rng.integers(1, 6, many)
    sends = sends[: int(np.searchsorted(np.cumsum(sends), many))]
    person = np.repeat(np.arange(len(sends)), sends)
    words = rng.integers(0, 2**63, (len(sends), 2)).astype(">u8")
    number = np.arange(len(person)) - np.repeat(np.cumsum(sends) - sends, sends)
    arm = np.array(["a", "b", "c", "a"])[rng.integers(0, 4, len(sends))][person]
    opened = rng.random(len(person)) < 0.3
    clicked = opened & (rng.random(len(person)) < 0.2)
    revenue = np.where(rng.random(len(person)) < 0.01, rng.lognormal(4.4, 0.7, len(person)), 0.0)
    pseudonyms = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(person), [None, pa.py_buffer(words[person].tobytes())]
    )
    moment = 1_772_000_000_000_000 + number * 86_400_000_000
    columns = {
        "recipient": pseudonyms,
        "experiment": pa.array(["bench"]).take(pa.array(np.zeros(len(person), np.int64))),
        "arm": pa.array(arm),
        "sent_at": pa.array(moment, pa.timestamp("us", tz="UTC")),
        "basis": pa.array(["consent"]).take(pa.array(np.zeros(len(person), np.int64))),
        "opted_out": pa.array(np.zeros(len(person), bool)),
        "region": pa.array(["EU"]).take(pa.array(np.zeros(len(person), np.int64))),
        "opened": pa.array(opened),
        "clicked": pa.array(clicked),
        "revenue": pa.array(revenue),
    }
    schema = canonical_schema(("opened", "clicked", "revenue"), {})
    return pa.table([columns[name] for name in schema.names], schema=schema)


def make(folder: Path, many: int) -> None:
    """The same rows twice: in an encrypted store, and plain."""
    import pyarrow.parquet as pq

    from abfed.silo.store import Store
    from abfed.site.keys import SiteKeys

    keys = SiteKeys.create(folder / "keys", site="bench")
    store = Store.create(folder / "store", keys)
    starts = range(0, many, CHUNK)

    def tables() -> Any:
        writer = None
        for start in starts:
            table = rows(start, min(CHUNK, many - start))
            writer = writer or pq.ParquetWriter(folder / "plain.parquet", table.schema)
            writer.write_table(table)
            yield table
        if writer is not None:
            writer.close()

    store.upsert(tables(), experiments={"bench": ("a", "b", "c")})


def silo(folder: Path) -> list[list[float]]:
    """Totals by the silo's own computation."""
    from abfed.protocol.plan import Plan
    from abfed.silo.store import Store
    from abfed.silo.totals import columns_needed, compute_totals
    from abfed.site.keys import SiteKeys
    from abfed.stats.encoding import SCALE
    from tests.statistical.people import permit

    plan = Plan.from_values(PLAN | {"privacy": "none"})  # exact: so that both can be compared
    store = Store.open(folder / "store", SiteKeys.open(folder / "keys"))
    allowed = permit(plan, 1.0)
    object.__setattr__(allowed, "epoch", store.epoch)
    found = compute_totals(allowed, store.read(allowed, columns_needed(plan))).arrays["totals"]
    return [[float(value) / SCALE for value in row] for row in found]


def duck(folder: Path) -> list[list[float]]:
    """The same sums by DuckDB, on plain Parquet."""
    import duckdb

    with duckdb.connect() as connection:
        connection.sql("SET threads TO 1")
        found = connection.sql(QUERY.format(path=folder / "plain.parquet")).fetchall()
    out = []
    for _, n, clicks, u, uu, a, b, aa, ab, bb in found:
        ctor = [a, b - a, n - b, aa, 2**0.5 * ab, bb]
        out.append([clicks, n - clicks, u, n - u, uu, *ctor])
    return [[float(value) for value in row] for row in out]


def child(which: str, folder: Path) -> None:
    """Measure one of them, and print what it took."""
    work = {"silo": silo, "duck": duck}[which]
    work(folder.parent / f"{folder.name}-warm")  # a small one first: imports, threads, caches
    wall, cpu = time.perf_counter(), time.process_time()
    sums = work(folder)
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "sums": sums}
    print(json.dumps(took | {"peak": peak()}))


def measured(which: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, which, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "rows"
        for one, many in ((folder, ROWS), (folder.with_name("rows-warm"), WARM)):
            one.mkdir(mode=0o700)
            make(one, many)
        pairs = [(measured("silo", folder), measured("duck", folder)) for _ in range(ROUNDS)]
    mine, theirs = pairs[-1]
    worst = max(
        abs(a - b) / max(abs(b), 1.0)
        for one, two in zip(mine["sums"], theirs["sums"], strict=True)
        for a, b in zip(one, two, strict=True)
    )
    print(f"{ROWS:,} rows; largest relative difference of any total {worst:.1e}")
    print(f"{'median of ' + str(ROUNDS):<28} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9}")
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    for name, side in zip(("silo, encrypted", "DuckDB, plain"), sides, strict=True):
        wall, cpu, most = (
            statistics.median(one[k] for one in side) for k in ("wall", "cpu", "peak")
        )
        print(f"{name:<28} {wall:>8.2f} {cpu:>8.2f} {most:>9.0f}")
    ratios = [a["cpu"] / b["cpu"] for a, b in pairs]
    walls = [a["wall"] / b["wall"] for a, b in pairs]
    print(f"silo over DuckDB: CPU {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
          f"{max(ratios):.2f}), wall {statistics.median(walls):.2f}; bar {BAR:g}")  # fmt: skip
    return 0 if statistics.median(ratios) <= BAR and worst < 1e-3 else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
        sys.exit(0)
    sys.exit(main())
