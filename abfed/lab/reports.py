"""Reports: a notebook executed over a finished run, exported as one page.

1. Parameters are checked against the notebook's own cell before a kernel starts: an unknown name or
   a wrong type is a refusal, not a warning.
2. The kernel works in the folder of runs and is given the run's name: no path is in the page. It
   opens public keys only.
3. The page loads nothing: no script, no font, no picture from outside; its own policy forbids it.
4. It is written aside and renamed into place, readable by its owner only. A notebook that fails
   leaves the page that was there before.
5. The same run, notebook and parameters give the same bytes.
"""

from __future__ import annotations

import ast
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import abfed
from abfed.protocol.errors import InputError, IntegrityError, ReportFailed
from abfed.site.files import make_private_folder, write_private

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from abfed.lab.runs import Run

OURS = "run_folder"
"""The parameter that follows from the run; nobody else sets it."""

HIDDEN_TAGS = {"parameters", "injected-parameters", "working-copy"}
"""Cells for those who work with the notebook, not for those who read the page."""

TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
START_TIMEOUT, CELL_TIMEOUT = 60, 300  # seconds


class Parameter(NamedTuple):
    """One that a notebook declares: its type's name and its default."""

    kind: str
    default: Any


def write_report(
    run: Run,
    target_folder: Path,
    *,
    notebook: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Path:
    """Execute a notebook over a run and write the page.

    Args:
        run: a finished run, opened.
        target_folder: where the page goes; made private where it isn't there.
        notebook: name of a notebook, or the path of one; the plan's own where none is given.
        parameters: values for the notebook's parameters.
        progress: show a bar while cells run.

    Returns:
        The page: `<run>.html`, with `-<notebook>` before the ending where it isn't the plan's own.

    Raises:
        InputError: there is no such notebook, or a parameter is unknown or of another type.
        ReportFailed: a cell failed.
    """
    source = find_notebook(notebook or run.report.notebook)
    document = _read(source)
    declared = declared_parameters(document, where=source.name)
    values = checked_parameters(declared, parameters or {}, where=source.name)
    values[OURS] = run.name
    executed = _execute(document, values, cwd=run.folder.parent, name=source.name, bar=progress)
    own = source.stem == run.report.notebook
    target = target_folder / (f"{run.name}.html" if own else f"{run.name}-{source.stem}.html")
    html = _export(executed, run, target)
    if not target_folder.is_dir():
        make_private_folder(target_folder)
    write_private(target, html.encode())
    return target


def notebook_folders() -> tuple[Path, ...]:
    """Where notebooks lie: beside the package in a checkout, or inside it where it's installed."""
    package = Path(abfed.__file__).parent
    return package.parent / "notebooks", package / "notebooks"


def find_notebook(name: str) -> Path:
    """A notebook by its name, or by its path where it ends in `.ipynb`.

    Raises:
        InputError: there is none.
    """
    if name.endswith(".ipynb"):
        if Path(name).is_file():
            return Path(name)
        raise InputError("there is no such notebook", where=name, do="check the path")
    known: dict[str, Path] = {}
    for folder in reversed(notebook_folders()):
        known |= {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    raise InputError(
        f"there is no notebook {name!r}",
        why=f"known are: {', '.join(sorted(known)) or 'none'}",
        do=f"did you mean {near[0]!r}?" if near else "name one of these, or give a path",
    )


def declared_parameters(document: NotebookNode, *, where: str) -> dict[str, Parameter]:
    """What a notebook's `parameters` cell declares: `name: type = default`, each on its line.

    Raises:
        InputError: it has no such cell, or the cell holds something else.
    """
    cells = [cell for cell in document.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(
            f"{len(cells)} cells are tagged 'parameters'", where=where, do="tag exactly one"
        )
    declared = {}
    for line in ast.parse(cells[0].source).body:
        match line:
            case ast.AnnAssign(ast.Name(name), ast.Name(kind), value) if kind in TYPES and value:
                declared[name] = Parameter(kind, ast.literal_eval(value))
            case _:
                raise InputError(
                    "the parameters cell holds something other than typed parameters",
                    where=f"{where}, line {line.lineno} of the cell",
                    do=f"write `name: type = default`; types are {', '.join(TYPES)}",
                )
    if OURS not in declared:
        raise InputError("it has no parameter 'run_folder'", where=where, do="declare it")
    return declared


def checked_parameters(
    declared: Mapping[str, Parameter], given: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """Given values, if each is declared and of its type.

    Raises:
        InputError: one isn't; names the nearest that is.
    """
    free = [name for name in declared if name != OURS]
    checked = {}
    for name, value in given.items():
        if name not in free:
            near = get_close_matches(name, free, n=1)
            reason = "follows from the run" if name == OURS else "is unknown"
            raise InputError(
                f"parameter {name!r} {reason}",
                where=where,
                why=f"parameters are: {', '.join(free) or 'none'}",
                do=f"did you mean {near[0]!r}?" if near else "leave it out",
            )
        checked[name] = _typed(name, declared[name].kind, value, where)
    return checked


def _typed(name: str, kind: str, value: Any, where: str) -> Any:
    """A value of exactly the declared type; whole numbers will do for `float`."""
    if kind == "float" and type(value) is int:
        return float(value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if type(value) is not TYPES[kind] or not finite:
        raise InputError(
            f"parameter {name!r} must be a {'finite ' if kind == 'float' else ''}{kind}",
            where=where,
            why=f"a {type(value).__name__} was given",
        )
    return value


def _read(path: Path) -> NotebookNode:
    import nbformat

    try:
        document: NotebookNode = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as cause:
        raise InputError("it isn't a notebook", where=path.name) from cause
    return document


def _execute(
    document: NotebookNode, values: Mapping[str, Any], *, cwd: Path, name: str, bar: bool
) -> NotebookNode:
    """The notebook with its outputs, executed by Papermill in a kernel of its own."""
    from abfed.lab.kernels import NAME, report_kernel

    with _quietly(), report_kernel() as manager:
        import papermill

        try:
            executed: NotebookNode = papermill.execute_notebook(
                document,
                None,
                parameters=dict(values),
                kernel_name=NAME,
                language="python",
                kernel_manager_class=manager,
                resources={"metadata": {"path": str(cwd)}},
                shutdown_kernel="immediate",  # it holds nothing that is worth a farewell
                progress_bar=bar,
                start_timeout=START_TIMEOUT,
                execution_timeout=CELL_TIMEOUT,
            )
        except papermill.PapermillExecutionError as cause:
            raise ReportFailed(
                f"cell {cause.cell_index} of the notebook failed",  # Papermill put one before it
                where=name,
                why=f"{cause.ename}: {cause.evalue}",
                do="open the notebook over this run to see where",
            ) from None  # a traceback shows paths; those who need it run the notebook
    return executed


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings and log lines of the tools: they are about them, not about the run."""
    tools = [logging.getLogger(name) for name in ("papermill", "traitlets", "asyncio")]
    levels = [tool.level for tool in tools]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            for tool in tools:
                tool.setLevel(logging.ERROR)
            yield
        finally:
            for tool, level in zip(tools, levels, strict=True):
                tool.setLevel(level)


def _export(document: NotebookNode, run: Run, target: Path) -> str:
    """The page; without cells and outputs that aren't for its readers."""
    from abfed.lab.display import title
    from abfed.lab.page import page

    with _quietly():
        from nbconvert.exporters.html import HTMLExporter

        exporter = HTMLExporter(
            template_name="basic", exclude_input=True, exclude_input_prompt=True,
            exclude_output_prompt=True, exclude_anchor_links=True,
        )  # fmt: skip
        body, _ = exporter.from_notebook_node(_for_readers(document))
    html = page(title(run), body)
    outside = [mark for mark in ("<script", "<link", "<iframe", 'src="http') if mark in html]
    if outside or str(run.folder.resolve().parent) in html:
        raise IntegrityError(
            "the page would show a path or load something from outside",
            where=target.name,
            why=", ".join(outside) or "a folder's path is in it",
            do="take it out of the notebook",
        )
    return html


def _for_readers(document: NotebookNode) -> NotebookNode:
    """Without parameters, warnings, times and anything else that isn't the report."""
    from nbformat.v4 import new_notebook

    cells = []
    for cell in document.cells:
        if HIDDEN_TAGS & set(cell.metadata.get("tags", [])):
            continue
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
        cells.append(cell)
    readable: NotebookNode = new_notebook(cells=cells)
    return readable
