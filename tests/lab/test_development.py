"""The made-up person signs in by codes that count once, by whatever clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from abfed.lab.development import FILE, sign_in_development
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.errors import Refused
from abfed.site.factors import STEP_SECONDS
from abfed.site.files import read_private, write_private


def test_a_clock_that_was_set_back_is_told_and_not_slept_through(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", development=True)
    (kept,) = (tmp_path / "w").rglob(FILE)
    values = parse_canonical(read_private(kept), where=FILE)
    values["used_step"] = int(time.time() + 3 * 86_400) // STEP_SECONDS  # by the clock of before
    write_private(kept, canonical_bytes(values))
    waited: list[float] = []
    with pytest.raises(Refused, match="the clock was set back"):
        sign_in_development(
            kept.parent, workspace.people, audience=["coordinator"], wait=waited.append
        )
    assert not waited
