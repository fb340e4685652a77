"""The disclosure gate: what must not leave is found wherever a notebook can carry it."""

import base64
import json
import struct
import time
import zlib
from dataclasses import replace
from hashlib import sha256

import pytest
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.gate import Allowed, cleared, findings
from abfed.lab.disclosure.hidden_text import SMALL
from abfed.lab.disclosure.hiding import hide_small
from abfed.lab.disclosure.written import Told, Written
from abfed.lab.paper.page import SYNTHETIC, table
from abfed.protocol.errors import Withheld

SOURCE = "release:0123456789abcdef"
ALLOWED = Allowed(frozenset({SOURCE}), ("/ws/here", "planted-word"))
ADDRESS = "jane.doe@example.org"


def shown(**data):
    return new_notebook(cells=[new_code_cell("x", outputs=[new_output("display_data", data=data)])])


def html(markup):
    return shown(**{"text/html": markup})


def kinds(document, told=None):
    allowed = replace(ALLOWED, told=told or Told())
    return {one.what for one in findings(document, allowed)}


def told_of(*pictures, **written):
    """What a kernel tells of pictures in base64 that it drew."""
    files = [base64.b64decode(one) for one in pictures]
    return Told({sha256(one).hexdigest(): Written(**written) for one in files})


def svg(text):
    return "data:image/svg+xml;base64," + base64.b64encode(f"<svg>{text}</svg>".encode()).decode()


def png(text=b""):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    parts = [chunk(b"IHDR", b"\0" * 13)]
    parts += [chunk(b"tEXt", b"Comment\0" + text)] if text else []
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")).decode()


def carriers(text):
    """A notebook for each place where text can hide."""
    cell = new_code_cell("x")
    cell.metadata["note"] = text
    output = new_output("display_data", data={"text/plain": "x"}, metadata={"note": text})
    attached = new_markdown_cell("see ![](attachment:a)")
    attached["attachments"] = {"a": {"text/plain": text}}
    document = new_notebook(cells=[])
    document.metadata["author"] = text
    error = new_output("error", ename="E", evalue=text, traceback=[])
    return {
        "stream": new_notebook(cells=[new_code_cell("x", outputs=[
            new_output("stream", name="stdout", text=text)])]),
        "plain": shown(**{"text/plain": text}),
        "html": html(f"<p>{text}</p>"),
        "attribute": html(f'<p title="{text}">x</p>'),
        "escaped": html("<p>" + text.replace("@", "&#64;").replace("/", "&#x2f;") + "</p>"),
        "svg inside html": html(f'<img src="{svg(text)}">'),
        "svg": shown(**{"image/svg+xml": f"<svg><desc>{text}</desc></svg>"}),
        "png": shown(**{"image/png": png(text.encode())}),
        "markdown": new_notebook(cells=[new_markdown_cell(text)]),
        "source": new_notebook(cells=[new_code_cell(f"a = {text!r}")]),
        "cell metadata": new_notebook(cells=[cell]),
        "output metadata": new_notebook(cells=[new_code_cell("x", outputs=[output])]),
        "attachment": new_notebook(cells=[attached]),
        "notebook metadata": document,
        "error": new_notebook(cells=[new_code_cell("x", outputs=[error])]),
    }  # fmt: skip


@pytest.mark.privacy
@pytest.mark.parametrize("place", carriers("x"))
@pytest.mark.parametrize(
    "text", [ADDRESS, "0123456789abcdef0123456789abcdef", "/home/jane/key", "planted-word"]
)
def test_what_must_not_leave_is_found_in_every_place(place, text):
    document = carriers(text)[place]
    assert kinds(document)
    with pytest.raises(Withheld) as caught:
        cleared(document, ALLOWED, where="test")
    assert text not in str(caught.value)


@pytest.mark.parametrize("place", sorted(set(carriers("x")) - {"png"}))
def test_harmless_words_pass_in_every_place(place):
    assert kinds(carriers("a difference of +1.2 points")[place]) == set()


def test_a_clean_picture_passes_where_the_kernel_drew_it():
    packed = html(f'<img src="data:image/png;base64,{png()}">')
    for document in (shown(**{"image/png": png()}), packed):
        assert kinds(document, told_of(png())) == set()
        assert any("nobody can read" in what for what in kinds(document))


@pytest.mark.parametrize(
    "markup",
    ["<script>1</script>", '<img src="https://example.org/x.png">', '<img src="//example.org/x">',
     '<a onclick="x()">x</a>', "<iframe></iframe>", '<p style="background:url(http://a/b)">',
     f'<img src="{svg("<script>1</script>")}">', '<a href="javascript:x">x</a>',
     "<style>@import 'x'</style>", "<svg><foreignObject/></svg>"],
)  # fmt: skip
def test_nothing_is_loaded_and_nothing_runs(markup):
    assert any("loads or runs" in what for what in kinds(html(markup)))


@pytest.mark.parametrize("kind", ["application/javascript", "application/json", "video/mp4"])
def test_what_cannot_be_looked_into_is_refused(kind):
    assert any("looked into" in what for what in kinds(shown(**{kind: "x"})))


