"""Vendors: usable while approved by another, in date and not frozen; whatever else is a no."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, Refused
from abfed.site.audit import AuditLog
from abfed.site.freezes import Freezes
from abfed.site.keys import SiteKeys
from abfed.site.vendors import CHECKLIST, Vendor, Vendors
from tests.killing import killed_at

HOOK = "https://hooks.example.org/abfed"


def values(**changes: Any) -> dict[str, Any]:
    """A mail provider's entry."""
    given: dict[str, Any] = {
        "name": "postbox",
        "purpose": "carries alarms",
        "owner": "olga",
        "categories": ["contact"],
        "region": "DE",
        "standards": ["ISO 27001"],
        "agreement": {"reference": "DPA 7", "signed_on": "2026-01-01", "ends_on": "2027-01-01"},
        "services": [{"kind": "webhook", "address": HOOK}],
        "questionnaire": [
            {"text": "Is it certified?", "weight": 3.0, "yes": True},
            {"text": "Does it test its backups?", "weight": 1.0, "yes": False},
        ],
        "review_by": "2026-06-01",
    }
    return given | changes


def vendor(**changes: Any) -> Vendor:
    return parse_record(Vendor, values(**changes), where="vendor")


class Site:
    """A site with a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.keys = SiteKeys.create(folder / "keys", site="hub")
        self.audit = AuditLog(folder / "audit.jsonl", self.keys)
        self.vendors = Vendors(folder, self.keys, self.audit, lambda: self.now)
        self.freezes = Freezes(folder, self.keys, lambda: self.now)

    def refused(self, kind: Any = "webhook", address: str = HOOK) -> str:
        with pytest.raises(Refused) as caught:
            self.vendors.require(kind, address)
        return caught.value.what


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_service_is_used_from_approval_to_review(site: Site) -> None:
    assert "no vendor" in site.refused()
    site.vendors.put(vendor(), by="pat@hub")
    assert "proposed" in site.refused()
    site.vendors.approve("postbox", by="sam@hub")
    assert site.vendors.require("webhook", HOOK) == "postbox"
    assert "no vendor" in site.refused(address=HOOK + "/other")
    assert "no vendor" in site.refused(kind="mail")
    site.now = datetime(2026, 5, 31, tzinfo=UTC)
    assert site.vendors.overdue() == ()
    assert site.vendors.overdue(days=1) == ("postbox",)
    site.now += timedelta(days=1)
    assert "review overdue" in site.refused()
    assert site.vendors.standings() == {"postbox": "review overdue"}
    with pytest.raises(InputError, match="review date"):
        site.vendors.approve("postbox", by="sam@hub")


def test_an_agreement_that_ended_ends_the_use(site: Site) -> None:
    ended = {"reference": "DPA 7", "signed_on": "2025-01-01", "ends_on": "2026-03-02"}
    site.vendors.put(vendor(agreement=ended), by="pat@hub")
    site.vendors.approve("postbox", by="sam@hub")
    assert site.vendors.require("webhook", HOOK) == "postbox"
    site.now += timedelta(days=1)
    assert "agreement ended" in site.refused()


def test_an_approval_names_the_entry_that_was_looked_at(site: Site) -> None:
    seen = site.vendors.put(vendor(), by="pat@hub").digest
    changed = site.vendors.put(vendor(region="US"), by="eve@hub").digest
    assert changed != seen
    with pytest.raises(Refused, match="not what was looked at"):
        site.vendors.approve("postbox", by="sam@hub", seen=seen)
    assert "proposed" in site.refused()
    assert site.vendors.approve("postbox", by="sam@hub", seen=changed[:16]).digest == changed
    (logged,) = [
        one["body"]["facts"]
        for one in site.audit.entries()
        if one["body"]["event"] == "vendor.approved"
    ]
    assert (logged["vendor"], logged["digest"]) == ("postbox", changed)


def test_what_has_ended_is_not_approved(site: Site) -> None:
    ended = {"reference": "DPA 7", "signed_on": "2025-01-01", "ends_on": "2026-03-01"}
    site.vendors.put(vendor(agreement=ended), by="pat@hub")
    with pytest.raises(InputError, match="agreement has ended"):
        site.vendors.approve("postbox", by="sam@hub")
    site.now -= timedelta(days=1)
    assert site.vendors.approve("postbox", by="sam@hub").until == "2026-03-01"


@pytest.mark.parametrize("by", ["pat@hub", "olga@hub"])
def test_nobody_approves_their_own(site: Site, by: str) -> None:
    site.vendors.put(vendor(), by="pat@hub")
    with pytest.raises(Refused, match="other than its owner"):
        site.vendors.approve("postbox", by=by)


def test_a_change_has_to_be_approved_anew(site: Site) -> None:
    site.vendors.put(vendor(), by="pat@hub")
    site.vendors.approve("postbox", by="sam@hub")
    site.vendors.put(vendor(region="US"), by="pat@hub")
    assert "proposed" in site.refused()


def test_the_score_is_weighted_and_too_low_a_one_bars(site: Site) -> None:
    assert vendor().score == pytest.approx(0.75)
    low = [{"text": "Is it certified?", "weight": 1.0, "yes": False}]
    low.append({"text": "Is it near?", "weight": 1.0, "yes": True})
    site.vendors.put(vendor(questionnaire=low), by="pat@hub")
    with pytest.raises(Refused, match=r"scores 0\.50"):
        site.vendors.approve("postbox", by="sam@hub")


def test_a_frozen_vendor_is_refused_at_once(site: Site) -> None:
    site.vendors.put(vendor(), by="pat@hub")
    site.vendors.approve("postbox", by="sam@hub")
    site.freezes.freeze("vendor", "postbox", site.audit, by="sam@hub", reason="a breach")
    with pytest.raises(Refused) as caught:
        site.vendors.require("webhook", HOOK)
    assert caught.value.code == "frozen"
    assert site.vendors.standings() == {"postbox": "frozen"}


def test_offboarding_takes_the_whole_checklist(site: Site) -> None:
    site.vendors.put(vendor(), by="pat@hub")
    site.vendors.approve("postbox", by="sam@hub")
    with pytest.raises(InputError, match="in writing"):
        site.vendors.offboard("postbox", {CHECKLIST[0]: "ticket 1"}, by="sam@hub")
    assert site.vendors.require("webhook", HOOK)
    site.vendors.offboard("postbox", dict.fromkeys(CHECKLIST, "ticket 1"), by="sam@hub")
    assert "no vendor" in site.refused()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"agreement": None}, "agreement: is needed for contact"),
        ({"services": []}, "services"),
        ({"questionnaire": []}, "questionnaire"),
        ({"region": "Germany"}, "region"),
        ({"review_by": "soon"}, "review_by"),
        ({"colour": "red"}, "unknown key"),
    ],
)
def test_entries_that_say_too_little_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        vendor(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"review_by": "2027-02-31"},
        {"review_by": "0000-00-00"},
        {"agreement": {"reference": "DPA", "signed_on": "2026-01-01", "ends_on": "2027-13-01"}},
        {"services": [{"kind": "webhook", "address": "https://a.example/\u202egpj"}]},
        {"services": [{"kind": "webhook", "address": "https://a.example/\x1b[31m"}]},
        {"purpose": "carries\x00alarms"},
    ],
)
def test_days_are_of_the_calendar_and_nothing_hides(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        vendor(**changes)


def test_two_vendors_cannot_have_one_service(site: Site) -> None:
    site.vendors.put(vendor(), by="pat@hub")
    with pytest.raises(InputError, match="already"):
        site.vendors.put(vendor(name="other"), by="pat@hub")


@pytest.mark.parametrize("act", ["put", "approve", "offboard"])
def test_killed_at_any_act_on_the_disk_an_entry_is_whole(act: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    keys = SiteKeys.create(start / "keys", site="hub")

    def acts(folder: Path) -> dict[str, Callable[[], object]]:
        vendors = Vendors(
            folder, keys, AuditLog(folder / "audit.jsonl", keys),
            lambda: datetime(2026, 3, 1, tzinfo=UTC),
        )  # fmt: skip
        return {
            "put": lambda: vendors.put(vendor(), by="pat@hub"),
            "approve": lambda: vendors.approve("postbox", by="sam@hub"),
            "offboard": lambda: vendors.offboard(
                "postbox", dict.fromkeys(CHECKLIST, "ticket 1"), by="sam@hub"
            ),
            "standings": vendors.standings,
        }

    for name, before in acts(start).items():
        if name == act:
            break
        before()
    seen = []
    for number in range(1, 60):
        folder = tmp_path / str(number)
        shutil.copytree(start, folder)
        died = killed_at(number, acts(folder)[act])
        seen.append(acts(folder)["standings"]())
        AuditLog(folder / "audit.jsonl", keys).verify()
        if not died:
            break
        acts(folder)[act]()  # again is harmless
        assert acts(folder)["standings"]() == {
            "postbox": {"put": "proposed", "approve": "approved", "offboard": "offboarded"}[act]
        }
    assert len(seen) > 3
    assert [one for one in seen if one not in (seen[0], seen[-1])] == []
