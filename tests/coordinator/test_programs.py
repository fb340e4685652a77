"""Flower's programs, as sites keep them: one that is dead in part is dead, and is started again."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from abfed.coordinator import programs
from abfed.protocol.errors import WorkspaceError
from tests.distributed.rig import ROOT

# Like Flower's SuperNode: a thread of its own that would keep the process alive for ever.
LIKE_FLOWER = """
import sys, threading, time

def go_on():
    print("begun", flush=True)
    time.sleep(600)

def fall():
    raise RuntimeError("the heartbeat failed")

def given_up():
    threading.Thread(target=go_on).start()

def raised():
    threading.Thread(target=go_on).start()
    raise ValueError("no")

def left():
    threading.Thread(target=go_on).start()
    sys.exit(3)

def unheard():
    threading.Thread(target=fall, daemon=True).start()
    time.sleep(600)

def unhurt():
    threading.Thread(target=fall, daemon=True).start()
    time.sleep(1)
    sys.exit(0)
"""


@pytest.mark.parametrize(
    ("name", "function", "code", "said"),
    [
        ("supernode", "given_up", 1, ""),
        ("supernode", "raised", 1, "ValueError: no"),
        ("supernode", "left", 3, ""),
        ("supernode", "unheard", 1, "the heartbeat failed"),
        ("superlink", "unhurt", 0, "the heartbeat failed"),
    ],
)
def test_a_program_that_is_dead_in_part_ends(tmp_path, monkeypatch, name, function, code, said):
    (tmp_path / "likeflower.py").write_text(LIKE_FLOWER)
    monkeypatch.setitem(programs._FLOWER, name, ("likeflower", function))
    done = subprocess.run(
        programs.flower(name),
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_free_port_is_none_that_a_kernel_may_give_away_before_it_is_taken(monkeypatch):
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < 32_768:
        pytest.skip("this machine was told to give lower ports away")
    assert all(programs.free_port() < lowest for _ in range(20))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(programs, "PORTS", range(taken, taken + 1))
        with pytest.raises(WorkspaceError, match=f"no port from {taken}"):
            programs.free_port()
