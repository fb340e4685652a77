"""The disclosure gate: what may stand on a page, checked on the notebook before it is exported.

Everything that a format could carry is looked at, in this order; each finding names the cell and
the kind of thing, never the thing itself:

1. outputs are of kinds that can be looked into: text, markup, pictures. Scripts are refused, also
   inside markup and pictures, and so is whatever would be loaded from outside;
2. text, metadata, attachments and pictures hold no identifier, secret, canary or path (`shapes`),
   and none of the words that this workspace never shows;
3. each table says which release (or plan) it is from, and it is one of this report's. A table that
   was printed, typed or made from another frame doesn't, and is refused;
4. cells that count fewer people than `SMALL` are hidden: that changes the page and stops nothing.

The gate runs outside the kernel. A notebook can't turn it off. It takes time in proportion to what
it looks at, whatever that is: no pattern searches from each place to the end.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any, NamedTuple

from abfed.lab.page import COUNT
from abfed.lab.shapes import found_in
from abfed.protocol.errors import Withheld

if TYPE_CHECKING:
    from nbformat import NotebookNode

SMALL = 10
"""Counts of people below it aren't shown: the usual threshold of official statistics."""
HIDDEN = f"&lt; {SMALL}"

TEXTS = {"text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml"}
PICTURES = {"image/png"}
DROPPED = {"application/vnd.jupyter.widget-view+json"}
"""A view of something that only lives in a kernel: it has a text beside it."""

