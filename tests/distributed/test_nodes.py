"""What may happen to a brand's node alone: its disk fills up, its clock is wrong.

The silo behind it has a disk and a clock of its own, which `test_faults.py` fills and turns.
"""

import json
import os
import shutil
import subprocess

import pytest

from tests.distributed.rig import BRANDS, Rig, needs_nginx, plan_file
from tests.distributed.test_faults import fill
from tests.distributed.test_operations import TOTALS_ONLY, status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_nginx]


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A federation; aurora's node has a small disk of its own where that can be had."""
    rig = Rig(tmp_path_factory.mktemp("nodes"))
    node = rig.joined["aurora"].node
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
        if small:
            subprocess.run(["umount", "--lazy", str(node)], check=True)  # a log may be open yet


def asked(rig, name, **changes):
    """A plan of totals, carried out; how it ended."""
    waiting = {"retries": 2, "retry_seconds": 1, "step_seconds": 90}
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
def test_a_node_whose_clock_is_ten_minutes_ahead_is_left_out_and_comes_back_by_itself(rig):
    rig.end("aurora.node")
    rig.hosts["aurora.node"] = ["faketime", "-f", "+10m"]
    rig.connect("aurora")
    rig.wait_for("aurora.node", "process.ended")  # the SuperLink believes no such signature
    done = asked(rig, "ahead", minimum_silos=1)
    assert done.returncode == 0, done.stdout + done.stderr + rig.told()
    told = json.loads(done.stdout)
    assert told["silos"] == ["borealis"]
    assert set(told["missing"]) == {"aurora"}
    rig.end("aurora.node")
    del rig.hosts["aurora.node"]
    rig.connect("aurora")
    rig.wait_until(lambda: all(row["node"] == "online" for row in status(rig)["silos"]), 150)
