"""Writes docs/controls.md from `abfed.lab.security.controls` and `tests/breaks.yaml`.

It fails where what they name isn't there, and where nothing breaks a control.

python tools/controls.py          # write
python tools/controls.py --check  # compare
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from abfed.cli import main as entry
from abfed.cli.ondemand import load
from abfed.lab.security.controls import CONTROLS, Control
from tools.breaks import Break, read_breaks

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "controls.md"
MARK = re.compile(r"\bS(?:1b|\d{1,2})\b")
REASON = re.compile(r"# noqa.*|S\d{3}")  # the linter's rules are called S311 and so on

FEWEST = 2
"""Changes of the code that each control has at least: most have several parts."""

HEAD = """# Controls

Made by `python tools/controls.py` from `abfed/lab/security/controls.py` and `tests/breaks.yaml`;
not edited by hand. The tool fails where a module, a command or a test (under `tests/`) that is
named here doesn't exist, and where nothing breaks a control. How each control stands at your
sites, with evidence, date and owner, is what `abfed review` finds out; `tests/lab/test_posture.py`
puts one after the other wrong, and sees that the review says so.

"""

THREATS = {
    "manipulation": "malicious manipulation of results",
    "differencing": "a researcher who takes the difference of two answers",
}
"""Threats that are named beside the controls, and broken as they are."""

PARTS = """
## What breaks each of them

`make breaks` changes a copy of the code as each line of this table says, and sees that its test
fails then; a test that holds all the same is an error. Those marked * take several processes or
hosts: `make breaks ARGS=--slow`. That each change still fits the code is a fast test.

Of the threats that are named beside the controls, two stand at the end of the table. The others are
controls' own: a stolen disk or coordinator (S2, S8), unauthorised access (S4, S11 to S13), stolen
models (S8 to S10), insiders (four eyes and separate duties: S12, S13; logs that sites anchor for
one another: S21).

| id | were it so that … | code | this test would fail |
|---|---|---|---|
"""


def missing(one: Control, breaks: Sequence[Break]) -> list[str]:
    """What a control names and isn't there; and that it is broken at all."""
    gone = [name for name in one.where if importlib.util.find_spec(name) is None]
    tests = [*(f"tests/{name}" for name in one.outside), *(each.test for each in breaks)]
    gone += [name for name in dict.fromkeys(tests) if not _is_test(name)]
    gone += [] if len(breaks) >= FEWEST else [f"{FEWEST} changes that break it"]
    words = one.command.split()[1:]
    command = load(words[0], entry.COMMANDS[words[0]]) if words[0] in entry.COMMANDS else None
    for word in words[1:]:
        command = command.commands.get(word) if isinstance(command, click.Group) else None
    return gone if command is not None else [*gone, one.command]


def _is_test(name: str) -> bool:
    """Whether a test of this name stands in its file, at the margin where pytest collects it."""
    file, _, function = name.partition("[")[0].partition("::")
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
    breaks = read_breaks()
    named = [*(one.id for one in CONTROLS), *THREATS]
    if set(breaks) != set(named):
        raise SystemExit(f"no control, or nothing breaks it: {set(breaks) ^ set(named)}")
    found = {one.id: missing(one, breaks[one.id]) for one in CONTROLS}
    found |= {
        name: [one.test for one in breaks[name] if not _is_test(one.test)] for name in THREATS
    }
    if gone := {name: these for name, these in found.items() if these}:
        raise SystemExit(f"not there: {gone}")
    also = marked()
    rows = ["| id | asked | enforced in | shown by | owner |", "|---|---|---|---|---|"]
    for one in CONTROLS:
        first = [f"{name.replace('.', '/')}.py" for name in one.where]
        more = [name for name in also.get(one.id, []) if name not in first]
        where = ", ".join(f"`{name}`" for name in [*first, *more])
        shown = ", ".join(f"`{name}`" for name in [one.command, *one.outside])
        owner = one.owner.replace("-", " ")
        rows.append(f"| {one.id} | {one.asked} | {where} | {shown} | {owner} |")
    parts = [
        f"| {THREATS.get(name, name)} | {each.what}{' *' if each.slow else ''} | `{each.file}` "
        f"| `{each.test.removeprefix('tests/')}` |"
        for name in named
        for each in breaks[name]
    ]
    return HEAD + "\n".join(rows) + "\n" + PARTS + "\n".join(parts) + "\n"


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
