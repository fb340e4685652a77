"""The warm executor: one fork a task, refusals for what isn't ours, and no way around the pin."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from abfed.coordinator.commands import COMMANDS, SOCKET, write_executors
from tests.distributed.rig import ROOT, alive

SERVER = """
import os, sys, time
from pathlib import Path
from abfed.coordinator.warm import serve

def work(arguments):
    print(os.getpid(), *arguments, flush=True)
    if arguments[:1] == ["die"]:
        os.kill(os.getpid(), 9)
    if arguments[:1] == ["raise"]:
        raise ValueError("jane@example.org")
    if arguments[:1] == ["stay"]:
        time.sleep(600)
    return 7

serve(Path(sys.argv[1]), {"clientapp": work}, ["json"])
"""


@pytest.fixture
def site(tmp_path):
    """A site's folder with its commands."""
    (tmp_path / "bin").mkdir()
    write_executors(tmp_path / "bin", roles=frozenset({"clientapp"}))
    return tmp_path


@pytest.fixture
def warm(site):
    """A warm executor with a trivial task."""
    out = (site / "out").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(site / SOCKET)],
        stdout=out,
        stderr=out,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        end = time.monotonic() + 60
        while not (site / SOCKET).exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        yield site
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        out.close()
    assert not (site / SOCKET).exists()


def command(site, name, *arguments):
    done = subprocess.run(
        [site / "bin" / name, *arguments], capture_output=True, text=True, check=False, timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode


def test_each_task_is_a_process_of_its_own(warm):
    codes = [command(warm, "flwr-clientapp", "one", str(n)) for n in range(3)]
    assert codes == [7, 7, 7]
    lines = [line.split() for line in (warm / "out").read_text().splitlines()]
    assert [line[1:] for line in lines] == [["one", "0"], ["one", "1"], ["one", "2"]]
    assert len({line[0] for line in lines}) == 3


def test_a_task_does_not_end_with_the_superexec_that_passed_it_on(warm):
    words = ("one", "--parent-pid", "4711", "--token", "t")
    assert command(warm, "flwr-clientapp", *words) == 7
    (line,) = (warm / "out").read_text().splitlines()
    assert line.split()[1:] == ["one", "--token", "t"]


def test_a_task_that_dies_or_raises_takes_nobody_with_it_and_tells_its_type_only(warm):
    assert command(warm, "flwr-clientapp", "die") == 1
    assert command(warm, "flwr-clientapp", "raise") == 1
    assert command(warm, "flwr-clientapp", "well") == 7
    told = (warm / "out").read_text()
    assert "ValueError" in told
    assert "jane" not in told


def test_a_task_ends_with_its_executor_however_that_ends(site):
    out = (site / "out").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(site / SOCKET)],
        stdout=out,
        stderr=out,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        wait_until((site / SOCKET).exists)
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(site / SOCKET))
        line.sendall(b'["clientapp","stay"]\n')
        wait_until(lambda: "stay" in (site / "out").read_text())
        task = int((site / "out").read_text().split()[0])
    finally:
        process.kill()
        process.wait(20)
        out.close()
    try:
        wait_until(lambda: not alive(task))
        assert line.recv(1) == b""  # so the command on the PATH ends as well
    finally:
        line.close()


def wait_until(holds):
    """Wait until something holds, a minute at most."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_junk_and_other_names_run_nothing(warm):
    for junk in (b"\n", b"[]\n", b'["serverapp"]\n', b'["os.system", "id"]\n', b"\xff\n", b"{}\n"):
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(warm / SOCKET))
            line.sendall(junk)
            assert line.recv(1) == b"\x01", junk
    assert command(warm, "flwr-clientapp", "well") == 7


def test_the_socket_is_for_the_sites_own_user(warm):
    assert (warm / SOCKET).stat().st_mode & 0o777 == 0o600


def test_what_a_site_does_not_have_is_refused(site):
    others = [name for name in COMMANDS if name != "flwr-clientapp"]
    assert len(others) == 5
    assert command(site, "flwr-agentapp") == 3
    assert command(site, "flwr-serverapp") == 3


def test_without_a_warm_one_it_works_all_the_same_and_refuses_without_a_pin(site):
    address = ("--runtime-api-address", "10.0.0.1:1", "--token", "t")
    for more in (("--insecure",), ()):  # plain text beyond loopback, asked for or not
        assert command(site, "flwr-clientapp", *address, *more) == 4


def test_the_table_is_json_so_no_word_is_a_command(site):
    text = (site / "bin" / "flwr-clientapp").read_text()
    assert "shell" not in text
    assert json.dumps(["x"]) == '["x"]'
