"""What the ledger keeps of noise once: whom a charge counts on, and what is left without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from abfed.privacy.accounting import Curve, epsilon_of
from abfed.protocol.messages import Charge
from abfed.silo import snapshots
from abfed.silo.entries import Once
from abfed.silo.ledger import Ledger
from abfed.site.keys import SiteKeys
from tests.silo.asking import DELTA, SetClock, budgets, just_enough

COUNTS, SUMS = (Charge(event="gaussian", noise_multiplier=sigma) for sigma in (15.0, 5.0))
STEPS = {"keys": (COUNTS,), "totals": (SUMS,)}
BUDGET = just_enough(sum(3 * [Curve.of((COUNTS,)) + Curve.of((SUMS,))], Curve()))
ONCE = Once(1, ((5.0, 2.5),))


def _reserve(ledger: Ledger, once: Once | None = ONCE, plan: str = "p1") -> None:
    ledger.reserve(
        plan_digest=plan,
        plan_name="spring",
        purpose="email-optimisation",
        epoch="e1" * 32,
        steps=STEPS,
        budgets=budgets(BUDGET),
        once=once,
    )


@pytest.fixture
def keys(tmp_path: Path) -> SiteKeys:
    return SiteKeys.create(tmp_path / "keys", site="aurora")


def test_it_is_kept_through_restarts_and_snapshots(
    tmp_path: Path, keys: SiteKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "EVERY", 1)
    for _ in range(3):  # written; read from entries, and a snapshot kept; read from the snapshot
        with Ledger(tmp_path / "ledger.db", keys, SetClock()) as ledger:
            _reserve(ledger)
            _reserve(ledger, None, "p2")
            first, second = ledger.reservations()
            assert (first.once, second.once) == (ONCE, None)
            half = SUMS.model_copy(update={"noise_multiplier": 2.5})
            assert set(first.alone) == {COUNTS, half}
            assert second.alone == second.charges


@pytest.mark.privacy
def test_what_is_spent_alone_is_more_and_no_budget_sees_it(tmp_path: Path, keys: SiteKeys) -> None:
    with Ledger(tmp_path / "ledger.db", keys, SetClock()) as ledger:
        _reserve(ledger)
        (one,) = ledger.reservations()
        assert epsilon_of(one.alone, DELTA) > epsilon_of(one.charges, DELTA)
        assert ledger.spent(BUDGET, alone=True) > ledger.spent(BUDGET)
        assert ledger.standing(budgets(BUDGET))[0].spent == ledger.spent(BUDGET)
        _reserve(ledger, plan="p2")
        _reserve(ledger, plan="p3")  # three plans fit, as where each noises its own


def test_a_plan_charged_again_counts_on_the_smaller_share(tmp_path: Path, keys: SiteKeys) -> None:
    with Ledger(tmp_path / "ledger.db", keys, SetClock()) as ledger:
        _reserve(ledger)
        ledger.return_unused(plan_digest="p1", epoch="e1" * 32, steps=STEPS)
        (one,) = ledger.reservations()
        assert (one.charges, one.alone) == ((), ())
        _reserve(ledger, Once(1, ((5.0, 4.0),)))
        (one,) = ledger.reservations()
        assert one.once == ONCE
