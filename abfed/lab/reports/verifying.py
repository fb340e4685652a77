"""Making a report again, to see whether it still follows from its run.

1. The manifest's signature holds, it is this report's own, and each file has the bytes that it
   names.
2. A batch's index follows from its reports: each one's own manifest and files must be those that
   it was made beside, and the page comes out the same again. To make a report again, name it.
3. The run (or plan) and the notebook are the very ones: their digests are compared first, so that
   a difference is named by its cause.
4. It is made again, in a fresh kernel, with the same parameters; every file must be the same bytes.
   Where one isn't, the lines that differ are shown: they are of pages that may be shown.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.reports.batch_index import NAME, STEM, damage, index_page
from abfed.lab.reports.manifest import SUFFIX, code_digest, damaged, read_manifest, versions
from abfed.lab.reports.notebooks import find_notebook, known_notebooks
from abfed.lab.reports.subjects import Subject, of_plan, of_review, of_run, of_runs
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.documents import is_file
from abfed.protocol.errors import InputError, WorkspaceError
from abfed.protocol.plan import Plan

if TYPE_CHECKING:
    from abfed.lab.reports.kernels import Kernels
    from abfed.lab.workspace import Workspace

MOST_LINES = 40
LONGEST_LINE = 200  # characters
MOST_NAMED = 8
_LONG = re.compile(r"data:[\w/+;=,-]{80,}|[A-Za-z0-9+/=]{120,}")


@dataclass
class Verdict:
    """What making it again showed.

    Attributes:
        identical: every file came out with the same bytes.
        damaged: files on disk that aren't what the manifest names.
        causes: what is different in what it was made from.
        differences: by file, lines that differ.
        held: what it means that nothing does, in words.
    """

    damaged: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    differences: dict[str, list[str]] = field(default_factory=dict)
    held: str = "made again, every file came out with the same bytes"

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not (self.damaged or self.differences)


def find_manifest(workspace: Workspace, report: str) -> Path:
    """A report's manifest by its name or the start of it, or by the path of one of its files.

    Raises:
        WorkspaceError: there is none, or several reports' names begin so.
    """
    for path in _candidates(workspace.reports_folder, Path(report)):
        if path.suffix == SUFFIX and is_file(path):
            return path
    kept = workspace.reports_folder.glob(f"*{SUFFIX}")
    begun = sorted((one for one in kept if one.name.startswith(report)), key=lambda one: one.stem)
    # Other notebooks and parameters of a run stand behind its name: its own report is the first.
    if report and begun and all(one.name.startswith(begun[0].stem) for one in begun):
        return begun[0]
    if report and begun:
        raise WorkspaceError(
            f"several reports begin with {report!r}", where=str(workspace.reports_folder),
            why=", ".join(one.stem for one in begun[:MOST_NAMED]), do="name one of them",
        )  # fmt: skip
    raise WorkspaceError(
        f"there is no report {report!r}", where=str(workspace.reports_folder),
        do="name one as `abfed report` called it, or give its path",
    )  # fmt: skip


def _candidates(reports: Path, given: Path) -> Iterator[Path]:
    """Where the manifest of what somebody named may lie, in the order in which it is looked for."""
    if not given.name:  # nothing, or a root: no file's name
        return
    yield from (given, given.with_suffix(SUFFIX), given.with_name(f"{given.name}{SUFFIX}"))
    yield reports / given / f"{STEM}{SUFFIX}"  # a batch, by its name
    called = f"{given.name}{SUFFIX}"
    yield from sorted(one for one in reports.rglob(f"*{SUFFIX}") if one.name == called)


def verify_report(
    workspace: Workspace,
    report: str,
    *,
    plan: Path | None = None,
    notebook: str = "",
    kernels: Kernels | None = None,
) -> Verdict:
    """Make a report again and compare.

    Args:
        workspace: whose it is.
        report: its name or path.
        plan: the plan's file, where the report is about a plan that has no run.
        notebook: where the notebook lies, where it isn't one of abfed's.
        kernels: how the kernel is started.

    Raises:
        WorkspaceError: there is no such report, or its run isn't here.
        IntegrityError: the manifest, or the run, was changed.
        ReportFailed: it can't be made any more.
    """
    from abfed.lab.reports.report import make_report, order

    path = find_manifest(workspace, report)
    manifest = read_manifest(path, workspace.keys.public_key)
    if manifest["subject"]["kind"] == "batch":
        return _verify_index(path.parent, manifest, workspace.keys.public_key)
    verdict = Verdict(damaged(manifest, path.parent))
    subject = _subject(workspace, manifest, plan)
    source = _notebook(notebook, manifest)
    verdict.causes = _causes(manifest, subject, source)
    formats = tuple(name.rpartition(".")[2] for name in manifest["files"])
    asked = order(
        subject, notebook=notebook or manifest["notebook"]["name"],
        parameters=manifest["parameters"], formats=formats, name=manifest["report"],
    )  # fmt: skip
    made = make_report(asked, kernels)
    if made.failure is not None:
        verdict.differences[manifest["report"]] = [f"not made: {made.failure}"]
        return verdict
    for name, content in made.files.items():
        changed = name in verdict.damaged and path.with_name(name).is_file()
        if changed or sha256_hex(content) != manifest["files"][name]:
            verdict.differences[name] = _lines(_content(path.with_name(name)), content, name)
    return verdict


def _verify_index(folder: Path, manifest: dict[str, Any], public_key: bytes) -> Verdict:
    """A batch's page, and each report on it by its manifest."""
    verdict = Verdict(damage(manifest, folder, public_key))
    verdict.held = "the index follows from its reports, and each of them is as it was signed"
    again = index_page(manifest["subject"], manifest["audience"], folder).encode()
    if sha256_hex(again) != manifest["files"][NAME]:
        if manifest["code"] != code_digest():
            verdict.causes.append("abfed’s source was changed")
        verdict.differences[NAME] = _lines(_content(folder / NAME), again, NAME)
    return verdict


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _subject(workspace: Workspace, manifest: dict[str, Any], plan: Path | None) -> Subject:
    facts = manifest["subject"]
    match facts["kind"]:
        case "run":
            return of_run(workspace.find_run(facts["run"]))
        case "runs":
            runs = [workspace.find_run(name) for name in facts["runs"]]
            return of_runs(runs, workspace.runs_folder)
        case "review":
            from abfed.lab.security.posture import FOLDER as REVIEWS

            kept = workspace.coordinator / REVIEWS / Path(facts["review"]).name
            return of_review(kept, workspace.keys.public_key)
        case _:
            if plan is None:
                raise InputError("the report is about a plan", do="name its file with --plan")
            return of_plan(Plan.load(plan), plan.read_bytes(), workspace.path)


