"""nbconvert's exporters for reports: an executed notebook to a page's body, or to Markdown.

The templates lie in this package. nbconvert would also look for templates and filters in the user's
and in the machine's folders; these exporters look nowhere else, so that a report is the same bytes
wherever it is made. Words that were typed are escaped; markup comes from outputs only, which the
disclosure gate has seen (`disclosure.gate`).
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.paper.jupyter import nbconvert, nbformat
from abfed.lab.paper.markdown import as_markdown
from abfed.lab.paper.page import STYLE

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
RICHEST = (
    "text/html", "image/svg+xml", "image/png", "text/markdown", "text/latex", "text/plain",
)  # fmt: skip
"""What an output is shown as: the first of these that it has, all without scripts."""
_exporters = nbconvert().exporters
_HTML: Any = _exporters.HTMLExporter
_Markdown: Any = _exporters.MarkdownExporter


class PageExporter(_HTML):  # type: ignore[misc]
    """The body of a page that loads nothing."""

    def __init__(self) -> None:
        super().__init__(template_paths=[str(TEMPLATES)], template_file="page.html.j2")

    def default_filters(self) -> Any:
        """nbconvert's, and ours."""
        yield from super().default_filters()
        yield from FILTERS.items()

    def _init_resources(self, resources: Any) -> Any:
        """Those that the templates use: the skins and scripts of nbconvert's own pages aren't."""
        return _exporters.TemplateExporter._init_resources(self, resources)  # noqa: SLF001


class MarkdownExporter(_Markdown):  # type: ignore[misc]
    """A report as Markdown, its pictures inside."""

    def __init__(self) -> None:
        super().__init__(template_paths=[str(TEMPLATES)], template_file="page.md.j2")
        self._preprocessors: list[Any] = []  # pictures and attachments stay where they are

    def default_filters(self) -> Any:
        """nbconvert's, and ours."""
        yield from super().default_filters()
        yield from FILTERS.items()


@functools.cache
def page_exporter() -> PageExporter:
    """One for all pages of a process: its template is read once."""
    return PageExporter()


@functools.cache
def markdown_exporter() -> MarkdownExporter:
    """One for all reports of a process."""
    return MarkdownExporter()


def body_of(document: NotebookNode) -> str:
    """The cells as markup."""
    body, _ = page_exporter().from_notebook_node(document)
    return str(body).strip("\n")


def markdown_of(document: NotebookNode, footer: str) -> str:
    """The cells as Markdown, with markup below them."""
    text, _ = markdown_exporter().from_notebook_node(document, resources={"footer": footer})
    return re.sub(r"\n{3,}", "\n\n", str(text)).strip() + "\n"


def _body_of_output(output: NotebookNode) -> str:
    cell = nbformat().v4.new_code_cell(outputs=[output])
    return body_of(nbformat().v4.new_notebook(cells=[cell]))


def cell_words(cell: NotebookNode) -> str:
    """A cell of words, the pictures attached to it inside."""
    source = str(cell.source)
    for name, bundle in cell.get("attachments", {}).items():
        for kind, data in bundle.items():
            source = source.replace(f"attachment:{name}", f"data:{kind};base64,{data}")
    return words(source)


def words(source: str, *, raw: bool = False) -> str:
    """Markdown as markup; raw markup in it stands as it was typed, or is markup, as in Jupyter."""
    import mistune

    render = mistune.create_markdown(
        renderer=mistune.HTMLRenderer(escape=not raw, allow_harmful_protocols=["data:image/"]),
        plugins=["table", "strikethrough"],
    )
    return str(render(source)).strip()


FILTERS: dict[str, Callable[..., str]] = {
    "unstyled": lambda data: data.replace(f"<style>{STYLE}</style>", ""),
    "richest": lambda data: next((kind for kind in RICHEST if kind in data), ""),
    "words": words,
    "cell_words": cell_words,
    "as_markdown": as_markdown,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "one_line": lambda data: "".join(data.split()),
    "body_of_output": _body_of_output,
}
"""What the templates call."""
