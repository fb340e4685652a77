"""Ways past the disclosure gate that somebody tried: each of them ends there."""

import base64
import struct
import zlib
from urllib.parse import quote

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from abfed.lab.disclosure.gate import findings
from abfed.lab.disclosure.legible import settled
from tests.lab.test_disclosure import ADDRESS, ALLOWED, html, kinds, shown, told_of

SVG = f"<svg><title>{ADDRESS}</title></svg>"


def picture(kind, words, behind=""):
    """A PNG with one more chunk, and something behind its base64."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    parts = [chunk(b"IHDR", b"\0" * 13), chunk(kind, words), chunk(b"IEND", b"")]
    content = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()
    return shown(**{"image/png": content + behind})


def printed(text):
    return new_notebook(
        cells=[new_code_cell("x", outputs=[new_output("stream", name="stdout", text=text)])]
    )


def told(metadata):
    output = new_output("display_data", data={"text/plain": "x"}, metadata=metadata)
    return new_notebook(cells=[new_code_cell("x", outputs=[output])])


def typed(text):
    return new_notebook(cells=[new_markdown_cell(text)])


def raised(name):
    error = new_output("error", ename=name, evalue="", traceback=[])
    return new_notebook(cells=[new_code_cell("x", outputs=[error])])


def on_channel(name):
    output = new_output("stream", name=name, text="x")
    return new_notebook(cells=[new_code_cell("x", outputs=[output])])


def attached(name):
    cell = new_markdown_cell("x")
    cell["attachments"] = {name: {"text/plain": "x"}}
    return new_notebook(cells=[cell])


@pytest.mark.privacy
@pytest.mark.parametrize(
    "document",
    [
        html("<span>jane.doe</span><b>@</b><i>example.org</i>"),
        html("jane.doe<!-- > < -->@example.org"),
        html("<p style='display:inline'>jane.doe</p><p style='display:inline'>@example.org</p>"),
        html("jane.doe&shy;&#64;example.org"),
        html(f"<img src='data:image/svg+xml,{quote(SVG)}'>"),
        html(f"<img src='DATA:image/svg+xml;BASE64,{base64.b64encode(SVG.encode()).decode()}'>"),
        html(f"<a href='data:text/plain,{quote(ADDRESS)}'>x</a>"),
        html("<style>.a::after{content:'jane.doe\\40 example.org'}</style>"),
        html("<li style='list-style-type:\"jane.doe\\40 example.org\"'>x</li>"),
        shown(**{"image/svg+xml": f"<!DOCTYPE svg [<!ENTITY a '{ADDRESS[:5]}'>]><svg>&a;</svg>"}),
        html("<img src='data:image/svg+xml,%3C!ENTITY a 3%3E%3Csvg/%3E'>"),
        shown(**{"image/svg+xml": "<svg><text>jane.doe<tspan>@example.org</tspan></text></svg>"}),
        printed("jane.doe\u200b\uff20example.org"),
        printed("jane.doe\x1b[0K@example.org"),
        printed(base64.b64encode(ADDRESS.encode()).decode()),
        printed(ADDRESS.encode().hex()),
        printed("jane@m\u00fcller.de"),
        printed("PLANTED-WORD"),
        printed("kept in:/home/jane/rows"),
        printed("C:/Users/jane/rows"),
        printed("call +1 (555) 123-4567"),
        printed("call 030 2345 6789, or 0151 23456789"),
        printed("call (212) 555-0123"),
        printed("call 212-555-0123"),
        printed("paid to DE89 3702 0400 4405 3201 30"),
        printed("paid to GB82WEST12345698765432"),
        printed("customer-id: 4711123"),
        printed('{"subscriber_no": "482913"}'),
        printed("Customer #482913"),
        printed("aurora-000123"),
        printed("00482913"),
        printed("https://example.org?to=jane.doe%40example.org"),
        printed("jane.doe&#64;example.org"),
        printed("jane.doe&amp;#64;example.org"),
        printed("jane.doe\\u0040example.org"),
        printed("jane.doe\\x40example.org"),
        printed("jane.doe=40example.org"),
        printed("jane.doex\b@example.org"),
        printed(
            base64.encodebytes(
                b"rows of one brand, of which one says: " + ADDRESS.encode() * 2
            ).decode()
        ),
        told({"who": base64.urlsafe_b64encode(ADDRESS.encode()).decode()}),
        printed("amFuZS5k\nb2VAZXhh\nbXBsZS5v\ncmc="),
        printed(base64.b64encode(base64.b64encode(ADDRESS.encode())).decode()),
        printed(base64.b64encode(f"é {ADDRESS}".encode()).decode()),
        printed(base64.b32encode(ADDRESS.encode()).decode()),
        printed(ADDRESS.encode().hex(" ")),
        printed(quote("PLANTED-WORD-").replace("-", "%2D")),
        printed(base64.b64encode(b"PLANTED-WORD, in words").decode()),
        told({"who": "a list\n/home/jane/rows"}),
        told({"who": [{"is": "a list\n+49 151 23456789"}]}),
        told({"first\n/home/jane/rows": 1}),
        typed("jane.doe\\@example.org"),
        attached(ADDRESS),
        raised(ADDRESS),
        on_channel(ADDRESS),
        picture(b"iCCP", ADDRESS.encode()),
        picture(b"prVt", b"rows"),
        picture(b"IDAT", zlib.compress(bytes(99)) + b"rows behind the pixels"),
        picture(b"IDAT", zlib.compress(bytes(300 << 20), 1)),
        picture(b"IDAT", b"rows, and no pixels"),
        picture(b"bKGD", b"rows of words, and no colour"),
        picture(b"tEXt", b"Software\x001.0 2.0 3.0\n4.0 5.0 6.0"),
        picture(b"zTXt", b"Software\0\0" + zlib.compress(ADDRESS.encode())),
        picture(b"pHYs", b"\0" * 10, behind=ADDRESS),
        picture(b"pHYs", b"\0" * 11, behind=ADDRESS),
    ],
)
def test_an_identifier_is_found_however_it_is_put(document):
    assert kinds(document)


@pytest.mark.parametrize(
    "document",
    [
        typed("a | b\n--- | ---\n1 | 220\n2 | 330"),
        shown(**{"text/markdown": "| a | b |\n|---|---|\n| 1 | 220 |\n| 2 | 330 |"}),
        shown(**{"text/latex": "1 & 220 & 3.5\\\\\n2 & 330 & 4.5\\\\"}),
        html("<table><tr><td>9</td></tr></table>1 220 3.5<br>2 310 4.5<br>"),
        html("<textarea>1 220 3.5\n2 310 4.5</textarea>"),
        html("<p style='white-space: pre'>1 220 3.5\n2 310 4.5</p>"),
        html("<math><mtable><mtr><mtd>1</mtd></mtr></mtable></math>"),
        printed("a,b,c\n1,220,3\n2,310,4"),
        printed("0    1.0\n1    2.0\nName: spent, dtype: float64"),
    ],
)
def test_a_table_is_one_however_it_is_set(document):
    assert any("table" in what for what in kinds(document))


@pytest.mark.parametrize(
    "markup",
    ["<img src=x onerror=alert(1)>", "<img title='>' src=x onerror=alert(1)>",
     "<a href='java&#9;script:x'>x</a>", r"<img src='\\example.org\x.png'>",
     "<svg><image xlink:href='https://example.org/x.png'/></svg>",
     "<svg><use href='https://example.org/x.svg#a'/></svg>",
     "<div background='https://example.org/x.png'>",
     "<div style=\"background:image-set('https://example.org/x.png' 1x)\">"],
)  # fmt: skip
def test_nothing_loads_or_runs_however_it_is_written(markup):
    assert any("loads or runs" in what for what in kinds(html(markup)))


def test_a_picture_from_elsewhere_in_markdown_is_refused():
    assert any("loads or runs" in what for what in kinds(typed("![x](https://example.org/x.png)")))


@pytest.mark.parametrize(
    "document",
    [
        html("<p>only = 3, content: none, data: three brands</p><a href='https://example.org'>"),
        html("<style>.a{justify-content:center}</style><p>+1 (95 % +0.5 to +1.5)</p>"),
        html("two lines<br>of words with 3 figures, 4 and 5<br>and a third"),
        html("<ul><li>+123456</li><li>7890123</li></ul>"),
        printed("1,234,567\n2,345,678"),
        printed("DE88 3702 1400 4405 3201 30 doesn't add up, 2026-05-01 12:00 is a moment"),
        printed("each recipient: 20000, 12,000 customers, 3456 users; per account 12345.6"),
        printed("spring-subject-lines-0002345678, 0.000123, #000000, 100%25, a=40"),
        typed("| name | meaning |\n|---|---|\n| alpha | one minus the confidence |"),
    ],
)
def test_what_only_looks_alike_is_let_through(document):
    assert kinds(document) == set()


@pytest.mark.parametrize(
    ("kind", "words"),
    [(b"IDAT", zlib.compress(bytes(99))),
     (b"tEXt", b"Software\0Matplotlib version3.11.0, https://matplotlib.org/")],
)  # fmt: skip
def test_pixels_and_the_name_of_their_program_are_let_through(kind, words):
    document = picture(kind, words)
    content = document.cells[0].outputs[0].data["image/png"]
    assert kinds(document, told_of(content)) == set()


def test_what_is_packed_without_end_is_not_looked_into_without_end():
    assert any("too deep" in what for what in kinds(html("data:text/html," * 5000)))


def test_what_is_found_is_never_named():
    named = shown(**{f"application/{ADDRESS}": "x"})
    cell = printed(ADDRESS)
    cell.cells[0]["id"] = "0123456789abcdef0123456789abcdef"
    told = " ".join(f"{one.place} {one.what}" for one in [*findings(named, ALLOWED),
                                                         *findings(cell, ALLOWED)])  # fmt: skip
    assert "jane" not in told
    assert "abcdef" not in told


def test_a_name_given_by_chance_is_nobodys_number():
    document = printed("words")
    document.cells[0]["id"] = "00448955"
    assert kinds(document) == set()


def test_figures_and_words_stay_as_they_are():
    said = "−0.4 points (95 %: −1.2 to +0.4), 1,234 people"
    assert settled(said) == said
