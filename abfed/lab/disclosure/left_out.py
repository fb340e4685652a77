"""Pictures in which a small count is written are left out as a whole, and a line says so.

A drawing (SVG) is one of the kernel's wherever it stands, also in markup itself; one that the
kernel didn't draw is judged by the words in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abfed.lab.disclosure.drawings import attributes_of, drawings_in
from abfed.lab.disclosure.hidden_text import SMALL
from abfed.lab.disclosure.pictures import DEEPEST, PACKED, PNG, SVG, content_of, packed_in
from abfed.lab.disclosure.written import Text, Told, Written, made_by_hand, shows_small

if TYPE_CHECKING:
    from abfed.lab.disclosure.counted import Counted

LEFT_OUT = f'<p class="soft">A picture is left out: a count below {SMALL} is written in it.</p>'
_PICTURES = (PNG, SVG)
_MARKUP = {"text/html", "text/markdown", SVG}
_IMAGE = re.compile(r"<img\b[^<>]*>", re.IGNORECASE)


def leave_out(data: dict[str, Any], counted: Counted, told: Told) -> None:
    """Leave out the pictures in which a small count is written, and say so in their place.

    Args:
        data: is changed.
        counted: which names count people.
        told: what is written in the kernel's pictures.
    """
    judge = _Judge(counted, told)
    shown = {kind: data[kind] for kind in _PICTURES if kind in data}
    files = [
        content_of(one) if kind == PNG else one.encode(errors="replace")
        for kind, one in shown.items()
    ]
    if any(map(judge.tells, files)):
        for kind in {*shown, "text/plain"} & set(data):
            del data[kind]
        data.setdefault("text/html", LEFT_OUT)
    for kind in _MARKUP & set(data):
        data[kind] = judge.without(data[kind])


@dataclass(frozen=True, slots=True)
class _Judge:
    """Says of which pictures a small count is told."""

    counted: Counted
    told: Told

    def tells(self, picture: bytes, depth: int = 0) -> bool:
        """Whether one is written in a picture, or in any inside it."""
        if written := self.told.of(picture):
            return shows_small(written, self.counted)
        markup = picture.decode(errors="replace")
        if self._is_drawing_of_one(markup):
            return True
        if depth == DEEPEST or "data:" not in markup:
            return False
        return any(self.tells(one, depth + 1) for one in packed_in(markup))

    def _is_drawing_of_one(self, file: str) -> bool:
        """Whether a file is a drawing that tells one: it goes to its end, whatever comes before."""
        found = drawings_in(file)
        if len(found) > 1 or (found and file[found[0][1] :].strip()):
            found = [(found[0][0], len(file))]
        return any(self._draws(file[start:end]) for start, end in found)

    def _draws(self, drawing: str) -> bool:
        if written := self.told.of_drawing(drawing):
            beside = Written(tuple(map(Text, attributes_of(drawing))))  # these make no print
            return shows_small(written, self.counted) or shows_small(beside, self.counted)
        return shows_small(made_by_hand(drawing), self.counted)

    def without(self, markup: str) -> str:
        """Markup without drawings, images and anything packed that tells one."""
        parts, at = [], 0
        for start, end in drawings_in(markup):
            if self._draws(markup[start:end]):
                parts += [markup[at:start], LEFT_OUT]
                at = end
        bare = "".join([*parts, markup[at:]])
        return PACKED.sub(self._packed, _IMAGE.sub(self._image, bare))

    def _image(self, tag: re.Match[str]) -> str:
        return LEFT_OUT if any(map(self.tells, packed_in(tag[0]))) else tag[0]

    def _packed(self, found: re.Match[str]) -> str:
        return "data:," if any(map(self.tells, packed_in(found[0]))) else found[0]
