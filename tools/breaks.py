"""Breaks each control in a copy of the code, one line after the other, and sees its test fail.

`tests/breaks.yaml` lists, by control, what is changed and which test must not hold any more. A test
that holds all the same proves nothing about the control that names it.

python tools/breaks.py               # all of them
python tools/breaks.py S2 S11        # those of two controls
python tools/breaks.py --slow        # with those that need several processes or hosts
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree as ET

import yaml
from pydantic import Field, TypeAdapter

from abfed.protocol.schema import Frozen

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "breaks.yaml"
LEFT = {".git", ".venv", "build", "dist", "workspace", "lab"}
LONGEST = 300  # seconds for one test, on a machine that others share
LONGEST_SLOW = 900
CARELESS = ("NameError", "ImportError", "SyntaxError", "UnboundLocalError", "Failed: Timeout")
"""How a test fails of a change that was made carelessly: that shows nothing."""


class Break(Frozen):
    """A change that takes a part of a control away.

    Attributes:
        what: what the code then does, or no longer does.
        file: which is changed.
        change: pairs of a text that is there once, and what is put in its place.
        test: which must fail then.
        slow: it needs several processes or hosts.
    """

    what: str
    file: str
    change: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    test: str
    slow: bool = False

    def apply(self, text: str) -> str:
        """A file's text with the change.

        Raises:
            ValueError: what is to be changed isn't there, or more than once.
        """
        for old, new in self.change:
            if (times := text.count(old)) != 1:
                raise ValueError(f"{self.file}: {times} times, and not once: {old!r}")
            text = text.replace(old, new)
        compile(text, self.file, "exec", dont_inherit=True)
        return text


def read_breaks(path: Path = TABLE) -> dict[str, tuple[Break, ...]]:
    """The table: changes by control."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, tuple[Break, ...]]).validate_json(json.dumps(values))


def copy_tree(into: Path) -> Path:
    """What the tests need, without what is compiled: no run may see the module of another."""
    into.mkdir()
    for path in ROOT.iterdir():
        if path.name in LEFT or path.name.endswith("_cache"):
            continue
        if path.is_dir():
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, into / path.name, ignore=without, symlinks=True)
        else:
            shutil.copy(path, into / path.name)
    return into


class Tree:
    """A copy of the code, and a process that runs its tests in forks of itself."""

    def __init__(self, path: Path) -> None:
        self.path = copy_tree(path)
        command = [sys.executable, str(path / "tools" / "forking.py")]
        self._forking = subprocess.Popen(  # noqa: S603 - our own
            command, cwd=path, env=os.environ | {"CI": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        self._forking.kill()
        self._forking.communicate()

    def run(self, tests: Iterable[str], seconds: float, workers: int = 0) -> str:
        """Run tests: "" where all hold; else how the first one fails, or why it can't say."""
        with tempfile.TemporaryDirectory(prefix="abfed-breaks-") as folder:
            told, said = Path(folder) / "told.xml", Path(folder) / "said"
            words = ["-q", "-p", "no:cacheprovider", "-n", str(workers), "--dist", "loadfile"]
            words += [f"--junitxml={told}", "--basetemp", f"{folder}/t", "--tb=line", *tests]
            code = self._asked(tree=str(self.path), words=words, said=str(said), seconds=seconds)
            if code == 0 and not _cases(told, "skipped"):
                return ""
            if code is None:
                return f"no outcome: not done after {seconds:.0f} s"
            odd = [*_cases(told, "error"), *_cases(told, "skipped")]
            if code != 1 or odd:
                return f"no outcome: {odd[0] if odd else said.read_text('utf-8')[-300:]}"
            return _cases(told, "failure")[0]

    def _asked(self, **run: object) -> int | None:
        if self._forking.stdin is None or self._forking.stdout is None:
            raise RuntimeError("no pipes")
        self._forking.stdin.write(json.dumps(run) + "\n")
        self._forking.stdin.flush()
        code: int | None = json.loads(self._forking.stdout.readline())
        return code


def _cases(told: Path, outcome: str) -> list[str]:
    """The messages of an outcome."""
    if not told.is_file():
        return []
    found = ET.parse(told).iter(outcome)  # noqa: S314 - pytest wrote it just now
    return [" ".join((one.get("message") or outcome).split())[:160] for one in found]


def try_one(tree: Tree, one: Break) -> tuple[bool, str]:
    """Make a change in a tree, run its test, take the change back: whether it was seen, and how."""
    path = tree.path / one.file
    good = path.read_text(encoding="utf-8")
    try:
        path.write_text(one.apply(good), encoding="utf-8")
        _forget(path)
        told = tree.run([one.test], LONGEST_SLOW if one.slow else LONGEST)
    finally:
        path.write_text(good, encoding="utf-8")
        _forget(path)
    if not told:
        return False, "the test holds all the same"
    return not told.startswith(("no outcome", *CARELESS)), told


def _forget(path: Path) -> None:
    """Remove a module's compiled form, which is told from another's by second and length only."""
    for one in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        one.unlink()


def try_all(chosen: Sequence[tuple[str, Break]], copies: Sequence[Tree], ends: float) -> list[str]:
    """Try each of these, in as many copies of the code at a time; what was not as it must be."""
    trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for copy in copies:
        trees.put(copy)
    wrong: list[str] = []

    def judge(control: str, one: Break) -> None:
        tree = trees.get()
        try:
            in_time = time.monotonic() < ends
            seen, told = try_one(tree, one) if in_time else (False, "not tried: out of time")
        finally:
            trees.put(tree)
        sign = "ok " if seen else "NOT"
        print(
            f"{sign} {control:4} {one.what} [{one.file}]\n         {one.test}: {told}", flush=True
        )
        if not seen:
            wrong.append(f"{control}: {one.what}: {told}")

    # Those with hosts share addresses: one after the other, when the others are done.
    for several, slow in ((len(copies), False), (1, True)):
        with ThreadPoolExecutor(several) as pool:
            futures = [pool.submit(judge, *pair) for pair in chosen if pair[1].slow is slow]
        for one in futures:
            one.result()
    return wrong


def main() -> int:
    """Try what was asked for; 1 where a control can be broken and its test doesn't see it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("controls", nargs="*", metavar="CONTROL")
    parser.add_argument("--slow", action="store_true", help="with those that need hosts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=20, help="what isn't tried then fails")
    given = parser.parse_args()
    table = read_breaks()
    if unknown := set(given.controls) - set(table):
        parser.error(f"no such control: {', '.join(sorted(unknown))}")
    chosen = [
        (control, one)
        for control, breaks in table.items()
        for one in breaks
        if (not given.controls or control in given.controls) and (given.slow or not one.slow)
    ]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="abfed-breaks-") as name, ExitStack() as stack:
        Path(name).chmod(0o755)  # tests run a part of it as another user, who must read the code
        copies = [Tree(Path(name) / f"tree-{number}") for number in range(given.jobs)]
        for copy in copies:
            stack.callback(copy.close)
        print("as it is, each of these tests holds: ", end="", flush=True)
        tests = list(dict.fromkeys(one.test for _, one in chosen))
        if told := copies[0].run(tests, 60 * given.minutes, workers=given.jobs):
            print(f"no\n{told}")
            return 1
        print(f"{len(tests)} tests", flush=True)
        wrong = try_all(chosen, copies, began + 60 * given.minutes)
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} changes were seen, of "
          f"{len({control for control, _ in chosen})} controls, "
          f"in {time.monotonic() - began:.0f} s")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
