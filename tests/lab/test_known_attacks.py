"""The known attacks on a run's releases: what is left of them is computed, not written down."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from abfed.lab.runs import Run
from abfed.lab.sections import brand as pages
from abfed.lab.sections import readout
from abfed.lab.sections.known_attacks import attacks_on, known_attacks
from tests.lab.example import example_values, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("attacked") / "ws", example_values())


def costing(monkeypatch: pytest.MonkeyPatch, run: Run, epsilon: float, total: float = 3.0) -> Run:
    """The same run at another price."""
    ledger = run.ledger.assign(epsilon_run=epsilon, epsilon_total=total)
    monkeypatch.setattr(Run, "ledger", property(lambda _: ledger))
    return run


def left(run: Run) -> dict[str, str]:
    return {one.tried.split()[0]: one.left.replace("\u00a0", "") for one in attacks_on(run)}


def asked(run: Run, **changes: Any) -> Run:
    """The same run by another plan, looked over by nobody."""
    return dataclasses.replace(run, plan=run.plan.model_copy(update=changes))


def test_what_is_left_follows_from_what_was_charged(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = left(
        costing(monkeypatch, run, math.log(3))
    )  # 3 / (1 + 3) by itself; 27 / 28 with three brands
    assert "at most 75.0% sure (but for a chance of 1e-06)" in told["Finding"]
    assert "in at most 3.1% of cases" in told["Finding"]  # 3 × 1 % and δ, rounded against us
    assert "at most 96.5% sure" in told["Knowing"]
    assert "at most 95.3% sure (ε=3)" in told["Taking"]
    large = left(costing(monkeypatch, run, 4.0, 10.0))  # certainty is nobody's "at most"
    assert "at most 99.996% sure (ε=10)" in large["Taking"]
    assert "at most 99.9994% sure" in large["Knowing"]
    assert "as good as sure (ε=50)" in left(costing(monkeypatch, run, 4.0, 50.0))["Taking"]
    hidden = left(costing(monkeypatch, run, 1.0, math.nan))
    assert "which not all of them show" in hidden["Taking"]


def test_settings_of_the_plan_are_what_stands_against_a_brand_that_lies(run: Run) -> None:
    def against(**settings: Any) -> str:
        schedule = run.plan.schedule.model_validate(
            run.plan.schedule.model_dump() | settings, strict=False
        )
        (one,) = [
            one for one in attacks_on(asked(run, training=schedule)) if "made up" in one.tried
        ]
        return f"{one.against} / {one.left}"

    assert "the plan set its updates no bound of length" in against()
    assert "an update longer than 5 is left out" in against(largest_update=5.0)
    cut = against(combine={"kind": "trimmed-mean", "cut": 0.2})
    assert "20\u00a0% of the brands are cut off" in cut
    far = against(combine={"kind": "multi-krum", "hostile": 1})
    assert "the 1 farthest from the others don't count" in far


def test_each_report_about_a_run_has_the_table(run: Run) -> None:
    for page in (readout.privacy(run), pages.paid(run, run.silos[0])):
        assert "What is left" in page
        for one in attacks_on(run):
            assert one.tried.replace("'", "&#x27;") in page


def test_nothing_is_promised_where_the_noise_is_seeded(run: Run) -> None:
    seeded = asked(run, simulation={"seed": 1})
    assert "nothing is promised" in known_attacks(seeded)
    assert "<table" not in known_attacks(seeded)


def test_of_one_brand_nobody_is_known_to_several(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "silos", property(lambda _: ["aurora"]))
    tried = {one.tried: one.left for one in attacks_on(run)}
    assert not [one for one in tried if one.startswith("Knowing")]
    assert "the result is its own" in tried["A brand that answers with figures it made up"]
    assert "1 brand" not in known_attacks(run)


def test_one_release_is_spoken_of_as_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    brand = run.silos[0]
    first = dict([next(iter(run.releases[brand].items()))])
    monkeypatch.setitem(run.releases, brand, first)
    said = pages.paid(run, brand)
    assert "let 1 noised release out of its walls" in said
    assert "gives the same release at no further cost" in said
