"""Texts that were planted in a workspace stop every page of it, whatever the page is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from abfed.lab.disclosure.gate import holds_back
from abfed.lab.reports.subjects import CANARIES, of_plan, of_review
from abfed.lab.security.posture import FOLDER, SUFFIX
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.plan import Plan
from abfed.site.files import make_private_folder, write_private
from tests.lab.example import statistics_only


@pytest.mark.privacy
def test_a_planted_text_is_held_back_from_a_page_about_a_plan_or_a_review(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    reviews = workspace.coordinator / FOLDER
    make_private_folder(reviews)
    values = canonical_bytes({"at": "2026-11-25T10:00:00.000000Z", "controls": [], "sites": []})
    write_private(reviews / f"2026{SUFFIX}", workspace.keys.sign("posture", values))
    subjects = [
        of_plan(Plan.from_values(statistics_only()), b"", workspace.path),
        of_review(reviews / f"2026{SUFFIX}", workspace.keys.public_key),
    ]
    planted = workspace.path / CANARIES
    planted.write_text("Jane Q. Roe\n\nzq7\n  Ünplanted-name  \n", encoding="utf-8")
    for subject in subjects:
        allowed = subject.allowed()
        for held in ("by jane q. roe, today", "ZQ7", "u\u0308nplanted-name", str(workspace.path)):
            assert holds_back(held, allowed), held
        for shown in ("Jane", "a roe deer", "Q. who?"):  # of a text, no word alone
            assert not holds_back(shown, allowed), shown
        planted.write_bytes("J\xe4ne".encode("latin-1"))
        with pytest.raises(WorkspaceError, match="not UTF-8"):
            subject.allowed()
        planted.write_text("Jane Q. Roe\nzq7\nÜnplanted-name\n", encoding="utf-8")
