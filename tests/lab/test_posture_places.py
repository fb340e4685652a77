"""What a review shows of files: which they are, not where they lie on this machine."""

from __future__ import annotations

from abfed.lab.reports.report import make_report, order
from abfed.lab.reports.subjects import find_subject
from abfed.lab.security.controls import CONTROLS
from abfed.lab.security.posture import assess, keep
from abfed.lab.upkeep.doctor import check_up
from abfed.lab.workspace import Workspace
from tests.lab.test_posture import CLEAN, kept, now, why, workspace

__all__ = ["kept", "workspace"]  # fixtures, used by their names


def test_a_finding_that_names_a_place_is_shown_without_it(workspace: Workspace) -> None:
    (workspace.silo_folder("aurora") / "audit.jsonl").chmod(0o644)
    check_up(workspace, "aurora", now())
    (workspace.silo_folder("aurora") / "audit.jsonl").chmod(0o600)
    only = [one for one in CONTROLS if one.id in ("S2", "S4")]
    found = assess(workspace, CLEAN, now(), only)
    assert "audit.jsonl: its mode is 0644" in why(found, "S2")
    assert str(workspace.path) not in repr(found)
    keep(workspace, found, by="sam@coordinator")
    assert make_report(order(find_subject(workspace, "security"))).failure is None
