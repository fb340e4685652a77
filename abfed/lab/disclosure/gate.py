"""The disclosure gate: what may stand on a page, checked on the notebook before it is exported.

Everything that a format could carry is looked at, in this order; each finding names the cell and
the kind of thing, never the thing itself:

1. outputs are of kinds that can be looked into: text, markup, pictures. Scripts are refused, also
   inside markup and pictures, and so is whatever would be loaded from outside;
2. text, metadata, attachments and pictures hold no identifier, secret, canary or path (`shapes`),
   and none of the words that this workspace never shows;
3. a picture of pixels is one that matplotlib drew in the report's kernel, which told what is
   written in it (`written`): that is judged as text is. No other picture of pixels can be read;
4. each table says which release (or plan) it is from, and it is one of this report's. A table that
   was printed, typed or made from another frame doesn't, and is refused;
5. counts of fewer than `hiding.SMALL` people are hidden, and a picture in which one is written is
   left out: that changes the page and stops nothing.

The gate runs outside the kernel. A notebook can't turn it off. It takes time in proportion to what
it looks at, whatever that is: no pattern searches from each place to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import unescape
from typing import TYPE_CHECKING, Any, NamedTuple

from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.drawings import drawings_in
from abfed.lab.disclosure.hiding import hide_small
from abfed.lab.disclosure.legible import read_aloud, readings, run_together, settled
from abfed.lab.disclosure.loading import reaches_out
from abfed.lab.disclosure.pictures import (
    DEEPEST,
    PACKED,
    PNG,
    SVG,
    content_of,
    is_text,
    only_made_by,
    unpacked,
    words_of,
)
from abfed.lab.disclosure.printed import is_printed, is_set_as_rows, is_typed
from abfed.lab.disclosure.shapes import ADDRESS, found_in
from abfed.lab.disclosure.written import MOST_CELLS, Told, Written
from abfed.lab.paper.page import SYNTHETIC
from abfed.lab.paper.vouched import Vouched
from abfed.protocol.errors import Withheld

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEXTS = {"text/plain", "text/html", "text/markdown", "text/latex", SVG}
PICTURES = {PNG}
DROPPED = {"application/vnd.jupyter.widget-view+json"}
"""A view of something that only lives in a kernel: it has a text beside it."""

_UNREAD_DATA = re.compile(r"(?:src|href|background)\s*=\s*[\"']?\s*data:(?!,)")
_TABLE = re.compile(r"<m?table\b", re.IGNORECASE)
_SOURCE = re.compile(r"\bdata-source=\"([^\"]*)\"")
_STYLES = re.compile(r"<style\b[^<>]*>(.*?)(?:</style|$)", re.IGNORECASE | re.DOTALL)
_WRITES = re.compile(r"(?<![\w-])content\s*:|\\|@counter-style", re.IGNORECASE)
_STYLED = re.compile(r"style\s*=\s*(?:\"[^\"]*\\|'[^']*\\)")
"""Styles that write words, or spell them in a way that nobody reads."""
_SPELLS = ("<!entity", "<?xml-stylesheet")
"""Words that stand for others in a drawing's text, and rules that change it."""
_TYPE = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,40}")


_BY_CHANCE = re.compile(r"[0-9a-f]{8}")
"""What nbformat calls a cell: 32 random bits, which may look like anybody's number."""


