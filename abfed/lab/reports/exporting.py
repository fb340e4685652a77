"""From an executed notebook to files: one page of HTML, the same as PDF, Markdown, or a notebook.

nbconvert's exporters (`exporters`) make them from the same cells, after the disclosure gate; none
loads anything. The same notebook gives the same bytes: nothing of the moment or of the machine is
in them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from abfed.lab.paper.page import page

if TYPE_CHECKING:
    from nbformat import NotebookNode

FORMATS = ("html", "pdf", "ipynb", "md")
INJECTED = "injected-parameters"
"""Tag and id of the cell that sets the parameters' values."""

HIDDEN_TAGS = {"parameters", INJECTED, "working-copy"}
"""Cells for those who work with the notebook, not for those who read the page."""

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
_PATH = re.compile(r"(?:/[\w.@+-]+)+/(?=[\w.@+-])")


def readable(document: NotebookNode) -> tuple[NotebookNode, tuple[int, ...]]:
    """Without parameters, warnings, times and anything else that isn't the report.

    Returns:
        The notebook, and each cell's number in it as it was written, from one: as failures say it.
    """
    from abfed.lab.paper.jupyter import nbformat

    cells, numbers, number = [], [], 0
    for place, cell in enumerate(document.cells):
        tags = set(cell.metadata.get("tags", []))
        number += INJECTED not in tags
        if HIDDEN_TAGS & tags:
            continue
        numbers.append(number)
        cell.metadata.clear()
        cell["id"] = cell.get("id") or f"cell-{place}"
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [one for one in cell.outputs if _is_shown(one)]
            for output in cell.outputs:
                _settle(output)
        cells.append(cell)
    made: NotebookNode = nbformat().v4.new_notebook(cells=cells)
    return made, tuple(numbers)


def _is_shown(output: NotebookNode) -> bool:
    """Not warnings, nor what lives in a kernel alone: a widget's text is how it once began."""
    from abfed.lab.disclosure.gate import DROPPED

    kinds = set(output.get("data", ()))
    return output.get("name") != "stderr" and not (
        kinds & DROPPED and kinds <= {*DROPPED, "text/plain"}
    )


def _settle(output: NotebookNode) -> None:
    """Take out what varies: counters, views of a kernel, addresses in memory, colours."""
    if "execution_count" in output:
        output.execution_count = None
    if output.output_type == "error":
        lines = "\n".join(output.traceback)
        output.traceback = _PATH.sub("", _ANSI.sub("", lines)).splitlines()
        output.evalue = without_folders(output.evalue)
    if data := output.get("data"):
        from abfed.lab.disclosure.gate import DROPPED

        for kind in DROPPED & set(data):
            del data[kind]
        if "text/html" in data:
            data.pop("text/plain", None)  # the same again, shown by nothing
        if "text/plain" in data:
            data["text/plain"] = _ADDRESS.sub("", data["text/plain"])


def without_folders(text: str) -> str:
    """A line of text whose files are named without where they lie."""
    return _PATH.sub("", text)


def as_html(document: NotebookNode, title: str, *, banner: str = "", footer: str = "") -> str:
    """One page that loads nothing."""
    from abfed.lab.paper.exporters import body_of

    parts = [part for part in (banner, body_of(document), footer) if part]
    return page(title, "\n".join(parts))


def as_notebook(document: NotebookNode, banner: str = "") -> bytes:
    """The notebook with what it shows, to be opened where notebooks are."""
    from abfed.lab.paper.jupyter import nbformat

    formats = nbformat()
    shown = formats.from_dict(document)
    if banner:
        cell = formats.v4.new_markdown_cell(banner)
        cell["id"] = "banner"
        shown.cells.insert(0, cell)
    text: str = formats.writes(shown, version=4)
    return (text.rstrip("\n") + "\n").encode()


def export(
    document: NotebookNode, title: str, formats: tuple[str, ...], *, footer: str = ""
) -> dict[str, bytes]:
    """Every format that was asked for, by its name."""
    made: dict[str, bytes] = {}
    html = as_html(document, title, footer=footer) if {"html", "pdf"} & set(formats) else ""
    for form in formats:
        match form:
            case "html":
                made[form] = html.encode()
            case "pdf":
                from abfed.lab.paper.pdf import as_pdf

                made[form] = as_pdf(html)
            case "md":
                from abfed.lab.paper.exporters import markdown_of

                made[form] = markdown_of(document, footer).encode()
            case _:
                made[form] = as_notebook(document)
    return made
