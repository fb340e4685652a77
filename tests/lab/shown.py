"""What cells show, and what their kernel told of it: both go to the disclosure gate."""

from __future__ import annotations

from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from abfed.lab.reports.engine import execute
from abfed.lab.reports.execution import Executed
from abfed.lab.reports.exporting import readable
from abfed.lab.reports.kernels import Place, Spawned


def in_a_kernel(
    folder: Path, cells: list[NotebookNode]
) -> tuple[dict[str, NotebookNode], Executed]:
    """Each cell as a page has it, by the name in its metadata, and how all were carried out."""
    done = execute(new_notebook(cells=cells), {}, Place(cwd=folder), Spawned())
    assert done.failure is None, done.failure.reason
    names = [one.metadata.get("name", "") for one in done.document.cells]
    document, _ = readable(done.document)
    return dict(zip(names, document.cells, strict=True)), done
