"""Many processes at one ledger, some killed amid their acts: none overspends, nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from abfed.privacy.accounting import Curve
from abfed.protocol.errors import Refused
from abfed.protocol.messages import Charge
from abfed.silo.ledger import Ledger
from abfed.site.keys import SiteKeys
from tests.silo.asking import SetClock, budgets, just_enough

CHARGE = Charge(event="gaussian", noise_multiplier=9.0)
STEPS = {"totals": (CHARGE,)}
BUDGET = just_enough(sum(25 * [Curve.of([CHARGE])], Curve()))  # for fewer than are asked
PLANS = [f"p{number}" for number in range(60)]


def _act(folder: Path, keys: SiteKeys, tell: int) -> None:
    """Charge, begin and settle plans at random; tell of each act once it is said to be durable."""
    chance = random.Random()
    with Ledger(folder / "ledger.db", keys, SetClock()) as mine:
        while True:
            plan = chance.choice(PLANS)
            try:
                mine.reserve(
                    plan_digest=plan,
                    plan_name=plan,
                    purpose="p",
                    epoch="e",
                    steps=STEPS,
                    budgets=budgets(BUDGET),
                )
                os.write(tell, f"charged {plan}\n".encode())
                mine.begin(plan_digest=plan, epoch="e", step="totals", key=plan)
                first = mine.settle(plan, f"digest-{os.getpid()}")
                os.write(tell, f"settled {plan} {first}\n".encode())
            except Refused:
                os.write(tell, f"refused {plan}\n".encode())


@pytest.mark.privacy
def test_processes_killed_amid_a_race_lose_and_overspend_nothing(tmp_path: Path) -> None:
    keys = SiteKeys.create(tmp_path / "keys", site="aurora")
    Ledger(tmp_path / "ledger.db", keys).close()
    told, tell = os.pipe()
    said = tmp_path / "said"
    chance, living = random.Random(), []

    def begin() -> int:
        child = os.fork()
        if child == 0:
            try:
                _act(tmp_path, keys, tell)
            finally:
                os._exit(3)
        return child

    with said.open("wb") as kept:
        os.set_blocking(told, False)
        try:
            begun, exhausted = time.monotonic(), False
            while time.monotonic() < begun + (6.0 if exhausted else 90.0):
                living += [begin() for _ in range(4 - len(living))]
                time.sleep(chance.uniform(0.02, 0.3))
                child = living.pop(chance.randrange(4))
                os.kill(child, signal.SIGKILL)
                assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "a process ended by itself"
                heard = _all_of(told)
                exhausted = exhausted or b"refused" in heard
                kept.write(heard)
        finally:
            for child in living:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        kept.write(_all_of(told))
    lines = [line.split() for line in said.read_text().splitlines()]
    with Ledger(tmp_path / "ledger.db", keys) as after:
        held = {one.plan_digest for one in after.reservations()}
        assert {line[1] for line in lines if line[0] == "charged"} <= held
        assert after.spent(BUDGET) <= BUDGET.epsilon
        assert len(held) == 25
        for _, plan, digest in (line for line in lines if line[0] == "settled"):
            assert after.released(plan) == digest
    assert {line[0] for line in lines} == {"charged", "settled", "refused"}


def _all_of(pipe: int) -> bytes:
    """What was told so far."""
    found = b""
    while True:
        try:
            more = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return found
        if not more:
            return found
        found += more
