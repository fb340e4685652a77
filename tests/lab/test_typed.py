"""What is said of a `%%plan` cell while it is typed, and the extension that asks for it."""

import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import abfed
from abfed.lab.views import typed
from abfed.lab.views.extension import error_card
from abfed.lab.views.typed import answer, read

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "abfed" / "lab" / "labextensions" / "abfed"
SCRIPT = (EXTENSION / "static" / "remoteEntry.js").read_text()
PLAN = """\
name: tiny
purpose: email-optimisation
experiment: subject-lines
silos: [aurora]
arms:
  - {name: a, share: 0.5, control: true}
  - {name: b, share: 0.5}
metrics: [{name: clicked, kind: proportion, column: clicked}]
primary: clicked
privacy: {epsilon: 1.0, delta: 1.0e-6, split: {statistics: 1.0}}
"""


def said(text, magic="%%plan mine"):
    return answer(f"{magic}\n{text}")


def test_a_plan_is_told_in_a_line():
    told = "plan tiny: 1 brand, 2 arms, 1 metric (clicked decides), ε 1, δ 1e-06 for each recipient"
    assert said(PLAN) == {"plan": told}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("primary: clicked", "primary: clickd"), "line 10: primary: 'clickd' is not one of"),
        (("b, share: 0.5", "b, share: 5"), "line 8: arms[1].share: input should be less than 1"),
        (("statistics: 1.0", "statistics: 2.0"), "line 11: privacy: split adds up to 2, not to"),
        (("purpose:", "porpose:"), "line 3: porpose: unknown key; did you mean 'purpose'?"),
        (("name: tiny\n", ""), "missing: name"),
        (("name: tiny", "name: [tiny"), "(line 3, column 8)"),
        (("name: tiny", "name: &a tiny"), "anchors (&name) are not allowed (line 2, column 7)"),
        (("name: tiny", "name: <b>tiny</b>"), "line 2: name: must be a small letter first"),
        (("name: tiny", "name: t\x00"), "character U+0000 can't stand in it (line 2)"),
        (("name: tiny", "name: t\ud800"), "not UTF-8 text"),
    ],
    ids=lambda one: one[1] if isinstance(one, tuple) else "",
)
def test_what_is_wrong_is_told_with_its_line(change, problem):
    assert problem in said(PLAN.replace(*change))["problems"][0]


def test_lines_are_the_editors_also_below_empty_ones_and_indented():
    text = "%%plan\n" + PLAN.replace("primary: clicked", "primary: clickd")
    inside = "\n \n" + "".join(f"  {line}\n" for line in text.splitlines())
    assert answer(inside)["problems"][0].startswith("line 12: primary")


def test_only_plan_cells_are_judged():
    for text in ("name: tiny", "%%planet\nname: x", "%%time\n%%plan", "", None, 7, "%plan"):
        assert answer(text) == {}
    assert answer("%%plan")["problems"] == ["it is empty → see experiments/ for examples"]
    assert answer("%%plan 3\n")["problems"] == ["not a name → write %%plan my_plan"]


def test_the_cell_says_the_same_when_it_runs():
    text = PLAN.replace("primary: clicked", "primary: clickd").replace("silos:", "sillos:")
    told = said(text)["problems"]
    card = error_card((reading := read("", text)).error, reading.problems)
    assert [one.replace("'", "&#x27;") in card for one in told] == [True] * len(told)
    assert len(told) == 2


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"k{i}: [1]\n" for i in range(2000)),
        "[" * 20_000,
        '"' + "x" * 60_000 + '": 1',
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    ],
    ids=["thousands of keys", "deep", "a long key", "aliases"],
)
def test_what_is_huge_or_a_bomb_is_told_shortly_and_soon(text):
    before = time.process_time()
    told = said(text)
    assert time.process_time() - before < 10  # minutes, with a schema anew for each key
    assert len(json.dumps(told)) < 1500
    assert told["problems"]


def test_what_is_too_long_to_be_read_as_typed_is_read_when_it_runs():
    text = PLAN + "#" * typed.MOST
    assert said(text) == {}
    assert read("", text).plan is not None


@pytest.fixture
def opened(monkeypatch):
    """Comms that were opened, as a kernel's manager keeps them."""
    import comm

    manager, sent = comm.base_comm.CommManager(), []

    class Comm(comm.base_comm.BaseComm):
        def publish_msg(self, msg_type, data=None, **_):
            sent.append((msg_type, data))

    monkeypatch.setattr(comm, "get_comm_manager", lambda: manager)
    monkeypatch.setattr(comm, "create_comm", Comm)
    yield manager.comms, sent
    for one in manager.comms.copy().values():
        one.close(deleting=True)


class Shell:
    kernel = object()


def test_a_kernel_opens_one_comm_and_answers_each_question(opened):
    comms, sent = opened
    for _ in range(2):
        typed.listen(Shell())
    ((_, one),) = comms.items()
    assert one.target_name == typed.TARGET
    one.handle_msg({"content": {"data": {"id": "a", "text": f"%%plan\n{PLAN}"}}})
    one.handle_msg({"content": {"data": {}}})
    assert [data for kind, data in sent if kind == "comm_msg"] == [
        {"id": "a", **said(PLAN)},
        {"id": None},
    ]


def test_a_shell_without_a_kernel_opens_none(opened):
    typed.listen(object())
    assert opened == ({}, [])


def test_the_extension_and_the_kernel_agree():
    assert f'const TARGET = "{typed.TARGET}";' in SCRIPT
    assert f"const MOST = {typed.MOST};" in SCRIPT


def test_the_extension_writes_text_only_and_knows_no_place_outside():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", SCRIPT)
    assert not re.search(r"https?:|fetch\(|XMLHttp|WebSocket|import\(", SCRIPT)


def test_the_extension_is_one_that_jupyterlab_finds():
    package = json.loads((EXTENSION / "package.json").read_text())
    build = package["jupyterlab"]["_build"]
    assert (EXTENSION / build["load"]).is_file()
    assert package["version"] == abfed.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = project["tool"]["setuptools"]["data-files"]
    copied = {to: names for to, names in files.items() if to.startswith("share/jupyter")}
    there = {str(one.relative_to(ROOT)) for one in EXTENSION.rglob("*") if one.is_file()}
    assert {one for files in copied.values() for one in files} == there
    assert set(copied) == {
        f"share/jupyter/labextensions/{one}" for one in ("abfed", "abfed/static")
    }


def test_cards_come_with_the_import_and_cost_nothing_before_they_are_drawn():
    script = (
        "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance()\n"
        "import sys, abfed\n"
        "assert not {'pandas', 'abfed.lab.views.cards'} & {*sys.modules}\n"
        "from abfed.protocol.plan import Plan\n"
        "from abfed.protocol.yamltext import parse_yaml\n"
        f"plan = Plan.from_values(parse_yaml({PLAN.encode()!r}, where='x'))\n"
        "print(s.display_formatter.format(plan)[0].get('text/html'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "abfed plan" in done.stdout
