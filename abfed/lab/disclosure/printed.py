"""Rows of figures that were printed or typed, told by their form.

It is a heuristic: `docs/reports.md` says what it doesn't see.
"""

from __future__ import annotations

import re
from html import unescape

_DIGIT = re.compile(r"\d")
_FIGURE = re.compile(r"[-+−]?\d[\d,.]*(?:e[-+]?\d+)?%?", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s;|&│┃()\[\]{}'\"]+|:\s|,(?!\d{3}(?!\d))")
"""What stands between the cells of a row, as frames, lists, tuples, JSON, LaTeX print theirs."""
_GROUPED = re.compile(r"[-+−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_OPENED = re.compile(r"([\[({,])\s{1,80}")
_CLOSED = re.compile(r"[\])}]\s{0,80},\s{0,80}")
"""Lists of lists: on one line, or indented with each figure on its own."""
_APART = re.compile(r"\s{2,}|\t|\s{0,9}[;|&│┃]\s{0,9}|,(?! )")
"""What stands between the two cells of a row of one figure: no word of a sentence ends so."""
_SERIES = re.compile(
    r"^(?:Freq: [^\n,]{0,20}, )?(?:Name: [^\n]{0,99}, )?(?:Length: \d+, )?dtype: \w+$", re.MULTILINE
)
_TABLE = re.compile(r"<table\b", re.IGNORECASE)
_TABLE_ENDS = re.compile(r"</table\b", re.IGNORECASE)
_BROKEN = ("<br", "<textarea", "<xmp", "<listing", "<plaintext", "white-space")
_KEEPS = re.compile(r"<(?:br|textarea|xmp|listing|plaintext)\b|white-space\s*:\s*(?:pre|b)")
"""What keeps lines apart besides `<pre>`; the words are found faster."""
_BREAK = re.compile(
    r"(?:<br\b[^<>]*>\s{0,9})?(?:</?(?:d[dlt]|h[1-6])\b[^<>]*>\s{0,9})+|<br\b[^<>]*>", re.IGNORECASE
)
"""Where a line ends for a reader: headings, terms, and what they are, stand on their own lines."""
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_PRE = re.compile(r"<pre\b[^<>]*>", re.IGNORECASE)
_PRE_ENDS = re.compile(r"</pre\b", re.IGNORECASE)
_ROW = re.compile(r"<tr\b", re.IGNORECASE)
_LONGEST_NAME = 80  # characters of a row's name
_ROWS = 2  # lines of figures under one another that make a table


def is_printed(text: str) -> bool:
    """Whether rows stand under one another, as a frame prints itself, or as a list of lists."""
    lists = (one.rstrip() for one in _CLOSED.split(_OPENED.sub(r"\1 ", text)))
    return _has_rows(text) or _has_rows("\n".join(lists)) or bool(_SERIES.search(text))


def is_typed(source: str, rendered: str) -> bool:
    """Whether Markdown holds a table with figures.

    Args:
        source: as it was typed.
        rendered: the same as markup, where a table is one whatever its bars look like.
    """
    rows = sum(bool(_DIGIT.search(_TAG.sub("", one))) for one in _ROW.split(rendered)[1:])
    return rows >= _ROWS or sum(map(_is_typed_row, source.splitlines())) >= _ROWS


def is_set_as_rows(markup: str) -> bool:
    """Whether rows stand in what keeps its lines: `<pre>`, lines broken by hand, a style."""
    blocks = [_PRE_ENDS.split(one, maxsplit=1)[0] for one in _PRE.split(markup)[1:]]
    small = markup.lower()
    if any(one in small for one in _BROKEN) and _KEEPS.search(small):
        first, *tables = _TABLE.split(markup)
        behind = (_TABLE_ENDS.split(one, maxsplit=1)[1:] for one in tables)
        # Sentences with figures above and below a table are no rows: it stands between them.
        around = "\n\n".join([first, *(one for rest in behind for one in rest)])
        blocks.append(_BREAK.sub("\n", around))
    return any(is_printed(unescape(_TAG.sub("", one))) for one in blocks)


def _is_typed_row(line: str) -> bool:
    """Whether a line of Markdown is a table's row with a figure in it."""
    row = line.strip()
    return len(row) > 2 and row[0] == row[-1] == "|" and bool(_DIGIT.search(row))


def _has_rows(text: str) -> bool:
    rows = 0
    for line in text.splitlines():
        words = _cells(line)
        figures = sum(bool(_FIGURE.fullmatch(word)) for word in words)
        row = len(words) >= 3 and figures >= 2
        rows = rows + 1 if row or _is_named_figure(line) else 0
        if rows >= _ROWS:
            return True
    return False


def _is_named_figure(line: str) -> bool:
    """Whether a line is a name and a figure set apart from it, as a frame of one column prints."""
    given = line.rstrip(" \t;|&│┃\\")
    parts = [one for one in _APART.split(given.strip(" |│┃")) if one]
    if len(parts) != 2 or _GROUPED.fullmatch(given.strip()):
        return False
    return bool(_FIGURE.fullmatch(parts[1])) and len(parts[0]) <= _LONGEST_NAME


def _cells(line: str) -> list[str]:
    """A line's words; commas alone part them where it isn't one long number."""
    given = line.strip()
    if given.count(",") >= 2 and " " not in given and not _GROUPED.fullmatch(given):
        return [word.strip("'\"()[]{}") for word in given.split(",")]
    return [word for word in _BETWEEN.split(line) if word]
