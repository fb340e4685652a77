"""Commands are imported when they are asked for, and the table says what they say themselves."""

import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO

import click
import pytest
import typer

from abfed.cli import main as entry
from abfed.cli import settings
from abfed.cli.ondemand import load


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_the_table_repeats_the_first_line_of_the_help(name):
    command = load(name, entry.COMMANDS[name])
    assert command.name == name
    said = command.get_short_help_str(limit=300)
    assert said.startswith(entry.COMMANDS[name].help.rstrip("."))


def test_help_lists_every_command_and_imports_none(capsys):
    code = (
        "import sys; from abfed.cli.main import main; main(['--help']);"
        "print(sorted(m for m in sys.modules if m.startswith('abfed.cli.')), file=sys.stderr);"
        "print('HEAVY' * any(m in sys.modules for m in ('pydantic', 'pandas', 'rich')),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in entry.COMMANDS)
    allowed = {"main", "ondemand", "output", "settings"}
    assert done.stderr == f"{sorted(f'abfed.cli.{one}' for one in allowed)}\n\n"


def test_a_command_that_is_not_there_names_the_nearest(capsys):
    assert entry.main(["reprot"]) == 2
    assert "Did you mean 'report'" in capsys.readouterr().err


@pytest.mark.parametrize("given", [[], ["data"]])
def test_no_command_is_told_once_and_in_words(given, capsys):
    assert entry.main(given) == 2
    told = capsys.readouterr()
    assert (told.out + told.err).count("Usage: ") == 1
    assert told.err.endswith("bad-command: no command is named\n")


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_the_help_of_a_verb_names_options_that_it_has_and_no_markup(name):
    for typed, verb in _commands(load(name, entry.COMMANDS[name]), name):
        options = {option for one in verb.params for option in one.opts}
        for one in verb.params:
            named = set(re.findall(r"(?<![\w`-])--[a-z-]+", getattr(one, "help", None) or ""))
            assert named <= options, f"abfed {typed}: {one.name}"
        shown = StringIO()
        with redirect_stdout(shown):
            verb.main(["--help"], standalone_mode=False)
        assert "\\[" not in shown.getvalue(), typed


@pytest.mark.parametrize("verb", [[], ["make"]])
def test_a_report_may_be_asked_for_without_a_verb(verb):
    group = typer.main.get_command(entry.app)
    report = group.get_command(click.Context(group), "report")
    context = click.Context(report)
    rest = report.parse_args(context, [*verb, "spring", "-p", "alpha", "0.1", "--to", "pdf"])
    assert [*context._protected_args, *rest][:4] == ["make", "spring", "-p", "alpha=0.1"]


def _commands(command, name):
    """Every command below one, by how it is typed."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield name, command
    for verb, one in inner.items():
        yield from _commands(one, f"{name} {verb}")


def _verbs(command, name):
    """The options of every command below one."""
    for typed, verb in _commands(command, name):
        yield typed, {option for one in verb.params for option in one.opts}


def test_a_hint_names_the_workspace_where_the_command_takes_one(monkeypatch):
    monkeypatch.delenv("ABFED_WORKSPACE", raising=False)
    root = typer.main.get_command(entry.app)
    for name in entry.COMMANDS:
        for typed, options in _verbs(load(name, entry.COMMANDS[name]), name):
            named = settings.typed(typed, "other", root).endswith(" -w other")
            assert named == ("--workspace" in options), typed
    assert settings.typed("report spring-1a2b", "o", root) == "abfed report spring-1a2b -w o"
    assert settings.typed("run x", "workspace", root) == "abfed run x"
    advice = "see `abfed silo show a`, or `abfed plan check p`, or `make demo`"
    shown = settings.over(advice, "my files", root)
    assert shown == (
        "see `abfed silo show a -w 'my files'`, or `abfed plan check p`, or `make demo`"
    )
    elsewhere = "ask its coordinator for 'abfed audit anchors'"  # in a workspace of theirs
    assert settings.over(elsewhere, "my files", root) == elsewhere
    monkeypatch.setenv("ABFED_WORKSPACE", "other")
    assert settings.typed("run x", "other", root) == "abfed run x"
    for line in (["-w", "a"], ["--workspace", "a"], ["--workspace=a"], ["-wa"]):
        assert settings.workspace_in(["run", "p", *line]) == "a"


def test_the_package_runs_as_the_console_script_does():
    command = [sys.executable, "-m", "abfed", "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "PLAN" in done.stderr


def _arguments(command, name):
    """Every argument of a command and of those below it, with what is said of it."""
    for verb, one in getattr(command, "commands", {}).items():
        yield from _arguments(one, f"{name} {verb}")
    for one in command.params:
        if isinstance(one, click.Argument):
            yield f"{name} {one.name}", one.help


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_help_says_what_each_argument_is(name):
    """click 8.5 emptied Typer's words for all of them."""
    told = dict(_arguments(load(name, entry.COMMANDS[name]), name))
    assert not [argument for argument, said in told.items() if not said]
