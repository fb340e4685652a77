"""Everything is killed at once, as by a power cut, in the middle of a run; then it goes on.

Nobody is left to end tidily: keepers, Flower's programs, couriers, silo services and the waiting
researcher are gone in the same moment. What counts is on disk, or it wasn't answered yet.
"""

import json
import os
import signal
import subprocess

import pytest

from tests.distributed.rig import ABFED, ROOT, Rig, alive, descendants, needs_nginx, plan_file
from tests.distributed.test_chaos import await_phase, check_whole, wait_for_step
from tests.distributed.test_operations import status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_nginx]
ROUNDS = 3


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("power"))
    try:
        rig.up()
        yield rig
    finally:
        rig.down()


def cut_power(rig, *others):
    """Stop every process where it is, so that none sees another one die, and kill them all."""
    roots = [one.pid for one in (*rig.processes.values(), *others)]
    pids = {*roots, *(pid for root in roots for pid in descendants(root))}
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)
    for one in (*rig.processes.values(), *others):
        one.wait(20)
    rig.processes.clear()
    rig.wait_until(lambda: not any(alive(pid) for pid in pids), 20)


def test_after_a_power_cut_it_is_started_again_and_the_run_goes_on(rig):
    plan = plan_file(
        rig.folder / "power.yaml",
        name="power",
        training={"rounds": ROUNDS, "local_steps": 2, "sampling_rate": 0.1},
        waiting={"retry_seconds": 1, "step_seconds": 300},
    )
    researcher = subprocess.Popen(
        [*ABFED, "run", str(plan), "--federation", "--json", "-w", str(rig.folder / "c")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    before = wait_for_step(rig, 0, "train-0002")
    await_phase(rig, "carried", before)
    cut_power(rig, researcher)
    for log in rig.folder.glob("*.log"):
        log.unlink()  # what was said before tells nothing about now
    rig.up()
    status(rig, "--wait", "180")
    resumed = rig.run(plan, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr + rig.told()
    check_whole(rig, json.loads(resumed.stdout)["run"], plan, ROUNDS)
