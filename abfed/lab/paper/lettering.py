"""The words of a drawing as text on paper: drawn letter by letter they take most of a PDF's time.

Matplotlib draws each letter of an SVG as a path and leaves the words in a comment before them. For
paper those words are set as text where their letters stood, in the same font and size; whoever
reads the PDF can then select and search them too. Words whose letters aren't exactly what the
comment says, such as formulas, stay as they were drawn. The disclosure gate has read the comments:
they are text of the drawing.
"""

from __future__ import annotations

import base64
import re
from html import escape, unescape
from typing import NamedTuple

WIDTH = 182
"""Millimetres that a drawing takes on paper: A4 within its margins."""
TALLEST = 225
"""Millimetres: a taller drawing is made smaller, so that it stands whole below its caption."""
POINTS = 72 / 25.4  # of a millimetre
UNITS = 100
"""Points of the font size for which matplotlib writes the paths of letters."""
MIDDLE = 0.346
"""Of the font's size: from the middle of a line of DejaVu Sans down to where its letters stand."""
SHEET = f"""
.abfed .drawing{{position:relative;width:{WIDTH}mm;color:#000}}
.abfed .drawing b{{position:absolute;line-height:0;white-space:pre;font-family:"DejaVu Sans";
font-weight:400;width:{WIDTH}mm;margin-top:-{MIDDLE}em;transform-origin:0 {MIDDLE}em}}
"""
_DRAWING = re.compile(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([\w+/=]+)" ?/?>')
_SIZE = re.compile(r'<svg\b[^>]*\bviewBox="0 0 ([\d.]+) ([\d.]+)"')
_WORDS = re.compile(
    r"<!-- ([^\n]{1,400}) -->\s*"
    r'<g(?: style="fill: (#[0-9a-f]{6})")? transform="translate\((-?[\d.]+) (-?[\d.]+)\)'
    r'(?: rotate\((-?[\d.]+)\))? scale\(([\d.]+) -[\d.]+\)">\s*'
    r"((?:<defs>(?:\s*<path [^>]*/>)*\s*</defs>\s*)?)((?:<use [^>]*/>\s*)+)</g>"
)
_OUTLINES = re.compile(r'<defs>(?:\s*<path id="DejaVuSans[^>]*/>)*\s*</defs>')
_LETTER = re.compile(
    r'<use xlink:href="#DejaVuSans(-Bold)?(-Oblique)?-[0-9a-f]+"'
    r'(?: transform="translate\((-?[\d.]+) 0\)")?/>\s*'
)


class Words(NamedTuple):
    """Some words of a drawing: where their line begins, in points of the drawing."""

    text: str
    colour: str
    x: float
    y: float
    turned: float
    size: float
    bold: bool
    slanted: bool


def lettered(page: str) -> str:
    """A page whose drawings have their words as text."""
    return _DRAWING.sub(_set, page)


def _set(image: re.Match[str]) -> str:
    """A drawing without the letters that could be read, and these as text on top of it."""
    drawn = base64.b64decode(image[2]).decode()
    size = _SIZE.search(drawn)
    if size is None:
        return image[0]
    width, height = float(size[1]), float(size[2])
    read: list[Words] = []

    def out(match: re.Match[str]) -> str:
        words = _read(match)
        if words is None:
            return match[0]
        read.append(words)
        return match[7]  # letters are defined where they are first drawn, and used further down

    rest = _WORDS.sub(out, drawn)
    if 'href="#DejaVuSans' not in rest:
        rest = _OUTLINES.sub("", rest)
    left = base64.b64encode(rest.encode()).decode()
    wide = min(WIDTH, TALLEST * width / height)
    scale = wide * POINTS / width
    texts = "".join(_placed(one, width, height, scale) for one in read)
    smaller = f' style="width:{wide:.2f}mm"' if wide < WIDTH else ""
    return (
        f'<div class="drawing"{smaller}><img alt="{image[1]}" '
        f'src="data:image/svg+xml;base64,{left}">{texts}</div>'
    )


def _read(match: re.Match[str]) -> Words | None:
    """The words of some letters; None where the letters may be others than the comment says."""
    text = unescape(match[1])
    letters = [one.groups() for one in _LETTER.finditer(match[8])]
    joined = len(text) - len(letters)  # two or three letters can be one: a ligature
    faces = {(bool(bold), bool(slanted)) for bold, slanted, _ in letters}
    if _LETTER.sub("", match[8]) or len(faces) != 1 or not 0 <= joined <= text.count("f"):
        return None
    ((bold, slanted),) = faces
    return Words(text, match[2] or "", float(match[3]), float(match[4]), float(match[5] or 0),
                 float(match[6]) * UNITS, bold, slanted)  # fmt: skip


def _placed(words: Words, width: float, height: float, scale: float) -> str:
    """Words as markup over the drawing: a line without height, its font's middle on its middle."""
    style = [
        f"left:{100 * words.x / width:.4f}%",
        f"top:{100 * words.y / height:.4f}%",
        f"font-size:{words.size * scale:.4f}pt",
    ]
    style += [f"color:{words.colour}"] * bool(words.colour)
    style += [f"transform:rotate({words.turned:g}deg)"] * bool(words.turned)
    style += ["font-weight:700"] * words.bold + ["font-style:oblique"] * words.slanted
    return f'<b style="{";".join(style)}">{escape(words.text)}</b>'
