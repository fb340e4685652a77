"""After an erasure the same plan may be asked again, from the reserve kept for that."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import yaml

from abfed.privacy.accounting import Curve
from abfed.privacy.charges import plan_charges
from abfed.silo.budgets import Budget
from abfed.silo.rewriting import Rewriting
from abfed.silo.service import SiloService
from abfed.site.keys import SiteKeys
from tests.examples import make_plan
from tests.silo.asking import DELTA, SILO, Asker, policy_values, rows

PLAN = make_plan(privacy={"epsilon": 1.0, "delta": 1e-6, "split": {"statistics": 1.0}})
OTHER = make_plan(
    name="another", privacy={"epsilon": 1.0, "delta": 1e-6, "split": {"statistics": 1.0}}
)


@pytest.mark.privacy
@pytest.mark.parametrize("reserve", [True, False])
def test_a_plan_is_asked_again_from_the_reserve(tmp_path: Path, reserve: bool) -> None:
    cost = Curve.of([charge for step in plan_charges(PLAN).values() for charge in step])
    total = next(  # both charges fit into the total, the reserve apart only one does
        e / 100
        for e in range(50, 2_000)
        if Budget(epsilon=e / 100, delta=DELTA).filter.admits(cost, cost)
    )
    hub = SiteKeys.create(tmp_path / "hub", site="hub")
    policy = policy_values(hub.public_key, budget={"epsilon": total + 0.1, "delta": DELTA})
    policy["rerun_reserve"] = 0.3 if reserve else 0.0
    asker = Asker(hub)
    with closing(
        SiloService.create(tmp_path / "silo", yaml.safe_dump(policy), site=SILO)
    ) as service:
        service.store.upsert(iter([rows()]), experiments={"spring-2026": ("a", "b", "c")})
    with closing(SiloService(tmp_path / "silo", asker.clock)) as service:

        def kind_of(plan) -> str:
            return asker.read(service.answer(asker.request(plan)), service.keys)[0]

        assert kind_of(PLAN) == "release"
        assert kind_of(OTHER) == ("refusal" if reserve else "release")
        Rewriting(service.paths.store, service.keys).erase([(7).to_bytes(16, "big")])
        service.store.refresh()
        assert service.holdings().erasures == 1
        assert kind_of(PLAN) == ("release" if reserve else "refusal")
        assert kind_of(OTHER) == "refusal"
