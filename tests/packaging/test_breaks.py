"""What `make breaks` changes is there to be changed, and what breaks a control is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from abfed.lab.security.controls import CONTROLS
from tools.breaks import Break, Tree, read_breaks, try_one
from tools.controls import missing

ROOT = Path(__file__).resolve().parents[2]
GOOD = Break(
    what="a test that sees it",
    file="abfed/site/files.py",
    change=(("    if mode & 0o077:\n", "    if mode & 0o022:\n"),),
    test="tests/site/test_files.py::test_each_bit_for_others_is_too_wide",
)


@pytest.mark.parametrize(("control", "breaks"), read_breaks().items(), ids=list(read_breaks()))
def test_each_change_stands_in_the_code_once(control: str, breaks: tuple[Break, ...]) -> None:
    whole = {file: (ROOT / file).read_text() for file in {one.file for one in breaks}}
    for one in breaks:
        assert one.apply(whole[one.file]) != whole[one.file]
    assert len({one.what for one in breaks}) == len(breaks), control


def test_a_change_that_fits_no_more_is_an_error() -> None:
    for text in ("", GOOD.change[0][0] * 2):
        with pytest.raises(ValueError, match="times, and not once"):
            GOOD.apply(text)
    careless = GOOD.model_copy(update={"change": (("if mode", "if if mode"),)})
    with pytest.raises(SyntaxError):
        careless.apply(GOOD.change[0][0] + "        pass\n")


def test_a_control_that_nothing_breaks_is_found_out() -> None:
    breaks, one = read_breaks(), CONTROLS[0]
    assert [each.id for each in CONTROLS if missing(each, breaks[each.id])] == []
    assert missing(one, ()) == ["2 changes that break it"]
    gone = [GOOD.model_copy(update={"test": f"tests/{name}"}) for name in
            ("lab/test_posture.py::test_that_is_not_there", "lab/none.py::test_it")]  # fmt: skip
    assert missing(one, gone) == [each.test for each in gone]


def test_the_page_of_controls_is_what_the_tool_writes() -> None:
    done = subprocess.run(
        [sys.executable, "tools/controls.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_change_is_seen_taken_back_and_a_test_that_holds_all_the_same_is_told(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tree = Tree(tmp_path / "tree")
    request.addfinalizer(tree.close)
    before = (tree.path / GOOD.file).read_bytes()
    assert try_one(tree, GOOD)[0]
    blind = GOOD.model_copy(
        update={"test": "tests/site/test_files.py::test_a_file_is_replaced_whole"}
    )
    assert try_one(tree, blind) == (False, "the test holds all the same")
    careless = GOOD.model_copy(update={"change": (("    if mode & 0o077:", "    if modes:"),)})
    seen, told = try_one(tree, careless)
    assert (seen, "NameError" in told) == (False, True)
    assert (tree.path / GOOD.file).read_bytes() == before
