"""Small counts in the paragraphs, lists and boxes of markup that a notebook made itself.

Each block is judged as a line of printed text is (`hidden_text`): by the words around a number, or
as a number alone; what a `<dd>` says by the name in its `<dt>`. Left to their own rules are tables,
preformatted lines and drawings. Time grows with the markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape, unescape
from typing import TYPE_CHECKING

from abfed.lab.disclosure.hidden_text import hidden_in_text
from abfed.lab.disclosure.legible import INLINE, settled

if TYPE_CHECKING:
    from abfed.lab.disclosure.counted import Counted

_TOKEN = re.compile(r"<!--[^<]*?-->|<(/?)([a-zA-Z][\w:-]*)([^<>]*)>")
_APART = frozenset({"table", "pre", "svg", "style", "script"})
_MARK = re.compile(r"<(su[bp])\b[^<>]*>[^<>\d]{0,3}</\1>", re.IGNORECASE)
"""A footnote's mark, which would be a letter of a number."""
_NAMING, _NAMED = "dt", "dd"


def hidden_in_blocks(markup: str, counted: Counted) -> str:
    """Markup, each small count in its blocks of text with a bound instead.

    >>> from abfed.lab.disclosure.counted import Counted
    >>> hidden_in_blocks("<p><b>3</b> buyers</p><ul><li>3 silos</ul>", Counted())
    '<p>&lt; 10 buyers</p><ul><li>3 silos</ul>'
    """
    parts: list[str] = []
    name = ""
    for within, held in _pieces(markup):
        if within is None:
            parts.append(held)
            continue
        said = " ".join(settled(unescape(_TOKEN.sub("", _MARK.sub("", held)))).split())
        hidden = _judged(said, name if within == _NAMED else "", counted)
        parts.append(held if hidden == said else escape(hidden))
        if within:
            name = said if within == _NAMING else name * (within == _NAMED)
    return "".join(parts)


def _judged(said: str, name: str, counted: Counted) -> str:
    before = f"{name}: " if name else ""
    hidden = hidden_in_text(before + said, counted)
    if hidden.startswith(before):
        return hidden.removeprefix(before)
    return hidden_in_text(said, counted)  # the name itself says a count


def _pieces(markup: str) -> Iterator[tuple[str | None, str]]:
    """Blocks of text, each with the tag it stands behind; None with what isn't one."""
    block: list[str] = []
    within, apart, depth, at = "", "", 0, 0
    for token in _TOKEN.finditer(markup):
        text, at = markup[at : token.start()], token.end()
        closes, tag = bool(token[1]), (token[2] or "").lower()
        if apart:
            yield None, text + token[0]
            if tag == apart and not (tag == "svg" and token[3].endswith("/")):
                depth += -1 if closes else 1
            apart = apart if depth else ""
        elif not tag or tag in INLINE:
            block += [text, token[0]]
        else:
            yield within, "".join([*block, text])
            yield None, token[0]
            block.clear()
            within = "" if closes else tag
            if not closes and _stands_apart(tag, token[3]):
                apart, depth = tag, 1
    yield None if apart else within, "".join([*block, markup[at:]])


def _stands_apart(tag: str, attributes: str) -> bool:
    return tag in _APART and not (tag == "svg" and attributes.endswith("/"))
