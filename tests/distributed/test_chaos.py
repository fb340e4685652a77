"""Everything is killed and paused in the middle of rounds; the run ends as if nothing had been.

The silos' noise takes no seed, so an undisturbed run can't be compared with directly. But a silo
gives the same release to the same question: the same coordinator, asking the same silos again
without its run folder and without any disturbance, must come to the same model bit for bit, and no
silo may have been charged twice or have released a step twice.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.distributed.rig import ROOT, Rig, alive, descendants, plan_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"
    ),
]

LIMIT = 1500  # seconds for the whole run, disturbances included
PAUSE = 6.0  # seconds of a SIGSTOP
OFFSETS = (0.2, 1.5, 3.5)  # seconds into a round: asked, on the way, computed

STRIKES = (
    ("aurora.node", "executor", signal.SIGKILL),
    ("coordinator", "proxy", signal.SIGKILL),
    ("aurora.silo", "", signal.SIGKILL),
    ("borealis.node", "superexec", signal.SIGKILL),
    ("coordinator", "superlink", signal.SIGSTOP),
    ("aurora.silo", "", signal.SIGSTOP),
    ("coordinator", "superlink", signal.SIGKILL),
    ("borealis.node", "supernode", signal.SIGSTOP),
    ("courier", "", signal.SIGKILL),
    ("coordinator", "superexec", signal.SIGKILL),
    ("borealis.node", "supernode", signal.SIGKILL),
)
"""Who is struck, one a round: a keeper's program, or a service of the rig's own."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("fed"))
    try:
        rig.up()
        yield rig
    finally:
        rig.down()


def couriers(rig):
    """Ids of forks of the warm executors: each carries one message."""
    warm = [rig.pid(f"{brand}.node", "executor") for brand in rig.brands]
    return [child for pid in warm for child in descendants(pid)]


def strike(rig, place, program, number):
    """Kill or pause; what has no keeper is started again by hand, as systemd would."""
    if place == "courier":
        for pid in couriers(rig):
            os.kill(pid, number)
        return
    pid = rig.pid(place, program) if program else rig.processes[place].pid
    os.kill(pid, number)
    if number == signal.SIGSTOP:
        time.sleep(PAUSE)
        os.kill(pid, signal.SIGCONT)
    elif not program:
        rig.processes[place].wait(20)
        rig.serve(place.removesuffix(".silo"))


class Striker(threading.Thread):
    """Strikes once a round, at a changing moment of it."""

    def __init__(self, rig, strikes):
        super().__init__(daemon=True)
        self.rig, self.todo, self.done = rig, list(strikes), []
        self.over = threading.Event()

    def run(self):
        seen = set()
        while self.todo and not self.over.is_set():
            time.sleep(0.1)
            for event in events(self.rig):
                key = (event.get("stage"), event.get("step"))
                if key[0] == "ask" and key[1].startswith("train-") and key not in seen:
                    seen.add(key)
                    time.sleep(OFFSETS[len(self.done) % len(OFFSETS)])
                    target = self.todo.pop(0)
                    strike(self.rig, *target)
                    self.done.append((event["step"], *target))
                    break


def events(rig):
    """Events of all runs so far."""
    found = []
    for path in (rig.folder / "c" / "federation" / "orders").glob("*.events"):
        whole = path.read_bytes().rpartition(b"\n")[0]
        found += [json.loads(line) for line in whole.splitlines()]
    return found


def facts(rig, brand):
    """How often a silo reserved, made a release for each step."""
    with rig.workspaces[brand].silo(brand) as service:
        bodies = [entry["body"] for entry in service.audit.entries()]
    made = [body["facts"]["step"] for body in bodies if body["event"] == "release.made"]
    reserved = sum(body["event"] == "budget.reserved" for body in bodies)
    return reserved, made


def check_whole(rig, run, rounds):
    """The run is what an undisturbed one is, and nothing was charged twice or lost."""
    steps = ["totals", *(f"train-{n:04d}" for n in range(1, rounds + 1)), "evaluate"]
    for brand in rig.brands:
        reserved, made = facts(rig, brand)
        assert reserved == 1
        assert sorted(made) == sorted(steps), "a release was made twice, or is missing"
    folder = rig.folder / "c" / "runs" / run
    manifest = json.loads((folder / "manifest.json").read_bytes())
    undisturbed = rig.asked_again(f"again-{run}").run(rig.folder / f"{rounds}.yaml")
    assert undisturbed.manifest["model"]["digest"] == manifest["model"]["digest"]
    assert undisturbed.manifest["releases"] == manifest["releases"]


def test_killed_and_paused_in_every_round_it_ends_the_same(rig):
    rounds = len(STRIKES)
    plan = plan_file(
        rig.folder / f"{rounds}.yaml",
        name="chaos",
        training={"rounds": rounds, "local_steps": 2, "sampling_rate": 0.1},
        waiting={"retry_seconds": 1, "retries": 60, "step_seconds": 400},
    )
    random.seed(7)
    striker = Striker(rig, STRIKES)
    striker.start()
    started = time.monotonic()
    finished = rig.run(plan, seconds=LIMIT)
    striker.over.set()
    striker.join(60)
    assert finished.returncode == 0, finished.stdout + finished.stderr + rig.told()
    assert time.monotonic() - started < LIMIT
    assert len(striker.done) == len(STRIKES), striker.done
    check_whole(rig, json.loads(finished.stdout)["run"], rounds)


def test_a_killed_server_app_is_gone_on_with(rig):
    rounds = 3
    plan = plan_file(
        rig.folder / f"{rounds}.yaml",
        name="resumed",
        experiment="spring-2026",
        training={"rounds": rounds, "local_steps": 2, "sampling_rate": 0.1},
        waiting={"retry_seconds": 1, "step_seconds": 300},
    )
    command = [sys.executable, "-c", "from abfed.cli.main import script; script()", "run"]
    process = subprocess.Popen(
        [*command, str(plan), "--federation", "-w", str(rig.folder / "c")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        before = len(events(rig))
        rig.wait_until(
            lambda: any(
                (e.get("stage"), e.get("step")) == ("closed", "train-0001")
                for e in events(rig)[before:]
            ),
            600,
        )
        forks = descendants(rig.pid("coordinator", "executor"))
        assert forks
        for pid in forks:
            os.kill(pid, signal.SIGKILL)
        assert process.wait(300) != 0  # it says that the run ended
    finally:
        process.kill()
        process.wait()
    resumed = rig.run(plan, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr + rig.told()


def test_nothing_is_left_behind(rig):
    below = {pid for one in rig.processes.values() for pid in descendants(one.pid)}
    rig.down()
    assert [pid for pid in below if alive(pid)] == []
    left = [*rig.folder.rglob("*.sock"), *rig.folder.rglob(".aside-*")]
    assert left == []
    assert not [path for path in Path("/tmp").glob("abfed-*") if path.is_file()]
