"""A security review of a site that is damaged in part: that is red, and all else is told too."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from abfed.lab.security.controls import CONTROLS
from abfed.lab.security.posture import assess
from abfed.lab.upkeep.doctor import LAB, LAB_CHECKS, CheckUp, check_up
from abfed.lab.workspace import Workspace
from abfed.site.people import People
from tests.signing import CHEAPEST_FOR_TESTS, PASSWORD


def test_a_site_that_is_damaged_in_part_ends_no_review(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    workspace.create_silo("aurora", columns=("opened", "clicked"))
    office = workspace.office("aurora")
    people = People(office.folder, office.keys, office.audit, hashing=CHEAPEST_FOR_TESTS)
    people.enrol("sam", PASSWORD, by="test")
    now = datetime.now(UTC)
    check_up(workspace, "aurora", now)
    for part in ("checkups/*.checkup", "people/people.sealed"):
        (file,) = office.folder.glob(part)
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        found = assess(workspace, CheckUp(LAB, LAB_CHECKS, (), None), now)
        file.write_bytes(whole)
        assert len(found.standings) == len(CONTROLS)
        permissions = next(one for one in found.standings if one.id == "S4")
        assert permissions.state == "red"
        assert any(
            line.startswith("aurora") and "can't be" in line for line in permissions.evidence
        )
