"""Coverage of every interval and level of every test, as a table: `make bench-coverage`.

Each row is 2,000 simulated experiments (TIMES=n for another number). Totals are drawn directly, by
the silo's own encodings, and read by the code that reads releases. Rows that aren't nominal are
marked, and end the run with 1: seeds are fixed, so that such a mark is a defect and not bad luck.
Rows that may err on the safe side, and do, have a mark that says so.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.statistical import coverage_table as cells

    times = int(os.environ.get("TIMES", "2000"))
    begun = time.process_time()
    print(f"{times} experiments a row; held: share of intervals with the truth, or of alarms")
    print("width: over that of its sampling part; read: share that noise didn't hide")
    head = f"{'interval or test':<40} {'of':<48} {'ε':>4} {'a brand':>9}"
    print(f"{head} {'held':>7} {'width':>7} {'read':>5}")
    bad, safe = 0, 0
    for cell in cells.every_cell(times):
        mark = "" if cells.is_nominal(cell) else "  not nominal"
        mark += f"  of {cell.times:,}" if cell.times == cells.LARGER * times else ""
        mark += "  on the safe side" if cells.is_careful(cell) else ""
        bad += not cells.is_nominal(cell)
        safe += cells.is_careful(cell)
        width = (
            "" if cell.width != cell.width or cell.width == float("inf") else f"{cell.width:.2f}"
        )
        print(
            f"{cell.interval:<40} {cell.world:<48} {cell.epsilon:>4g} {cell.recipients:>9,}"
            f" {cell.held:>7.4f} {width:>7} {cell.read:>5.2f}{mark}"
        )
    bad += show_widths()
    print(
        f"{safe} rows err on the safe side: truth in more than 97.5 %, or fewer alarms than nominal"
    )
    print(f"{bad} rows aren't nominal; {time.process_time() - begun:.0f} CPU s")
    return 1 if bad else 0


def show_widths() -> int:
    """Widths beside the published ones, and how many are off by more than 5 %."""
    from tests.statistical.widths import every_width

    print("\nwidth of the interval over these brands, over that without noise")
    print(
        f"{'noise':<7} {'metric':<10} {'rate':>6} {'a brand':>9} {'ε':>4} {'found':>6} {'said':>6}"
    )
    off = 0
    for one in every_width():
        mark = "" if one.holds else "  off by more than 5 %"
        off += not one.holds
        print(
            f"{one.noise:<7} {one.metric:<10} {one.rate:>6g} {one.recipients:>9,}"
            f" {one.epsilon:>4g} {one.found:>6.2f} {one.published:>6.2f}{mark}"
        )
    return off


if __name__ == "__main__":
    sys.exit(main())
