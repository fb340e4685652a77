"""Everything is killed and paused in the middle of rounds; the run ends as if nothing had been.

The silos' noise takes no seed, so an undisturbed run can't be compared with directly. But a silo
gives the same release to the same question: the same coordinator, asking the same silos again
without its run folder and without any disturbance, must come to the same model bit for bit, and no
silo may have been charged twice or have released a step twice.

A round has three phases that can be seen from outside: the silos are *asked* (the server app says
so), a courier *carries* (the executor of a node has a child), a silo has *answered* (its log says
so) and the answer is on its way back. Each process is killed in each of them.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.distributed.rig import ABFED, ROOT, Rig, alive, descendants, needs_nginx, plan_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_nginx]

LIMIT = 1500  # seconds for the whole run, disturbances included
PAUSE = 6.0  # seconds of a SIGSTOP
PATIENCE = 20.0  # seconds for a phase to be seen; then it is struck anyway
PHASES = ("asked", "carried", "answered")

PARTS = (
    ("coordinator", "superlink"),
    ("borealis.node", "supernode"),
    ("courier", ""),
    ("aurora.silo", ""),
)
"""Flower's processes and ours; the server app is killed in a test of its own."""

STRIKES = (
    *(
        (*part, signal.SIGKILL, phase)
        for phase, part in itertools.product(PHASES, PARTS)
        if (part[0], phase) != ("courier", "asked")  # there is none yet: its executor is killed
    ),
    *((*part, signal.SIGSTOP, "carried") for part in (*PARTS, ("server app", ""))),
    ("aurora.node", "executor", signal.SIGKILL, "asked"),
    ("coordinator", "proxy", signal.SIGKILL, "carried"),
    ("borealis.node", "superexec", signal.SIGKILL, "asked"),
    ("coordinator", "superexec", signal.SIGKILL, "carried"),
)
"""Who is struck, one a round: a keeper's program, or a service of the rig's own; how, and when."""


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


def answers(rig):
    """How many requests the silo services have answered."""
    logs = [rig.folder / f"{brand}.silo.log" for brand in rig.brands]
    return sum(log.read_text().count('"event":"request.answered"') for log in logs)


def strike(rig, place, program, number):
    """Kill or pause; what has no keeper is started again by hand. How many were hit."""
    if place == "courier":
        pids = couriers(rig)
    elif place == "server app":
        pids = descendants(rig.pid("coordinator", "executor"))
    else:
        pids = [rig.pid(place, program) if program else rig.processes[place].pid]
    struck = [pid for pid in pids if sent(pid, number)]
    if number == signal.SIGSTOP:
        time.sleep(PAUSE)
        for pid in struck:
            sent(pid, signal.SIGCONT)
    elif place.endswith(".silo"):
        rig.processes[place].wait(20)
        rig.serve(place.removesuffix(".silo"))
    return len(struck)


