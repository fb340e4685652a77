"""Batches: many reports from one file, as grids and lists over plans, brands, periods, parameters.

```yaml
name: spring
notebook: ab_readout            # the plan's own where none is named
to: [html, pdf]
plans: [experiments/spring.yaml]     # or runs: [spring-subject-lines-0a1b2c3d4e]
brands: ["", aurora]            # values of the notebook's parameter `brand`
periods: [2026-Q2]              # runs completed in it; the parameter `period`, where there is one
parameters: {alpha: [0.05, 0.1]}     # a grid: every value with every other
also:                           # a list: each entry is one report
  - {plan: experiments/spring.yaml, parameters: {alpha: 0.01}}
```

Everything is checked before the first report is made: a file with one mistake makes none. Not every
plan has a run in each period, nor every run each brand: points of a grid without one are left out,
and told. A brand of no report is a mistake, and so is what a list names and isn't there.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field

from abfed.lab.finished import Finished, find_folder, finished_runs, open_finished
from abfed.lab.periods import within
from abfed.lab.reports.bounds import NotThere
from abfed.lab.reports.report import Order, order
from abfed.lab.reports.subjects import ALL, Subject, of_plan, of_run, of_runs
from abfed.protocol.canonical import digest
from abfed.protocol.declared import parse_record
from abfed.protocol.documents import is_file, read_document
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.protocol.schema import Frozen, Name
from abfed.protocol.yamltext import parse_yaml

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace

_Kind = TypeVar("_Kind")
Scalar = bool | int | float | str
Period = Annotated[str, Field(pattern=r"^[0-9]{4}(-(Q[1-4]|(0[1-9]|1[0-2])))?$")]
"""A year, a quarter or a month: `2026`, `2026-Q2`, `2026-05`."""
MOST = 10_000  # reports of one batch
LONGEST_NAME = 120  # characters of a file's name


_Some = Annotated[tuple[_Kind, ...], Field(min_length=1)]
"""An axis that is named has a value: every value with every other would be no report at all."""


class Entry(Frozen):
    """One report of a list."""

    plan: str = ""
    run: str = ""
    notebook: str = ""
    brand: str = ""
    period: Period | None = None
    parameters: dict[Name, Scalar] = Field(default_factory=dict)


class BatchSpec(Frozen):
    """A batch, as its file says it."""

    name: Name
    notebook: str = ""
    to: Annotated[tuple[Literal["html", "pdf", "ipynb", "md"], ...], Field(min_length=1)] = (
        "html",
    )
    plans: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    brands: _Some[str] = ()
    periods: _Some[Period] = ()
    parameters: dict[Name, Annotated[tuple[Scalar, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    also: tuple[Entry, ...] = ()

    @classmethod
    def load(cls, path: Path) -> BatchSpec:
        """Read a batch from its file.

        Raises:
            InputError: it is missing or isn't a batch; every problem is named.
        """
        where = str(path)
        data = read_document(path, "batch")
        values = parse_yaml(data, where=where, error=InputError)
        return parse_record(cls, values, where=where, error=InputError)


@dataclass(frozen=True)
class Item:
    """One report of a batch, checked.

    Attributes:
        order: what is to be made.
        about: where a worker finds what it is about.
        labels: what tells it from the others, for people.
    """

    order: Order
    about: Mapping[str, Any]
    labels: Mapping[str, Any]


class _NoRun(NotThere):
    """No run was completed, or none in a period."""


@dataclass(frozen=True)
class Asked:
    """What a batch asks for.

    Attributes:
        items: every report, in the file's order.
        left_out: points of the grid at which there is nothing to show, in words.
    """

    items: list[Item]
    left_out: list[str]


def items_of(spec: BatchSpec, workspace: Workspace, *, beside: Path) -> Asked:
    """Every report of a batch, checked.

    Args:
        spec: the batch.
        workspace: where its runs are.
        beside: the folder that the files it names are relative to, where they aren't otherwise.

    Raises:
        InputError, WorkspaceError: one of them can't be made; names it.
    """
    _refuse_too_many(spec)
    finder = _Finder(workspace, beside)
    found: dict[str, Item] = {}
    missed: list[tuple[Entry, NotThere]] = []
    for entry, listed in _entries(spec):
        try:
            for subject, about, label in finder.subjects(entry):
                item = _item(spec, finder.beside(entry), subject, about, label)
                found.setdefault(item.order.name, item)
                if len(found) > MOST:  # a plan may mean several runs
                    raise _too_many(spec, "more")
        except NotThere as cause:
            if listed:
                raise
            missed.append((entry, cause))
    shown = {item.labels.get("brand", "") for item in found.values()}
    for entry, why in missed:
        if not found or (entry.brand not in shown and not isinstance(why, _NoRun)):
            raise why
    if not found:
        raise InputError("the batch has no report", where=spec.name, do="name plans or runs")
    return Asked(list(found.values()), [_point(entry) for entry, _ in missed])


def _point(entry: Entry) -> str:
    """A point of a grid, in words."""
    said = [entry.plan or entry.run, entry.notebook, entry.brand, entry.period or ""]
    said += [f"{name} = {value}" for name, value in entry.parameters.items()]
    return ", ".join(one for one in said if one)


def _refuse_too_many(spec: BatchSpec) -> None:
    """A grid is counted before a point of it is looked at: a million would take hours to check."""
    axes = [len(spec.plans) + len(spec.runs), len(spec.brands) or 1, len(spec.periods) or 1]
    asked = math.prod([*axes, *map(len, spec.parameters.values())]) + len(spec.also)
    if asked > MOST:
        raise _too_many(spec, f"{asked:,}")


def _too_many(spec: BatchSpec, asked: str) -> InputError:
    return InputError(
        "the batch asks for too many reports", where=spec.name,
        why=f"{asked} are asked for, and a batch makes {MOST:,} at the most", do="split it",
    )  # fmt: skip


def _entries(spec: BatchSpec) -> Iterator[tuple[Entry, bool]]:
    """The grid, then the list; whether each is of the list."""
    axes = [[(name, one) for one in values] for name, values in spec.parameters.items()]
    sources = [{"plan": one} for one in spec.plans] + [{"run": one} for one in spec.runs]
    grid = itertools.product(sources, spec.brands or ("",), spec.periods or (None,))
    for source, brand, period in grid:
        for chosen in itertools.product(*axes):
            point = Entry(
                **source, notebook=spec.notebook, brand=brand, period=period,
                parameters=dict(chosen),
            )  # fmt: skip
            yield point, False
    for entry in spec.also:
        named = entry if entry.notebook else entry.model_copy(update={"notebook": spec.notebook})
        yield named, True


def _item(
    spec: BatchSpec, entry: Entry, subject: Subject, about: Mapping[str, Any], label: str
) -> Item:
    from abfed.lab.reports.notebooks import declared_parameters, find_notebook, read_notebook

    path = find_notebook(entry.notebook or subject.notebook)
    declared = declared_parameters(read_notebook(path), where=path.name)
    values: dict[str, Any] = dict(entry.parameters)
    if entry.brand:
        values["brand"] = entry.brand
    if entry.period and "period" in declared:
        values["period"] = entry.period
    labels = {"about": label, "notebook": path.stem, **values}
    if entry.period:
        labels["period"] = entry.period
    asked = order(
        subject, notebook=str(path) if entry.notebook.endswith(".ipynb") else path.stem,
        parameters=values, formats=spec.to, name=_file_name(subject.name, path.stem, labels),
    )  # fmt: skip
    return Item(asked, about, labels)


def _file_name(subject: str, notebook: str, labels: Mapping[str, Any]) -> str:
    """Says what it is, and is another one for each point of the grid."""
    said = [
        f"{name}-{value}" for name, value in labels.items() if name not in {"about", "notebook"}
    ]
    text = "-".join([subject, notebook, *said])
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:LONGEST_NAME]
    return f"{readable}-{digest({name: str(v) for name, v in labels.items()})[:6]}"


def job_of(item: Item, folder: Path, public_key: bytes, timeout: float) -> dict[str, Any]:
    """What a worker is told of one report; nothing of it is secret."""
    asked = item.order
    return {
        "about": dict(item.about),
        "notebook": str(asked.path.resolve()),
        "parameters": dict(asked.parameters),
        "formats": list(asked.formats),
        "name": asked.name,
        "folder": str(folder.resolve()),
        "public_key": public_key.hex(),
        "timeout": timeout,
    }


class _Finder:
    """Finds runs and plans; each is opened and verified once."""

    def __init__(self, workspace: Workspace, beside: Path) -> None:
        self._workspace = workspace
        self._beside = beside
        self._key = workspace.keys.public_key
        self._runs = finished_runs(workspace.runs_folder, self._key)

    def subjects(self, entry: Entry) -> Iterator[tuple[Subject, dict[str, Any], str]]:
        """What an entry is about: itself, where a worker finds it, and its name for people."""
        if bool(entry.plan) == bool(entry.run):
            which = "both a plan and a run" if entry.plan else "neither a plan nor a run"
            raise InputError(f"an entry of the batch names {which}", do="name one of them")
        if entry.run == ALL:
            runs = [run for run in self._runs if _within(run, entry.period)]
            folder = self._workspace.runs_folder.resolve()
            names = [run.name for run in runs]
            yield of_runs(runs, folder), {"kind": "runs", "folder": str(folder), "runs": names}, ALL
            return
        if entry.run:
            folder = find_folder(self._workspace.runs_folder, entry.run)
            run = open_finished(folder, self._key)
            if not _within(run, entry.period):
                raise _NoRun(f"the run wasn't completed in {entry.period}", where=run.name)
            yield self._run(run)
            return
        path = self._path(entry.plan)
        plan = Plan.load(path)
        runs = [run for run in self._runs if run.plan.digest == plan.digest]
        if self._reads_plans(self.beside(entry).notebook or plan.report.notebook):
            home = self._workspace.path.resolve()
            about = {"kind": "plan", "file": str(path.resolve()), "workspace": str(home)}
            yield of_plan(plan, path.read_bytes(), home), about, plan.name
            return
        if not runs:
            raise _NoRun(
                "no run of this plan is complete",
                where=entry.plan,
                do=f"run it: `abfed run {path}`",
            )
        wanted = [run for run in runs if _within(run, entry.period)]
        if not wanted:
            raise _NoRun(f"no run of the plan was completed in {entry.period}", where=entry.plan)
        for run in wanted if entry.period else wanted[-1:]:
            yield self._run(run)

    @staticmethod
    def _reads_plans(notebook: str) -> bool:
        """Whether a notebook is about a plan, be there runs of it or not."""
        from abfed.lab.reports.notebooks import declared_parameters, find_notebook, read_notebook

        path = find_notebook(notebook)
        declared = declared_parameters(read_notebook(path), where=path.name)
        return "plan_file" in declared and "run_folder" not in declared

    def beside(self, entry: Entry) -> Entry:
        """The entry with its notebook's path, where that lies beside the batch's file."""
        path = self._beside / entry.notebook
        ours = entry.notebook.endswith(".ipynb") and is_file(path)
        return entry.model_copy(update={"notebook": str(path)}) if ours else entry

    def _run(self, run: Finished) -> tuple[Subject, dict[str, Any], str]:
        return of_run(run), {"kind": "run", "folder": str(run.folder.resolve())}, run.name

    def _path(self, name: str) -> Path:
        for path in (self._beside / name, Path(name)):
            if is_file(path):
                return path
        raise InputError("there is no such plan", where=name, do="check the path")


def _within(run: Finished, period: str | None) -> bool:
    """Whether a run was completed in a period."""
    return within(run.made_at, period or "")