_OUTSIDE = tuple(
    re.compile(one)
    for one in (
        r"<\s*(?:script|link|iframe|object|embed|base|form|meta|foreignobject|audio|video)\b",
        r"on(?<=\bon)\w+\s*=\s*[\"']", r"javascript:", r"@import", r"srcset(?<=\bsrcset)\s*=",
        r"src\s*=\s*[\"']?\s*(?:https?:)?//", r"poster\s*=\s*[\"']?\s*(?:https?:)?//",
        r"data\s*=\s*[\"']?\s*(?:https?:)?//",
        r"url\(\s*[\"']?(?!#)",
    )
)  # fmt: skip
"""In small letters; each begins with what `re` finds fast, where the page is long."""
_LINK = re.compile(r"href\s*=\s*[\"']?\s*(?!#|data:|[\"'])([^>\s]*)")
_FILE = re.compile(r"\.(?:js|css)\b")
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w=.+-]+)*),([^\"'\s)>]*)")
_TABLE = re.compile(r"<table\b", re.IGNORECASE)
_SOURCE = re.compile(r"\bdata-source=\"([^\"]*)\"")
_CELL = re.compile(r"<t[dh]\b([^<>]*)>", re.IGNORECASE)
_CELL_ENDS = re.compile(r"</t[dh]\s{0,9}>", re.IGNORECASE)
_COUNTED = re.compile(rf"\b{COUNT}\b")
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_DIGIT = re.compile(r"\d")
_FIGURE = re.compile(r"[-+−]?\d[\d,.]*(?:e[-+]?\d+)?%?", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s;|()\[\]{}'\"]+|:\s|,(?!\d{3}(?!\d))")
"""What stands between the cells of a row, as frames, lists, tuples and JSON print themselves."""
_OPENED = re.compile(r"([\[({,])\s{1,80}")
_CLOSED = re.compile(r"[\])}]\s{0,80},\s{0,80}")
"""Lists of lists: on one line, or indented with each figure on its own."""
_PRE = re.compile(r"<pre\b[^<>]*>", re.IGNORECASE)
_PRE_ENDS = re.compile(r"</pre\b", re.IGNORECASE)
_PRINTED_ROWS = 2  # lines of figures under one another that make a table
_PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}


class Finding(NamedTuple):
    """Something that stops a page: which cell (by its id), and what kind of thing."""

    cell: str
    what: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one report may show.

    Attributes:
        sources: of its tables.
        never: words of this workspace that no page shows, such as its folders and canaries.
    """

    sources: frozenset[str]
    never: tuple[str, ...] = ()


def cleared(document: NotebookNode, allowed: Allowed, *, where: str) -> NotebookNode:
    """The notebook with small cells hidden, if nothing stops it.

    Raises:
        Withheld: with each finding, by cell and kind.
    """
    found = list(dict.fromkeys(findings(document, allowed)))
    if found:
        raise Withheld(
            "the page is withheld: it would show what must not leave",
            where=where,
            why="; ".join(f"cell {one.cell}: {one.what}" for one in found[:8]),
            do="take it out of the notebook; tables come from a run’s own frames or sections",
        )
    return hide_small(document)


def findings(document: NotebookNode, allowed: Allowed) -> Iterator[Finding]:
    """All that stops a page, in the order of its cells."""
    for what in _in_text(json.dumps(document.metadata, ensure_ascii=False), allowed):
        yield Finding("0 (metadata)", what)
    for number, cell in enumerate(document.cells, start=1):
        name = str(cell.get("id", number))
        for what in _in_cell(cell, allowed):
            yield Finding(name, what)


def stops(cell: NotebookNode, allowed: Allowed) -> bool:
    """Whether one cell alone would stop a page."""
    return any(_in_cell(cell, allowed))


def holds_back(text: str, allowed: Allowed) -> bool:
    """Whether a line of text, such as why a notebook failed, holds what must not leave."""
    return any(_in_text(text, allowed))


def _in_cell(cell: NotebookNode, allowed: Allowed) -> Iterator[str]:
    yield from _in_text(json.dumps(cell.metadata, ensure_ascii=False), allowed)
    for bundle in cell.get("attachments", {}).values():
        yield from _in_bundle(bundle, allowed)
    if cell.cell_type != "code":
        yield from _in_markup(cell.source, allowed)
        if sum(map(_is_typed_row, cell.source.splitlines())) >= _PRINTED_ROWS:
            yield "a table that was typed, not made from a release"
        return
    yield from _in_text(cell.source, allowed)
    for output in cell.outputs:
        yield from _in_output(output, allowed)


def _in_output(output: NotebookNode, allowed: Allowed) -> Iterator[str]:
    match output.output_type:
        case "stream":
            yield from _in_text(output.text, allowed)
            yield from _printed(output.text)
        case "error":
            yield from _in_text("\n".join([output.evalue, *output.traceback]), allowed)
        case "display_data" | "execute_result":
            yield from _in_text(json.dumps(output.metadata, ensure_ascii=False), allowed)
            yield from _in_bundle(output.data, allowed)
            if "text/html" not in output.data:
                yield from _printed(str(output.data.get("text/plain", "")))
        case kind:
            yield f"an output of kind {kind}"


def _in_bundle(bundle: dict[str, Any], allowed: Allowed) -> Iterator[str]:
    """Each form of one output: a reader sees one of them, a file may carry all."""
    for kind, value in bundle.items():
        if kind in DROPPED:
            continue
        if kind in PICTURES:
            yield from _in_picture(_decoded(value), allowed)
        elif kind in TEXTS:
            yield from (
                _in_text(value, allowed) if kind == "text/plain" else _in_markup(value, allowed)
            )
        else:
            yield f"an output of type {kind}, which can’t be looked into"


def _in_markup(markup: str, allowed: Allowed) -> Iterator[str]:
    """Markup: itself, what is packed inside it, and its tables."""
    packed: list[tuple[str, str]] = []

    def out(match: re.Match[str]) -> str:
        packed.append((match[1] or "text/plain", match[3]))
        return "data:,"

    bare = _DATA.sub(out, markup)
    plain = unescape(bare)
    if reaches_out(plain):
        yield "something that loads or runs: a script, a frame, or a file from outside"
    yield from _in_text(plain, allowed)
    for kind, data in packed:
        content = _decoded(data)
        if kind in PICTURES:
            yield from _in_picture(content, allowed)
        elif kind in TEXTS:
            yield from _in_markup(content.decode(errors="replace"), allowed)
        else:
            yield f"something packed as {kind}"
    for opened in _TABLE.split(bare)[1:]:
        source = _SOURCE.search(opened.partition(">")[0])
        if source is None:
            yield "a table that isn’t from a release"
        elif source[1] not in allowed.sources:
            yield "a table from another release than this report’s"
    for block in _PRE.split(bare)[1:]:
        yield from _printed(unescape(_PRE_ENDS.split(block, maxsplit=1)[0]))


def reaches_out(markup: str) -> bool:
    """Whether markup loads or runs something, in letters of whatever case."""
    small = markup.replace("\u0130", "i").casefold().replace("\u0131", "i")  # Turkish
    if any(one.search(small) for one in _OUTSIDE):
        return True
    return any(_FILE.search(one) for one in _LINK.findall(small))


def _is_typed_row(line: str) -> bool:
    """Whether a line of Markdown is a table's row with a figure in it."""
    row = line.strip()
    return len(row) > 2 and row[0] == row[-1] == "|" and bool(_DIGIT.search(row))


def _in_text(text: str, allowed: Allowed) -> Iterator[str]:
    yield from found_in(text)
    if any(word in text for word in allowed.never):
        yield "a word that this workspace never shows"


def _printed(text: str) -> Iterator[str]:
    """Rows of figures: under one another, as a frame prints itself, or as a list of lists.

    It is a heuristic: `docs/reports.md` says what it doesn't see.
    """
    lists = (one.rstrip() for one in _CLOSED.split(_OPENED.sub(r"\1 ", text)))
    if _has_rows(text) or _has_rows("\n".join(lists)):
        yield "a table that was printed, not made from a release"


def _has_rows(text: str) -> bool:
    rows = 0
    for line in text.splitlines():
        words = [word for word in _BETWEEN.split(line) if word]
        figures = sum(bool(_FIGURE.fullmatch(word)) for word in words)
        rows = rows + 1 if len(words) >= 3 and figures >= 2 else 0
        if rows >= _PRINTED_ROWS:
            return True
    return False


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        return data.encode()


def _in_picture(content: bytes, allowed: Allowed) -> Iterator[str]:
    """A PNG carries pixels only: its texts would be read by nobody and kept by everybody."""
    for kind, chunk in _chunks(content):
        if kind in _PNG_TEXTS:
            if not chunk.startswith(b"Software\0"):
                yield "a picture with words inside its file"
            yield from _in_text(chunk.decode("latin-1"), allowed)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG (ISO/IEC 15948, 5.3); what isn't one is a chunk of text."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        yield b"tEXt", content
        return
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            break
    if at < len(content):
        yield b"tEXt", content[at:]


def hide_small(document: NotebookNode) -> NotebookNode:
    """Counts of fewer people than `SMALL` become a bound, in every table."""
    for cell in document.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                hidden = _without_small(data["text/html"])
                if hidden != data["text/html"]:
                    data["text/html"] = hidden
                    data.pop("text/plain", None)  # it may show the same counts
    return document


def _without_small(markup: str) -> str:
    """A table's markup, each cell that counts few people with a bound in its place."""
    parts, at = [], 0
    while opened := _CELL.search(markup, at):
        ended = _CELL_ENDS.search(markup, opened.end())
        if ended is None:
            break  # no cell of what is left has an end
        parts.append(markup[at : opened.end()])
        held = markup[opened.end() : ended.start()]
        parts.append(_bounded(held) if _COUNTED.search(opened[1]) else held)
        at = ended.start()
    return "".join([*parts, markup[at:]])


def _bounded(held: str) -> str:
    number = _NUMBER.search(held)
    if number is None:
        return held
    value = float(number[0].replace(",", "").replace("−", "-"))
    return HIDDEN if value < SMALL else held
