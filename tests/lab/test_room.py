"""What is to be written is made sure of first: nobody is erased, and no receipt of it lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from abfed.lab.designing import draw_curves, write_split
from abfed.lab.samples.shipped import shipped
from abfed.lab.upkeep.auditing import export, write_anchors
from abfed.lab.upkeep.reviewing import write_template
from abfed.lab.upkeep.supply import write_bill
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.plan import Plan
from tests.lab.test_people_commands import Desk, desk

__all__ = ["desk"]  # a fixture, used by its name

WHO = "a@example.org"


def asked(desk: Desk) -> list[str]:
    """What the log says was done about people."""
    entries = Workspace(desk.workspace).office("aurora").audit.entries()
    events = [entry["body"]["event"] for entry in entries]
    return [event for event in events if event.startswith("subject.")]


@pytest.mark.parametrize("place", ["nowhere/receipts.jsonl", "there.jsonl"])
def test_receipts_have_room_before_anybody_is_erased(place: str, desk: Desk) -> None:
    (desk.folder / "there.jsonl").write_text("of another day")
    told = desk.refused(
        "silo", "subject", "erase", "aurora", WHO, "--receipts", str(desk.folder / place)
    )
    assert "folder isn't there" in told or "there is a file already" in told
    assert asked(desk) == []


@pytest.mark.parametrize("place", ["pw", "nowhere/at/all", "full"])
def test_an_answer_has_room_before_it_counts_as_given(place: str, desk: Desk) -> None:
    (desk.folder / "full").mkdir()
    (desk.folder / "full" / "data.html").write_text("of another day")
    desk.refused("silo", "subject", "export", "aurora", WHO, str(desk.folder / place))
    assert asked(desk) == []


def test_so_have_evidence_and_backups(desk: Desk) -> None:
    desk.says("incident", "open", "a test", "--playbook", "stolen-laptop")
    nowhere = str(desk.folder / "nowhere" / "file")
    assert "folder isn't there" in desk.refused("incident", "evidence", "inc-2026-001", nowhere)
    secret = desk.folder / "pw"
    backup = ["silo", "backup", "aurora", nowhere, "--passphrase-file", str(secret)]
    assert "folder isn't there" in desk.refused(*backup)


@pytest.mark.parametrize(
    ("place", "told"),
    [("nowhere/file", "folder isn't there"), ("n" * 300, "no name of a file"), ("", "a folder")],
)
def test_so_have_all_other_files_that_people_name(place: str, told: str, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    plan, file = Plan.load(shipped("experiments/spring-waves.yaml")), tmp_path / place
    before = len(list(workspace.audit.entries()))
    for write in (
        lambda: write_anchors(workspace, "coordinator", file),
        lambda: export(workspace, "coordinator", file),
        lambda: write_bill(file),
        lambda: draw_curves(plan, file),
        lambda: write_split(plan, {}, file),
        lambda: write_template(file, []),
    ):
        with pytest.raises(WorkspaceError, match=told):
            write()
    assert len(list(workspace.audit.entries())) == before  # nothing is said to have been exported


def test_a_request_of_long_ago_is_a_slip(desk: Desk) -> None:
    receive = ["silo", "subject", "receive", "aurora", "erase", WHO, "--received"]
    assert "so long ago" in desk.refused(*receive, "0001-01-01")
    assert "in the future" in desk.refused(*receive, "2999-01-01")
