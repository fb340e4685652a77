"""Incidents: the clock of 72 hours, what is recorded, and a register that can't be changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from abfed.protocol.errors import InputError, IntegrityError
from abfed.site.audit import AuditLog
from abfed.site.incidents import FILE, Incidents
from abfed.site.keys import SiteKeys

BEGAN = datetime(2026, 3, 1, 9, tzinfo=UTC)


class Site:
    """A site with a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = BEGAN
        self.keys = SiteKeys.create(folder / "keys", site="hub")
        self.audit = AuditLog(folder / "audit.jsonl", self.keys)
        self.incidents = Incidents(folder, self.keys, self.audit, lambda: self.now)

    def opened(self, **changes: object) -> str:
        given = {"by": "ada@hub", "playbook": "stolen-laptop"} | changes
        return self.incidents.open("a laptop is gone", **given).id  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_clock_runs_from_when_it_was_known(site: Site) -> None:
    name = site.opened(known_at=BEGAN - timedelta(hours=10))
    assert site.incidents.find(name).clock(site.now) == "62.0 h left of 72 h"
    site.now += timedelta(hours=63)
    assert site.incidents.find(name).clock(site.now) == "OVERDUE by 1.0 h"
    told = site.incidents.told(name, "the authority", "A-1", by="ada@hub")
    assert told.clock(site.now) == "told 73.0 h after it was known (late)"
    other = site.opened(personal_data=False)
    assert site.incidents.find(other).clock(site.now) == "no personal data concerned"


def test_what_is_done_is_kept_sealed_and_logged_without_words(site: Site) -> None:
    name = site.opened()
    site.incidents.note(name, "the bag was seen in tram 12", by="ada@hub")
    site.incidents.contained(name, "person", "eve@hub", by="ada@hub", durable_ms=3.5)
    site.incidents.lifted(name, "person", "eve@hub", by="bob@hub")
    site.incidents.bundled(name, "a" * 64, by="ada@hub")
    found = site.incidents.find(name)
    assert [one.text for one in found.notes] == ["the bag was seen in tram 12"]
    assert found.contained[0].lifted_at
    assert found.evidence[0].digest == "a" * 64
    written = b"".join(path.read_bytes() for path in site.folder.rglob("*") if path.is_file())
    assert b"tram" not in written
    events = [entry["body"]["event"] for entry in site.audit.entries()]
    assert events == [
        "incident.opened",
        "incident.noted",
        "incident.contained",
        "incident.lifted",
        "incident.evidence",
    ]


def test_it_is_closed_with_a_summary_once_the_law_is_satisfied(site: Site) -> None:
    name = site.opened()
    with pytest.raises(InputError, match="personal data"):
        site.incidents.close(name, "found again", by="ada@hub")
    site.incidents.told(name, "no notice due: the disk is encrypted", "", by="ada@hub")
    with pytest.raises(InputError, match="summary"):
        site.incidents.close(name, " ", by="ada@hub")
    closed = site.incidents.close(name, "found again, disk encrypted", by="ada@hub")
    assert closed.closed_by == "ada@hub"
    with pytest.raises(InputError, match="is closed"):
        site.incidents.note(name, "one more", by="ada@hub")


def test_ids_count_within_the_year(site: Site) -> None:
    assert [site.opened(), site.opened()] == ["inc-2026-001", "inc-2026-002"]
    site.now = datetime(2027, 1, 1, tzinfo=UTC)
    assert site.opened() == "inc-2027-001"
    with pytest.raises(InputError, match="no incident"):
        site.incidents.find("inc-2026-009")
    with pytest.raises(InputError, match="future"):
        site.opened(known_at=site.now + timedelta(hours=1))


def test_a_changed_register_is_found_out(site: Site) -> None:
    site.opened()
    path = site.folder / FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError):
        site.incidents.list()
