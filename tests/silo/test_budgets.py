"""Budgets by purpose, period and for re-runs; what a preview says; what comes back."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abfed.privacy.accounting import ORDERS, Curve
from abfed.protocol.errors import InputError, Refused
from abfed.protocol.messages import Charge
from abfed.silo.budgets import Budget, Budgets, PeriodBudget, PurposeBudget, Spending
from abfed.silo.ledger import Ledger
from abfed.silo.policy import Policy
from abfed.site.keys import SiteKeys
from tests.silo.asking import DELTA, SetClock, budgets, charged, just_enough, policy_values

CHARGE = Charge(event="gaussian", noise_multiplier=5.0)
STEPS = {"totals": (CHARGE,), "train-0001": (CHARGE, CHARGE), "evaluate": (CHARGE,)}
ONE = Curve.of([CHARGE] * 4)
WIDE = Budget(epsilon=1e3, delta=DELTA)


def enough(plans: int) -> Budget:
    fits = just_enough(sum(plans * [ONE], Curve()))
    return Budget(epsilon=fits.epsilon * (1 + 1e-9), delta=DELTA)  # sums are rounded up


def parts(kind: type, plans: int, **more: Any) -> Any:
    return kind(**more, **enough(plans).model_dump())


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: SetClock) -> Iterator[Ledger]:
    keys = SiteKeys.create(tmp_path / "keys", site="aurora")
    with Ledger(tmp_path / "ledger.db", keys, clock) as opened:
        yield opened


def reserve(ledger: Ledger, plan: str, allowed: Any, **changes: Any) -> bool:
    values: dict[str, Any] = {
        "plan_digest": plan,
        "plan_name": plan,
        "purpose": "p",
        "epoch": "e1",
        "steps": STEPS,
        "budgets": allowed,
    }
    return ledger.reserve(**(values | changes))


def fits(ledger: Ledger, plan: str, allowed: Any, **changes: Any) -> bool:
    try:
        return reserve(ledger, plan, allowed, **changes)
    except Refused:
        return False


def test_a_purpose_has_a_budget_of_its_own_within_the_total(ledger: Ledger) -> None:
    allowed = budgets(enough(3), purposes=(parts(PurposeBudget, 1, purpose="p"),))
    assert fits(ledger, "a", allowed)
    assert not fits(ledger, "b", allowed)
    assert fits(ledger, "c", allowed, purpose="q")
    assert fits(ledger, "d", allowed, purpose="q")
    assert not fits(ledger, "e", allowed, purpose="q")


@pytest.mark.parametrize(
    "changes", [{"plan_name": "n"}, {"purpose": "q"}, {"epoch": "e2"}, {"plan_digest": "other"}]
)
def test_no_new_name_resets_a_budget(ledger: Ledger, changes: dict[str, Any]) -> None:
    """A plan, purpose, experiment (in the digest) or data set by another name: the same people."""
    allowed = budgets(enough(1))
    assert fits(ledger, "a", allowed)
    before = charged(ledger)
    assert not fits(ledger, "a", allowed, **changes)
    assert charged(ledger) == before


def test_a_period_renews_and_forgets_nothing(ledger: Ledger, clock: SetClock) -> None:
    clock.now = datetime(2026, 3, 30, 23, tzinfo=UTC)
    period = parts(PeriodBudget, 2, days=90, starts="2026-01-01")
    allowed = budgets(enough(3), period=period)
    assert [fits(ledger, name, allowed) for name in "abc"] == [True, True, False]
    clock.forward(days=3)  # from 1 April: a new period
    total, now = ledger.standing(allowed)
    assert now.scope == "period from 2026-04-01"
    assert (now.spent, now.left) == (0.0, now.budget)
    assert now.renews.startswith("2026-06-30")
    assert total.spent > 0  # what was spent stays spent there
    assert [fits(ledger, name, allowed) for name in "cd"] == [True, False]
    clock.forward(days=900)
    assert not fits(ledger, "d", allowed)  # the total never renews
    clock.now = datetime(2026, 4, 2, tzinfo=UTC)
    assert ledger.standing(allowed)[1].spent > 0


def test_a_clock_set_back_finds_no_empty_period(ledger: Ledger, clock: SetClock) -> None:
    """What is charged counts from its period on, so an earlier one isn't free again."""
    allowed = budgets(WIDE, period=parts(PeriodBudget, 1, days=30, starts="2026-01-01"))
    assert fits(ledger, "a", allowed)
    clock.forward(days=-90)
    assert not fits(ledger, "b", allowed)


def test_before_its_first_day_a_policy_is_bound_by_periods_too(ledger: Ledger) -> None:
    allowed = budgets(WIDE, period=parts(PeriodBudget, 1, days=30, starts="2027-01-01"))
    assert fits(ledger, "a", allowed)
    assert not fits(ledger, "b", allowed)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days=st.lists(st.integers(-200, 200), min_size=2, max_size=12))
