"""Fill build/docs and build the documentation's site, offline and strictly.

`make docs` runs this. Beside the pages in docs/ it makes: each command's own --help, a page of
public names from their docstrings, and the notebooks, executed as reports over what `abfed demo`
makes up. A link that leads nowhere, inside the site or to a file of the repository, ends it with an
error.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import typer
from mkdocs.commands.build import build
from mkdocs.config import load_config

from abfed.cli.main import app
from abfed.cli.main import main as run_command
from abfed.lab.reports.report import make_report, order
from abfed.lab.reports.subjects import find_subject
from abfed.lab.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "build" / "docs"
REPOSITORY = re.compile(r"\]\((?:\.\./)+(?!docs/)([\w./-]+)\)")
"""A link out of docs/: into the repository, which the site doesn't hold."""
PUBLIC = (
    "abfed.protocol.plan.Plan", "abfed.lab.workspace.Workspace", "abfed.lab.runs.Run",
    "abfed.protocol.errors", "abfed.lab.reports.report", "abfed.lab.reports.batches",
    "abfed.lab.views.extension", "abfed.lab.samples.mock", "abfed.lab.evaluating",
)  # fmt: skip
PLAN = ROOT / "experiments" / "spring-waves.yaml"
RUN = "spring-subject-lines"  # the demo's
EXECUTED: dict[str, tuple[str, dict[str, int | str]]] = {
    "experiment_design": (str(PLAN), {}),
    "ab_readout": (RUN, {}),
    "engagement_training": (RUN, {}),
    "brand_profile": (RUN, {"brand": "aurora"}),
    "privacy_utility": (str(PLAN), {"repetitions": 200}),
    "portfolio": ("all", {}),
}
"""What each notebook is executed about, and its parameters. A security review takes a review."""


def main() -> int:
    """Fill, then build."""
    if DOCS.exists():
        shutil.rmtree(DOCS)
    shutil.copytree(ROOT / "docs", DOCS)
    missing = [*_outside_links()]
    for line in missing:
        sys.stderr.write(f"{line}\n")
    (DOCS / "reference").mkdir()
    (DOCS / "reference" / "commands.md").write_text(commands(), encoding="utf-8")
    python = "# Python\n\n" + "\n\n".join(f"::: {name}" for name in PUBLIC) + "\n"
    (DOCS / "reference" / "python.md").write_text(python, encoding="utf-8")
    (DOCS / "notebooks.md").write_text(notebooks(DOCS / "executed"), encoding="utf-8")
    build_site(ROOT / "mkdocs.yml")
    print(f"The site is in {(ROOT / 'build' / 'site').relative_to(ROOT)}/index.html")
    return 1 if missing else 0


def build_site(settings: Path) -> None:
    """Build it strictly. MkDocs' own command shows its warnings; called as here, nobody would."""
    told = logging.StreamHandler(sys.stderr)
    told.setLevel(logging.WARNING)
    logger = logging.getLogger("mkdocs")
    logger.addHandler(told)
    try:
        build(load_config(str(settings), strict=True))
    finally:
        logger.removeHandler(told)


def _outside_links() -> Iterator[str]:
    """Turn links into the repository into its paths; tells of those that aren't there."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for found in REPOSITORY.finditer(text):
            if not (ROOT / found[1]).exists() and not (ROOT / "docs" / found[1]).exists():
                yield f"{page.relative_to(DOCS)}: {found[1]} isn't there"
        page.write_text(
            re.sub(r"\[([^\]]*)\]\((?:\.\./)+(?=[A-Z.]|experiments|notebooks|tests|abfed)[\w./-]+\)",
                   r"\1", text),
            encoding="utf-8",
        )  # fmt: skip


def commands() -> str:
    """Every command's own help."""
    root = typer.main.get_command(app)
    parts = ["# Commands\n\nAs `--help` prints them.\n"]
    for path, command, context in walk(root, click.Context(root, info_name="abfed")):
        parts.append(f"## {path}\n\n```text\n{help_of(command, context)}\n```\n")
    return "\n".join(parts)


def help_of(command: click.Command, context: click.Context) -> str:
    """What a command prints; typer draws its boxes to standard output, and returns the rest."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        returned = command.get_help(context)
    lines = (printed.getvalue() + returned).strip("\n").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def walk(
    command: click.Command, context: click.Context, path: str = "abfed"
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """A command and all below it."""
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                inner = click.Context(below, parent=context, info_name=name)
                yield from walk(below, inner, f"{path} {name}")


def notebooks(folder: Path) -> str:
    """Execute them as reports, about a plan and about a run; returns the page that links them."""
    folder.mkdir()
    how = (
        f"Made by this build as `abfed report` makes them: over `{PLAN.relative_to(ROOT)}`, and "
        "over the run of `abfed demo` on three made-up brands. `security_review` is about a review "
        "of your own sites: `abfed review`, then `abfed report security`."
    )
    lines = ["# Notebooks, executed", "", how, ""]
    with TemporaryDirectory(prefix="abfed-docs-") as place:
        workspace = Path(place) / "workspace"
        with contextlib.redirect_stdout(io.StringIO()):
            if code := run_command(["demo", "--workspace", str(workspace), "--json"]):
                message = f"abfed demo ended with {code}"
                raise RuntimeError(message)
        for name, (about, parameters) in EXECUTED.items():
            subject = find_subject(Workspace(workspace), about, notebook=name)
            made = make_report(order(subject, notebook=name, parameters=parameters, name=name))
            if made.failure is not None:
                message = f"{name}: {made.failure} ({made.failure.reason})"
                raise RuntimeError(message)
            for file, content in made.files.items():
                (folder / file).write_bytes(content)
            lines.append(f"- [{name.replace('_', ' ')}](executed/{name}.html)")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
