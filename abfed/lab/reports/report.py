"""Reports: a notebook executed over a finished run (or a plan), exported as one page.

1. Parameters are checked against the notebook's own cell before a kernel starts: an unknown name or
   a wrong type is a refusal, not a warning.
2. The kernel is confined: it reads the runs and opens no silo, no key and no connection.
3. What it showed passes the disclosure gate before anything is written.
4. The page loads nothing: no script, no font, no picture from outside; its own policy forbids it.
5. It is written aside and renamed into place, readable by its owner only. A notebook that fails
   leaves the page that was there before, and beside it how far it came, with a banner on top.
6. The same subject, notebook and parameters give the same bytes; a signed manifest says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.reports.bounds import check_fits
from abfed.lab.reports.confinement import REASONS
from abfed.lab.reports.manifest import (
    FORMAT,
    SUFFIX,
    code_digest,
    content_key,
    damaged,
    read_manifest,
    versions,
)
from abfed.lab.reports.notebooks import (
    OURS,
    check_papermill_agrees,
    checked_parameters,
    declared_parameters,
    find_notebook,
    known_notebooks,
    parse_notebook,
)
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import (
    InputError,
    IntegrityError,
    ReportFailed,
    Withheld,
    WorkspaceError,
)
from abfed.protocol.printable import in_a_line
from abfed.site.files import make_private_folder, write_private

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from abfed.lab.disclosure.gate import Allowed
    from abfed.lab.reports.execution import Executed, Failure, Limits, Tell
    from abfed.lab.reports.kernels import Kernels
    from abfed.lab.reports.subjects import Subject
    from abfed.lab.runs import Run
    from abfed.site.keys import SiteKeys

FAILED = ".failed"
"""Before the ending of files that hold how far a failed notebook came."""
LONGEST = 500  # characters of a reason; all of it stands in the cell that failed


@dataclass(frozen=True)
class Order:
    """A report that can be made: everything was checked, nothing was started.

    Attributes:
        name: of its files, without ending.
        subject: what it is about.
        notebook: the notebook's name.
        path: where it lies.
        source: the notebook's bytes.
        parameters: all free values, defaults filled in.
        formats: what to export.
        key: the digest of all that it's made from.
    """

    name: str
    subject: Subject
    notebook: str
    path: Path
    source: bytes
    parameters: Mapping[str, Any]
    formats: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Made:
    """A report that was made, or how far it came.

    Attributes:
        files: name to bytes.
        manifest: what is to be signed; None where it failed.
        failure: why it stopped, where it did.
    """

    files: Mapping[str, bytes]
    manifest: dict[str, Any] | None
    failure: Failure | None


def order(
    subject: Subject,
    *,
    notebook: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    formats: tuple[str, ...] = ("html",),
    name: str | None = None,
) -> Order:
    """Check everything that can be checked before a kernel starts.

    Raises:
        InputError: there is no such notebook or format, the notebook is about something else, or a
            parameter is unknown, of another type, out of its range, or a secret.
    """
    from abfed.lab.reports.exporting import FORMATS

    unknown = [one for one in formats if one not in FORMATS]
    if unknown or not formats:
        raise InputError(
            f"there is no format {unknown[0]!r}" if unknown else "no format was named",
            why=f"formats are: {', '.join(FORMATS)}",
        )
    twice = sorted({one for one in formats if formats.count(one) > 1})
    if twice:
        raise InputError(f"format {twice[0]!r} was named twice", do="name each format once")
    path = find_notebook(notebook or subject.notebook)
    source = path.read_bytes()
    document = parse_notebook(source, where=path.name)
    declared = declared_parameters(document, where=path.name)
    needed = [one for one in OURS if one in declared]
    if not set(needed) & set(subject.set_by_us):
        about = [OURS[one][0] for one in needed]
        typed = [
            f"`abfed report {OURS[one][1]} --notebook {notebook or subject.notebook}`"
            for one in needed
        ]
        is_about = next(OURS[one][0] for one in OURS if one in subject.set_by_us)
        raise InputError(
            f"the notebook is about {' or '.join(about)}",
            where=path.name,
            why=f"this report would be about {is_about}",
            do=" or ".join(typed),
        )
    given = checked_parameters(
        declared, parameters or {}, where=path.name, choices=subject.choices
    )  # fmt: skip
    check_papermill_agrees(document, declared, where=path.name)
    free = {name: one.default for name, one in declared.items() if name not in OURS} | given
    own = path.stem == subject.notebook
    ours = {one: subject.set_by_us[one] for one in needed if one in subject.set_by_us}
    for one in ours:
        check_fits(one, declared[one].help, subject.unfit, where=path.name)
    return Order(
        name=name or (subject.name if own else f"{subject.name}-{path.stem}"),
        subject=subject,
        notebook=path.stem,
        path=path,
        source=source,
        parameters=free,
        formats=formats,
        key=content_key(source, free | {"": sorted(ours)}, subject.facts),
    )


def make_report(
    asked: Order,
    kernels: Kernels | None = None,
    *,
    limits: Limits | None = None,
    tell: Tell | None = None,
) -> Made:
    """Make a report, in memory.

    Raises:
        Withheld: the page would show what must not leave.
        KeyboardInterrupt: somebody interrupted; nothing is left running.
    """
    from abfed.lab.reports.engine import execute
    from abfed.lab.reports.execution import DEFAULT_LIMITS
    from abfed.lab.reports.kernels import Place, Spawned

    subject = asked.subject
    seed = int(asked.key[:15], 16)
    place = Place(cwd=subject.cwd, read=subject.read, seed=seed, files=subject.files)
    document = parse_notebook(asked.source, where=asked.notebook)
    declared = declared_parameters(document, where=asked.notebook)
    ours = {name: value for name, value in subject.set_by_us.items() if name in declared}
    done = execute(
        document, {**asked.parameters, **ours}, place, kernels or Spawned(),
        limits=limits or DEFAULT_LIMITS, tell=tell,
    )  # fmt: skip
    return _unfinished(asked, done) if done.failure else _finished(asked, done, seed)


def _finished(asked: Order, done: Executed, seed: int) -> Made:
    from abfed.lab.disclosure.gate import cleared, holds_back
    from abfed.lab.reports.exporting import export, readable

    subject = asked.subject
    allowed = replace(subject.allowed(), told=done.told, made=done.made)
    if holds_back(subject.title, allowed):
        raise Withheld(
            "the page is withheld: its title would show what must not leave",
            where=asked.name,
            do="give the plan’s report another title",
        )
    document, numbers = readable(done.document)
    shown = cleared(document, allowed, where=asked.name, numbers=numbers)
    made = export(shown, subject.title, asked.formats, footer=_footer(asked))
    files = {f"{asked.name}.{form}": content for form, content in made.items()}
    manifest = {
        "format": FORMAT,
        "report": asked.name,
        "key": asked.key,
        "notebook": {"name": asked.notebook, "digest": sha256_hex(asked.source)},
        "parameters": dict(asked.parameters),
        "subject": dict(subject.facts),
        "seed": seed,
        "versions": versions(),
        "code": code_digest(),
        "audience": list(subject.audience),
        "confinement": done.confinement,
        "files": {name: sha256_hex(content) for name, content in files.items()},
    }
    return Made(files, manifest, None)


def _footer(asked: Order) -> str:
    """For whom the page is, and how it can be made again."""
    given = {name: value for name, value in asked.parameters.items() if value != ""}
    values = ", ".join(f"{name} = {value!r}" for name, value in given.items())
    with_values = f" with {escape(values)}" if values else ""
    readers = ", ".join(role.replace("-", " ") for role in asked.subject.audience)
    return (
        f'<footer class="soft"><p>For these roles: {escape(readers)}. Made by the notebook '
        f"<code>{escape(asked.notebook)}</code>{with_values}. "
        f"<code>{escape(_verifying(asked))}</code> makes it again and compares."
        "</p></footer>"
    )


def _verifying(asked: Order) -> str:
    """The command that verifies a report, with what only its maker has: no path is shown."""
    plan = " --plan PLAN_FILE" if asked.subject.facts["kind"] == "plan" else ""
    ours = asked.notebook in known_notebooks()
    notebook = "" if ours else f" --notebook {asked.notebook}.ipynb"
    return f"abfed report verify {asked.name}{plan}{notebook}"


def _unfinished(asked: Order, done: Executed) -> Made:
    """How far it came, with a banner on top; what must not leave is left out, not refused."""
    from abfed.lab.disclosure.gate import findings, holds_back
    from abfed.lab.disclosure.hidden_text import hidden_in_text
    from abfed.lab.disclosure.hiding import hide_small
    from abfed.lab.reports.exporting import as_html, as_notebook, readable, without_folders

    failure = done.failure
    if failure is None:
        message = "a notebook that didn't fail is no unfinished one"
        raise ValueError(message)
    document, _ = readable(done.document)
    allowed = replace(asked.subject.allowed(), told=done.told, made=done.made)
    withheld = {one.place for one in findings(document, allowed)}
    for place, cell in enumerate(document.cells, start=1):
        if place in withheld:
            cell["id"] = f"cell-{place}"
            _leave_out(cell, allowed)
    reason = hidden_in_text(without_folders(failure.reason), allowed.counted)
    kind, _, said = reason.partition(": ")
    if said not in REASONS and (withheld or holds_back(reason, allowed)):
        reason = kind
    reason = in_a_line(reason, LONGEST)  # judged before: what is cut off would be looked over
    failure = replace(failure, reason=reason)
    said = f"{failure}: {reason}" if reason else str(failure)
    text = "This report is not complete. What stands below was made before it stopped."
    banner = (
        f'<div class="warn" role="alert"><p><strong>{escape(said[:1].upper() + said[1:])}</strong>'
        f"</p><p>{text}</p></div>"
    )
    shown = hide_small(document, allowed.counted, allowed.told, allowed.made)
    title = f"INCOMPLETE: {asked.subject.title}"
    files = {
        f"{asked.name}{FAILED}.html": as_html(shown, title, banner=banner).encode(),
        f"{asked.name}{FAILED}.ipynb": as_notebook(shown, f"> **{said}**\n>\n> {text}"),
    }
    return Made(files, None, failure)


def _leave_out(cell: NotebookNode, allowed: Allowed) -> None:
    """Take out of a cell what it showed, and what it says where that alone would be withheld."""
    from abfed.lab.disclosure.gate import stops

    if cell.cell_type == "code":
        cell.outputs = []
    if stops(cell, allowed):
        cell.pop("attachments", None)
        cell.source = "# left out" if cell.cell_type == "code" else "*(left out)*"


def keep(made: Made, asked: Order, folder: Path, signer: SiteKeys | None) -> Path:
    """Write a report's files, its manifest last: where that stands, the report is complete.

    Returns:
        The first file.

    Raises:
        ReportFailed: it isn't complete; what there is was written.
    """
    if not folder.is_dir():
        make_private_folder(folder)
    for name, content in made.files.items():
        write_private(folder / name, content)
    if made.failure is not None:
        partial = next(iter(made.files))
        raise ReportFailed(
            f"{made.failure}",
            where=asked.notebook,
            why=made.failure.reason,
            do=f"see how far it came in {folder / partial}",
        )
    for ending in ("html", "ipynb"):
        (folder / f"{asked.name}{FAILED}.{ending}").unlink(missing_ok=True)
    if signer is not None and made.manifest is not None:
        files = made.manifest["files"] | _earlier(asked, made.manifest, folder, signer.public_key)
        signed = signer.sign("report", canonical_bytes(made.manifest | {"files": files}))
        write_private(folder / f"{asked.name}{SUFFIX}", signed)
    return folder / next(iter(made.files))


def _earlier(
    asked: Order, manifest: Mapping[str, Any], folder: Path, public_key: bytes
) -> dict[str, str]:
    """Other formats that stand from before: those of this very report stay in its manifest.

    Those of another one (other parameters, another notebook) would lie beside a manifest that
    says nothing of them, and be taken for its pages: they go.
    """
    try:
        before = read_manifest(folder / f"{asked.name}{SUFFIX}", public_key)
    except (WorkspaceError, IntegrityError):
        return {}
    stale = set(damaged(before, folder)) if before["key"] == asked.key else set(before["files"])
    kept = {}
    for name in sorted(set(before["files"]) - set(manifest["files"])):
        if name in stale:
            (folder / name).unlink(missing_ok=True)
        else:
            kept[name] = before["files"][name]
    return kept


def write_report(
    run: Run | Subject,
    target_folder: Path,
    *,
    notebook: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    formats: tuple[str, ...] = ("html",),
    signer: SiteKeys | None = None,
    kernels: Kernels | None = None,
    tell: Tell | None = None,
) -> Path:
    """Execute a notebook over a run (or another subject) and write the page.

    Args:
        run: a finished run, opened, or a subject.
        target_folder: where the files go; made private where it isn't there.
        notebook: name of a notebook, or the path of one; the plan's own where none is given.
        parameters: values for the notebook's parameters.
        formats: of `exporting.FORMATS`.
        signer: signs the manifest; none is written without.
        kernels: how the kernel is started.
        tell: told of each cell that is done.

    Returns:
        The page: `<run>.html`, with `-<notebook>` before the ending where it isn't the plan's own.

    Raises:
        InputError: there is no such notebook, or a parameter is unknown or of another type.
        ReportFailed: a cell failed, took too long, or the kernel died.
        Withheld: the page would show what must not leave.
    """
    from abfed.lab.reports.subjects import of_run
    from abfed.lab.runs import Run as RunType

    subject = of_run(run) if isinstance(run, RunType) else run
    asked = order(subject, notebook=notebook, parameters=parameters, formats=formats)
    made = make_report(asked, kernels, tell=tell)
    return keep(made, asked, target_folder, signer)
