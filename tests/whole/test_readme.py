"""The commands of the README's ten minutes, as they stand there, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from abfed.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def commands(heading: str) -> list[list[str]]:
    """The first block of commands under a heading, without their comments."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(rf"^## {heading}\n+```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0] == "abfed"]


def test_the_ten_minutes_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    told = commands("Ten minutes")
    assert len(told) >= 10
    ended = {" ".join(words): main(words) for words in told}
    assert set(ended.values()) == {0}, ended
    assert list((tmp_path / "workspace" / "reports").glob("*.html"))
