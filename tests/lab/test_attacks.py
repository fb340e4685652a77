"""The attack on totals: silent on the shipped code, loud on each broken variant."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from abfed.cli.main import main
from abfed.lab.security import attacks
from abfed.lab.security.attacks import Attacked, Inferred, attack_totals
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
        monkeypatch.setattr(attacks, "infer_all", list)
        assert main(["attack", "--json"]) == code
    assert "refuted" in capsys.readouterr().out


def test_a_model_that_tells_its_members_is_an_integrity_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attacks, "attack_all", lambda *, effort: [])
    for area, code in ((0.6, 0), (0.97, 4)):
        seen = Inferred("trained with ε = 1", 0.5, area, attacks.most_area(1.0))
        monkeypatch.setattr(attacks, "infer_all", lambda s=seen: [s])
        assert main(["attack", "--json"]) == code
        assert "likelihood_ratio" in capsys.readouterr().out.replace(" ", "_")


def test_the_largest_area_is_that_of_the_best_test() -> None:
    """Randomised response reaches it: hits e^ε/(1 + e^ε) at 1/(1 + e^ε) false alarms."""
    assert attacks.most_area(1e-9) == pytest.approx(0.5)
    alarms = 1 / (1 + math.exp(1.0))
    corners = np.array([0.0, alarms, 1.0]), np.array([0.0, 1 - alarms, 1.0])
    assert attacks.most_area(1.0) == pytest.approx(float(np.trapezoid(corners[1], corners[0])))
    assert attacks.most_area(1.0) == pytest.approx(0.731, abs=1e-3)


@pytest.mark.privacy
def test_every_way_to_a_release_is_attacked() -> None:
    found = {one.what: one.holds for one in attacks.attack_all(effort=0.01)}
    assert set(found.values()) == {True}
    assert [what for what in found if "totals" in what]
    assert [what for what in found if "Poisson" in what]
    assert [what for what in found if "one by one" in what]
