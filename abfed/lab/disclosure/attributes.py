"""Small counts in what markup says besides its text: in attributes, comments and styles.

An attribute's number is judged by the attribute's name, as printed text is by a name before it;
those that say how something looks or where it leads are left alone. A comment with a figure or
markup in it goes, and so does a style that writes a small count (`list-style-type: "3 buyers"`).
Drawings keep the rules of their own. Time grows with the markup.
"""

from __future__ import annotations

import re
from html import escape, unescape
from typing import TYPE_CHECKING

from abfed.lab.disclosure.counted import listed
from abfed.lab.disclosure.drawings import drawings_in
from abfed.lab.disclosure.hidden_text import hidden_in_text

if TYPE_CHECKING:
    from abfed.lab.disclosure.counted import Counted

_COMMENT = re.compile(r"<!--")
_STYLES = re.compile(r"(<style\b[^<>]*>)(.*?)(?=</style|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z](?:[^<>\"']++|\"[^\"]*+\"|'[^']*+'|[\"'])*+>")
_GIVEN = re.compile(r"(?<=[\s\"'/])([^\s\"'<>/=]++)\s*+=\s*+(\"[^\"]*+\"|'[^']*+'|[^\s\"'<>]++)")
_QUOTED = re.compile(r"\"[^\"]*+\"|'[^']*+'")
_SILENT = listed(
    "style src srcset width height colspan rowspan cols rows span tabindex lang dir "
    "type role scope headers border cellpadding cellspacing align valign for rel target xmlns "
    "open color face size bgcolor data-source http-equiv charset media"
)
"""Attributes that nobody reads."""
_NAMING = listed("class href id name")
"""Attributes that nobody reads, unless there are words in them."""
_FIGURE = re.compile(r"[\d<]")


def hidden_in_attributes(markup: str, counted: Counted) -> str:
    """Markup, each small count in its attributes with a bound instead, in its comments with none.

    >>> from abfed.lab.disclosure.counted import Counted
    >>> hidden_in_attributes('<p title="3 buyers" data-round=3>x<!-- 3 --></p>', Counted())
    '<p title="&lt; 10 buyers" data-round=3>x</p>'
    """
    parts, at = [], 0
    for start, end in [*drawings_in(markup), (len(markup), len(markup))]:
        plain = _STYLES.sub(lambda found: _style(found, counted), _without_notes(markup[at:start]))
        parts += [_TAG.sub(lambda tag: _tag(tag[0], counted), plain), markup[start:end]]
        at = end
    return "".join(parts)


def _tag(tag: str, counted: Counted) -> str:
    return _GIVEN.sub(lambda given: _attribute(given, counted), tag) if "=" in tag else tag


def _attribute(given: re.Match[str], counted: Counted) -> str:
    name, quoted = given[1].lower(), given[2][0] in {'"', "'"}
    value = unescape(given[2][1:-1] if quoted else given[2])
    if name == "style":
        return "" if _writes_small(value, counted) else given[0]
    if name in _SILENT or (name in _NAMING and " " not in value):
        return given[0]
    before = f"{name.removeprefix('data-').removeprefix('aria-')}: "
    hidden = hidden_in_text(before + value, counted)
    if hidden == before + value:
        return given[0]
    return f'{given[1]}="{escape(hidden.removeprefix(before), quote=True)}"'


def _style(found: re.Match[str], counted: Counted) -> str:
    return found[1] if _writes_small(found[2], counted) else found[0]


def _writes_small(style: str, counted: Counted) -> bool:
    """Whether a style's quoted words say a small count."""
    quoted = (one[0][1:-1] for one in _QUOTED.finditer(style))
    return any(hidden_in_text(one, counted) != one for one in quoted)


def _without_notes(markup: str) -> str:
    """Without comments that hold a figure or markup; one that nobody closed goes on to the end."""
    if not _COMMENT.search(markup):
        return markup
    first, *notes = _COMMENT.split(markup)
    parts = [first]
    for place, note in enumerate(notes):
        said, closed, behind = note.partition("-->")
        if not closed and place < len(notes) - 1:
            parts.append("<!--" + note)
        elif not _FIGURE.search(said):
            parts += ["<!--", said, closed, behind]
        else:
            parts.append(behind)
    return "".join(parts)