def test_however_the_clock_moves_no_period_gets_more_than_its_own(
    tmp_path: Path, days: list[int]
) -> None:
    """One plan fits into a period: never more are charged than periods began, by any clock."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    clock = SetClock()
    first, begun, charged_plans = clock.now, set(), 0
    period = parts(PeriodBudget, 1, days=30, starts="2026-01-01")
    allowed = budgets(WIDE, period=period)
    keys = SiteKeys.create(folder / "keys", site="aurora")
    with Ledger(folder / "ledger.db", keys, clock) as ledger:
        latest = first + timedelta(days=min(days))
        for number, day in enumerate(days):
            clock.now = first + timedelta(days=day)
            latest = max(latest, clock.now)
            begun.add(period.window(latest)[0])
            charged_plans += fits(ledger, f"p{number}", allowed)
            assert charged_plans <= len(begun)


def test_steps_charged_again_under_a_clock_set_back_stay_in_their_period(
    ledger: Ledger, clock: SetClock
) -> None:
    allowed = budgets(WIDE, period=parts(PeriodBudget, 1, days=30, starts="2026-03-01"))
    assert fits(ledger, "a", allowed)
    ledger.return_unused(plan_digest="a", epoch="e1", steps=STEPS)
    clock.forward(days=-20)
    assert fits(ledger, "a", allowed)
    clock.forward(days=20)
    assert not fits(ledger, "b", allowed)


def test_one_erasure_is_followed_by_one_re_run(ledger: Ledger) -> None:
    """Later states of the data are new questions: the reserve and the period aren't theirs."""
    period = parts(PeriodBudget, 1, days=30, starts="2026-03-01")
    allowed = budgets(WIDE, rerun_reserve=1.0, period=period)
    assert fits(ledger, "a", allowed)
    assert fits(ledger, "a", allowed, epoch="e2", erasures=1)
    assert not fits(ledger, "a", allowed, epoch="e3", erasures=1)
    assert fits(ledger, "a", allowed, epoch="e4", erasures=2)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3])
def test_a_reserve_and_its_total_share_one_delta(epsilon: float, kept: float) -> None:
    """Both bounds of the total hold for one promise: their δ, order by order, add up to one."""
    whole = Budgets(total=Budget(epsilon=epsilon, delta=DELTA), rerun_reserve=kept)
    spending = Spending(Curve(), lambda _: Curve(), lambda _: Curve())
    total = 0.0
    for at, order in enumerate(ORDERS):
        shares = []
        for rerun in (False, True):
            (scope,) = whole.scopes(spending, purpose=None, now=SetClock().now, rerun=rerun)
            # the largest curve that is admitted at this order alone, and what it may give away
            only = (math.nan,) * at, (math.nan,) * (len(ORDERS) - at - 1)
            most = _root(lambda v, s=scope, o=only: s.budget.admits(Curve(), _at(v, *o)))
            loss = (order - 1) * (most - epsilon)
            shares.append(math.exp(loss) * (1 - 1 / order) ** (order - 1) / order)
        total += max(shares)
    assert total <= DELTA * (1 + 1e-6)


def _at(value: float, before: tuple[float, ...], after: tuple[float, ...]) -> Curve:
    return Curve((*before, value, *after))


def _root(admits: Callable[[float], bool]) -> float:
    """Up to where it is admitted; less than nothing where nothing is."""
    low, high = 0.0, 100.0
    if not admits(1e-12):
        return -math.inf
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if admits(middle) else (low, middle)
    return low


def test_a_reserve_serves_plans_asked_again_after_an_erasure(ledger: Ledger) -> None:
    whole = enough(3)
    kept = whole.epsilon - enough(2).epsilon
    allowed = budgets(whole, rerun_reserve=kept * 1.001)
    assert fits(ledger, "a", allowed)
    assert not fits(ledger, "b", allowed)  # the third plan's worth is kept
    assert not fits(ledger, "a", allowed, epoch="e2")  # other data, but nobody was erased
    assert fits(ledger, "a", allowed, epoch="e2", erasures=1)
    assert fits(ledger, "a", allowed, epoch="e3", erasures=2)
    assert not fits(ledger, "a", allowed, epoch="e4", erasures=3)  # never beyond the total


