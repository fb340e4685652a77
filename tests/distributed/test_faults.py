"""A clock that is wrong and a disk that is full, with real silos in this process."""

import contextlib
import os
import re
import shutil
import subprocess
from contextlib import closing
from datetime import timedelta

import pytest

from abfed.coordinator.app import carry_out
from abfed.coordinator.conduct import Coordinator
from abfed.coordinator.courier import make_courier
from abfed.coordinator.grid import EmbeddedGrid
from abfed.lab.samples.synth import write_brands
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import RunFailed
from abfed.protocol.messages import REFUSAL_TEXT
from abfed.protocol.plan import Plan
from abfed.silo.ingest import ingest
from abfed.silo.judging import FRESHNESS
from abfed.silo.mapping import ExportMapping
from abfed.silo.service import SiloService
from abfed.site.clock import system_clock
from tests.distributed.rig import BRANDS, plan_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    """A workspace with two brands, and the example plan."""
    folder = tmp_path_factory.mktemp("faults")
    write_brands(folder / "exports", seed=5, scale=0.03)
    workspace = Workspace.create(folder / "w", development=True)
    for name in BRANDS:
        declared = ExportMapping.load(folder / "exports" / name / "mapping.yaml")
        columns = (*declared.outcomes, *declared.features)
        silo = workspace.create_silo(name, columns=columns, synthetic=True)
        with closing(SiloService(silo)) as service:
            ingest(service.store, service.keys, declared, folder / "exports" / name / "export.csv")
    workspace.sign_in_development()
    return workspace, plan_file(folder / "plan.yaml", minimum_silos=1)


def test_a_silo_whose_clock_is_wrong_is_left_out_and_the_run_ends(founded):
    workspace, path = founded
    plan = Plan.load(path).model_copy(update={"model": None, "training": None, "name": "skewed"})
    values = plan.model_dump(mode="json", exclude={"model", "training", "privacy"})
    values["privacy"] = {"epsilon": 0.5, "delta": 1e-6, "split": {"statistics": 0.5}}
    plan = Plan.from_values(values)
    clocks = {"aurora": system_clock, "borealis": lambda: system_clock() + timedelta(minutes=10)}
    services = {n: SiloService(workspace.silo_folder(n), clock) for n, clock in clocks.items()}
    try:
        grid = EmbeddedGrid({name: make_courier(one.answer) for name, one in services.items()})
        coordinator = Coordinator(
            keys=workspace.keys,
            audit=workspace.audit,
            runs=workspace.runs_folder,
            silos=workspace.pinned_keys(),
            front=workspace.front(workspace.session()),
        )
        outcome = carry_out(plan, grid, coordinator)
    finally:
        for service in services.values():
            service.close()
    assert outcome.missing_now["borealis"] == ("refused", "stale")
    with workspace.silo("borealis") as silo:
        last = [entry["body"] for entry in silo.audit.entries()][-1]
    assert last["event"] == "request.refused"
    assert last["facts"]["why"] == "its time is -10.0 minutes from this site's"
    assert "clock" in REFUSAL_TEXT["stale"]
    assert timedelta(minutes=5) == FRESHNESS  # as the text says
    assert set(outcome.manifest["epochs"]) == {"aurora"}


def fill(path):
    """Fill the disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk")
def test_a_run_on_a_full_disk_fails_and_goes_on_when_there_is_room(founded):
    workspace, path = founded
    runs = workspace.runs_folder
    kept = runs.with_name("kept")
    shutil.copytree(runs, kept)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k,mode=700", "t", str(runs)], check=True)
    try:
        for file in kept.iterdir():
            (shutil.copytree if file.is_dir() else shutil.copy2)(file, runs / file.name)
        filler = runs / "filler"
        fill(filler)
        with pytest.raises(OSError, match="No space"):
            workspace.run(path)
        left = [*runs.glob("**/.aside-*"), *runs.glob(".*.new")]
        assert not left, "something half written was left"
        filler.unlink()
        run = workspace.run(path)
        assert set(run.silos) == set(BRANDS)
        for name in BRANDS:
            with workspace.silo(name) as silo:
                events = [entry["body"]["event"] for entry in silo.audit.entries()]
            assert events.count("budget.reserved") <= 2  # this plan, and the one before
    finally:
        subprocess.run(["umount", str(runs)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk")
def test_a_silo_whose_disk_fills_up_in_a_round_goes_on_when_there_is_room(founded):
    workspace, _ = founded
    path = plan_file(workspace.path / "full.yaml", name="full", minimum_silos=2)
    folder = workspace.silo_folder("aurora")
    kept = folder.with_name("aurora-kept")
    shutil.copytree(folder, kept)
    size = sum(one.stat().st_size for one in kept.rglob("*")) // 1024 + 3000
    small = f"size={size}k,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", small, "t", str(folder)], check=True)
    filler = folder / "filler"

    def after_the_first_round(event):
        if (event.stage, event.step) == ("closed", "train-0001"):
            fill(filler)

    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        with pytest.raises(RunFailed) as failed:
            workspace.run(path, progress=after_the_first_round)
        assert "1 of at least 2 silos answered" in failed.value.what
        assert re.match(r"aurora: (failed|refused \(failed\)): ", failed.value.why)
        filler.unlink()
        run = workspace.run(path)
        assert set(run.silos) == set(BRANDS)
        for name in BRANDS:
            with workspace.silo(name) as silo:
                bodies = [entry["body"] for entry in silo.audit.entries()]
            mine = [one for one in bodies if one["facts"].get("plan") == run.plan.digest]
            made = [one["facts"]["step"] for one in mine if one["event"] == "release.made"]
            assert sorted(made) == ["evaluate", "totals", "train-0001", "train-0002"]
            assert sum(one["event"] == "budget.reserved" for one in mine) == 1
    finally:
        subprocess.run(["umount", str(folder)], check=True)
