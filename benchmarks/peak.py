"""Most memory that this program held, for benchmarks that print it.

By `VmHWM`, which begins at nothing when a program is started. `ru_maxrss` begins with what the
parent held at its most, and the parent may have made ten million rows.
"""

from __future__ import annotations

from pathlib import Path

PROCESS = Path("/proc/self")
RESET_PEAK = "5"
"""What proc(5) has for it under `clear_refs`."""


def peak() -> float:
    """In MiB, since the program began or since `forget`."""
    lines = (PROCESS / "status").read_text(encoding="ascii").splitlines()
    return int(next(one for one in lines if one.startswith("VmHWM:")).split()[1]) / 1024  # kB


def forget() -> None:
    """From here on: what was made before isn't what is measured."""
    (PROCESS / "clear_refs").write_text(RESET_PEAK, encoding="ascii")
