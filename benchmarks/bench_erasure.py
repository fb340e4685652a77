"""Erasing a thousand people from a silo of ten million encrypted rows, in one pass.

QUICK=1: one million rows; ROWS=n. Every bucket holds some of them, so every row is decrypted,
filtered and encrypted once. The bar is a minute. Prints wall and CPU seconds, and peak memory.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench_totals import CHUNK, rows  # type: ignore[import-not-found]  # noqa: E402
from peak import forget, peak  # type: ignore[import-not-found]  # noqa: E402

from abfed.silo.rewriting import Rewriting  # noqa: E402
from abfed.silo.store import Store  # noqa: E402
from abfed.site.keys import SiteKeys  # noqa: E402

ROWS = int(os.environ.get("ROWS", "1000000" if os.environ.get("QUICK") else "10000000"))
PEOPLE = 1000
BAR = 60.0


def main() -> None:
    """Make a store, erase, and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = SiteKeys.create(folder / "keys", site="bench")
        store = Store.create(folder / "store", keys)
        who: set[bytes] = set()

        def tables() -> Iterator[Any]:
            starts = range(0, ROWS, CHUNK)
            for start in starts:
                made = rows(start, min(CHUNK, ROWS - start))
                people = made["recipient"].unique().to_pylist()
                who.update(people[: -(-PEOPLE // len(starts))])
                yield made

        store.upsert(tables(), experiments={"bench": ("a", "b", "c")})
        before = store.describe()
        chosen = sorted(who)[:PEOPLE]
        forget()
        wall, cpu = time.perf_counter(), time.process_time()
        changed = Rewriting(folder / "store", keys).erase(chosen)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        store.refresh()
        if len(changed.held) != len(chosen) or store.describe().sends >= before.sends:
            raise SystemExit("they were not erased")
        print(
            f"{len(chosen):,} people of {before.sends:,} sends, {changed.buckets} buckets: "
            f"{wall:.1f} s wall, {cpu:.1f} s CPU (bar {BAR:.0f} s), peak {peak():.0f} MiB"
        )


if __name__ == "__main__":
    main()
