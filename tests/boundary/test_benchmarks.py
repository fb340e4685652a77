"""What benchmarks print is their own."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MUCH = 200  # MiB
CHILD = """
from peak import forget, peak
mine = peak()
held = bytearray(200 << 20); held[:] = b"x" * len(held)
grown = peak(); del held; forget()
print(mine, grown, peak())
"""


def test_a_peak_is_not_the_parents_nor_what_was_before() -> None:
    held = bytearray(MUCH << 20)
    held[:] = b"x" * len(held)
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=BENCHMARKS, check=True, capture_output=True, text=True
    )
    mine, grown, after = map(float, done.stdout.split())
    assert mine < MUCH / 2 < MUCH < grown
    assert after < MUCH / 2


def test_no_benchmark_reads_a_peak_that_its_parent_left() -> None:
    code = {one: one.read_text(encoding="utf-8") for one in BENCHMARKS.glob("bench_*.py")}
    assert len(code) > 10
    assert [one.name for one, text in code.items() if "ru_maxrss" in text] == []


def test_one_split_has_no_standard_error_and_none_is_refused(monkeypatch, capsys) -> None:
    """It printed "± nan", and of none at all a mean that is nan."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    defaults = importlib.import_module("bench_defaults")
    assert defaults.told([0.1]) == "+0.1000 (one split: no standard error)"
    assert defaults.told([0.1, 0.3]) == "+0.2000 ± 0.1000"
    monkeypatch.setattr(sys, "argv", ["bench_defaults.py", "--splits", "0"])
    with pytest.raises(SystemExit) as ended:
        defaults.main()
    assert ended.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err
