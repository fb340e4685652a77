"""Keeping processes: started again when they end, all ended when their keeper ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from abfed.coordinator.programs import free_port
from tests.distributed.rig import ROOT, alive, descendants

WORKER = """
import subprocess, sys, time
one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print('worker', one.pid, flush=True)
time.sleep(600)
"""

KEEPER = f"""
import sys
from pathlib import Path
from abfed.site.processes import Keeper, Program
sleep = [sys.executable, "-c", {WORKER!r}]
Keeper([Program("first", sleep), Program("second", sleep)], Path(sys.argv[1]) / "log").keep()
"""


@pytest.fixture
def keeper(tmp_path):
    with (tmp_path / "told").open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(tmp_path)],
            stderr=told,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        yield process, tmp_path / "told"
    finally:
        process.kill()
        process.wait()


def started(told, name):
    """Ids under which a program was started so far."""
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    return [
        one["pid"] for one in lines if one["event"] == "process.started" and one["name"] == name
    ]


def wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_killed_is_started_again_and_all_end_with_the_keeper(keeper):
    process, told = keeper
    wait_until(lambda: '"up"' in told.read_text())
    (first,) = started(told, "first")
    (second,) = started(told, "second")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(started(told, "first")) == 2)
    assert started(told, "second") == [second], "the other was touched"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not [pid for pid in (*started(told, "first"), second) if alive(pid)]


def workers(told, name):
    """Ids of what a program's runs have started."""
    lines = (told.parent / "log" / f"{name}.log").read_text().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("worker")]


def test_what_a_killed_program_left_behind_is_ended_with_it(keeper):
    process, told = keeper
    wait_until(lambda: '"up"' in told.read_text())
    wait_until(lambda: len(workers(told, "first")) == 1)
    wait_until(lambda: len(workers(told, "second")) == 1)
    (orphan,), (other,) = workers(told, "first"), workers(told, "second")
    os.kill(started(told, "first")[0], signal.SIGKILL)
    wait_until(lambda: not alive(orphan))
    assert alive(other)
    wait_until(lambda: len(workers(told, "first")) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not [pid for pid in (*workers(told, "first"), other) if alive(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_they_end_also_when_the_keeper_is_killed(keeper):
    process, told = keeper
    wait_until(lambda: '"up"' in told.read_text())
    wait_until(lambda: workers(told, "first") and workers(told, "second"))
    pids = [pid for name in ("first", "second") for pid in started(told, name)]
    pids += [pid for name in ("first", "second") for pid in workers(told, name)]
    pids += descendants(process.pid)  # who stands by ends too
    process.kill()
    process.wait()
    wait_until(lambda: not [pid for pid in pids if alive(pid)], 20)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_one_whose_keeper_is_gone_before_it_begins_never_begins(tmp_path):
    made = tmp_path / "made"
    orphan = f"""
import subprocess, sys, time
from abfed.site.processes import dying_with_us
words = dying_with_us([sys.executable, "-c", "open({str(made)!r}, 'w')"])
print(subprocess.Popen(["sh", "-c", 'sleep 0.5; exec "$@"', "sh", *words]).pid, flush=True)
"""
    told = subprocess.run(
        [sys.executable, "-c", orphan],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    wait_until(lambda: not alive(int(told.stdout)), 30)
    assert not made.exists()


LISTENER = """
import socket, sys, time
line = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""

TAKEN = f"""
import sys
from pathlib import Path
from abfed.protocol.errors import WorkspaceError
from abfed.site import processes
processes.TAKEN_LOOKS = 3
listen = [sys.executable, "-c", {LISTENER!r}, sys.argv[2]]
program = processes.Program("listener", listen, port=int(sys.argv[2]), setting="port in a file")
beside = processes.Program("beside", [sys.executable, "-c", {WORKER!r}])
try:
    processes.Keeper([program, beside], Path(sys.argv[1]) / "log").keep()
except WorkspaceError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def test_one_whose_port_is_taken_while_it_is_away_ends_them_all_and_says_by_whom(tmp_path):
    port, told = free_port(), tmp_path / "told"
    with told.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", TAKEN, str(tmp_path), str(port)],
            stderr=file,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        wait_until(lambda: '"event":"up"' in told.read_text())
        events = [json.loads(line) for line in told.read_text().splitlines()]
        ids = {one["name"]: one["pid"] for one in events if one["event"] == "process.started"}
        os.kill(ids["listener"], signal.SIGKILL)
        wait_until(lambda: not alive(ids["listener"]))
        with socket.create_server(("127.0.0.1", port)):
            assert process.wait(30) == 2
    finally:
        process.kill()
        process.wait()
    said = told.read_text()
    assert said.count('"port.taken"') == 3
    assert said.count('"name":"listener","pid"') == 1, "it was started in vain"
    last = said.splitlines()[-1]
    assert f"port in a file: address already in use: something listens on port {port}" in last
    assert f"(process {os.getpid()})" in last
    assert not alive(ids["beside"])


TALKER = """
import time
while True:
    print('x' * 999, flush=True)
    time.sleep(0.005)
"""

SMALL = f"""
import sys
from pathlib import Path
from abfed.site import processes
processes.LARGEST_LOG, processes.LOG_LOOKS = 50_000, 0.1
talk = [sys.executable, "-c", {TALKER!r}]
program = processes.Program("talker", talk)
processes.Keeper([program], Path(sys.argv[1]) / "log").keep()
"""


READERS = f"""
import sys
from pathlib import Path
from abfed.site.processes import Keeper, Program
sleep = [sys.executable, "-c", {WORKER!r}]
folder = Path(sys.argv[1])
keys = [Program(name, sleep, reads=(folder / name,)) for name in ("first", "second")]
Keeper(keys, folder / "log").keep()
"""


def test_at_a_sighup_it_is_started_again_whose_certificate_is_another(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).write_text("a certificate")
    told = tmp_path / "told"
    with told.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", READERS, str(tmp_path)],
            stderr=file,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        wait_until(lambda: '"event":"up"' in told.read_text())
        (tmp_path / "first").write_text("a new certificate")
        (tmp_path / "second").write_text("a certificate")  # written anew, and the same
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(started(told, "first")) == 2)
        process.send_signal(signal.SIGHUP)  # what was read since is known
        process.terminate()
        process.wait(30)
        assert len(started(told, "first")) == 2
        assert len(started(told, "second")) == 1
    finally:
        process.kill()
        process.wait()


def test_a_log_that_grows_is_put_aside_while_its_program_writes_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL, str(tmp_path)],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    log, aside = tmp_path / "log" / "talker.log", tmp_path / "log" / "talker.log.1"
    try:
        wait_until(aside.exists)
        first = aside.stat().st_mtime_ns
        wait_until(lambda: aside.stat().st_mtime_ns > first)  # and again, in its place
        wait_until(lambda: log.stat().st_size > 2_000)  # it is still heard
        assert log.stat().st_size < 5_000_000
        assert aside.read_bytes()[:999] == b"x" * 999  # cut at its start: no hole of zeros
        assert {one.name for one in log.parent.iterdir()} == {"talker.log", "talker.log.1"}
    finally:
        process.terminate()
        process.wait(30)
