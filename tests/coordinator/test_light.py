"""A coordinator is light: what only silos and readers need is not loaded to carry a run out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from abfed.coordinator.app import carry_out
from tests.coordinator.doubles import Federation, make_plan

federation = Federation(Path(sys.argv[1]))
outcome = carry_out(make_plan(), federation.grid(), federation.coordinator)
assert [*outcome.folder.rglob("*evaluate*")], "nothing was trained"
print(*sorted({"torch", "dp_accounting", "pandas", "opacus"} & set(sys.modules)))
"""


def test_a_run_with_training_needs_neither_torch_nor_accounting(tmp_path: Path) -> None:
    """Seconds at each start, and hundreds of MiB in every process that coordinates."""
    here = Path(__file__).resolve().parents[2]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == ""
