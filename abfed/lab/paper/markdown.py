"""The page as Markdown, for wikis and reviews: headings, sentences, tables, figures.

It reads the markup of our own pages, not markup at large: what it doesn't know becomes its text.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SKIPPED = {"style", "head", "script"}
_HEADINGS = {"h1": "# ", "h2": "## ", "h3": "### ", "h4": "#### ", "summary": "**"}
_BLOCKS = {"p", "section", "div", "figure", "dl", "ul", "ol", "details", "main", "pre"}


def as_markdown(html: str) -> str:
    """A page as Markdown; figures stay inside it."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    text = re.sub(r"[ \t]+\n", "\n", "".join(reader.parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


class _Reader(HTMLParser):
    """Writes as it reads."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skip = 0
        self._raw = 0
        self._row: list[str] | None = None
        self._rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in _SKIPPED:
            self._skip += 1
        elif tag in _HEADINGS:
            self._say(f"\n\n{_HEADINGS[tag]}")
        elif tag == "table":
            self._rows = 0
            self._say("\n\n")
        elif tag == "tr":
            self._row = []
        elif tag in {"td", "th"} and self._row is not None:
            self._row.append("")
        elif tag == "br":
            self._say(", " if self._row is not None else "<br>")
        elif tag == "img":
            alt = " ".join((given.get("alt") or "").split())
            self._say(f"\n\n![{alt}]({given.get('src') or ''})\n\n")
        else:
            self._start_inline(tag)

    def _start_inline(self, tag: str) -> None:
        if tag == "pre":
            self._raw += 1
            self._say("\n\n```\n")
        elif tag in {"strong", "b", "dt"}:
            self._say("\n- **" if tag == "dt" else "**")
        elif tag in {"em", "i"}:
            self._say("*")
        elif tag == "code":
            self._say("`")
        elif tag == "li":
            self._say("\n- ")
        elif tag in _BLOCKS and self._row is None:
            self._say("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skip -= 1
        elif tag == "tr" and self._row is not None:
            row, self._row = self._row, None
            self._write_row(row)
        elif tag in _HEADINGS:
            self._say("**\n\n" if tag == "summary" else "\n\n")
        elif tag == "pre":
            self._raw -= 1
            self._say("\n```\n\n")
        elif tag in {"strong", "b", "dt"}:
            self._say(":** " if tag == "dt" else "**")
        elif tag in {"em", "i"}:
            self._say("*")
        elif tag == "code":
            self._say("`")
        elif (tag in _BLOCKS or tag == "table") and self._row is None:
            self._say("\n\n")

    def _write_row(self, row: list[str]) -> None:
        cells = [" ".join(cell.split()).replace("|", "\\|") for cell in row]
        self._say(f"| {' | '.join(cells)} |\n")
        self._rows += 1
        if self._rows == 1:
            self._say(f"|{'---|' * len(cells)}\n")

    def handle_data(self, data: str) -> None:
        if self._raw:
            self._say(data)
        elif text := re.sub(r"\s+", " ", data):
            self._say(text)

    def _say(self, text: str) -> None:
        if self._skip:
            return
        if self._row is not None:
            if self._row:
                self._row[-1] += text
            return
        self.parts.append(text)