def sent(pid, number):
    """Whether a process was still there for a signal: a courier lives for a moment."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def await_phase(rig, phase, before):
    """Wait until a round is in a phase; whether it was seen in time."""
    end = time.monotonic() + PATIENCE
    seen = {
        "asked": lambda: True,
        "carried": lambda: bool(couriers(rig)),
        "answered": lambda: answers(rig) > before,
    }[phase]
    while not seen():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Striker(threading.Thread):
    """Strikes once a round, in the phase that is its turn."""

    def __init__(self, rig, strikes):
        super().__init__(daemon=True)
        self.rig, self.todo, self.done = rig, list(strikes), []
        self.over = threading.Event()
        self.began = time.monotonic()

    def run(self):
        seen = set()
        while self.todo and not self.over.is_set():
            before = answers(self.rig)
            asked = [
                event["step"]
                for event in self.rig.events()
                if event.get("stage") == "ask" and event["step"].startswith("train-")
            ]
            for step in [one for one in asked if one not in seen][-1:]:
                seen.add(step)
                *target, phase = self.todo.pop(0)
                hit = await_phase(self.rig, phase, before)
                hit = bool(strike(self.rig, *target)) and hit
                self.done.append(
                    (f"{time.monotonic() - self.began:6.1f} s", step, *target, phase, hit)
                )
            time.sleep(0.05)


def facts(rig, brand, plan):
    """How often a silo reserved for a plan, and for which steps it made a release."""
    bodies = [body for body in rig.told_by(brand) if body["facts"].get("plan") == plan]
    made = [body["facts"]["step"] for body in bodies if body["event"] == "release.made"]
    return sum(body["event"] == "budget.reserved" for body in bodies), made


def check_whole(rig, run, plan, rounds):
    """The run is what an undisturbed one is, and nothing was charged twice or lost."""
    folder = rig.folder / "c" / "runs" / run
    manifest = json.loads((folder / "manifest.json").read_bytes())
    steps = ["totals", *(f"train-{n:04d}" for n in range(1, rounds + 1)), "evaluate"]
    for brand in rig.brands:
        reserved, made = facts(rig, brand, manifest["plan"])
        assert reserved == 1
        assert sorted(made) == sorted(steps), "a release was made twice, or is missing"
    undisturbed = rig.asked_again(f"again-{run}").run(plan)
    assert undisturbed.manifest["model"]["digest"] == manifest["model"]["digest"]
    assert undisturbed.manifest["releases"] == manifest["releases"]


def test_killed_and_paused_in_every_phase_it_ends_the_same(rig):
    rounds = len(STRIKES) + 2  # a pause may outlast a round
    plan = plan_file(
        rig.folder / "chaos.yaml",
        name="chaos",
        training={"rounds": rounds, "local_steps": 2, "sampling_rate": 0.1},
        waiting={"retry_seconds": 1, "retries": 60, "step_seconds": 400, "silent_seconds": 45},
    )
    striker = Striker(rig, STRIKES)
    striker.start()
    started = time.monotonic()
    finished = rig.run(plan, seconds=LIMIT)
    striker.over.set()
    striker.join(60)
    told = "\n".join(map(str, striker.done))
    assert finished.returncode == 0, finished.stdout + finished.stderr + told + rig.told()
    assert time.monotonic() - started < LIMIT
    assert len(striker.done) == len(STRIKES), told
    assert sum(hit for *_, hit in striker.done) >= len(STRIKES) - 4, told
    sys.stdout.write(f"{told}\nended after {time.monotonic() - started:.0f} s\n")
    check_whole(rig, json.loads(finished.stdout)["run"], plan, rounds)


def test_a_server_app_killed_in_each_phase_is_started_again_and_goes_on(rig):
    rounds = len(PHASES)
    plan = plan_file(
        rig.folder / "resumed.yaml",
        name="resumed",
        training={"rounds": rounds, "local_steps": 2, "sampling_rate": 0.1},
        waiting={"retry_seconds": 1, "step_seconds": 300},
    )
    known = len(rig.events())
    process = subprocess.Popen(
        [*ABFED, "run", str(plan), "--federation", "--json", "-w", str(rig.folder / "c")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        for number, phase in enumerate(PHASES, start=1):
            before = wait_for_step(rig, known, f"train-{number:04d}")
            await_phase(rig, phase, before)
            forks = descendants(rig.pid("coordinator", "executor"))
            assert forks
            for pid in forks:
                os.kill(pid, signal.SIGKILL)
        out, said = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said.decode() + rig.told()
    check_whole(rig, json.loads(out)["run"], plan, rounds)


def wait_for_step(rig, known, step):
    """Wait until a step is asked for; returns how many answers there were just before."""
    counted = [0]

    def asked():
        counted[0] = answers(rig)
        return any(
            (event.get("stage"), event.get("step")) == ("ask", step)
            for event in rig.events()[known:]
        )

    rig.wait_until(asked, 400)
    return counted[0]


def test_nothing_is_left_behind(rig):
    below = {pid for one in rig.processes.values() for pid in descendants(one.pid)}
    rig.down()
    assert [pid for pid in below if alive(pid)] == []
    left = [*rig.folder.rglob("*.sock"), *rig.folder.rglob(".aside-*")]
    assert left == []
    assert not [path for path in Path("/tmp").glob("abfed-*") if path.is_file()]