def _notebook(given: str, manifest: dict[str, Any]) -> Path:
    """The notebook that somebody names, or the one of abfed's that the report was made with.

    Raises:
        InputError: it isn't one of abfed's, or there is none of that name or path.
    """
    name = manifest["notebook"]["name"]
    if not given and name not in known_notebooks():
        raise InputError(
            "the report was made with a notebook that isn’t abfed’s",
            where=manifest["report"],
            why=f"its manifest has the name and digest of {name}.ipynb, and not where it lies",
            do=f"name its path: abfed report verify {manifest['report']} --notebook {name}.ipynb",
        )
    return find_notebook(given or name)


def _causes(manifest: dict[str, Any], subject: Subject, notebook: Path) -> list[str]:
    """What isn't as it was, in words."""
    found = []
    ours = notebook in known_notebooks().values()
    elsewhere = ", or the report’s lies elsewhere: name it with --notebook" if ours else ""
    if sha256_hex(notebook.read_bytes()) != manifest["notebook"]["digest"]:
        found.append(f"the notebook {notebook.name} was changed{elsewhere}")
    now, then = dict(subject.facts), manifest["subject"]
    found += [
        f"the {what.replace('_', ' ')} is another one"
        for what in sorted({*now, *then})
        if now.get(what) != then.get(what)
    ]
    have, had = versions(), manifest["versions"]
    found += [
        f"{name} was {had.get(name) or 'absent'} and is {have.get(name) or 'absent'}"
        for name in sorted({*have, *had})
        if have.get(name) != had.get(name)
    ]
    if manifest["code"] != code_digest():
        found.append("abfed’s source was changed")
    return found


def _lines(old: bytes, new: bytes, name: str) -> list[str]:
    """The lines that differ, long packed data shortened."""
    if name.endswith(".pdf"):
        return [f"{len(old):,} bytes were {len(new):,} bytes"]
    before, after = (_broken(one.decode(errors="replace")) for one in (old, new))
    lines = difflib.unified_diff(before, after, "report", "made again", lineterm="", n=0)
    return [_shown(line) for line in itertools.islice(lines, MOST_LINES)]


def _shown(line: str) -> str:
    """A line short enough to be read. What is left out has its digest: it may be what differs."""
    short = _LONG.sub(lambda found: _digested(found[0]), line)
    return short if len(short) <= LONGEST_LINE else short[:LONGEST_LINE] + _digested(line)


def _digested(text: str) -> str:
    return f"… ({len(text):,} characters, {sha256_hex(text.encode())[:8]})"


def _broken(page: str) -> list[str]:
    """A page in lines short enough to be compared: one for each element."""
    return page.replace("><", ">\n<").splitlines()
