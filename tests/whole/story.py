"""The main job at a small scale, through the command line, with a marked person in the data."""

from __future__ import annotations

import base64
import csv
import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.samples.shipped import shipped
from abfed.lab.samples.synth import write_brands
from abfed.silo.service import SiloService

CANARY_ID = "canary.zq7x1w@example.com"
CANARY_AMOUNT = "47.13579"
CANARY_REGION = "ZZ-canary-region-93417"
CANARIES = (CANARY_ID, "canary.zq7x1w", CANARY_AMOUNT, CANARY_REGION)
"""Texts that stand in one row of Aurora's export and may stand nowhere else."""

SCALE = 0.08
"""About 1,920, 720 and 128 recipients: noise takes none of them below a silo's smallest cell (5
standard deviations at ε = 1.5, nearly 7 at 2)."""


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


def found_brands(workspace: Path, exports: Path, scale: float = SCALE) -> None:
    """A workspace with the three synthetic brands in their silos; exports lie elsewhere."""
    options = ["-w", str(workspace)]
    assert main(["init", *options]) == 0
    assert main(["login", "--development", *options]) == 0
    for brand in write_brands(exports, seed=5, scale=scale):
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


def traces(canary: str) -> dict[str, bytes]:
    """Forms in which a text, or a number, would give itself away among bytes."""
    plain = canary.encode()
    found = {
        "text": plain,
        "UTF-16, little end first": canary.encode("utf-16-le"),
        "UTF-16, big end first": canary.encode("utf-16-be"),
        "hex": plain.hex().encode(),
        "SHA-256": hashlib.sha256(plain).digest(),
        "SHA-256 in hex": hashlib.sha256(plain).hexdigest().encode(),
        "MD5 in hex": hashlib.md5(plain, usedforsecurity=False).hexdigest().encode(),
    }
    for before in range(3):  # base64 looks different at each place in a group of three
        encoded = base64.b64encode(b"\0" * before + plain)
        own = slice(-(-8 * before // 6), 8 * (before + len(plain)) // 6)  # its bits alone
        found[f"base64, from byte {before}"] = encoded[own]
    try:
        number = float(canary)
    except ValueError:
        return found
    doubles = {"a double": "<d", "a double, big end first": ">d"}
    return found | {form: struct.pack(code, number) for form, code in doubles.items()}


def given_away(files: dict[str, bytes]) -> list[str]:
    """Which canary stands where, and in what form."""
    return [
        f"{canary} as {form} in {name}"
        for canary in CANARIES
        for form, trace in traces(canary).items()
        for name, data in files.items()
        if trace in data
    ]


@contextmanager
def overheard(messages: Path, temporary: Path) -> Iterator[None]:
    """Keeps each message that crosses a silo's wall, and what lies in the temporary folder then."""
    messages.mkdir()
    numbers, answer = count(), SiloService.answer

    def listening(silo: SiloService, envelope: bytes) -> bytes:
        reply, number = answer(silo, envelope), next(numbers)
        (messages / f"{number:03d}-in").write_bytes(envelope)
        (messages / f"{number:03d}-out").write_bytes(reply)
        for place, (name, data) in enumerate(contents(temporary).items()):
            (messages / f"{number:03d}-{place}-{Path(name).name}").write_bytes(data)
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SiloService, "answer", listening)
        yield
