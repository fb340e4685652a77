"""How commands speak when something is wrong: one shape, one JSON value, one exit code."""

from __future__ import annotations

import errno
import json
import math
import os
import sqlite3
from pathlib import Path

import pytest

from abfed.cli import main as main_module
from abfed.cli.main import main
from abfed.cli.output import cell, plain, table
from tests.examples import plan_values

Capture = pytest.CaptureFixture[str]


def _said(capsys: Capture, *arguments: str) -> tuple[int, dict[str, object]]:
    code = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    said = json.loads(out)
    assert said["exit_code"] == code
    return code, said


@pytest.mark.parametrize("what", ["/dev/zero", "/etc", "/nowhere/at/all"])
@pytest.mark.parametrize("command", ["plan check", "run", "report", "ledger preview"])
@pytest.mark.timeout(120)
def test_what_is_no_plan_ends_with_2(
    tmp_path: Path, capsys: Capture, command: str, what: str
) -> None:
    workspace = str(tmp_path / "workspace")
    assert main(["init", "-w", workspace, "--no-development-person"]) == 0
    capsys.readouterr()
    options = [] if command == "plan check" else ["-w", workspace]
    code, said = _said(capsys, *command.split(), what, *options)
    assert code == 2
    assert str(said["error"]).startswith("bad-")


def test_a_hostile_key_cannot_steer_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    values = plan_values() | {"\x1b]0;owned\x07\u202e": 1}
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps(values))  # JSON is YAML, and writes control characters as escapes
    assert main(["plan", "check", str(plan)]) == 2
    said = capsys.readouterr()
    assert "unknown key" in said.err
    assert "\\x1b]0;owned\\x07\\u202e" in said.err
    assert not set("\x1b\x07\u202e") & set(said.err + said.out)


@pytest.mark.parametrize(
    "arguments", [["silo", "shwo"], ["plan", "chek", "x"], ["sillo"], ["silo", "subject", "erse"]]
)
def test_a_hint_is_given_once(capsys: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.lower().count("did you mean") == 1
    assert any(f"'{name}'" in said for name in ("show", "check", "silo", "erase"))


@pytest.mark.parametrize("arguments", [["pl\x1b[2Jan"], ["plan", "check"], ["run", "--\x1bno"]])
def test_a_misused_command_says_so(capsys: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "\x1b" not in said.err
    assert "--help" in said.err
    code, told = _said(capsys, *arguments)
    assert (code, told["error"]) == (2, "bad-command")


DISKS = {
    "full": (OSError(errno.ENOSPC, "", "x"), "the disk is full"),
    "read-only": (OSError(errno.EROFS, "", "x"), "the disk is read-only"),
    "failing": (OSError(errno.EIO, "", "x"), "the disk is full or failing"),
}


def _fail(problem: BaseException):
    def failing(*_arguments: object, **_options: object) -> None:
        raise problem

    return failing


@pytest.mark.parametrize("disk", DISKS.values(), ids=list(DISKS))
def test_a_disk_that_keeps_nothing_is_no_defect(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, disk: tuple[OSError, str]
) -> None:
    problem, told = disk
    monkeypatch.setattr(main_module, "app", _fail(problem))
    code, said = _said(capsys)
    assert (code, said["error"], said["where"]) == (4, "storage", "x")
    assert told in str(said["what"])


def test_a_full_database_is_a_full_disk(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = sqlite3.connect(tmp_path / "a.db")
    database.execute("CREATE TABLE a (b BLOB)")
    database.execute("PRAGMA max_page_count = 4")

    def fill(*_arguments: object, **_options: object) -> None:
        database.execute("INSERT INTO a VALUES (?)", (bytes(100_000),))

    monkeypatch.setattr(main_module, "app", fill)
    code, said = _said(capsys)
    assert (code, said["what"]) == (4, "the disk is full")
    database.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_really_full_disk(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_arguments: object, **_options: object) -> None:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)

    monkeypatch.setattr(main_module, "app", fill)
    assert _said(capsys)[0] == 4


def test_a_defect_and_an_interrupt_are_json_too(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABFED_DEBUG", raising=False)
    monkeypatch.setattr(main_module, "app", _fail(ZeroDivisionError("person@example.com")))
    code, said = _said(capsys)
    assert (code, said["error"]) == (1, "defect")
    assert "person" not in json.dumps(said)
    assert main([]) == 1
    assert "person" not in capsys.readouterr().err
    monkeypatch.setattr(main_module, "app", _fail(KeyboardInterrupt()))
    assert _said(capsys)[0] == 130


def test_ctrl_c_inside_a_command_is_told(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typer ends such a command itself, with the code alone."""

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("abfed.lab.workspace.Workspace.create", pressed)
    assert main(["init", "-w", str(tmp_path / "new")]) == 130
    assert "interrupted; what was done is kept" in capsys.readouterr().err
    code, said = _said(capsys, "init", "-w", str(tmp_path / "new"))
    assert (code, said["error"]) == (130, "interrupted")


def test_fields_are_ascii_and_names_stay() -> None:
    given = {"ε (Rényi)": 1, "left now": 2, "spring-2026": 3, "page.html": 4, "data epoch": 5}
    fields = ["epsilon_renyi", "left_now", "spring-2026", "page.html", "data_epoch"]
    assert list(plain(given)) == fields


@pytest.mark.parametrize("words", [("plna",), ("people", "ad"), ("access", "reviw")])
def test_the_nearest_command_is_named_once(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 2
    assert capsys.readouterr().err.count("Did you mean") == 1


def test_a_cell_of_a_table_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table([{"reason": "[link=https://e.example]left[/link] :warning: [/]"}], title="of [bold]x")
    told = capsys.readouterr().out
    assert "[link=https://e.example]left[/link] :warning: [/]" in told
    assert "of [bold]x" in told


def test_figures_in_tables_are_written_as_people_write_them() -> None:
    told = [cell(one) for one in (0.00001234, 3.14159, 9999.4, 9999.5, 36_850.2, -1.5e6, math.inf)]
    assert told == ["1.234e-05", "3.142", "9999", "10,000", "36,850", "-1,500,000", "–"]
