"""Small counts in what a kernel shows in words: Markdown, formulas, markup of whatever kind, text.

Each number is put together while the notebook runs. One kernel shows them all.
"""

import json
import re
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

import abfed.lab
from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.gate import Allowed, findings
from abfed.lab.disclosure.hiding import hide_small
from abfed.lab.paper.page import STYLE
from abfed.lab.paper.vouched import Vouched
from abfed.lab.reports.exporting import as_html, as_notebook
from tests.lab.example import example_values
from tests.lab.shown import in_a_kernel

START = """
import logging, sys
from collections import namedtuple
from dataclasses import dataclass
from IPython.display import HTML, Latex, Markdown, Math, display
from abfed.lab.views.cards import plan_card
from abfed.lab.paper.page import Fragment, facts, paragraph, section
from abfed.protocol.plan import Plan
n = sum([1, 2])
@dataclass
class Found:
    opened: int
    arm: str
Row = namedtuple('Row', 'opened arm')
plan = Plan.from_values(VALUES)
"""
SMALL = {
    "a phrase": "Markdown(f'**{n}** buyers')",
    "code": "Markdown(f'`{n}` new buyers')",
    "a formula": "Markdown(f'$n={n}$')",
    "a list": "Markdown(f'- warm\\n    - *{n}* buyers\\n    - cold: {n}')",
    "a heading": "Markdown(f'# {n} buyers')",
    "an entity": "Markdown(f'&#{48 + n}; buyers')",
    "an entity with a space": "Markdown(f'{n}&nbsp;buyers')",
    "full width": "Markdown(chr(0xff10 + n) + ' buyers')",
    "a superscript": "Markdown('³ buyers' * (n == 3))",
    "Arabic digits": "Markdown(chr(0x660 + n) + ' buyers')",
    "nothing between": "Markdown(f'{n}\\u200b\\u2009buyers')",
    "a word": "Markdown(['', '', '', 'three'][n] + ' of 20 bought')",
    "markup": "Markdown(f'<b>{n}</b> buyers')",
    "a comment": "Markdown(f'warm <!-- {n} buyers -->')",
    "a table of one row": "Markdown(f'| opened |\\n|---|\\n| {n} |')",
    "a title": "Markdown(f'[x](#x \"{n} buyers\")')",
    "a line broken": "Markdown(f'only\\n{n}\\nof them bought')",
    "latex": "Latex(f'$n={n}$ buyers')",
    "bold latex": "Latex(rf'$\\mathbf{{{n}}}$ of 20')",
    "math": "Math(f'n={n}')",
    "an approximate formula": "Math(rf'n \\approx {n}')",
    "math with braces": "Math(rf'n_{{\\text{{opened}}}} = {{{n}}}')",
    "a part": "HTML(f'<p><strong>{n}</strong> of 20</p>')",
    "a fraction": "HTML(f'<p><span>{n}</span> / <span>20</span></p>')",
    "a remark": "HTML(f'<p>warm</p><!-- {n} <b>buyers</b> -->')",
    "an input": "HTML(f'<input value={n}>')",
    "a meter": "HTML(f'<meter value=\"{n}\" max=20></meter>')",
    "a progress": "HTML(f\"<progress value='{n}' max=20></progress>\")",
    "a text area": "HTML(f'<textarea>{n} buyers</textarea>')",
    "an option": "HTML(f'<select><option>{n} buyers</option></select>')",
    "a button": "HTML(f'<button>{n}</button>')",
    "a tip": "HTML(f'<p title=\"{n} buyers\">x</p>')",
    "a tip in a part": "HTML(f'<p>x <b title=\"n = {n}\">y</b></p>')",
    "a label": "HTML(f'<p aria-label=\"{n} buyers\">x</p>')",
    "a placeholder": "HTML(f'<input placeholder=\"{n} buyers\">')",
    "what a picture says": "HTML(f'<img alt=\"{n} buyers\" src=\"data:,\">')",
    "data": "HTML(f'<p data-buyers={n}>x</p>')",
    "details": "HTML(f'<details><summary>{n}</summary>{n} buyers</details>')",
    "a caption": "HTML(f'<figure><figcaption>{n} of 20</figcaption></figure>')",
    "a label of an input": "HTML(f'<label>opened: {n}</label>')",
    "a place in a list": "HTML(f'<ul><li value={n}>x</ul><ol start=\"{n}\"><li>x</ol>')",
    "a mark of a list": "HTML(f'<ul style=\"list-style-type: \\'{n} buyers\\'\"><li>x</ul>')",
    "a style": "HTML(f'<style>ul{{list-style-type:\"{n} buyers\"}}</style><ul><li>x</ul>')",
    "a template": "HTML(f'<template>{n} buyers</template><noscript>{n} buyers</noscript>')",
    "names": "HTML(f'<p id=\"{n} buyers\">x</p><a href=\"#{n} buyers\">x</a>')",
    "a mark of a note": "HTML(f'<p>{n}<sup>a</sup> buyers, {n}<!-- < --> buyers</p>')",
    "a caption of a table": "HTML(f'<p>x</p><table data-source=\"plan:x\"><caption>{n} buyers'"
    "f'</caption>{n} buyers<tr><td title=\"{n} buyers\">x</td></tr>{n} of 20</table>')",
    "beside one another": "HTML(f'<b>{n}</b><i>buyers</i>')",
    "a box like ours": "HTML(f'<div class=\"abfed\"><p>{n} buyers</p></div>')",
    "a fragment": "Fragment(f'<p>{n} buyers</p>')",
    "a section of one's own": "Fragment(section('x', paragraph(f'{n} buyers')))",
    "facts of one's own": "Fragment(section('x', facts([('buyers', str(n))])))",
    "printed": "print(f'only {n} new buyers')",
    "logged": "logging.basicConfig(stream=sys.stdout, force=True); logging.warning('%d bought', n)",
    "a value": "n",
    "a text": "f'there were {n} who bought'",
    "a tuple": "(n, 12)",
    "a named tuple": "Row(n, 'warm')",
    "a dataclass": "Found(n, 'warm')",
    "told beside": "display(HTML('<p>x</p>'), metadata={'note': f'{n} buyers'})",
    "words beside markup": "display({'text/html': '<p>x</p>', 'text/markdown': f'{n} buyers', "
    "'text/latex': f'${n}$ buyers'}, raw=True)",
}  # fmt: skip
FINE = {
    "words": "Markdown(f'**{n}** silos took part in `{n}` rounds')",
    "a list": "Markdown('1. first\\n2. second\\n\\nstep 3 of 9')",
    "a formula": "Math(r'\\varepsilon = 2')",
    "a shape": 'HTML(\'<p style="font-size: 3px" class="n3">x</p><td colspan=3>\')',
    "a comment": "HTML('<p>x</p><!-- words -->')",
    "an attribute": 'HTML(\'<p data-round="3" title="3 silos">x</p>\')',
    "printed": "print('batch size: 8, k = 5, took 5 s')",
    "a card": "HTML(plan_card(plan))",
}
FINE = FINE | {"a plan": "plan"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """One kernel's outputs for all cells, and what it vouches for."""
    values = example_values()
    values["report"] = values.get("report", {}) | {"title": "Whether 3 buyers come back"}
    cells = [new_code_cell(START.replace("VALUES", repr(values)))]
    for group, sources in (("small", SMALL), ("fine", FINE)):
        cells += [new_code_cell(f"{one}", metadata={"name": f"{group}: {name}"})
                  for name, one in sources.items()]  # fmt: skip
    cells_shown, done = in_a_kernel(tmp_path_factory.mktemp("shown"), cells)
    return cells_shown, done.made


def document_of(shown, name):
    cell = new_code_cell("x", outputs=shown[0][name].outputs)
    assert cell.outputs
    return new_notebook(cells=[cell])


def visible(document):
    """What a page and a notebook carry of it, without the gate's own words."""
    page = as_html(document, "x").partition("<main")[2]
    (output,) = json.loads(as_notebook(document))["cells"][0]["outputs"]
    forms = [line for form in output.get("data", {}).values() for line in form]
    told = [*output.get("text", []), str(output.get("metadata", ""))]
    held = "".join([page, *forms, *told]).replace(f"<style>{STYLE}</style>", "")
    return held.replace("&lt; 10", "").replace("< 10", "")


@pytest.mark.privacy
@pytest.mark.parametrize("name", SMALL)
def test_a_small_count_is_hidden_in_whatever_a_kernel_shows(shown, name):
    document = document_of(shown, f"small: {name}")
    assert not list(findings(document, Allowed(frozenset({"plan:x"}))))
    held = visible(hide_small(document, Counted(), made=shown[1]))
    assert not any(one in held for one in ("3", "³", "three", "\uff13", "\u0663", "&#51"))


@pytest.mark.parametrize("name", FINE)
def test_what_counts_nobody_is_shown(shown, name):
    document = document_of(shown, f"fine: {name}")
    before = json.dumps(document)
    assert json.dumps(hide_small(document, Counted(), made=shown[1])) == before


@pytest.mark.privacy
def test_a_card_that_nobody_vouches_for_is_judged(shown):
    document = document_of(shown, "fine: a card")
    held = hide_small(document, Counted(), made=Vouched()).cells[0].outputs[0]
    assert "Whether &lt; 10 buyers" in held.data["text/html"]


@pytest.mark.parametrize(
    "line", ["", "{", "3", "[3]", "[" * 100_000, '["a", 3]', "[1, 2, 3]", "null", "[[], []]"]
)
def test_a_kernel_that_vouches_nonsense_vouches_for_nothing(tmp_path, line):
    file = tmp_path / "vouched"
    file.write_text(line)
    assert not Vouched.read(file).known
    assert not Vouched.read(tmp_path / "none").known


def test_a_kernel_that_vouches_without_end_vouches_for_nothing(tmp_path, monkeypatch):
    file = tmp_path / "vouched"
    file.write_text('[3, "a"]')
    assert Vouched.read(file).known
    monkeypatch.setattr("abfed.lab.paper.vouched.MOST_TOLD", 4)
    assert not Vouched.read(file).known


def test_sections_are_made_in_one_place_where_they_are_vouched_for():
    files = Path(abfed.lab.__file__).parent.rglob("*.py")
    made = {file.name for file in files if re.search("<section[ >]", file.read_text())}
    assert made == {"page.py"}