class Finding(NamedTuple):
    """What stops a page: the place of its cell, from one (0: the notebook), and what kind it is."""

    place: int
    what: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one report may show.

    Attributes:
        sources: of its tables.
        never: words of this workspace that no page shows, such as its folders and canaries.
        counted: which names of its figures count people.
        told: the pictures that its kernel drew, and what is written in them.
        made: the sections and cards of this package that it showed.
    """

    sources: frozenset[str]
    never: tuple[str, ...] = ()
    counted: Counted = field(default_factory=Counted)
    told: Told = field(default_factory=Told)
    made: Vouched = field(default_factory=Vouched)


def cleared(
    document: NotebookNode, allowed: Allowed, *, where: str, numbers: Sequence[int] = ()
) -> NotebookNode:
    """The notebook with small cells hidden, if nothing stops it.

    Args:
        document: what is to leave.
        allowed: what it may show.
        where: whose name the refusal bears.
        numbers: of each cell in the notebook as it was written; their places where not given.

    Raises:
        Withheld: with each finding, by cell and kind.
    """
    found = list(dict.fromkeys(findings(document, allowed)))
    named = ["the notebook’s metadata"]
    named += [f"cell {one}" for one in numbers or range(1, len(document.cells) + 1)]
    if found:
        raise Withheld(
            "the page is withheld: it would show what must not leave",
            where=where,
            why="; ".join(f"{named[one.place]}: {one.what}" for one in found[:8]),
            do="take it out of the notebook; tables come from a run’s own frames or sections",
        )
    return hide_small(document, allowed.counted, allowed.told, allowed.made)


def findings(document: NotebookNode, allowed: Allowed) -> Iterator[Finding]:
    """All that stops a page, in the order of its cells."""
    for what in _in_text(_said(document.metadata), allowed):
        yield Finding(0, what)
    for place, cell in enumerate(document.cells, start=1):
        told = dict.fromkeys(_in_cell(cell, allowed))
        name = str(cell.get("id", ""))
        if not _BY_CHANCE.fullmatch(name) and holds_back(name, allowed):
            told["a name of a cell that says too much"] = None
        for what in told:
            yield Finding(place, what)


def stops(cell: NotebookNode, allowed: Allowed) -> bool:
    """Whether one cell alone would stop a page."""
    return any(_in_cell(cell, allowed))


def holds_back(text: str, allowed: Allowed) -> bool:
    """Whether a line of text, such as why a notebook failed, holds what must not leave."""
    return any(_in_text(text, allowed))


def _in_cell(cell: NotebookNode, allowed: Allowed) -> Iterator[str]:
    yield from _in_text(_said(cell.metadata), allowed)
    for name, bundle in cell.get("attachments", {}).items():
        yield from _in_text(name, allowed)
        yield from _in_bundle(bundle, allowed)
    if cell.cell_type != "code":
        yield from _in_markdown(cell.source, allowed)
        return
    yield from _in_text(cell.source, allowed)
    for output in cell.outputs:
        yield from _in_output(output, allowed)


def _in_output(output: NotebookNode, allowed: Allowed) -> Iterator[str]:
    match output.output_type:
        case "stream":
            yield from _in_text(f"{output.name}\n{output.text}", allowed)
            yield from _printed(settled(output.text))
        case "error":
            said = [output.ename, output.evalue, *output.traceback]
            yield from _in_text("\n".join(said), allowed)
        case "display_data" | "execute_result":
            yield from _in_text(_said(output.metadata), allowed)
            yield from _in_bundle(output.data, allowed)
            if "text/html" not in output.data:
                yield from _printed(settled(str(output.data.get("text/plain", ""))))
        case _:
            yield "an output of an unknown kind"


def _in_bundle(bundle: dict[str, Any], allowed: Allowed) -> Iterator[str]:
    """Each form of one output: a reader sees one of them, a file may carry all."""
    for kind, value in bundle.items():
        if kind not in DROPPED:
            yield from _in_form(kind, value, allowed)


def _in_form(kind: str, value: Any, allowed: Allowed) -> Iterator[str]:
    match kind:
        case one if one in PICTURES:
            yield from _in_picture(value, allowed)
        case "text/plain":
            yield from _in_text(value, allowed)
        case "text/latex":
            yield from _in_text(value, allowed)
            yield from _printed(settled(value))
        case "text/markdown":
            yield from _in_markdown(value, allowed)
        case one if one in TEXTS:
            yield from _in_markup(value, allowed)
            yield from _in_file(one, value.encode(errors="replace"))
        case _:
            yield f"an output {_typed_as(kind, allowed)}, which can’t be looked into"


def _typed_as(kind: str, allowed: Allowed) -> str:
    """A form's type in words, unless the name of the type is what would be published."""
    tame = _TYPE.fullmatch(kind) and not holds_back(kind, allowed)
    return f"of type {kind}" if tame else "of an unknown type"


def _in_markdown(source: str, allowed: Allowed) -> Iterator[str]:
    """Markdown: as it was typed, which a notebook keeps, and as it is shown."""
    from abfed.lab.paper.exporters import words

    rendered = words(source)
    yield from _in_markup(source, allowed)
    yield from _in_words(rendered, allowed)
    if is_typed(source, rendered):
        yield "a table that was typed, not made from a release"


