"""The attack on totals: silent on the shipped code, loud on each broken variant."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from abfed.cli.main import main
from abfed.lab import attacks
from abfed.lab.attacks import Attacked, attack_totals
from abfed.privacy.attack import LowerBound
from abfed.privacy.mechanisms import UnsafeSeededNoise
from abfed.silo.totals import compute_totals

EPSILON = 3.0
TRIALS = 3_000


def halved(permit, tables):
    (charge,) = permit.charges
    less = charge.model_copy(update={"noise_multiplier": charge.noise_multiplier / 2})
    return compute_totals(replace(permit, charges=(less,)), tables)


def per_row(permit, tables):
    """Counts each send as if it were somebody else's."""
    (table,) = tables
    others = [number.to_bytes(16, "big") for number in range(1, table.num_rows + 1)]
    column = pa.array(others, table.schema.field("recipient").type)
    return compute_totals(permit, [table.set_column(0, table.schema.field("recipient"), column)])


def seed_reused(permit, tables):
    return compute_totals(replace(permit, noise=UnsafeSeededNoise(7)), tables)


@pytest.mark.privacy
def test_shipped_totals_stay_below_their_claim() -> None:
    found = attack_totals(epsilon=EPSILON, trials=TRIALS // 8)
    assert 2.9 < found.claimed <= EPSILON
    assert 0.2 < found.bound.epsilon < found.claimed
    assert found.holds


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("compute", "trials"),
    [
        pytest.param(halved, TRIALS, marks=pytest.mark.slow),
        (per_row, TRIALS // 10),
        (seed_reused, TRIALS // 10),
    ],
    ids=["halved", "per row", "seed reused"],
)
def test_broken_totals_rise_above_their_claim(compute, trials: int) -> None:
    found = attack_totals(epsilon=EPSILON, trials=trials, compute=compute)
    assert found.bound.epsilon > found.claimed, found
    assert not found.holds


def test_a_refuted_claim_is_an_integrity_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for epsilon, code in ((1.0, 0), (3.0, 4)):
        bound = LowerBound(epsilon, 1e-6, 0.95, 100, 10, 10, "projection")
        monkeypatch.setattr(attacks, "attack_all", lambda *, effort, b=bound: [Attacked("x", 2, b)])
        assert main(["attack", "--json"]) == code
    assert "refuted" in capsys.readouterr().out
