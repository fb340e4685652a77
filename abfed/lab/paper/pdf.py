"""The page as PDF, through WeasyPrint: no browser, the same bytes each time.

The words of its drawings are set as text (`lettering`).

It renders the HTML that was written, with a sheet for paper on top: A4, what is folded away is
open, a table wider than the paper wraps instead of being cut, its head repeats on each page; one
of very many columns is set as parts below one another, each with its rows' headings. It can load
nothing: whatever isn't inside the page is refused.
"""

from __future__ import annotations

import gc
import itertools
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from abfed.lab.paper import lettering, press
from abfed.lab.paper.page import scoped
from abfed.protocol.errors import InputError, IntegrityError

SHEET = """
@page{size:A4;margin:16mm 14mm 18mm;
@bottom-right{content:counter(page) " / " counter(pages);color:#5b6875;
font:8pt "Liberation Sans",Arial,sans-serif}
@bottom-left{content:string(title);font:8pt "Liberation Sans",Arial,sans-serif;color:#5b6875}}
h1{string-set:title content()}
body{background:#fff}
main{box-shadow:none;margin:0;padding:0;max-width:none;border-radius:0}
.abfed{font:9.4pt/1.45 "Liberation Sans",Arial,"DejaVu Sans",sans-serif}
.abfed section{break-inside:auto}
.abfed h2,.abfed h3,.abfed figcaption{break-after:avoid}
.abfed figure,.abfed tr,.abfed .key,.abfed .warn{break-inside:avoid}
.abfed .scroll,.abfed tbody tr:last-child{break-before:avoid}
.abfed tbody tr:first-child{break-after:avoid}
.abfed thead{display:table-header-group}
.abfed .scroll{overflow:visible}
.abfed table{width:100%;table-layout:auto;font-size:8.2pt}
.abfed th,.abfed td{padding:.35em .6em .35em 0;overflow-wrap:break-word}
.abfed table.wide{font-size:6.6pt}
.abfed table.wide th,.abfed table.wide td{overflow-wrap:anywhere;padding-right:.35em}
.abfed td.n,.abfed th.n{white-space:normal}
.abfed figure img{min-width:0;max-width:100%;width:100%}
.abfed dl{display:block;break-inside:avoid}.abfed dt{float:left;clear:left;width:9.5em}
.abfed dd{margin:0 0 .35em 10.5em}
.abfed code{font-family:"Liberation Mono","DejaVu Sans Mono",monospace}
details{display:block}.abfed summary{list-style:none;color:#1b2733}
details>*{display:block}
.abfed .long{display:inline}
.screen,.abfed .unseen{display:none}
"""

MANY = 14  # columns; of more, figures would be broken into single digits
PART = 8  # columns beside the heading that fit without
_WIDE = re.compile(r'<table class="wide"([^>]*)>(.*?)</table>', re.DOTALL)
_ROW = re.compile(r"<tr[^>]*>(.*?)</tr>", re.DOTALL)
_CELL = re.compile(r"<(t[hd])\b.*?</\1>", re.DOTALL)


def as_pdf(html: str) -> bytes:
    """A page as PDF.

    Raises:
        InputError: the libraries that WeasyPrint draws with aren't on this machine, or elements of
            the page lie too deep within one another.
        IntegrityError: the page asks for something that isn't inside it.
    """
    document = laid_out(html)
    from weasyprint.urls import FatalURLFetchingError

    try:
        with _uncollected():
            data: bytes = document.write_pdf(pdf_identifier=b"abfed")
    except RecursionError as cause:
        raise InputError(
            "the page can’t be laid out on paper",
            why="its elements lie hundreds deep within one another",
            do="leave pdf out, or show less deep",
        ) from cause
    except FatalURLFetchingError as cause:
        raise IntegrityError(
            "the page asks for something from outside", do="put it inside"
        ) from cause
    return data


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: a page is a hundred thousand objects, in use until it is written.

    Looking through them again and again takes a third of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def laid_out(html: str) -> Any:
    """A page with the sheet for paper, as WeasyPrint's document.

    Raises:
        InputError: the libraries that WeasyPrint draws with aren't on this machine.
    """
    try:
        weasyprint = press.weasyprint()
    except OSError as cause:
        raise InputError(
            "no PDF can be made on this machine",
            why="WeasyPrint doesn't find the Pango library",
            do="install it (Debian: apt-get install libpango-1.0-0 libpangoft2-1.0-0)",
        ) from cause
    logging.getLogger("weasyprint").setLevel(logging.CRITICAL)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    # Paper has no hinges: what is folded away on a screen is printed.
    opened = folded(lettering.lettered(html.replace("<details>", "<details open>")))
    opened = opened.replace("</style>", f"{scoped(SHEET + lettering.SHEET)}</style>", 1)
    inside = weasyprint.urls.URLFetcher(allowed_protocols=("data",), fail_on_errors=True)
    return weasyprint.HTML(string=opened, url_fetcher=inside)


def folded(html: str) -> str:
    """A page whose tables of very many columns stand in parts below one another."""
    return _WIDE.sub(_in_parts, html)


def _in_parts(found: re.Match[str]) -> str:
    """Tables of some columns each, with the first one before them; the same if it has no grid."""
    rows = [[one[0] for one in _CELL.finditer(row)] for row in _ROW.findall(found[2])]
    columns = len(rows[0]) if rows else 0
    if columns <= MANY or any(len(row) != columns for row in rows):
        return found[0]
    parts = math.ceil((columns - 1) / PART)
    edges = [1 + part * (columns - 1) // parts for part in range(parts + 1)]
    tables = []
    for start, end in itertools.pairwise(edges):
        head, *body = (f"<tr>{''.join((row[0], *row[start:end]))}</tr>" for row in rows)
        inside = f"<thead>{head}</thead><tbody>{''.join(body)}</tbody>"
        tables.append(f"<table{found[1]}>{inside}</table>")
    return "".join(tables)
