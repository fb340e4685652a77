"""What computes no figure loads nothing that does.

A batch's own process checks, hands out and signs; its memory is spent beside that of its workers
and kernels (`benchmarks/bench_reports.py`). Whoever stops a federation's run is only judged: each
second that it takes, the run goes on.
"""

import json
import subprocess
import sys

from abfed.lab.workspace import Workspace
from tests.lab.example import make_run, statistics_only

HEAVY = (
    "flwr", "grpc", "numpy", "scipy", "dp_accounting", "matplotlib", "torch", "pandas", "pyarrow",
    "opendp",
)  # fmt: skip
ORDERING = """
import json, sys
from pathlib import Path
from abfed.cli import batch
from abfed.lab.reports import batch_index, batch_run
from abfed.lab.reports.batches import BatchSpec, items_of
from abfed.lab.workspace import Workspace
found = items_of(BatchSpec.load(Path("grid.yaml")), Workspace("workspace"), beside=Path())
print(json.dumps([len(found.items), sorted({one.partition(".")[0] for one in sys.modules})]))
"""


def test_ordering_a_batch_loads_nothing_that_computes(tmp_path):
    make_run(tmp_path / "workspace", statistics_only(simulation={"seed": 3}))
    (tmp_path / "grid.yaml").write_text(
        "name: light\nruns: [subject-lines, all]\nnotebook: portfolio\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", ORDERING], cwd=tmp_path, capture_output=True, check=True
    )
    count, modules = json.loads(done.stdout)
    assert count == 2
    assert [one for one in HEAVY if one in modules] == []


def test_a_worker_loads_nothing_that_computes():
    ours = (
        "finished", "disclosure.gate", "paper.exporters", "reports.engine", "reports.kernels",
        "reports.report", "reports.worker",
    )  # fmt: skip
    script = f"import sys, {', '.join(f'abfed.lab.{one}' for one in ours)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    loaded = {one.partition(".")[0] for one in done.stdout.split()}
    assert [one for one in HEAVY if one in loaded] == []


def test_judging_who_stops_a_run_loads_nothing_that_computes(tmp_path):
    Workspace.create(tmp_path / "w", development=True).sign_in_development()
    script = (
        "import sys; from pathlib import Path; from abfed.lab.workspace import Workspace;"
        "Workspace(Path('w')).authorise('plan.submit'); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    loaded = {one.partition(".")[0] for one in done.stdout.split()}
    assert [one for one in HEAVY if one in loaded] == []
