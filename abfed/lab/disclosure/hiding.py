"""Small counts are hidden: in tables, in what was printed, and with the picture they stand in.

A table of this package names its columns of counts (`page.table`). Any other table, such as a frame
that was computed from a run's, is judged here, cell by cell and outside the kernel:

1. under a name that counts, any number below `SMALL` is hidden, unless all of its column are shares
   (none beyond one, some no whole number);
2. under a parameter's name, or that of a share or an estimate, nothing is, nor in a row that begins
   with such a name;
3. under any other name each whole number below `SMALL` is, unless its column is one of shares.

What was printed is judged by the same names (`hidden_text`); so are paragraphs of markup
(`paragraphs`), and what is written in a picture, which goes as a whole (`written`). It errs towards
hiding: what a reader misses can be given a name, what a reader has seen can't be taken back. Time
grows with the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape, unescape
from typing import TYPE_CHECKING, Any, NamedTuple

from abfed.lab.disclosure.attributes import hidden_in_attributes
from abfed.lab.disclosure.hidden_text import BOUND, GROUPED, SMALL, are_shares, hidden_in_text, read
from abfed.lab.disclosure.left_out import leave_out
from abfed.lab.disclosure.legible import settled
from abfed.lab.disclosure.paragraphs import hidden_in_blocks
from abfed.lab.disclosure.written import Told
from abfed.lab.paper.page import COUNT, COUNTS_NAMED
from abfed.lab.paper.vouched import Vouched

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from abfed.lab.disclosure.counted import Counted

HIDDEN = escape(BOUND)
UNNAMED = "Row"
"""The heading of pandas' own numbers of rows, which say nothing."""

_TABLE = re.compile(r"<table\b", re.IGNORECASE)
_ROW = re.compile(r"<tr\b", re.IGNORECASE)
_CELL = re.compile(r"<t([dh])\b([^<>]*)>", re.IGNORECASE)
_CELL_ENDS = re.compile(r"</t[dh]\s{0,9}>", re.IGNORECASE)
_COUNTED = re.compile(rf"\b{COUNT}(?![\w-])")
_TAG = re.compile(r"<[^<>]*>")
_PRE = re.compile(r"<pre\b[^<>]*>", re.IGNORECASE)
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_VALUE = re.compile(rf"{GROUPED}\.?(?:e[-+]?\d++)?+(?=\s{{0,9}}(?:$|[±(/|]|of\b))")
"""A cell that is a number, with or without what belongs to it: its error, its share, its whole."""
MARKDOWN = "text/markdown"
_TEXTS = {"text/plain", MARKDOWN, "text/latex"}
_OF_FRAME = re.compile(r"\s*(?:Cell In|File\b|Input In)")
_OF_CODE = re.compile(r"\s*(?:-+>\s*)?\d+(?:\s|$)")


class _Cell(NamedTuple):
    start: int
    end: int
    row: int
    column: int
    heading: bool
    marked: bool
    said: str


def hide_small(
    document: NotebookNode,
    counted: Counted,
    told: Told | None = None,
    made: Vouched | None = None,
) -> NotebookNode:
    """Counts of fewer people than `SMALL` become a bound, wherever a notebook shows them.

    Args:
        document: is changed.
        counted: which names count people.
        told: what is written in its pictures; one in which a small count is goes as a whole.
        made: the sections and cards of this package in it, whose sentences are their maker's.
    """
    told, made = told or Told(), made or Vouched()
    for cell in document.cells:
        for output in cell.get("outputs", []):
            match output.output_type:
                case "stream":
                    output.text = hidden_in_text(output.text, counted)
                case "error":
                    _in_error(output, counted)
                case _:
                    _in_bundle(output.get("data", {}), counted, made)
                    _in_metadata(output, counted)
                    leave_out(output.get("data", {}), counted, told)
    return document


def _in_bundle(data: dict[str, Any], counted: Counted, made: Vouched) -> None:
    for kind in _TEXTS & set(data):
        data[kind] = hidden_in_text(data[kind], counted)
    if MARKDOWN in data:
        _in_markdown(data, counted)
    if "text/html" in data:
        hidden = "".join(
            hidden_in_markup(part, counted) if ours else _hidden(part, counted)
            for ours, part in made.parted(data["text/html"])
        )
        if hidden != data["text/html"]:
            data["text/html"] = hidden
            data.pop("text/plain", None)  # it may show the same counts


def _hidden(markup: str, counted: Counted) -> str:
    """Markup of a notebook's own."""
    plain = hidden_in_attributes(markup, counted)
    return hidden_in_blocks(hidden_in_markup(plain, counted), counted)


def _in_markdown(data: dict[str, Any], counted: Counted) -> None:
    """Markdown whose words are hidden; as markup, where a small count is only seen in that."""
    from abfed.lab.paper.exporters import words

    said = unescape(data[MARKDOWN])
    if (hidden := hidden_in_text(said, counted)) != said:
        data[MARKDOWN] = hidden
    shown = words(data[MARKDOWN], raw=True)
    if (hidden := _hidden(shown, counted)) != shown:
        del data[MARKDOWN]
        data.setdefault("text/html", hidden)


def _in_metadata(output: NotebookNode, counted: Counted) -> None:
    """What is said of an output, such as how wide it is, goes where a small count is in it."""
    said = str(dict(output.get("metadata", {})))
    if hidden_in_text(said, counted) != said:
        output.metadata = type(output)()


