"""What may happen to a brand's node alone: its disk fills up, its clock is wrong, its link is bad.

The silo behind it has a disk and a clock of its own, which `test_faults.py` fills and turns.
"""

import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from abfed.coordinator.node import NODE_FILE, Node
from abfed.protocol.canonical import canonical_bytes
from abfed.site.files import write_private
from tests.distributed.relay import DOWN, UP, Relay
from tests.distributed.rig import BRANDS, Rig, needs_nginx, plan_file
from tests.distributed.test_chaos import check_whole
from tests.distributed.test_faults import fill
from tests.distributed.test_operations import TOTALS_ONLY, status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_nginx]

# As `faketime` does it, but in the program's own process: that one is ended by its id.
WRONG = ["env", "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1", "FAKETIME=+10m"]


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A federation; aurora's node has a small disk of its own where that can be had."""
    rig = Rig(tmp_path_factory.mktemp("nodes"))
    node = rig.joined["aurora"].node
    rig.relay = Relay(rig.port)
    reaching = Node(node).settings.model_copy(update={"address": f"localhost:{rig.relay.port}"})
    write_private(node / NODE_FILE, canonical_bytes(reaching.model_dump(mode="json")))
    small = os.getuid() == 0
    try:
        if small:
            kept = node.with_name("kept")
            shutil.copytree(node, kept)
            command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "t", str(node)]
            subprocess.run(command, check=True)
            shutil.copytree(kept, node, dirs_exist_ok=True)
        rig.up()
        yield rig
    finally:
        rig.down()
        rig.relay.close()
        if small:
            subprocess.run(["umount", "--lazy", str(node)], check=True)  # a log may be open yet


def asked(rig, name, **changes):
    """A plan of totals, carried out; how it ended."""
    waiting = {"retries": 2, "retry_seconds": 1, "step_seconds": 90, "silent_seconds": 10}
    plan = plan_file(
        rig.folder / f"{name}.yaml", name=name, waiting=waiting, **TOTALS_ONLY, **changes
    )
    return rig.run(plan)


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk")
def test_a_node_whose_disk_is_full_ends_no_run_and_is_itself_again_when_there_is_room(rig):
    filler = rig.joined["aurora"].node / "filler"
    fill(filler)
    done = asked(rig, "full", minimum_silos=1)
    assert done.returncode == 0, done.stdout + done.stderr + rig.told()
    assert "borealis" in json.loads(done.stdout)["silos"]
    filler.unlink()
    rig.wait_until(lambda: all(row["node"] == "online" for row in status(rig)["silos"]), 150)
    done = asked(rig, "room", minimum_silos=2)
    assert done.returncode == 0, done.stdout + done.stderr + rig.told()
    assert json.loads(done.stdout)["silos"] == list(BRANDS)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_nodes_wrong_clock_changes_nothing(rig):
    rig.end("aurora.node")
    rig.hosts["aurora.node"] = WRONG
    rig.connect("aurora")
    rig.wait_until(lambda: '"coordinator_ahead_seconds":-' in rig.node_log("aurora"))
    status(rig, "--wait", "120")
    done = asked(rig, "ahead", minimum_silos=2)
    assert done.returncode == 0, done.stdout + done.stderr + rig.told()
    assert json.loads(done.stdout)["silos"] == list(BRANDS)
    rig.end("aurora.node")
    del rig.hosts["aurora.node"]
    rig.connect("aurora")
    status(rig, "--wait", "120")


def test_a_link_that_is_slow_cut_and_silent_in_each_direction_changes_nothing_of_a_run(rig):
    relay, seconds = rig.relay, 6.0
    plan = plan_file(
        rig.folder / "link.yaml",
        name="link",
        training={"rounds": 4, "local_steps": 2, "sampling_rate": 0.1},
        waiting={"retry_seconds": 1, "retries": 60, "step_seconds": 300, "silent_seconds": 30},
    )
    known, done = len(rig.events()), []

    def asked(step):
        rig.wait_until(lambda: any(e.get("step") == step for e in rig.events()[known:]))

    def disturb():
        relay.delay = {UP: 0.2, DOWN: 0.3}
        asked("train-0001")
        done.append(relay.cut())
        for number, way in enumerate((UP, DOWN), start=2):
            asked(f"train-{number:04d}")
            relay.held = {way}
            time.sleep(seconds)
            relay.held = set()
            done.append(way)

    disturbing = threading.Thread(target=disturb, daemon=True)
    disturbing.start()
    before = dict(relay.carried)
    finished = rig.run(plan)
    disturbing.join(30)
    assert finished.returncode == 0, finished.stdout + finished.stderr + rig.told()
    assert done[0] >= 1, "no line was cut"
    assert done[1:] == [UP, DOWN]
    assert all(relay.carried[way] - before[way] > 10_000 for way in before), "it went elsewhere"
    assert json.loads(finished.stdout)["silos"] == list(BRANDS)
    check_whole(rig, json.loads(finished.stdout)["run"], plan, 4)
