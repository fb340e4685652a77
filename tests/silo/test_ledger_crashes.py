"""Killed at any instruction, or on a full disk: no charge is lost, nothing leaves uncharged."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from abfed.site.keys import SiteKeys
from tests.examples import make_plan
from tests.silo.asking import DELTA, HOLDINGS, write_policy
from tests.silo.crashing import (
    Ended,
    attempt,
    count_instructions,
    house_in,
    kill_at,
    no_file_beyond,
)

PLAN = make_plan()
BEFORE = make_plan(name="before")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A house that has answered something else already."""
    folder = tmp_path_factory.mktemp("house") / "house"
    folder.mkdir()
    SiteKeys.create(folder / "keys", site="aurora")
    hub = SiteKeys.create(folder / "hub", site="hub")
    write_policy(folder / "policy.yaml", hub.public_key)
    with house_in(folder) as opened:
        opened.answer(BEFORE)
        opened.answer(make_plan(name="warm"))  # all that is loaded once is loaded now
    return folder


def check(ended: Ended) -> None:
    """What must hold after whatever happened."""
    with house_in(ended.folder) as house:
        held = [one.plan_digest for one in house.ledger.reservations()]
        spent = house.ledger.spent_epsilon(DELTA)
        assert BEFORE.digest in held, "an earlier charge is lost"
        if ended.permitted or ended.left:
            assert PLAN.digest in held, "computed without a charge"
        first = house.gate().admit(house.asker.request(PLAN), HOLDINGS)
        if ended.left:
            assert getattr(first, "envelope", None) == ended.left, "released twice"
        again = first.envelope if hasattr(first, "envelope") else house.answer(PLAN)
        assert house.answer_again(PLAN) == again
        held_now = [one.plan_digest for one in house.ledger.reservations()]
        assert held_now.count(PLAN.digest) == 1
        if PLAN.digest in held:
            assert house.ledger.spent_epsilon(DELTA) == spent, "charged twice"
        house.audit.verify()


def _kills(house: Path, tmp_path: Path, points: list[int]) -> list[Ended]:
    ends = []
    for point in points:
        ended = attempt(house, tmp_path / str(point), PLAN, kill_at(point))
        check(ended)
        shutil.rmtree(ended.folder)
        ends.append(ended)
    return ends


@pytest.mark.privacy
def test_a_kill_at_some_instructions_loses_no_charge(house: Path, tmp_path: Path) -> None:
    total = count_instructions(house, tmp_path / "counted", PLAN)
    points = sorted(random.Random().sample(range(total), 40))
    ends = _kills(house, tmp_path, points)
    assert all(one.killed for one in ends)
    assert {one.permitted for one in ends} == {True, False}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_kill_at_every_instruction_loses_no_charge(house: Path, tmp_path: Path) -> None:
    total = count_instructions(house, tmp_path / "counted", PLAN)
    assert total > 2000
    ends = _kills(house, tmp_path, list(range(random.Random().randrange(8), total, 8)))
    assert all(one.killed for one in ends)


@pytest.mark.privacy
def test_a_full_disk_loses_no_charge(house: Path, tmp_path: Path) -> None:
    """Wherever the writing stops: database, write-ahead log, audit log or release."""
    outcomes = set()
    for size in [0, 1, 100, 1000, 4096, *range(30_000, 130_000, 4_000)]:
        ended = attempt(house, tmp_path / str(size), PLAN, no_file_beyond(size))
        check(ended)
        outcomes.add((ended.permitted, bool(ended.left)))
        shutil.rmtree(ended.folder)
    assert (False, False) in outcomes
    assert (True, True) in outcomes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", *options], check=False, capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.privacy
def test_a_disk_that_is_really_full_loses_no_charge(
    house: Path, small_disk: Path, tmp_path: Path
) -> None:
    outcomes = set()
    for number, room in enumerate(range(0, 130_000, 8_000)):
        folder = small_disk / "house"

        def fill(room: int = room) -> None:
            free = os.statvfs(small_disk)
            (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - room))

        ended = attempt(house, folder, PLAN, fill)
        (small_disk / "filler").unlink()
        saved = tmp_path / str(number)
        shutil.move(folder, saved)
        check(ended._replace(folder=saved))
        outcomes.add((ended.permitted, bool(ended.left)))
    assert (False, False) in outcomes
    assert (True, True) in outcomes


CALLS = ("pwrite64", "fdatasync", "fsync", "rename")


@pytest.mark.slow
@pytest.mark.privacy
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_every_system_call_that_writes_loses_no_charge(
    house: Path, tmp_path: Path, call: str
) -> None:
    """SQLite's own instructions can't be counted from here; what it asks the kernel for can."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    for number in range(1, 60):
        folder = tmp_path / f"{call}{number}"

        def attach(number: int = number) -> None:
            inject = f"inject={call}:signal=SIGKILL:when={number}"
            command = ["strace", "-qq", "-f", "-p", str(os.getpid()), "-e", f"trace={call}"]
            subprocess.Popen([*command, "-e", inject], stderr=subprocess.DEVNULL)
            for _ in range(400):
                status = Path("/proc/self/status").read_text()
                if "TracerPid:\t0" not in status:
                    return
                time.sleep(0.01)
            os._exit(7)

        ended = attempt(house, folder, PLAN, attach)
        check(ended)
        shutil.rmtree(folder)
        if not ended.killed:
            assert ended.left, "strace could not attach"
            assert number > 2 or call == "rename"
            return
    pytest.fail("the child never came to its end")
