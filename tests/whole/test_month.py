"""A month of three brands ends with a review in which nothing is red that nobody can explain."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from argon2.profiles import CHEAPEST

from abfed.lab.security.controls import CONTROLS
from abfed.lab.security.posture import Posture, newest, read_posture
from abfed.lab.upkeep.auditing import check_export, export
from abfed.lab.upkeep.doctor import LAB, LAB_CHECKS, CheckUp
from experiments.month import BRANDS, COORDINATOR, DAYS, Month


def clean(_workspace: Path, _now: datetime) -> CheckUp:
    """The installation is looked at elsewhere: its advisories are asked for over the network."""
    return CheckUp(LAB, LAB_CHECKS, (), None)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Month:
    """The month, lived once for all tests of this file."""
    lived = Month(tmp_path_factory.mktemp("month") / "m", lab=clean, hashing=CHEAPEST, scale=0.2)
    lived.live()
    return lived


def looked(posture: Posture) -> set[str]:
    return {one.id for one in posture.standings if one.state == "look"}


pytestmark = [pytest.mark.slow, pytest.mark.privacy, pytest.mark.timeout(1800)]


def test_it_ends_without_red_and_each_control_has_evidence(month: Month) -> None:
    last = month.reviews[DAYS]
    assert last.red == (), [one for one in last.standings if one.state == "red"]
    assert looked(last) == set()
    assert [one.id for one in last.standings] == [one.id for one in CONTROLS]
    assert all(one.evidence and one.on and one.owner for one in last.standings)


def test_what_happened_was_seen_while_it_happened(month: Month) -> None:
    assert looked(month.reviews[0]) == {"S15"}, "no drill yet"
    assert looked(month.reviews[16]) == {"S15", "S16", "S17"}, "an incident; a vendor that ends"
    assert looked(month.reviews[20]) == {"S16", "S17"}
    assert not any(review.red for review in month.reviews.values())
    assert {(day, rule) for day, rule, _ in month.alarms if rule != "budget-burn"} == {
        (5, "vendor-review-due"),
        (19, "vendor-expired"),
    }
    assert month.refused == {
        "the stolen session asks a plan": "this person was stopped",
        "a page into the depot": "vendor depot is not usable: agreement ended",
    }


def test_its_page_is_signed_and_every_log_can_be_checked_by_a_stranger(
    month: Month, tmp_path: Path
) -> None:
    kept = read_posture(newest(month.workspace), month.workspace.keys.public_key)
    assert [one["state"] for one in kept["controls"]] == ["holds"] * len(CONTROLS)
    assert month.page is not None
    page = month.page.read_text(encoding="utf-8")
    assert "NOT SO" not in page
    assert "sam@corvid" in page
    for site in (COORDINATOR, *BRANDS):
        month.signed_in("tess", site)
        file = tmp_path / f"{site}.jsonl"
        export(month.workspace, site, file)
        key = month.workspace.office(site).keys.public_key.hex()
        assert check_export(file, key)["entries"] > 20
