"""Reviews that a person answers at a terminal."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from abfed.lab.upkeep.reviewing import ask_verdicts, read_verdicts, write_template
from abfed.protocol.errors import WorkspaceError
from abfed.site.keys import SiteKeys
from abfed.site.reviews import lines
from abfed.site.rights import Reviews
from tests.signing import make_people, make_session
from tests.silo.asking import SetClock


def test_a_template_is_not_written_over_decisions(tmp_path: Path) -> None:
    file = tmp_path / "review.yaml"
    write_template(file, [])
    file.write_text("verdicts:\n- {person: ada, role: analyst, decision: revoke}\n")
    with pytest.raises(WorkspaceError, match="a file already"):
        write_template(file, [])
    assert [one.decision for one in read_verdicts(file)] == ["revoke"]


def test_a_hostile_reason_cannot_steer_the_reviewers_terminal(tmp_path: Path) -> None:
    clock = SetClock()
    people = make_people(tmp_path / "hub", SiteKeys.create(tmp_path / "keys", site="hub"), clock)
    make_session(people, "max", ("analyst", "privacy-officer"), audience=("hub",))
    reason = "\x1b[2Jall is well\u202e"
    people.grant("max", "analyst", owner="o", reason=reason, lasts=timedelta(days=90))
    found = lines(people.register().people.values(), Reviews(every_days=90, grace_days=14), clock())
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        return "keep" if len(asked) % 3 == 0 else "perhaps"

    verdicts = ask_verdicts(found, "sam@hub", "hub", asked.append, answer)
    assert {one.decision for one in verdicts} == {"keep"}
    assert [text for text in asked if "keep or revoke" in text] == ["  keep or revoke"] * 4
    assert any("\\x1b[2Jall is well\\u202e" in text for text in asked)
    assert not any(set("\x1b\u202e") & set(text) for text in asked)
