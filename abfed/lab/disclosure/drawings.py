"""Drawings (SVG) as a reader sees them: what is said in one, and how one is known again.

matplotlib leaves each word that it draws in a comment, and the watch in a report's kernel adds the
others (`overhearing`). So all words, and the outlines of all letters, make a print that stays what
it is where a drawing is written anew (IPython's `SVG`), set into markup or given another size, and
is another one as soon as another word stands in it. A drawing without a known print was made by
hand: its words are read from its markup.

Time grows with the drawing.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from html import escape, unescape

_OF = r"(?:[^\s<>/:]{1,40}:)?"
"""A name space's short name, as in `<s:svg>`."""
_DRAWING = re.compile(rf"<(/?){_OF}svg\b[^<>]*>", re.IGNORECASE)
_SAYS = re.compile(
    r"<!--(.*?)(?:-->|$)|<!\[CDATA\[(.*?)(?:\]\]>|$)|\b(?:d|href)=[\"']([^\"']*)|>([^<]*)",
    re.DOTALL,
)
"""What makes a print: comments, text, outlines, and which of them stand for letters."""
_VERBATIM = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|$)", re.DOTALL)
_UNSAID = re.compile(r"<(style|script)\b[^<>]*>.*?(?:</\1[^<>]*>?|$)", re.IGNORECASE | re.DOTALL)
_NOTE = re.compile(r"<!--(.*?)(?:-->|$)", re.DOTALL)
_TEXT = re.compile(
    rf"<{_OF}text\b[^<>]*>(.*?)(?:</{_OF}text\b|(?=<{_OF}text\b)|</{_OF}svg\b|$)",
    re.IGNORECASE | re.DOTALL,
)
_APART = re.compile(
    rf"<(?:{_OF}tspan\b[^<>]*\b(?:x|y|dx|dy)\s*=|/?{_OF}textpath\b)[^<>]*>", re.IGNORECASE
)
"""Where the words of a text begin at another place."""
_TAG = re.compile(r"<[^<>]*>")
_BETWEEN = re.compile(r">([^<]+)")
_TOLD = re.compile(
    r"\s(?:aria-[a-z]+|data-[\w-]+|id|title|alt|(?:xlink:)?(?:href|title))\s*=\s*"
    r"(?:\"([^\"]*)\"|'([^']*)')",
    re.IGNORECASE,
)
"""Attributes that are read aloud, shown at a mark or kept with it."""
_NAME = re.compile(r"#?[A-Za-z][\w.:-]*|data:.*", re.DOTALL)
"""What a program calls a part of a drawing; and what is packed, which has rules of its own."""


def drawings_in(markup: str) -> list[tuple[int, int]]:
    """Where drawings begin and end; one inside another is part of it, one without end has all."""
    found: list[tuple[int, int]] = []
    depth = start = 0
    for tag in _DRAWING.finditer(markup):
        if tag[1]:
            depth -= depth > 0
            if not depth and start < tag.start():
                found.append((start, tag.end()))
                start = len(markup)
        elif not tag[0].endswith("/>"):
            start = start if depth else tag.start()
            depth += 1
    return [*found, (start, len(markup))] if depth else found


@functools.lru_cache(maxsize=16)
def print_of(drawing: str) -> str:
    """What a drawing is known by, however it is written; the gate asks more than once for each."""
    parts = ("".join(unescape("".join(one)).split()) for one in _SAYS.findall(drawing))
    return hashlib.sha256("\n".join(filter(None, parts)).encode(errors="replace")).hexdigest()


def said_in(drawing: str) -> Iterator[str]:
    """Each text that is said in a drawing, seen or not.

    >>> list(said_in("<svg><title>a</title><text><tspan>3</tspan> <tspan>b</tspan></text></svg>"))
    ['3 b', 'a']
    """
    yield from filter(None, map(_set, _said_in(drawing)))


def _said_in(drawing: str) -> Iterator[str]:
    bare = _VERBATIM.sub(lambda held: escape(held[1]), _UNSAID.sub("", drawing))
    yield from _NOTE.findall(bare)
    bare = _NOTE.sub("", bare)
    for text in _TEXT.findall(bare):
        yield from _APART.split(text)
    yield from _BETWEEN.findall(_TEXT.sub("<", bare))
    yield from attributes_of(bare)


def attributes_of(drawing: str) -> Iterator[str]:
    """What attributes say that is no name of a part."""
    for quoted, single in _TOLD.findall(drawing):
        said = _set(quoted or single)
        if said and not _NAME.fullmatch(said):
            yield said


def _set(said: str) -> str:
    return " ".join(unescape(_TAG.sub("", said)).split())
