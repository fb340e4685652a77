"""What accounting costs: a long run, the search for σ, and a ledger with 10,000 entries.

    python benchmarks/bench_accounting.py

Prints CPU seconds, median of the rounds; wall seconds depend on who else is on the machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from abfed.privacy import accounting
from abfed.privacy.accounting import Curve, epsilon_of, sampled_multiplier
from abfed.protocol.chain import head_of, link
from abfed.protocol.messages import Charge
from abfed.silo.budgets import Budget, Budgets
from abfed.silo.ledger import Ledger
from abfed.silo.sealed_rows import SealedRows
from abfed.site.keys import SiteKeys

ENTRIES = 10_000
DELTA = 1e-6
ROUNDS = 5
BUDGETS = Budgets(total=Budget(epsilon=1e4, delta=DELTA))


def timed(what: str, act: Callable[[], object], rounds: int = ROUNDS) -> None:
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        act()
        spent.append(time.process_time() - start)
    print(f"{what:58} {statistics.median(spent):8.3f} s   ({min(spent):.3f} to {max(spent):.3f})")


def searched(rate: float, count: int) -> float:
    sampled_multiplier.cache_clear()
    return sampled_multiplier(1.5, DELTA, rate=rate, steps=count)


def steps(number: int) -> dict[str, tuple[Charge, ...]]:
    """A plan of its own kind: no two have the same noise."""
    sampled = Charge(
        event="sampled-gaussian", noise_multiplier=1 + number * 1e-4, sampling_rate=0.05, count=20
    )
    histogram = Charge(event="gaussian", noise_multiplier=20 + number * 1e-3)
    return {"totals": (Charge(event="gaussian", noise_multiplier=5 + number * 1e-3),)} | {
        f"train-{step:04d}": (sampled, histogram) for step in range(1, 6)
    }


def fill(folder: Path, keys: SiteKeys) -> None:
    """A ledger as years would have made it, written in one transaction."""
    Ledger(folder / "ledger.db", keys).close()
    rows = SealedRows(folder / "ledger.db", keys.derive("ledger"), name=f"ledger:{keys.site}")
    head = "0" * 64
    with rows.transaction():
        for number in range(ENTRIES):
            plan, turn = divmod(number, 4)
            charges = [Charge(event="gaussian", noise_multiplier=5 + plan * 1e-3)]
            body: dict[str, Any] = {
                "at": "2026-03-01T12:00:00.000000Z",
                "plan_digest": f"{plan:064x}",
            }
            body |= {"epoch": "e" * 64, "key": f"{number // 4:064x}"}
            if turn == 0:
                body |= {"what": "reserve", "plan_name": "p", "purpose": "x", "steps": []}
                body |= {"charges": [one.model_dump(mode="json") for one in charges]}
            elif turn == 1:
                body |= {"what": "begin", "step": "totals"}
            elif turn == 2:
                body |= {"what": "release", "digest": "d" * 64}
            else:
                body |= {"what": "begin", "step": "evaluate", "key": f"{number:064x}"}
            rows.append(number, head, body)
            head = head_of(link(head, number, body))
    rows.close()


def main() -> None:
    long_run = Charge(
        event="sampled-gaussian", noise_multiplier=1.2, sampling_rate=0.01, count=5_000
    )
    forget = accounting._epsilon_of.cache_clear  # noqa: SLF001
    timed("ε of 5,000 steps (PLD), first time", lambda: (forget(), epsilon_of([long_run], DELTA)))
    timed("the same again", lambda: epsilon_of([long_run], DELTA))
    curves = accounting._curve_of.cache_clear  # noqa: SLF001
    timed("its Rényi curve, first time", lambda: (curves(), Curve.of([long_run])))
    for rate, count in ((0.01, 5_000), (0.05, 120)):
        timed(
            f"σ search, {count:,} steps at rate {rate}",
            partial(searched, rate, count),
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = SiteKeys.create(folder / "keys", site="aurora")
        fill(folder, keys)
        timed(
            f"opening a ledger of {ENTRIES:,} entries, first time",
            lambda: Ledger(folder / "ledger.db", keys).close(),
            1,
        )
        timed("opening it again", lambda: Ledger(folder / "ledger.db", keys).close())
        with Ledger(folder / "ledger.db", keys) as ledger:
            numbers = iter(range(1_000))

            def asked() -> dict[str, Any]:
                number = next(numbers)
                return {
                    "plan_digest": f"new{number}",
                    "purpose": "x",
                    "epoch": "e",
                    "steps": steps(number),
                    "budgets": BUDGETS,
                }

            timed("ledger show", lambda: ledger.standing(BUDGETS))
            timed("ledger preview of a new plan", lambda: ledger.forecast(**asked()))
            timed("charging a new plan", lambda: ledger.reserve(**asked(), plan_name="n"))


if __name__ == "__main__":
    main()
