"""Incidents: the clock of 72 hours, what is recorded, and a register that can't be changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from abfed.protocol.errors import InputError, IntegrityError
from abfed.site.audit import AuditLog
from abfed.site.freezes import Freezes
from abfed.site.incidents import FILE, Incidents
from abfed.site.keys import SiteKeys
from tests.killing import killed_at

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


def test_telling_the_people_concerned_does_not_stop_the_authority_s_clock(site: Site) -> None:
    name = site.opened()
    site.incidents.told(name, "the people concerned", "", by="ada@hub", authority=False)
    site.now += timedelta(hours=73)
    assert site.incidents.find(name).clock(site.now) == "OVERDUE by 1.0 h"
    with pytest.raises(InputError, match="the authority was not told"):
        site.incidents.close(name, "done", by="ada@hub")
    site.incidents.told(name, "the authority", "A-1", by="ada@hub")
    site.incidents.close(name, "done", by="ada@hub")
    with pytest.raises(InputError, match="is closed"):
        site.incidents.close(name, "done", by="ada@hub")


def _acts(folder: Path) -> dict[str, Callable[[], object]]:
    """Everything that is written about an incident, in order; each as after a restart."""

    def opened() -> Incidents:
        keys = SiteKeys.open(folder / "keys")
        return Incidents(folder, keys, AuditLog(folder / "audit.jsonl", keys))

    def freeze() -> object:
        keys = SiteKeys.open(folder / "keys")
        audit = AuditLog(folder / "audit.jsonl", keys)
        return Freezes(folder, keys).freeze("key", "0" * 32, audit, by="a@hub", reason="r")

    name = f"inc-{datetime.now(UTC).year}-001"
    return {
        "open": lambda: opened().open("x", by="a@hub", playbook="stolen-laptop"),
        "freeze": freeze,
        "contained": lambda: opened().contained(
            name, "key", "0" * 32, site="hub", by="a@hub", durable_ms=1.0
        ),
        "note": lambda: opened().note(name, "y", by="a@hub"),
        "bundled": lambda: opened().bundled(name, "a" * 64, by="a@hub"),
        "told": lambda: opened().told(name, "the authority", "", by="a@hub"),
        "close": lambda: opened().close(name, "z", by="a@hub"),
    }


@pytest.mark.parametrize("killed", ["open", "freeze", "contained", "note", "told", "close"])
def test_killed_at_any_act_on_the_disk_it_is_written_wholly_or_not_at_all(
    killed: str, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    SiteKeys.create(start / "keys", site="hub")
    for name, act in _acts(start).items():
        if name == killed:
            break
        act()
    states = []
    for number in range(1, 60):
        folder = tmp_path / str(number)
        shutil.copytree(start, folder)
        keys = SiteKeys.open(folder / "keys")
        audit = AuditLog(folder / "audit.jsonl", keys)

        def seen(folder: Path = folder, keys: SiteKeys = keys, audit: AuditLog = audit) -> str:
            kept = Incidents(folder, keys, audit).list().values()
            told = [one.model_dump(exclude={"opened_at", "known_at"}) for one in kept]
            marks = "".join("1" for one in told for value in one.values() if value)
            return f"{marks} {[(one.kind, one.name) for one in Freezes(folder, keys).list()]}"

        before = seen()
        died = killed_at(number, _acts(folder)[killed])
        after = seen()
        if after != before:  # then it was logged before: what happened is never without an entry
            assert audit.verify().entries > AuditLog(start / "audit.jsonl", keys).verify().entries
        states.append(after)
        if not died:
            break
        if after == before:
            _acts(folder)[killed]()
            assert seen() != before
    assert len(set(states)) == 2, "it was half there"
    assert states == sorted(states, key=states.index)
    assert len(states) > 4


def test_what_is_done_is_kept_sealed_and_logged_without_words(site: Site) -> None:
    name = site.opened()
    site.incidents.note(name, "the bag was seen in tram 12", by="ada@hub")
    for at in ("hub", "aurora"):
        site.incidents.contained(name, "person", "eve@hub", site=at, by="ada@hub", durable_ms=3.5)
    site.incidents.lifted(name, "person", "eve@hub", site="hub", by="bob@hub")
    site.incidents.bundled(name, "a" * 64, by="ada@hub")
    found = site.incidents.find(name)
    assert [one.text for one in found.notes] == ["the bag was seen in tram 12"]
    here, there = found.contained
    assert here.lifted_at
    assert not there.lifted_at, "it was let go at another site only"
    assert found.evidence[0].digest == "a" * 64
    written = b"".join(path.read_bytes() for path in site.folder.rglob("*") if path.is_file())
    assert b"tram" not in written
    events = [entry["body"]["event"] for entry in site.audit.entries()]
    assert events == [
        "incident.opened",
        "incident.noted",
        "incident.contained",
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
