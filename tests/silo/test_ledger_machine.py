"""The ledger against a model of itself, in any order of acts, with restarts and other processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from abfed.privacy.accounting import Curve
from abfed.protocol.errors import Refused
from abfed.protocol.messages import Charge
from abfed.silo.budgets import Budget
from abfed.silo.ledger import Ledger
from abfed.site.keys import SiteKeys
from tests.silo.asking import DELTA, SetClock, budgets

SIGMAS = (3.0, 5.0, 11.0)
PLANS = ("p0", "p1", "p2", "p3")
EPOCHS = ("e0", "e1")
STEPS = ("totals", "train-0001", "evaluate")
BUDGET = Budget(epsilon=4.0, delta=DELTA)


def steps_of(plan: str) -> dict[str, tuple[Charge, ...]]:
    sigma = SIGMAS[int(plan[1]) % len(SIGMAS)]
    one = Charge(event="gaussian", noise_multiplier=sigma)
    return {"totals": (one,), "train-0001": (one, one), "evaluate": (one,)}


class LedgerMachine(RuleBasedStateMachine):
    """Acts on a real ledger; `held` and `out` are what must be true of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.keys = SiteKeys.create(self.folder / "keys", site="aurora")
        self.ledger = Ledger(self.folder / "ledger.db", self.keys, SetClock())
        self.held: dict[tuple[str, str], set[str]] = {}
        self.holders: dict[tuple[str, str, str], str] = {}
        self.out: dict[str, str] = {}

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    @rule(plan=st.sampled_from(PLANS), epoch=st.sampled_from(EPOCHS))
    def reserve(self, plan: str, epoch: str) -> None:
        before = self.held.get((plan, epoch), set())
        try:
            now = self.ledger.reserve(
                plan_digest=plan,
                plan_name="n",
                purpose="p",
                epoch=epoch,
                steps=steps_of(plan),
                budgets=budgets(BUDGET),
            )
        except Refused:
            missing = [charge for step in set(STEPS) - before for charge in steps_of(plan)[step]]
            spent = Curve.of([*self._charges(), *missing])
            assert BUDGET.filter.spent(spent) > BUDGET.epsilon * (1 - 1e-9)
        else:
            assert now == (before != set(STEPS))
            self.held[plan, epoch] = set(STEPS)

    @rule(
        plan=st.sampled_from(PLANS),
        epoch=st.sampled_from(EPOCHS),
        step=st.sampled_from(STEPS),
        model=st.sampled_from("xy"),
    )
    def begin(self, plan: str, epoch: str, step: str, model: str) -> None:
        key, place = f"{plan}{epoch}{step}{model}", (plan, epoch, step)
        allowed = step in self.held.get((plan, epoch), set())
        holder = self.holders.get(place)
        taken = holder != key and holder in self.out
        try:
            self.ledger.begin(plan_digest=plan, epoch=epoch, step=step, key=key)
        except Refused:
            assert not allowed or taken
        else:
            assert allowed
            assert not taken
            self.holders[place] = key

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), digest=st.sampled_from(["d1", "d2"]))
    def settle(self, data: st.DataObject, digest: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.holders.values())))
        if self.out.get(key) == "withheld":
            with pytest.raises(Refused):
                self.ledger.settle(key, digest)
            return
        assert self.ledger.settle(key, digest) == self.out.setdefault(key, digest)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def withhold(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.holders.values())))
        self.ledger.withhold(key)
        self.out.setdefault(key, "withheld")

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        plan, epoch = data.draw(st.sampled_from(sorted(self.held)))
        back = self.ledger.return_unused(plan_digest=plan, epoch=epoch, steps=steps_of(plan))
        expected = {
            step
            for step in self.held[plan, epoch]
            if self.holders.get((plan, epoch, step)) not in self.out
        }
        assert set(back) == expected
        self.held[plan, epoch] -= expected
        for step in expected:
            self.holders.pop((plan, epoch, step), None)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder / "ledger.db", self.keys, SetClock())

    @rule()
    def look_from_elsewhere(self) -> None:
        with Ledger(self.folder / "ledger.db", self.keys) as other:
            assert other.head == self.ledger.head
            assert other.reservations() == self.ledger.reservations()

    @invariant()
    def spent_is_what_is_held(self) -> None:
        spent = self.ledger.spent_epsilon(DELTA)
        assert spent == pytest.approx(Curve.of(self._charges()).epsilon(DELTA), abs=1e-9)
        assert self.ledger.spent(BUDGET) <= BUDGET.epsilon

    @invariant()
    def every_release_is_paid_for(self) -> None:
        paid = {
            self.holders[plan, epoch, step]
            for (plan, epoch), steps in self.held.items()
            for step in steps
            if (plan, epoch, step) in self.holders
        }
        assert set(self.out) <= paid

    def _charges(self) -> list[Charge]:
        return [
            charge
            for (plan, _), steps in self.held.items()
            for step in steps
            for charge in steps_of(plan)[step]
        ]


LedgerMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLedgerMachine = pytest.mark.privacy(LedgerMachine.TestCase)


@pytest.mark.privacy
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    schedule=st.lists(
        st.lists(st.sampled_from(PLANS), min_size=2, max_size=5), min_size=2, max_size=4
    ),
    epsilon=st.floats(0.8, 6.0),
)
def test_processes_that_interleave_never_overspend(
    tmp_path: Path, schedule: list[list[str]], epsilon: float
) -> None:
    """Each list is a process of its own; all begin at once, and the kernel interleaves them."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    keys = SiteKeys.create(folder / "keys", site="aurora")
    Ledger(folder / "ledger.db", keys).close()
    budget = Budget(epsilon=epsilon, delta=DELTA)
    start, go = os.pipe()
    children = []
    for number, plans in enumerate(schedule):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(start, 1)  # until the parent closes its end
            code = 1
            try:
                with Ledger(folder / "ledger.db", keys) as mine:
                    for turn, plan in enumerate(plans):
                        try:
                            mine.reserve(
                                plan_digest=f"{plan}-{number}-{turn % 2}",
                                plan_name="n",
                                purpose="p",
                                epoch="e",
                                steps=steps_of(plan),
                                budgets=budgets(budget),
                            )
                        except Refused:
                            continue
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(start)
    os.close(go)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [
        0 for _ in children
    ]
    with Ledger(folder / "ledger.db", keys) as after:
        held = [charge for one in after.reservations() for charge in one.charges]
        assert budget.filter.spent(Curve.of(held)) <= epsilon * (1 + 1e-9)
        assert after.spent(budget) <= epsilon
