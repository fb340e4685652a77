"""`abfed report`: show what came of a run, check that a report still follows from it, share it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from abfed.lab.reports.execution import Tell


class OneOrVerb(TyperGroup):
    """`abfed report RUN` makes one; a first word that is a verb is that verb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb `make` before what isn't a verb."""
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = ["make", *args]
        if args[:1] == ["make"]:
            args = joined(args)
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=OneOrVerb,
    no_args_is_help=True,
    help="Make a report, make it again to verify it, or share it. `abfed report RUN` makes one.",
)

ParameterOption = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="A parameter of the notebook."),
]


@app.command()
def make(
    about: Annotated[
        str,
        typer.Argument(metavar="PLAN|RUN", help="A run, a plan's file, `all` runs or `security`."),
    ],
    workspace: WorkspaceOption,
    notebook: Annotated[str, typer.Option(help="Another notebook than the plan's.")] = "",
    parameter: ParameterOption = None,
    to: Annotated[
        list[str] | None,
        typer.Option(help="Formats: html (if left out), pdf, ipynb, md; --to html,pdf for two."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for all cells.")] = 1800,
    as_json: JsonOption = False,
) -> None:
    """Make a report. `-p alpha=0.1` and `-p alpha 0.1` both set a parameter."""
    from abfed.lab.reports.notebooks import texts_for
    from abfed.lab.reports.report import keep, make_report, order
    from abfed.lab.reports.subjects import find_subject
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    subject = find_subject(opened, about, notebook=notebook)
    values = texts_for(notebook or subject.notebook, parameter or [])
    formats = tuple(
        dict.fromkeys(one.strip() for given in to or ["html"] for one in given.split(","))
    )
    asked = order(subject, notebook=notebook or None, parameters=values, formats=formats)
    from abfed.lab.reports.execution import Limits  # what is refused doesn't wait for it

    with cells_bar(quiet=as_json) as tell:
        made = make_report(asked, limits=Limits(report=timeout), tell=tell)
        page = keep(made, asked, opened.reports_folder, opened.keys)
    files = [page.with_suffix(f".{form}") for form in asked.formats]
    run = subject.facts.get("run")
    if as_json:
        told = {"report": page, "run": run, "files": files, "audience": list(subject.audience)}
        say_json(told)
        return
    if run is not None and run != about:
        say(f"Of run {run}.")
    say(f"The report lies in {page}")
    for file in files[1:]:
        say(f"  and in {file}")


@app.command()
def verify(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="Its name or one of its files.")],
    workspace: WorkspaceOption,
    plan: Annotated[
        Path | None, typer.Option(help="The plan's file, for a report about a plan.")
    ] = None,
    notebook: Annotated[str, typer.Option(help="The notebook's path, if not abfed's own.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a report again from its run: says identical, or shows what differs (exit code 4)."""
    from abfed.lab.reports.verifying import verify_report
    from abfed.lab.workspace import Workspace

    verdict = verify_report(Workspace(workspace), report, plan=plan, notebook=notebook)
    if as_json:
        say_json(
            {"identical": verdict.identical, "damaged": verdict.damaged, "causes": verdict.causes,
             "differences": verdict.differences}
        )  # fmt: skip
    elif verdict.identical:
        say(f"identical: {verdict.held}")
    else:
        for name in verdict.damaged:
            say(f"changed on disk since it was made: {name}")
        for cause in verdict.causes:
            say(f"because {cause}")
        for name, lines in verdict.differences.items():
            say(f"differs when made again: {name}")
            for line in lines:
                say(f"  {line}")
    if not verdict.identical:
        raise typer.Exit(4)


@app.command("reader-key")
def reader_key(
    file: Annotated[Path, typer.Argument(help="Where the private half goes; it stays there.")],
    as_json: JsonOption = False,
) -> None:
    """Make a reader's key pair, on the reader's own machine; prints the public half."""
    from abfed.lab.reports.sharing import make_reader_key

    public = make_reader_key(file)
    if as_json:
        say_json({"public_key": public, "file": file})
        return
    say(public)


@app.command()
def reader(
    name: Annotated[str, typer.Argument(help="A person of the coordinator's.")],
    public_key: Annotated[str, typer.Argument(help="What `reader-key` printed, in hex.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Pin a person's public key, so that reports can be sealed for them."""
    from abfed.lab.reports.sharing import pin_reader
    from abfed.lab.workspace import Workspace

    fingerprint = pin_reader(Workspace(workspace), name, public_key)
    if as_json:
        say_json({"person": name, "fingerprint": fingerprint})
        return
    say(f"The key of {name} is pinned. Compare its fingerprint by phone: {fingerprint}")


@app.command()
def share(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="Its name or one of its files.")],
    to: Annotated[list[str], typer.Option("--to", help="A person; repeat it for more.")],
    workspace: WorkspaceOption,
    into: Annotated[
        Path | None,
        typer.Option(help="Where sealed files go; outside the workspace only to a vetted vendor."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Seal a report for named people who have a role that it is for; logged."""
    from abfed.lab.reports.sharing import share_report
    from abfed.lab.workspace import Workspace

    made = share_report(Workspace(workspace), report, to, into)
    if as_json:
        say_json({"sealed": made})
        return
    for path in made:
        say(f"sealed: {path}")


@app.command("open")
def open_(
    sealed: Annotated[Path, typer.Argument(help="The sealed file.")],
    name: Annotated[str, typer.Option("--as", help="Your name, as it was shared to.")],
    key: Annotated[Path, typer.Option(help="Your private key's file.")],
    signer: Annotated[str, typer.Option(help="Public key of who made the report, in hex.")],
    into: Annotated[Path, typer.Option(help="Where its files go.")] = Path("shared"),
    as_json: JsonOption = False,
) -> None:
    """Open a report that was sealed for you; its signature is checked first."""
    from abfed.lab.reports.sharing import open_shared
    from abfed.protocol.envelope import parse_public_key

    public = parse_public_key(signer, do="give --signer as its coordinator tells it")
    manifest, files = open_shared(sealed, key, name, public, into)
    if as_json:
        say_json({"report": manifest["report"], "files": files})
        return
    for path in files:
        say(f"opened: {path}")


@contextmanager
def cells_bar(*, quiet: bool) -> Iterator[Tell | None]:
    """One bar over the cells of a notebook, on standard error."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=1, unit="cell", file=sys.stderr, desc="report", leave=False) as bar:

        def tell(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield tell


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments in which `-p name value`, as Papermill takes it, is written `-p name=value`."""
    given, found = list(arguments), []
    while given:
        one = given.pop(0)
        if one == "-p" and len(given) >= 2 and "=" not in given[0]:
            found += [one, f"{given.pop(0)}={given.pop(0)}"]
        else:
            found.append(one)
    return found
