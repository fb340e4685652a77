"""The main job at a small scale, through the command line, with a marked person in the data."""

from __future__ import annotations

import csv
from pathlib import Path

import yaml

from abfed.cli.main import main
from abfed.lab.intake import shipped
from abfed.lab.synth import write_brands

CANARY_ID = "canary.zq7x1w@example.com"
CANARY_AMOUNT = "47.13579"
CANARY_REGION = "ZZ-canary-region-93417"
CANARIES = (CANARY_ID, "canary.zq7x1w", CANARY_AMOUNT, CANARY_REGION)
"""Texts that stand in one row of Aurora's export and may stand nowhere else."""

SCALE = 0.06
"""About 1,440, 540 and 96 recipients."""


def small_plan(path: Path, **changes: object) -> Path:
    """The demo's plan with two short rounds, as a file."""
    values = yaml.safe_load(shipped("experiments/spring.yaml").read_text())
    values["training"] = {"rounds": 2, "local_steps": 3, "sampling_rate": 0.1}
    values |= changes
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    return path


def plant_canary(export: Path) -> None:
    """Add one marked person to an export of Aurora's."""
    with export.open(newline="") as file:
        rows = list(csv.DictReader(file))
    marked = dict(rows[0], email=CANARY_ID, order_value=CANARY_AMOUNT, region=CANARY_REGION)
    marked |= {"clicked": "1", "ordered": "1", "opened": "1"}
    with export.open("a", newline="") as file:
        csv.DictWriter(file, fieldnames=list(rows[0])).writerow(marked)


def found_brands(workspace: Path, exports: Path) -> None:
    """A workspace with the three synthetic brands in their silos; exports lie elsewhere."""
    options = ["-w", str(workspace)]
    assert main(["init", *options]) == 0
    assert main(["login", "--development", *options]) == 0
    for brand in write_brands(exports, seed=5, scale=SCALE):
        if brand.name == "aurora":
            plant_canary(brand.export)
        mapping = ["-m", str(brand.mapping)]
        assert main(["silo", "create", brand.name, *mapping, "--synthetic", *options]) == 0
        assert main(["silo", "ingest", brand.name, str(brand.export), *mapping, *options]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