def test_a_preview_is_what_a_reservation_does(ledger: Ledger) -> None:
    period = parts(PeriodBudget, 3, days=90, starts="2026-01-01")
    allowed = budgets(enough(5), purposes=(parts(PurposeBudget, 4, purpose="p"),), period=period)
    asked = {"purpose": "p", "epoch": "e1", "steps": STEPS, "budgets": allowed}
    for left in (3, 2, 1):
        before = charged(ledger)
        found = ledger.forecast(plan_digest=f"plan{left}", **asked)
        assert charged(ledger) == before
        assert [one.more for one in found] == [left + 2, left + 1, left]
        assert all(one.fits for one in found)
        assert all(one.left - one.cost == pytest.approx(one.left_after) for one in found)
        assert reserve(ledger, f"plan{left}", allowed)
        standing = [one.left for one in ledger.standing(allowed)]
        assert standing == pytest.approx([one.left_after for one in found])
    last = ledger.forecast(plan_digest="plan0", **asked)
    assert [one.fits for one in last] == [True, True, False]
    assert last[2].more == 0
    assert last[2].left_after < 0
    assert ledger.forecast(plan_digest="plan1", **asked) == ()  # charged already


def begin(ledger: Ledger, step: str, key: str) -> None:
    ledger.begin(plan_digest="a", epoch="e1", step=step, key=key)


def give_back(ledger: Ledger) -> tuple[str, ...]:
    return ledger.return_unused(plan_digest="a", epoch="e1", steps=STEPS)


def test_unused_steps_come_back_and_used_ones_never_do(ledger: Ledger) -> None:
    allowed = budgets(enough(1))
    reserve(ledger, "a", allowed)
    begin(ledger, "totals", "k1")
    ledger.settle("k1", "d1")
    begin(ledger, "train-0001", "k2")  # under way
    assert give_back(ledger) == ("train-0001", "evaluate")
    assert ledger.spent_epsilon(DELTA) == Curve.of([CHARGE]).epsilon(DELTA)
    assert give_back(ledger) == ()
    with pytest.raises(Refused):  # what was under way can't leave any more
        ledger.settle("k2", "d2")
    for step in ("train-0001", "evaluate"):
        with pytest.raises(Refused):
            begin(ledger, step, "k3")
    assert ledger.released("k1") == "d1"
    (kept,) = ledger.reservations()
    assert (kept.charges, kept.returned) == ((CHARGE,), ("train-0001", "evaluate"))


def test_returned_steps_are_charged_again_when_they_are_asked_for_again(ledger: Ledger) -> None:
    allowed = budgets(enough(1))
    reserve(ledger, "a", allowed)
    begin(ledger, "totals", "k1")
    ledger.settle("k1", "d1")
    whole = ledger.spent_epsilon(DELTA)
    give_back(ledger)
    assert reserve(ledger, "a", allowed)
    assert ledger.spent_epsilon(DELTA) == pytest.approx(whole)
    assert not reserve(ledger, "a", allowed)
    begin(ledger, "train-0001", "k2")
    give_back(ledger)
    small = {"totals": (CHARGE,)}
    assert reserve(ledger, "b", allowed, steps=small)  # somebody else took the room
    assert not fits(ledger, "a", allowed)
    assert ledger.released("k1") == "d1"


def test_a_withheld_step_is_answered_and_stays_charged(ledger: Ledger) -> None:
    reserve(ledger, "a", budgets(enough(1)))
    begin(ledger, "totals", "k1")
    ledger.withhold("k1")
    ledger.withhold("k1")
    assert ledger.released("k1") is None
    given = ledger.given("k1")
    assert given is not None
    assert given.state == "withheld"
    with pytest.raises(Refused) as caught:
        ledger.settle("k1", "d1")
    assert caught.value.code == "too-few"
    with pytest.raises(Refused) as caught:
        begin(ledger, "totals", "k2")
    assert caught.value.code == "step-used"
    assert "totals" not in give_back(ledger)
    with pytest.raises(Refused):
        ledger.withhold("never begun")


POLICY = {"per_plan": {"epsilon": 1.0, "delta": DELTA}, "budget": WIDE.model_dump()}
BAD = {
    "an unknown purpose": {"per_purpose": [{"purpose": "x", "epsilon": 1.0, "delta": DELTA}]},
    "a purpose twice": {
        "per_purpose": [{"purpose": "email-optimisation", "epsilon": 1.0, "delta": DELTA}] * 2
    },
    "all kept": {"rerun_reserve": 1e3},
    "a δ that promises nothing": {"budget": WIDE.model_dump() | {"delta": 0.01}},
    "a purpose's δ that promises nothing": {
        "per_purpose": [{"purpose": "email-optimisation", "epsilon": 1.0, "delta": 0.5}]
    },
    "no day": {"per_period": {"days": 30, "starts": "2026-02-30", "epsilon": 1.0, "delta": DELTA}},
    "no days": {"per_period": {"days": 0, "starts": "2026-02-01", "epsilon": 1.0, "delta": DELTA}},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_budgets_that_make_no_sense_are_no_policy(change: dict[str, Any]) -> None:
    import yaml

    good = policy_values(bytes(32), **POLICY)
    Policy.parse(yaml.safe_dump(good).encode(), where="policy")
    with pytest.raises(InputError):
        Policy.parse(yaml.safe_dump(good | change).encode(), where="policy")