def _in_error(output: NotebookNode, counted: Counted) -> None:
    """An error's words, its notes and what it came from; lines of code are the notebook's."""
    said = output.evalue
    hidden = hidden_in_text(said, counted)
    if hidden != said:
        output.evalue = hidden
        output.traceback = [line.replace(said, hidden) for line in output.traceback]
    output.traceback = list(_traced(output.traceback, counted))


def _traced(parts: Sequence[str], counted: Counted) -> Iterator[str]:
    """A traceback; lines with numbers are code in a frame only, which an empty line ends."""
    framed = False
    for part in parts:
        lines = []
        for line in part.split("\n"):
            said = settled(line)
            framed = bool(said.strip()) and (framed or bool(_OF_FRAME.match(said)))
            code = framed and (_OF_FRAME.match(said) or _OF_CODE.match(said))
            lines.append(line if code else hidden_in_text(line, counted))
        yield "\n".join(lines)


def hidden_in_markup(markup: str, counted: Counted) -> str:
    """Markup, each small count in its tables and its preformatted lines with a bound instead."""
    first, *rest = _TABLE.split(markup)
    parts = [first]
    for one in rest:
        tag, body = one[: one.find(">") + 1], one[one.find(">") + 1 :]
        named = COUNTS_NAMED in tag
        parts += ["<table", tag, _marked(body, counted) if named else _judged(body, counted)]
    return _in_lines("".join(parts), counted)


def _in_lines(markup: str, counted: Counted) -> str:
    first, *rest = _PRE.split(markup)
    opened = _PRE.findall(markup)
    parts = [first]
    for tag, one in zip(opened, rest, strict=True):
        at = one.lower().find("</pre")
        body, behind = (one, "") if at < 0 else (one[:at], one[at:])
        said = unescape(_TAG.sub("", body))
        hidden = hidden_in_text(said, counted)
        parts += [tag, body if hidden == said else escape(hidden), behind]
    return "".join(parts)


def _cells(markup: str) -> Iterator[_Cell]:
    """The cells of a table, whether they are closed or not."""
    row, column = -1, 0
    starts = [one.start() for one in _ROW.finditer(markup)]
    found = list(_CELL.finditer(markup))
    for place, opened in enumerate(found):
        while row + 1 < len(starts) and starts[row + 1] < opened.start():
            row, column = row + 1, 0
        limit = found[place + 1].start() if place + 1 < len(found) else len(markup)
        ended = _CELL_ENDS.search(markup, opened.end(), limit)
        end = ended.start() if ended else limit
        said = settled(unescape(_TAG.sub(" ", markup[opened.end() : end]))).strip()
        heading, marked = opened[1] in "hH", bool(_COUNTED.search(opened[2]))
        yield _Cell(opened.end(), end, row, column, heading, marked, said)
        column += 1


def _between(markup: str, counted: Counted) -> str:
    """What stands in a table and in none of its cells, such as its caption."""
    ends = markup.lower().rfind("</table")
    within, behind = (markup, "") if ends < 0 else (markup[:ends], markup[ends:])
    return hidden_in_blocks(within, counted) + behind


def _marked(markup: str, counted: Counted) -> str:
    """A table whose columns of counts are marked."""
    parts, at = [], 0
    while opened := _CELL.search(markup, at):
        ended = _CELL_ENDS.search(markup, opened.end())
        if ended is None:
            break  # no cell of what is left has an end
        parts.append(_between(markup[at : opened.end()], counted))
        held = markup[opened.end() : ended.start()]
        parts.append(_bounded(held) if _COUNTED.search(opened[2]) else held)
        at = ended.start()
    return "".join([*parts, _between(markup[at:], counted)])


def _bounded(held: str) -> str:
    number = _NUMBER.search(held)
    return HIDDEN if number is not None and read(number[0]) < SMALL else held


def _judged(markup: str, counted: Counted) -> str:
    """A table that doesn't say which of its columns count."""
    cells = list(_cells(markup))
    heads = {one.column: one.said for one in cells if one.row <= 0 and one.heading}
    body = [one for one in cells if not (one.row <= 0 and one.heading)]
    first = {one.row: one.said for one in body if one.column == 0}
    shares = _columns_of_shares(body)
    parts, at = [], 0
    for one in cells:
        parts.append(_between(markup[at : one.start], counted))
        held, at = markup[one.start : one.end], one.end
        name, row = heads.get(one.column, ""), first.get(one.row, "")
        if one.row <= 0 and one.heading:  # a number by itself is one of pandas' own
            hidden = one.said if _VALUE.match(one.said) else hidden_in_text(one.said, counted)
            parts.append(held if hidden == one.said else escape(hidden))
            continue
        parts.append(_judged_cell(one, held, name, row, counted, shares=one.column in shares))
    return "".join([*parts, _between(markup[at:], counted)])


def _judged_cell(
    cell: _Cell, held: str, name: str, row: str, counted: Counted, *, shares: bool
) -> str:
    if cell.marked:
        return _bounded(held)
    spared = name == UNNAMED or counted.spares(name)
    number = _VALUE.match(cell.said)
    if number is None:
        hidden = cell.said if spared else hidden_in_text(cell.said, counted)
        return held if hidden == cell.said else escape(hidden)
    value = read(number[0])
    if value >= SMALL or spared or shares:
        return held
    if counted.counts(name):
        return HIDDEN
    if cell.column > 0 and counted.spares(row):
        return held
    return HIDDEN if value.is_integer() else held


def _columns_of_shares(cells: Sequence[_Cell]) -> set[int]:
    seen: dict[int, list[float]] = {}
    for one in cells:
        if number := _VALUE.match(one.said):
            seen.setdefault(one.column, []).append(read(number[0]))
    return {column for column, values in seen.items() if are_shares(values)}
