"""Markup that loads or runs something, in letters of whatever case.

A page's own policy forbids it too; a notebook or a Markdown file that goes out has no policy.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_OUTSIDE = tuple(
    re.compile(one)
    for one in (
        r"<\s*(?:script|link|iframe|object|embed|base|form|meta|foreignobject|audio|video)\b",
        r"on(?<=\bon)\w+\s*=\s*[\"']", r"@import", r"srcset(?<=\bsrcset)\s*=",
        r"src\s*=\s*[\"']?\s*(?:https?:)?[\\/]{2}", r"poster\s*=\s*[\"']?\s*(?:https?:)?[\\/]{2}",
        r"data\s*=\s*[\"']?\s*(?:https?:)?[\\/]{2}",
        r"background\s*=\s*[\"']?\s*(?:https?:)?[\\/]{2}",
        r"image-set\(", r"url\(\s*[\"']?(?!#)",
    )
)  # fmt: skip
"""In small letters; each begins with what `re` finds fast, where the page is long."""
_LINK = re.compile(r"href\s*=\s*[\"']?\s*(?!#|data:|[\"'])([^>\s]*)")
_FILE = re.compile(r"\.(?:js|css)\b")
_FAR = re.compile(r"href\s*=\s*[\"']?\s*(?:https?:)?[\\/]{2}")
_DRAWN = re.compile(rf"<\s*(?:image|use|feimage)\b[^<>]*{_FAR.pattern}")
_HANDLER = re.compile(r"on(?<=\bon)[a-z]+\s*=")


def reaches_out(markup: str) -> bool:
    """Whether markup loads or runs something."""
    small = markup.replace("\u0130", "i").casefold().replace("\u0131", "i")  # Turkish
    if any(one.search(small) for one in _OUTSIDE):
        return True
    whole = (
        small.replace("\t", "").replace("\r", "").replace("\n", "")
    )  # as browsers read addresses
    if "javascript:" in whole:
        return True
    if any(_FILE.search(one) for one in _LINK.findall(small)):
        return True
    if _FAR.search(small) and _DRAWN.search(small):  # a link to elsewhere is none of these
        return True
    return bool(_HANDLER.search(small)) and _handles(small)


def _handles(markup: str) -> bool:
    """Whether a tag has a handler without quotes, which a sentence such as `only = 3` isn't."""
    reader = _Handlers()
    reader.feed(markup)
    reader.close()
    return reader.found


class _Handlers(HTMLParser):
    """Looks for attributes that run something."""

    found = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found |= any(name.startswith("on") for name, _ in attrs)
