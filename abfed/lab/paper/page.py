"""The page that a report stands on: markup and style, no script, nothing from outside.

The same style goes with cards in notebooks, so that what is seen while working and what is printed
look alike. Colours are those of Okabe and Ito (2008), told apart by people with any colour vision.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from abfed.lab.paper.vouched import vouched

if TYPE_CHECKING:
    from abfed.lab.finished import Finished
    from abfed.protocol.plan import Plan

SOURCE_HEX = 16  # digits of a digest that name a source

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
ARM_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
INK, SOFT_INK, RULE = "#1b2733", "#5b6875", "#dfe4e9"


def scoped(style: str) -> str:
    """A style whose selectors name our class twice.

    Else JupyterLab's own, for whatever a cell shows, would win: it fixes the width of columns until
    figures lie on one another.
    """
    return style.replace(".abfed ", ".abfed.abfed ").replace(".abfed.card", ".abfed.abfed.card")


_STYLE = """
.abfed{color:#1b2733;font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
Arial,"Liberation Sans",sans-serif}
.abfed h1{font-size:1.9em;line-height:1.2;margin:.15em 0 .3em;letter-spacing:-.01em;font-weight:650}
.abfed h2{font-size:1.2em;margin:0 0 .6em;font-weight:650}
.abfed h3{font-size:1em;margin:1.2em 0 .3em;font-weight:650}
.abfed p{margin:.4em 0 .7em;max-width:72ch}
.abfed .kicker{color:#5b6875;font-size:.8em;letter-spacing:.07em;text-transform:uppercase}
.abfed .soft{color:#5b6875;font-size:.9em}
.abfed td .soft{font-size:.94em}
.abfed .scroll{overflow-x:auto}
.abfed table{border-collapse:collapse;width:100%;font-size:.92em;margin:.3em 0 .6em;border:0;
table-layout:auto}
.abfed th,.abfed td{text-align:left;padding:.45em .9em .45em 0;border:0;
border-bottom:1px solid #dfe4e9;vertical-align:top;background:none;white-space:normal}
.abfed thead th{color:#5b6875;font-weight:600;font-size:.88em;border-bottom:1.5px solid #9aa7b3;
vertical-align:bottom}
.abfed tbody th{font-weight:600}
.abfed tbody tr{background:none}
.abfed .long{display:inline-block;min-width:16em}
.abfed tbody th .soft{font-weight:400}
.abfed .unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.abfed td.n,.abfed th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.abfed thead th.n{white-space:normal}.abfed td code,.abfed th code,.abfed time{white-space:nowrap}
.abfed td.n+td:not(.n),.abfed th.n+th:not(.n){padding-left:.6em}
.abfed td:last-child,.abfed th:last-child{padding-right:0}
.abfed code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
background:none;padding:0;overflow-wrap:anywhere}
.abfed dl{display:grid;grid-template-columns:minmax(8em,auto) 1fr;gap:.35em 1.4em;margin:.3em 0}
.abfed dt{color:#5b6875;font-weight:400}
.abfed dd{margin:0;overflow-wrap:anywhere}
.abfed .key{border-left:4px solid #0072B2;background:#f1f6fa;padding:.8em 1.1em;margin:1em 0;
border-radius:0 6px 6px 0}
.abfed .key p{font-size:1.08em;margin:.2em 0}
.abfed .pill{display:inline-block;border-radius:1em;padding:.05em .65em;font-size:.88em;
font-weight:600;white-space:nowrap;border:1px solid currentColor}
.abfed .yes{color:#00664b}.abfed .no{color:#a84600}.abfed .open{color:#5b6875}
.abfed .warn{border-left:4px solid #D55E00;background:#fdf3ec;padding:.6em 1em;
border-radius:0 6px 6px 0;margin:.8em 0}
.abfed figure{margin:1.1em 0 1.3em}
.abfed figcaption{max-width:72ch;margin-bottom:.5em}
.abfed figure img{display:block;width:100%;height:auto;max-width:860px;min-width:600px}
.abfed details{margin:.6em 0}.abfed summary{cursor:pointer;color:#0072B2;font-weight:600}
.abfed.card{border:1px solid #dfe4e9;border-radius:8px;padding:1em 1.2em;max-width:980px;
background:#fff}
.abfed.card table{font-size:.86em}
@media (max-width:600px){.abfed dl{grid-template-columns:1fr;gap:.1em}
.abfed dd{margin-bottom:.55em}.abfed h1{font-size:1.5em}}
"""
STYLE = scoped(_STYLE)


# A part that is wider than the screen shows a shadow at the edge behind which there is more.
_PAGE_STYLE = """
:root{color-scheme:light}
body{margin:0;background:#f3f5f7}
main{max-width:980px;margin:2.2em auto;padding:2.4em 3em 2.6em;background:#fff;border-radius:10px;
box-shadow:0 1px 3px rgba(20,35,50,.12);box-sizing:border-box}
main section{margin:0;padding:1.5em 0 .5em;border-top:1px solid #dfe4e9}
main section.first{border:0;padding-top:0}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
main .scroll{background:linear-gradient(to right,#fff 1.6em,#fff0 3.2em) left,
linear-gradient(to left,#fff 1.6em,#fff0 3.2em) right,
radial-gradient(farthest-side at 0 50%,#1b273340,#1b273300) left,
radial-gradient(farthest-side at 100% 50%,#1b273340,#1b273300) right;background-repeat:no-repeat;
background-size:3.2em 100%,3.2em 100%,.9em 100%,.9em 100%;
background-attachment:local,local,scroll,scroll}
main figure img{mix-blend-mode:multiply}
main.wide{max-width:1280px}
main footer{border-top:1px solid #dfe4e9;margin-top:1.5em;padding-top:.8em}
@media (max-width:700px){main{margin:0;padding:1.3em 1.1em;border-radius:0}}
@media print{body{background:#fff}main{box-shadow:none;margin:0;padding:0;max-width:none}
main .scroll{background:none}section,figure,tr{break-inside:avoid}details{display:none}
.abfed{font-size:12px}}
"""


def page_style() -> str:
    """The style of a whole page, besides that of its parts."""
    return _PAGE_STYLE


def page(title: str, body: str) -> str:
    """A whole page around a report's body; its policy forbids the browser to load anything."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{_PAGE_STYLE}</style>\n</head>\n"
        f'<body>\n<main class="abfed">\n{body}\n</main>\n</body>\n</html>\n'
    )


SYNTHETIC = "synthetic"
"""The source of figures about made-up people."""
WIDE = 9  # columns; more don't fit on paper at the usual size
LONG = 30  # characters; a longer text gets room, so that it doesn't become a column of words
COUNT = "data-count"
"""Marks a cell that counts people."""
COUNTS_NAMED = "data-counts-named"
"""Marks a table whose maker said which columns count people, were it none."""


def title(run: Finished) -> str:
    """What the report is called; a simulation, or a run without privacy, says so first."""
    named = run.report.title or run.plan.name
    if run.plan.privacy.unprotected:
        named = f"NOT PRIVATE: {named}"
    return f"SIMULATION: {named}" if run.plan.simulation is not None else named


def plan_source(plan: Plan) -> str:
    """The source of figures that follow from a plan alone."""
    return f"plan:{plan.digest[:SOURCE_HEX]}"


class Fragment(str):
    """Markup that a notebook shows as such, in our style."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="abfed">{self}</div>' if self else ""


def section(heading: str, *parts: str) -> str:
    """A section with its heading."""
    return vouched(f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>")


def opening(kicker: str, *parts: str) -> str:
    """A page's first section: what kind of page it is, and markup."""
    above = f'<div class="kicker">{escape(kicker)}</div>'
    return vouched(f'<section class="first">{above}{"".join(parts)}</section>')


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    source: str,
    numeric: Iterable[int] = (),
    counts: Iterable[int] | None = None,
    judged: bool = False,
) -> str:
    """A table of cells that are markup already; the first column is each row's heading.

    Args:
        head: plain text above each column.
        rows: cells; escape what isn't markup.
        source: what its figures were computed from: `Run.source`, `plan_source(plan)` or, in a
            simulation, `SYNTHETIC`. The disclosure gate refuses a table without, or with another.
        numeric: columns whose figures stand under one another.
        counts: columns that count people, of which the disclosure gate hides the small ones. Where
            they aren't named, the gate judges each column itself (`hiding`).
        judged: whether it judges the others although some are named.
    """
    wide = _class("wide" if len(head) > WIDE else "")
    counted = set(counts or ())
    named = "" if counts is None or judged else f" {COUNTS_NAMED}"
    right = set(numeric) | counted
    kinds = [
        _class("n" if place in right else "") + (f" {COUNT}" if place in counted else "")
        for place in range(len(head))
    ]
    top = "".join(
        f'<th scope="col"{kind.removesuffix(f" {COUNT}")}>{escape(text)}</th>'
        for kind, text in zip(kinds, head, strict=True)
    )
    body = []
    for row in rows:
        first, *others = row
        cells = [f'<th scope="row">{first}</th>']
        cells += [f"<td{kind}>{one}</td>" for kind, one in zip(kinds[1:], others, strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0">'
        f'<table{wide}{named} data-source="{escape(source, quote=True)}">'
        f"<thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms (plain text) and what they are (markup)."""
    return "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{b}</dd>" for a, b in pairs) + "</dl>"


def pill(text: str, kind: str) -> str:
    """A word that stands out; said in words as well as in colour."""
    return f'<span class="pill {kind}">{escape(text)}</span>'


def under(figure: str, *below: str) -> str:
    """A figure in a cell, with what belongs to it below, in small."""
    lines = "".join(f'<br><span class="soft">{one}</span>' for one in below if one)
    return f"{figure}{lines}"


def roomy(markup: str) -> str:
    """A cell's words with room to be read on a narrow screen, where they need any."""
    return f'<span class="long">{markup}</span>' if len(markup) > LONG else markup


def picture(svg: bytes, caption: str) -> str:
    """A picture inside the page, its caption read out in its place where it can't be seen."""
    data = base64.b64encode(svg).decode()
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div class="scroll" tabindex="0"><img alt="{escape(caption, quote=True)}" '
        f'src="data:image/svg+xml;base64,{data}"></div></figure>'
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
