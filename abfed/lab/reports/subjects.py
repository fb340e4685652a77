"""What a report is about: a run, a plan that wasn't carried out yet, or all runs of a workspace.

It decides what the kernel may read, which of `notebooks.OURS` are set and to what, from which
sources tables may come, and what the manifest says. A name of a file is relative: no path is shown.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.gate import Allowed
from abfed.lab.disclosure.legible import settled
from abfed.lab.paper.page import SYNTHETIC, plan_source, title
from abfed.lab.reports.bounds import MADE_UP, WITH_MODEL
from abfed.protocol.canonical import canonical_bytes, digest, sha256_hex
from abfed.protocol.documents import read_document
from abfed.protocol.errors import InputError, WorkspaceError

if TYPE_CHECKING:
    from abfed.lab.finished import Finished
    from abfed.lab.workspace import Workspace
    from abfed.protocol.plan import Plan

PLAN_FILE = "plan.yaml"
CANARIES = "canaries.txt"
"""In a workspace: texts, one a line, that were planted to be found where they must never be."""
SHORTEST_WORD = 5  # characters of a host's or folder's name that isn't an everyday word
"""A host's name of letters alone (`model`, `email`) is one too: pages may well say it."""


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        name: what its files are called after.
        workspace: whose canaries and folders its page never shows.
        title: what the page is called.
        notebook: the notebook it is shown with where no other is named.
        audience: roles that the report is for.
        facts: what the manifest says of it.
        sources: of its tables.
        read: folders that the kernel may read.
        cwd: where it works; its own private folder where that is None.
        set_by_us: values of `notebooks.OURS`.
        files: small files for the kernel's own folder.
        choices: what a parameter can name one of, such as `brands`.
        counted: which names of its figures count people.
        unfit: what a notebook may ask for and this isn't (`bounds.check_fits`).
    """

    name: str
    workspace: Path
    title: str
    notebook: str
    audience: tuple[str, ...]
    facts: Mapping[str, Any]
    sources: frozenset[str]
    read: tuple[Path, ...] = ()
    cwd: Path | None = None
    set_by_us: Mapping[str, str] = field(default_factory=dict)
    files: tuple[tuple[str, bytes], ...] = ()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)
    unfit: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def allowed(self) -> Allowed:
        """What its page may show.

        Raises:
            WorkspaceError: the workspace's canaries can't be read.
        """
        words = {str(Path.home()), str(self.workspace.resolve())}
        if not (host := socket.gethostname()).isalpha():
            words.add(host)
        words |= {str(one) for folder in self.read for one in (folder, folder.resolve())}
        words = {one for one in words if len(one) >= SHORTEST_WORD}
        never = tuple(sorted(words | _canaries(self.workspace)))
        return Allowed(self.sources, never, self.counted)


def _canaries(workspace: Path) -> set[str]:
    """Texts that were planted, in the form in which texts are looked through for them."""
    file = workspace / CANARIES
    if not file.exists():
        return set()
    try:
        lines = read_document(file, "list of canaries", error=WorkspaceError).decode().splitlines()
    except UnicodeDecodeError as cause:
        raise WorkspaceError("is not UTF-8", where=CANARIES, do="write it anew as such") from cause
    return {settled(line).strip() for line in lines} - {""}


ALL = "all"
"""Names all runs of a workspace."""
SECURITY = "security"
"""Names the newest security review of a workspace."""
REVIEW_FILE = "review.json"


def find_subject(workspace: Workspace, about: str, *, notebook: str = "") -> Subject:
    """What somebody means by a run's name, a plan's file, `all` or `security`.

    A plan means its newest complete run, where the notebook reads runs. Figures aren't read here:
    the kernel reads them, and verifies each release that they come from.

    Raises:
        WorkspaceError, PlanError, InputError: there is no such thing.
    """
    from abfed.lab.finished import find_folder, finished_runs, open_finished
    from abfed.lab.reports.notebooks import declared_parameters, find_notebook, read_notebook
    from abfed.protocol.plan import Plan

    key = workspace.keys.public_key
    if about == ALL:
        return of_runs(finished_runs(workspace.runs_folder, key), workspace.runs_folder)
    if about == SECURITY:
        from abfed.lab.security.posture import newest

        return of_review(newest(workspace), key)
    if Path(about).suffix not in {".yaml", ".yml"}:
        return of_run(open_finished(find_folder(workspace.runs_folder, about), key))
    plan = Plan.load(about)
    path = find_notebook(notebook or plan.report.notebook)
    declared = declared_parameters(read_notebook(path), where=path.name)
    if "run_folder" in declared:
        runs = workspace.finished_of(plan)
        if not runs:
            raise WorkspaceError(
                "no run of this plan is complete", where=about, do=f"run it: `abfed run {about}`"
            )
        latest = runs[-1]  # data may have changed since the ones before
        _refuse_another_wish(plan, latest, about)
        return of_run(latest)
    return of_plan(plan, Path(about).read_bytes(), workspace.path)


def _refuse_another_wish(plan: Plan, run: Finished, about: str) -> None:
    """How a run is shown, and to whom, is what the coordinator signed: a file can't change it.

    Raises:
        InputError: the plan's file wishes something else.
    """
    wished, kept = plan.report.model_dump(), run.report.model_dump()
    other = sorted(name for name in wished if wished[name] != kept[name])
    if other:
        raise InputError(
            f"the plan’s report section isn’t the run’s: {', '.join(other)}",
            where=about,
            why=f"how run {run.name} is shown, and to whom, was signed with another one",
            do=f"run it again, which costs no budget and signs the new one: `abfed run {about}`; "
            "or name the run",
        )


def of_run(run: Finished) -> Subject:
    """A finished run."""
    simulated = run.plan.simulation is not None
    sources = {run.source, plan_source(run.plan)} | ({SYNTHETIC} if simulated else set())
    runs = run.folder.resolve().parent
    return Subject(
        name=run.name,
        workspace=runs.parent,
        title=title(run),
        notebook=run.report.notebook,
        audience=run.report.audience,
        facts={
            "kind": "run",
            "run": run.name,
            "run_manifest": sha256_hex(canonical_bytes(run.manifest)),
            "plan": run.plan.digest,
            "shown": digest(run.report.model_dump(mode="json")),
            "simulated": simulated,
        },
        sources=frozenset(sources),
        read=(runs,),
        cwd=runs,
        set_by_us={
            "run_folder": run.name,
            "plan_file": f"{run.name}/plan.json",
            "runs_folder": ".",
        },
        choices={"brands": () if run.plan.noise_once else run.silos},
        counted=Counted.of([run.plan]),
        unfit=_unfit(run.plan, simulated=simulated),
    )


def _unfit(plan: Plan, *, simulated: bool) -> dict[str, tuple[str, str]]:
    found = {}
    if plan.model is None:
        found[WITH_MODEL] = ("this one’s plan has none", "leave --notebook out for its read-out")
    if not simulated:
        found[MADE_UP] = (
            "no made-up people on a real run’s page",
            "name the plan’s file in its place",
        )
    return found


def of_plan(plan: Plan, text: bytes, workspace: Path) -> Subject:
    """A plan, before any silo was asked: the kernel gets its text and nothing else."""
    named = plan.report.title or plan.name
    return Subject(
        name=f"{plan.name}-{plan.digest[:10]}",
        workspace=workspace,
        title=f"SIMULATION: {named}" if plan.simulation is not None else named,
        notebook="experiment_design",
        audience=plan.report.audience,
        facts={
            "kind": "plan",
            "plan": plan.digest,
            "text": sha256_hex(text),
            "simulated": plan.simulation is not None,
        },
        sources=frozenset({plan_source(plan), SYNTHETIC}),
        set_by_us={"plan_file": PLAN_FILE},
        files=((PLAN_FILE, text),),
        counted=Counted.of([plan]),
    )


def of_runs(runs: Sequence[Finished], folder: Path) -> Subject:
    """All complete runs of a workspace."""
    sources = {source for run in runs for source in (run.source, plan_source(run.plan))}
    audience = {role for run in runs for role in run.report.audience} or {"analyst"}
    for run in runs:  # who may see all of it may see each part of it
        audience &= set(run.report.audience)
    manifests = {run.name: sha256_hex(canonical_bytes(run.manifest)) for run in runs}
    return Subject(
        name="all-runs",
        workspace=folder.resolve().parent,
        title="All runs",
        notebook="portfolio",
        audience=tuple(sorted(audience)),
        facts={
            "kind": "runs",
            "runs": manifests,
            "simulated": any(run.plan.simulation is not None for run in runs),
        },
        sources=frozenset(sources),
        read=(folder.resolve(),),
        cwd=folder.resolve(),
        set_by_us={"runs_folder": "."},
        counted=Counted.of([run.plan for run in runs]),
    )


def of_review(path: Path, public_key: bytes) -> Subject:
    """A security review that was kept; its signature is checked here, the kernel gets its values.

    Raises:
        IntegrityError: it was changed.
    """
    from abfed.lab.sections.security import source_of
    from abfed.lab.security.posture import read_posture

    values = read_posture(path, public_key)
    return Subject(
        name=f"security-review-{path.stem}",
        workspace=path.resolve().parents[2],
        title=f"Security review of {values['at'][:10]}",
        notebook="security_review",
        audience=("auditor", "privacy-officer", "security-officer"),
        facts={
            "kind": "review",
            "review": path.name,
            "values": digest(values),
            "simulated": False,
        },
        sources=frozenset({source_of(values)}),
        set_by_us={"review_file": REVIEW_FILE},
        files=((REVIEW_FILE, canonical_bytes(values)),),
    )
