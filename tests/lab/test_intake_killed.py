"""Ingests and purges that are killed: wholly there or not at all, logged, and nothing is left.

Each is killed by SIGKILL before each of its acts on the disk (`tests.killing`), in a copy of the
workspace; then the silo is opened as after a restart, and the same is asked again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.lab.intake import ingest_export
from abfed.lab.upkeep.examining import leftovers
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import DataError
from abfed.silo.checking import check_silo
from abfed.silo.intakes import BEGUN, DONE, REFUSED
from abfed.silo.pseudonyms import Pseudonyms
from abfed.silo.rewriting import Rewriting
from abfed.site.audit import AuditLog
from abfed.site.files import ASIDE, write_private
from tests.killing import killed_at
from tests.lab.test_watched import MAPPING
from tests.silo.asking import SetClock

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
OLD, NEW = "2026-01-10T08:00:00Z", "2026-03-09T08:00:00Z"
PEOPLE = 6


class Place:
    """A workspace with a brand, its exports beside it, and a clock that stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def workspace(self) -> Workspace:
        """Opened anew, as after a restart."""
        return Workspace(self.folder / "ws", SetClock(NOW))

    @property
    def silo(self) -> Path:
        return self.folder / "ws" / "silos" / "dahlia"

    def found(self) -> None:
        made = Workspace.create(self.folder / "ws", clock=SetClock(NOW))
        made.create_silo("dahlia", columns=("opened",))
        path = self.silo / "policy.yaml"
        values = yaml.safe_load(path.read_text()) | {"retention_days": 30}
        write_private(path, yaml.safe_dump(values).encode())
        (self.folder / "mapping.yaml").write_text(MAPPING)
        head = "who,arm,at,opened,basis,out"
        for name, days, opened in (("first", (OLD, NEW), "no"), ("second", (NEW,), "yes")):
            rows = [
                f"p{one}@example.org,{'ab'[one % 2]},{day},{opened},consent,no"
                for one in range(PEOPLE)
                for day in days
            ]
            (self.folder / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")

    def ingest(self, name: str) -> None:
        files = self.folder / f"{name}.csv", self.folder / "mapping.yaml"
        ingest_export(self.workspace, "dahlia", *files)

    def purge(self) -> None:
        with self.workspace.silo("dahlia") as service:
            service.purge()

    def events(self, event: str) -> list[dict[str, Any]]:
        entries = self.workspace.office("dahlia").audit.entries()
        return [one["body"]["facts"] for one in entries if one["body"]["event"] == event]

    def held(self) -> tuple[int, int]:
        """Sends that are held, and how many of them were opened."""
        sends = opened = 0
        with self.workspace.silo("dahlia") as service:
            rewriting = Rewriting(service.paths.store, service.keys)
            for one in range(PEOPLE):
                who = Pseudonyms(service.keys).of(f"p{one}@example.org")
                table = rewriting.export(who)
                if table is not None:
                    sends += table.num_rows
                    opened += sum(bool(value) for value in table["opened"].to_pylist())
        return sends, opened


def killed_everywhere(
    tmp_path: Path, act: Callable[[Place], None], before: tuple[Callable[[Place], None], ...],
    event: str,
) -> tuple[tuple[int, int], tuple[int, int]]:  # fmt: skip
    """Kill an act before each of its acts on the disk; what was held before it and after it."""
    start = Place(tmp_path / "start")
    start.folder.mkdir()
    start.found()
    for one in before:
        one(start)
    old, logged = start.held(), len(start.events(event))
    seen = []
    for number in range(1, 400):
        place = Place(tmp_path / str(number))
        shutil.copytree(start.folder, place.folder)
        died = killed_at(number, lambda place=place: act(place))
        assert all(part.holds for part in check_silo(place.silo)), f"act {number}"
        place.workspace.office("dahlia").audit.verify()
        seen.append(place.held())
        later = datetime.now(UTC) + timedelta(days=30)
        left = list(place.silo.rglob(f"{ASIDE}*"))
        named = [one.what for one in leftovers(place.silo, later)]
        for path in left:
            assert any(str(path.relative_to(place.silo)) in one for one in named), path
        act(place)
        told = place.events(event)[logged:]
        assert any(one["changed"] for one in told), f"act {number}: it is there and on no record"
        assert not list((place.silo / "store").rglob(f"{ASIDE}*")), f"act {number}"
        new = place.held()
        shutil.rmtree(place.folder)
        if not died:
            break
    states = sorted(set(seen), key=seen.index)
    assert states == [old, new], "it was half there"
    assert seen == sorted(seen, key=states.index), "it went back"
    assert len(seen) > 15, "it was not killed often enough"
    sys.stdout.write(f"killed at {len(seen) - 1} acts: {seen.count(old)} before the commit\n")
    return old, new


@pytest.mark.slow
@pytest.mark.privacy
def test_a_first_ingest_that_is_killed_is_wholly_there_or_not_at_all(tmp_path: Path) -> None:
    old, new = killed_everywhere(tmp_path, lambda place: place.ingest("first"), (), "data.ingested")
    assert (old, new) == ((0, 0), (2 * PEOPLE, 0))


@pytest.mark.slow
@pytest.mark.privacy
def test_a_later_ingest_that_is_killed_changes_all_sends_or_none(tmp_path: Path) -> None:
    old, new = killed_everywhere(
        tmp_path,
        lambda place: place.ingest("second"),
        (lambda place: place.ingest("first"),),
        "data.ingested",
    )
    assert (old, new) == ((2 * PEOPLE, 0), (2 * PEOPLE, PEOPLE))


@pytest.mark.slow
@pytest.mark.privacy
def test_a_purge_that_is_killed_removes_all_that_is_due_or_nothing(tmp_path: Path) -> None:
    old, new = killed_everywhere(
        tmp_path, Place.purge, (lambda place: place.ingest("first"),), "data.purged"
    )
    assert (old, new) == ((2 * PEOPLE, 0), (PEOPLE, 0))


def test_an_ingest_that_is_killed_before_it_is_logged_is_logged_late_and_as_a_change(
    tmp_path: Path,
) -> None:
    """Else whoever reads a fixed-horizon experiment once more peeks, and no entry tells of it."""
    place = Place(tmp_path)
    place.found()
    child = os.fork()
    if child == 0:
        real = AuditLog.append

        def append(log: AuditLog, event: str, **facts: Any) -> str:
            if event == DONE:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(log, event, **facts)

        AuditLog.append = append  # type: ignore[method-assign, assignment]
        place.ingest("first")
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert place.held() == (2 * PEOPLE, 0)
    assert place.events(DONE) == []
    place.purge()  # any of: the daily purge, the next ingest, a look at a fixed-horizon experiment
    (late,) = place.events(DONE)
    assert late["changed"]
    assert late["late"]
    assert late["person"] == place.events(BEGUN)[0]["person"]
    place.ingest("first")
    again = place.events(DONE)[1:]
    assert len(again) == 1, "it was logged twice"
    with pytest.raises(DataError):
        ingest_export(
            place.workspace, "dahlia", place.folder / "no.csv", place.folder / "mapping.yaml"
        )
    assert len(place.events(REFUSED)) == 1
    assert len(place.events(DONE)) == 2