def test_tables_are_from_this_reports_releases():
    ours = table(["Arm", "Rate"], [["a", "1"]], source=SOURCE)
    other = table(["Arm", "Rate"], [["a", "1"]], source="release:ffffffffffffffff")
    assert kinds(html(ours)) == set()
    assert any("another release" in what for what in kinds(html(other)))
    made_up = table(["Arm", "Rate"], [["a", "1"]], source=SYNTHETIC)
    assert any("name the plan" in what for what in kinds(html(made_up)))
    assert any("isn’t from a release" in what for what in kinds(html("<table><tr></tr></table>")))


ROWS = [[1, 220, 3.5], [2, 310, 4.5], [3, 410, 5.5]]


@pytest.mark.parametrize("text", [str(ROWS), json.dumps(ROWS, indent=1), repr(tuple(ROWS))])
def test_a_list_of_rows_is_a_printed_table(text):
    stream = new_output("stream", name="stdout", text=text)
    found = kinds(new_notebook(cells=[new_code_cell("x", outputs=[stream])]))
    assert any("printed" in what for what in found)


def test_rows_inside_preformatted_markup_are_a_printed_table():
    lines = "\n".join(" ".join(map(str, row)) for row in ROWS)
    assert any("printed" in w for w in kinds(shown(**{"text/html": f"<pre>{lines}</pre>"})))
    words = "<pre>one line of words, with 3 and 4\nanother</pre>"
    assert not kinds(shown(**{"text/html": words}))


def test_printed_and_typed_tables_are_refused():
    printed = "   arm  clicks   rate\n0    a     120  0.031\n1    b     140  0.035\n"
    stream = new_output("stream", name="stdout", text=printed)
    assert any(
        "printed" in w for w in kinds(new_notebook(cells=[new_code_cell("x", outputs=[stream])]))
    )
    assert any("printed" in what for what in kinds(shown(**{"text/plain": printed})))
    typed = new_markdown_cell("| arm | rate |\n|---|---|\n| a | 0.1 |\n| b | 0.2 |")
    assert any("typed" in what for what in kinds(new_notebook(cells=[typed])))
    words = new_markdown_cell("| word | meaning |\n|---|---|\n| silo | a site |")
    assert kinds(new_notebook(cells=[words])) == set()


@pytest.mark.privacy
def test_small_cells_are_hidden_and_others_stay():
    rows = [["a", "3", "3"], ["b", "1,234 ± 22", "4"], ["c", f"{SMALL}", "5"], ["d", "0 ± 9", "6"]]
    document = html(table(["Brand", "Recipients", "Releases"], rows, source=SOURCE, counts=(1,)))
    document.cells[0].outputs[0].data["text/plain"] = "a 3"
    data = hide_small(document, Counted()).cells[0].outputs[0].data
    assert data["text/html"].count("&lt; 10") == 2
    assert "1,234 ± 22" in data["text/html"]
    assert ">10</td>" in data["text/html"]
    assert '<td class="n" data-count>' in data["text/html"]
    assert ">4</td>" in data["text/html"]  # not a count of people
    assert "text/plain" not in data


@pytest.mark.parametrize(
    "rows",
    [
        "12;34;5\n13;35;6\n14;36;7\n",
        "12,34.5,a\n13,35.5,b\n",
        "[(1, 2, 'a'),\n (4, 5, 'b')]",
        "{'age': 33, 'spent': 12.5}\n{'age': 34, 'spent': 9.0}\n",
    ],
)
def test_rows_are_rows_whatever_stands_between_their_cells(rows):
    stream = new_output("stream", name="stdout", text=rows)
    document = new_notebook(cells=[new_code_cell("x", outputs=[stream])])
    assert any("printed" in what for what in kinds(document))


def test_sentences_with_figures_are_no_rows():
    said = "2,000 recipients at ε = 2, 95 % sure\nbrand, aurora: 1,000 people, yes\nend\n"
    stream = new_output("stream", name="stdout", text=said)
    assert not kinds(new_notebook(cells=[new_code_cell("x", outputs=[stream])]))


HOSTILE = [
    " ", "\n", "|1", "|1\n", "<table ", "<table data-source=", "<td data-count", "<td data-count>",
    "<td data-count>1</td", "href=", "href=.", "src = ", "a@", "a.", "{ ", "] ", " ,", "+1 ", "[(",
    "(3 ", "a: 3\n", "<tr><td>3", "<div>3", "<dt>a<dd>3", "<!--", '<div class="abfed">',
    "data:", "data:a;", "<pre>", "b'\\x", "eyJaaaaaaaaa.", "-----BEGIN ", "a/", "://a", "aB3/",
]  # fmt: skip


def seconds(text):
    """CPU time of the whole gate on a text, wherever it stands; the best of two."""
    shown = {"text/html": text, "text/plain": text}
    best = float("inf")
    for _ in range(2):
        started = time.process_time()
        document = new_notebook(
            cells=[
                new_markdown_cell(text),
                new_code_cell("", outputs=[new_output("display_data", data=dict(shown))]),
                new_code_cell("", outputs=[new_output("stream", text=text)]),
            ]
        )
        list(findings(document, Allowed(frozenset())))
        hide_small(document, Counted())
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_the_text_and_no_faster(unit):
    small, large = 2_000, 32_000
    once, more = (seconds((unit * size)[:size]) for size in (small, large))
    # Sixteen times the text: about 16 times as long; a quadratic pattern takes 256 times as long.
    assert more < 64 * max(once, 2e-4)