def _in_markup(markup: str, allowed: Allowed, depth: int = 0) -> Iterator[str]:
    """Markup: itself, what is packed inside it, and its tables."""
    if depth > DEEPEST:
        yield "something packed too deep to be looked into"
        return
    packed: list[tuple[str, bool, str]] = []

    def out(match: re.Match[str]) -> str:
        packed.append(((match[1] or "text/plain").lower(), "base64" in match[2].lower(), match[3]))
        return "data:,"

    yield from _in_drawings(markup, allowed)
    bare = PACKED.sub(out, markup)
    yield from _in_words(bare, allowed)
    for kind, encoded, data in packed:
        if kind in PICTURES and encoded:
            yield from _in_picture(data, allowed)
        elif kind in TEXTS:
            content = unpacked(data, encoded=encoded)
            yield from _in_file(kind, content)
            yield from _in_markup(content.decode(errors="replace"), allowed, depth + 1)
        else:
            yield f"something packed {_typed_as(kind, allowed)}"
    for opened in _TABLE.split(bare)[1:]:
        source = _SOURCE.search(opened.partition(">")[0])
        if source is None or source[1] not in allowed.sources:
            yield _strange(source[1] if source else "")
    if is_set_as_rows(bare):
        yield "a table that was printed, not made from a release"


def _strange(source: str) -> str:
    """What a table is that doesn't belong on a page; its source is empty where it names none."""
    if not source:
        return "a table that isn’t from a release"
    if source == SYNTHETIC:
        return "a table of made-up people, on a report of a real run: name the plan instead"
    return "a table from another release than this report’s"


def _in_words(bare: str, allowed: Allowed) -> Iterator[str]:
    """Markup whose packed parts were taken out: what it says, in its tags and between them."""
    plain = unescape(bare)
    small = plain.lower()
    if reaches_out(plain):
        yield "something that loads or runs: a script, a frame, or a file from outside"
    whole = small.replace("\t", "").replace("\r", "").replace("\n", "")  # as browsers do
    if whole.count("data:") > whole.count("data:,") and _UNREAD_DATA.search(whole):
        yield "something packed in a way that can’t be looked into"
    if any(_WRITES.search(one) for one in _STYLES.findall(bare)) or (
        "\\" in small and _STYLED.search(small)
    ):
        yield "words that a style writes"
    if any(one in small for one in _SPELLS):
        yield "words that a document’s head writes"
    usual = read_aloud(bare)
    yield from _in_text(plain, allowed)
    yield from _in_text(usual, allowed)
    if "@" in usual and ADDRESS in set(found_in(run_together(bare))):
        yield ADDRESS


def _in_text(text: str, allowed: Allowed) -> Iterator[str]:
    for said in readings(text):
        yield from found_in(said)
        small = said.casefold()
        if any(word.casefold() in small for word in allowed.never):
            yield "a word that this workspace never shows"


def _said(metadata: Any) -> str:
    """All words of metadata, one a line; JSON would put a letter of its own before a path."""
    words, left = [], [metadata]
    while left:
        match left.pop():
            case dict() as held:
                left += [*held, *held.values()]
            case list() as held:
                left += held
            case word:
                words.append(str(word))
    return "\n".join(words)


def _printed(text: str) -> Iterator[str]:
    if is_printed(text):
        yield "a table that was printed, not made from a release"


def _in_picture(data: str, allowed: Allowed) -> Iterator[str]:
    """A PNG carries pixels only, and which program drew it; it is one that the kernel drew."""
    for words in words_of(data):
        if not only_made_by(words):
            yield "a picture with words inside its file"
        yield from _in_text(words, allowed)
    written = allowed.told.of(content_of(data))
    if written is None:
        yield "a picture of pixels that nobody can read: show a figure of matplotlib itself"
    else:
        yield from _in_written(written, allowed)


def _in_file(kind: str, content: bytes) -> Iterator[str]:
    """Markup as a file: it is what it is called, for a browser shows what it is."""
    if not is_text(content, drawing=kind == SVG):
        yield f"something called {kind} that is none"


def _in_drawings(markup: str, allowed: Allowed) -> Iterator[str]:
    """What the kernel told of drawings, wherever they stand; the others are markup alone."""
    for start, end in drawings_in(markup):
        if written := allowed.told.of_drawing(markup[start:end]):
            yield from _in_written(written, allowed)


def _in_written(written: Written, allowed: Allowed) -> Iterator[str]:
    """What is written in a picture, as the kernel told it."""
    words = list(written.words())
    for what in _in_text("\n".join(words), allowed):
        yield f"{what}, written in a picture"
    if written.pixels:
        yield "pixels within a picture that nobody can read: draw into its axes, not an image of it"
    if written.cells > MOST_CELLS:
        yield (
            f"an image, a mesh or marks of more than {MOST_CELLS} cells within a picture, which may"
            " be letters that nobody can read: draw fewer cells (bins=, gridsize=), or lines"
        )
    if written.table:
        yield "a table that was drawn, not made from a release"
    elif any(map(is_printed, words)):
        yield "a table that was printed into a picture, not made from a release"
