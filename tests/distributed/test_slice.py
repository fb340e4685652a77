"""One plan, end to end, over a real SuperLink, proxy, SuperNodes and silo services."""

import json
import shutil

import pytest

from abfed.coordinator.manifest import verify
from abfed.lab.runs import Run
from tests.distributed.rig import Rig, alive, descendants, plan_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.privacy,
    pytest.mark.skipif(
        shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"
    ),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("fed"))
    rig.options = dict.fromkeys(("coordinator", "aurora.node", "aurora.silo"), ("--json",))
    try:
        rig.up()
        yield rig
    finally:
        rig.down()


@pytest.fixture(scope="module")
def done(rig):
    """The plan carried out."""
    finished = rig.run(plan_file(rig.folder / "plan.yaml"))
    assert finished.returncode == 0, finished.stdout + finished.stderr + rig.told()
    return json.loads(finished.stdout)


def test_a_plan_runs_end_to_end(rig, done):
    assert done["silos"] == ["aurora", "borealis"]
    assert not done["missing"]
    folder = rig.folder / "c" / "runs" / done["run"]
    bound = verify(folder, rig.coordinator.keys.public_key)
    assert set(bound["releases"]["aurora"]) == {"totals", "train-0001", "train-0002", "evaluate"}


def test_the_run_folder_is_that_of_an_embedded_run(rig, done):
    """The same silos, asked in one process by the same coordinator, give the same bytes."""
    run = rig.asked_again("embedded").run(rig.folder / "plan.yaml")
    distributed = Run.open(rig.folder / "c" / "runs" / done["run"])
    assert run.name == distributed.name
    assert run.manifest["releases"] == distributed.manifest["releases"]
    assert run.manifest["model"]["digest"] == distributed.manifest["model"]["digest"]
    files = {one.relative_to(run.folder) for one in run.folder.rglob("*")}
    assert files == {one.relative_to(distributed.folder) for one in distributed.folder.rglob("*")}


def test_the_same_plan_again_is_found(rig, done):
    again = rig.run(rig.folder / "plan.yaml")
    assert json.loads(again.stdout)["found"] is True


def test_everything_ends_and_nothing_is_left(rig, done):
    """Last in this file: it ends the federation."""
    below = {pid for one in rig.processes.values() for pid in descendants(one.pid)}
    assert len(below) >= 7  # SuperLink, proxy and worker, SuperExec; SuperNode and SuperExec twice
    rig.down()
    assert [pid for pid in below if alive(pid)] == []
    assert not list(rig.folder.rglob("*.sock"))
    told = {name: (rig.folder / f"{name}.log").read_text() for name in rig.options}
    said = {name: json.loads(text[text.index("\n{\n") :]) for name, text in told.items()}
    names = {"superlink", "executor", "superexec", "proxy"}
    assert said["coordinator"]["starts"] == dict.fromkeys(names, 1)
    assert said["aurora.node"]["starts"] == dict.fromkeys(("executor", "supernode", "superexec"), 1)
    assert said["aurora.silo"]["silo"] == "aurora"
    assert said["aurora.silo"]["answered"] >= 4  # totals, two rounds, evaluation
    assert said["aurora.silo"]["turned_away"] == 0
