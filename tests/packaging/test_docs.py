"""Commands that the documentation shows exist, with the options it gives them."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer

from abfed.cli.main import app

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted([DOCS / "index.md", DOCS / "tutorial.md", *(DOCS / "how-to").glob("*.md")])


def shown(page):
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("abfed "):
                yield line


def check_exists(line):
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    context = click.Context(command, info_name="abfed")
    while isinstance(command, click.Group):
        name = words.pop(0) if words else ""
        below = command.get_command(context, name)
        if below is None and "make" in command.list_commands(context):
            below, words = command.get_command(context, "make"), [name, *words]
        assert below is not None, line
        command, context = below, click.Context(below, parent=context, info_name=name)
    known = {one for parameter in command.params for one in parameter.opts}
    assert {one for one in words if one.startswith("-")} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda one: one.stem)
def test_commands_that_are_shown_exist(page):
    for line in shown(page):
        check_exists(line)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_timer_of_retention_and_it_starts_a_command_that_exists(tmp_path):
    for ending in ("service", "timer"):
        text = (DOCS / "operations" / f"abfed-purge@.{ending}").read_text()
        for command in re.findall(r"^ExecStart=/opt/abfed/bin/(.*)$", text, re.MULTILINE):
            assert command == "abfed silo purge %i --workspace /srv/abfed"
            check_exists(command)
        place = tmp_path / f"abfed-purge@aurora.{ending}"
        place.write_text(text.replace("/opt/abfed/bin/abfed", "/bin/true"))
    for place in sorted(tmp_path.iterdir()):
        done = subprocess.run(
            ["systemd-analyze", "verify", str(place)], capture_output=True, text=True, check=False
        )
        assert not [line for line in done.stderr.splitlines() if "abfed-purge" in line], done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda one: one.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
