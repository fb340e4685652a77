"""Writes docs/controls.md from `abfed.lab.controls`; fails where what it names isn't there.

python tools/controls.py          # write
python tools/controls.py --check  # compare
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import click

from abfed.cli import main as entry
from abfed.cli.ondemand import load
from abfed.lab.controls import CONTROLS, Control

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "controls.md"
MARK = re.compile(r"\bS(?:1b|\d{1,2})\b")
REASON = re.compile(r"# noqa.*|S\d{3}")  # the linter's rules are called S311 and so on

HEAD = """# Controls

Made by `python tools/controls.py` from `abfed/lab/controls.py` and `abfed/lab/breaking.py`; not
edited by hand. The tool fails where a module, a command or a test (under `tests/`) that is named
here doesn't exist, and where a control has no test that breaks it. In `abfed review` each control
is broken once more: `tests/lab/test_posture.py` puts one after the other wrong, and fails where
one has no such way. How each control stands at
your sites, with evidence, date and owner, is what `abfed review` finds out.

"""


def missing(one: Control) -> list[str]:
    """What a control names and isn't there."""
    gone = [name for name in one.where if importlib.util.find_spec(name) is None]
    gone += [name for name in one.tests if not _is_test(name)]
    gone += [] if one.tests else ["a test that breaks it"]
    words = one.command.split()[1:]
    command = load(words[0], entry.COMMANDS[words[0]]) if words[0] in entry.COMMANDS else None
    for word in words[1:]:
        command = command.commands.get(word) if isinstance(command, click.Group) else None
    return gone if command is not None else [*gone, one.command]


def _is_test(name: str) -> bool:
    """Whether a test of this name stands in its file, at the margin where pytest collects it."""
    file, _, function = name.partition("::")
    path = ROOT / file
    if not path.is_file() or not function:
        return False
    return f"\ndef {function}(" in path.read_text(encoding="utf-8")


def marked() -> dict[str, list[str]]:
    """Files of the package in whose comments and docstrings each control stands."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "abfed").rglob("*.py")):
        if path.name == "controls.py":
            continue
        text = REASON.sub("", path.read_text(encoding="utf-8"))
        for name in sorted(set(MARK.findall(text))):
            found.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    return found


def page() -> str:
    """The page.

    Raises:
        SystemExit: a control names something that isn't there.
    """
    if gone := {one.id: missing(one) for one in CONTROLS if missing(one)}:
        raise SystemExit(f"not there: {gone}")
    also = marked()
    rows = [
        "| id | asked | enforced in | shown by | broken by | owner |",
        "|---|---|---|---|---|---|",
    ]
    for one in CONTROLS:
        named = [f"{name.replace('.', '/')}.py" for name in one.where]
        more = [name for name in also.get(one.id, []) if name not in named]
        where = ", ".join(f"`{name}`" for name in [*named, *more])
        tests = ", ".join(f"`{name.removeprefix('tests/')}`" for name in one.tests)
        rows.append(
            f"| {one.id} | {one.asked} | {where} | `{one.command}` | {tests} "
            f"| {one.owner.replace('-', ' ')} |"
        )
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Write the page, or compare it."""
    made = page()
    if "--check" in sys.argv[1:]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made
        print("as it should be" if same else "docs/controls.md is not what the tool writes")
        return 0 if same else 1
    PAGE.write_text(made, encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
