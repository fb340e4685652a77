"""Pictures in which a small count is written are left out as a whole, and a line says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from typing import Any

from abfed.lab.hidden_text import SMALL
from abfed.lab.pictures import DEEPEST, PACKED, PNG, SVG, content_of, packed_in
from abfed.lab.written import Told, digest_of

LEFT_OUT = f'<p class="soft">A picture is left out: a count below {SMALL} is written in it.</p>'
_PICTURES = (PNG, SVG)
_MARKUP = {"text/html", "text/markdown", SVG}
_NOTE = re.compile(r"<!-- ([^<]*?) -->")
_IMAGE = re.compile(r"<img\b[^<>]*>", re.IGNORECASE)


def leave_out(data: dict[str, Any], small: frozenset[str], told: Told) -> None:
    """Leave out the pictures in which a small count is written, and say so in their place.

    Args:
        data: is changed.
        small: their digests.
        told: the words of all: a drawing that was written anew, as IPython's `SVG` does, has
            another digest and the same comments.
    """
    if not small:
        return
    said = [set(told.by_digest[one].lines()) for one in small]

    def tells(picture: bytes, depth: int = 0) -> bool:
        if digest_of(picture) in small or _is_written_anew(picture, said):
            return True
        if depth == DEEPEST or b"data:" not in picture:
            return False
        return any(tells(one, depth + 1) for one in packed_in(picture.decode(errors="replace")))

    def image(tag: re.Match[str]) -> str:
        return LEFT_OUT if any(map(tells, packed_in(tag[0]))) else tag[0]

    def packed(found: re.Match[str]) -> str:
        return "data:," if any(map(tells, packed_in(found[0]))) else found[0]

    shown = {kind: data[kind] for kind in _PICTURES if kind in data}
    files = [
        content_of(one) if kind == PNG else one.encode(errors="replace")
        for kind, one in shown.items()
    ]
    if any(map(tells, files)):
        for kind in {*shown, "text/plain"} & set(data):
            del data[kind]
        data.setdefault("text/html", LEFT_OUT)
    for kind in _MARKUP & set(data):
        data[kind] = PACKED.sub(packed, _IMAGE.sub(image, data[kind]))


def _is_written_anew(picture: bytes, said: Sequence[set[str]]) -> bool:
    """Whether a drawing has all words of one of those in its comments."""
    if b"<svg" not in picture:
        return False
    notes = {unescape(one) for one in _NOTE.findall(picture.decode(errors="replace"))}
    return any(words <= notes for words in said)
