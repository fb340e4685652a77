"""Flower's programs, as sites keep them: one that is dead in part is dead, and is started again."""

import os
import subprocess

import pytest

from abfed.coordinator import programs
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
