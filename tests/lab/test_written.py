"""What a kernel tells of its pictures, how it is read, and which figures in it are small counts."""

import base64
import json
import time

import pytest

from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.drawings import drawings_in, print_of, said_in
from abfed.lab.disclosure.left_out import LEFT_OUT, leave_out
from abfed.lab.disclosure.pictures import SVG
from abfed.lab.disclosure.places import says_places
from abfed.lab.disclosure.written import (
    Scale,
    Text,
    Told,
    Written,
    as_set,
    made_by_hand,
    shows_small,
)


def test_the_same_pixels_carry_all_that_was_ever_written_in_them(tmp_path):
    said = {"digests": ["a"], "texts": [], "scales": [], "table": False}
    texts = [{"said": "of the second", "under": []}]
    file = tmp_path / "told"
    lines = [said, said | {"texts": texts, "table": True}, said]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert Told.read(file).by_digest == {"a": Written((Text("of the second"),), (), table=True)}


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "3", "[" * 100_000, '{"digests": ["a"]}', "\xff",
     '{"digests": 3, "texts": [], "scales": [], "table": 0}',
     '{"digests": ["a"], "texts": [3], "scales": [], "table": 0}',
     '{"digests": ["a"], "texts": [], "scales": [{"name": "", "ticks": [3]}], "table": 0}'],
)  # fmt: skip
def test_a_kernel_that_tells_nonsense_has_told_nothing(tmp_path, line):
    file = tmp_path / "told"
    file.write_bytes(line.encode("latin-1"))
    assert Told.read(file).by_digest == {}
    assert Told.read(tmp_path / "none").by_digest == {}


def test_a_kernel_that_tells_without_end_has_told_nothing(tmp_path, monkeypatch):
    said = json.dumps({"digests": ["a"], "texts": [], "scales": [], "table": False})
    (tmp_path / "told").write_text(said)
    assert Told.read(tmp_path / "told").by_digest
    monkeypatch.setattr("abfed.lab.disclosure.written.MOST_TOLD", len(said) - 1)
    assert Told.read(tmp_path / "told").by_digest == {}


@pytest.mark.parametrize(
    ("ticks", "small"),
    [
        ([("0", 0.0), ("2", 2.0), ("4", 4.0)], False), ([("−2", -2.0), ("0", 0.0)], False),
        ([("0", 0.0), ("50", 0.5), ("100", 1.0)], False), ([("€ 2", 2.0), ("€ 4", 4.0)], False),
        ([(r"$\mathdefault{10^{0}}$", 1.0), (r"$\mathdefault{10^{1}}$", 10.0)], False),
        ([("3", 0.0), ("8", 1.0)], True), ([("3", 0.0), ("5", 1.0), ("8", 2.0)], True),
        ([("3", 0.0), ("3", 1.0), ("3", 2.0)], True), ([("3", float("nan"))], True),
        ([("warm", 0.0), ("3", 1.0)], True), ([("2 buyers", 2.0), ("4 buyers", 4.0)], True),
        ([("30", 0.0), ("80", 1.0)], False), ([("0.1", 0.0), ("0.7", 1.0)], False),
        ([("-" + "9" * 400, 0.0), ("1e99", 1.0)], False),
    ],
)  # fmt: skip
def test_a_scale_is_told_from_figures_that_somebody_typed(ticks, small):
    assert shows_small(Written(scales=(Scale("", tuple(ticks)),)), Counted()) is small


@pytest.mark.parametrize(
    ("said", "under", "small"),
    [
        ("3", (), True), ("3", ("arm", ""), True), ("3", ("epoch", "buyers"), True),
        ("3", ("epoch", "rounds"), False), ("3", ("Wave",), False), ("3.27", ("", "buyers"), True),
        ("3.27", ("", "revenue"), False), ("0.3", ("", "opened"), False), ("12", (), False),
        ("3 silos took part", (), False), ("n = 3", ("epoch", "rounds"), True), ("3 %", (), False),
        ("−3", (), True), ("Day 3", (), False), ("3/120", (), True), ("3 of 120", (), True),
        ("3 (2.5 %)", (), True), ("3*", (), True), ("12/120", (), False), ("3/4", ("wave",), False),
    ],
)  # fmt: skip
def test_a_number_alone_is_judged_by_the_names_it_stands_under(said, under, small):
    assert shows_small(Written((Text(said, under),)), Counted()) is small


def test_a_text_is_read_as_it_is_set():
    assert as_set(r"cost \$3, \$4") == "cost $3, $4"
    assert as_set(r"$a\_b$ $\mathbf{3}$ buyers") == "a_b 3 buyers"
    assert as_set("one $ alone") == "one $ alone"
    assert as_set(r"$\frac{3}{40}$ of $3\,\mathrm{buyers}\quad x~y\!z$") == "3/40 of 3 buyers x yz"


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("inner", "small"),
    [
        ("<text>3</text>", True), ("<text x='1'>3 buyers</text>", True), ("<text>12</text>", False),
        ("<text><tspan>3</tspan> <tspan>buyers</tspan></text>", True),
        ("<text><tspan>1</tspan><tspan>2</tspan></text>", False),
        ("<text><tspan x='1'>3</tspan><tspan x='9'>5</tspan></text>", True),
        ("<text>opened: <a>3</a></text>", True), ("<text>&#51; buyers</text>", True),
        ("<title>3 buyers</title>", True), ("<g><desc>opened: 3</desc></g>", True),
        ("<g aria-label='3 buyers'/>", True), ('<g id="3 buyers"/>', True),
        ("<a xlink:title='3 buyers'/>", True), ("<metadata><d>3 buyers</d></metadata>", True),
        ("<!-- 3 buyers -->", True), ("<text>3 buyers", True), ("<TEXT>3</TEXT>", True),
        ("<svg><text>3</text></svg>", True), ("<text>5 rounds</text><text>3</text>", True),
        ("<text>3 rounds</text>", False), ("<g id='a3'/><path d='M 3 4'/>", False),
        ("<text><![CDATA[3 buyers]]></text>", True), ("<s:text>3</s:text>", True),
        ("<s:text><s:tspan>1</s:tspan>2</s:text>", False), ("<text><![CDATA[a]]></text>", False),
        ("<style>a{x:3}</style><text>a</text>", False), ("<text x='3' y='4'>warm</text>", False),
        ("<text>0.3</text><text>0.5</text>", False), ("<use href='#a3'/>", False),
    ],
)  # fmt: skip
def test_a_drawing_by_hand_is_judged_by_its_words(inner, small):
    assert shows_small(made_by_hand(f"<svg viewBox='0 0 3 4'>{inner}</svg>"), Counted()) is small


def test_a_drawing_keeps_its_print_until_another_word_or_outline_stands_in_it():
    drawing = '<svg width="9"><!-- a "b" & c --><path d="M 1 2 \nL 3"/><use href="#p"/>x</svg>'
    anew = "<svg  width='3'>\n<!-- a &quot;b&quot; &amp; c --><path d='M 1 2  L 3' id='p'/>"
    assert print_of(drawing) == print_of(anew + "<use  href='#p'/>x</svg >")
    for part, other in (
        ("x<", "y<"), ('"b"', '"d"'), ("L 3", "L 4"), ("#p", "#q"), ("<use", "<!-- 3 --><use"),
        ("x<", "x<![CDATA[3]]><"),
    ):  # fmt: skip
        assert print_of(drawing.replace(part, other)) != print_of(drawing)


@pytest.mark.privacy
def test_what_is_added_to_a_known_drawing_is_judged():
    drawing = '<svg id="a"><text>x</text></svg>'
    told = Told({print_of(drawing): Written()})
    for shown, stays in (
        (drawing, True),
        (drawing.replace('"a"', '"a" aria-label="3 buyers"'), False),
        (drawing.replace("x<", "3<"), False),
        (f"<svg><!-- </svg> -->{drawing}3 buyers</svg>", False),
    ):
        for kind, markup in ((SVG, shown), ("text/html", _image_of(shown))):
            data = {kind: markup}
            leave_out(data, Counted(), told)
            assert (data == {kind: markup}) is stays
            assert stays or data["text/html"] == LEFT_OUT


def _image_of(drawing):
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}">'


def test_drawings_are_found_in_markup():
    first, second = "<svg><svg a='/'/><svg></svg></svg>", "<s:SVG>x</s:SVG>"
    markup = f"<p>{first}<svg/></svg>b{second}</p><svg>no end"
    found = [markup[start:end] for start, end in drawings_in(markup)]
    assert found == [first, second, "<svg>no end"]
    assert list(said_in("<svg><style>a</style><g>b</g></svg>")) == ["b"]


@pytest.mark.parametrize(
    "part",
    ["<svg>", "<text>3", "<text><tspan ", "<!--", "<!-- -->", "<style>", " id='", " id=", ">", "x ",
     " d='", "<tspan x", "</svg>", "<svg/>", "&#51;", " aria-a ", "<!DOCTYPE"],
)  # fmt: skip
def test_a_long_drawing_takes_time_in_proportion(part):
    def seconds(many):
        markup = "<svg><text>" + part * many
        started = time.process_time()
        for start, end in drawings_in(markup):
            print_of(markup[start:end])
            made_by_hand(markup[start:end])
        return time.process_time() - started

    once, more = (min(seconds(many) for _ in range(2)) for many in (4_000, 64_000))
    # Sixteen times the text: about 16 times as long; a quadratic pattern takes 256 times as long.
    assert more < 64 * max(once, 2e-4)


def test_what_an_author_writes_at_ticks_is_not_matplotlibs():
    from matplotlib import dates, ticker

    some = dates.AutoDateLocator()
    scaled = dates.AutoDateFormatter(some)
    scaled.scaled[1.0] = "3 buyers"
    own = [ticker.ScalarFormatter(), ticker.EngFormatter(), ticker.LogFormatterSciNotation(),
           dates.DateFormatter("%-d. %b"), dates.AutoDateFormatter(some),
           dates.ConciseDateFormatter(some)]  # fmt: skip
    authors = [ticker.FixedFormatter(["3"]), ticker.FuncFormatter(str), ticker.NullFormatter(),
               ticker.EngFormatter("buyers"), ticker.StrMethodFormatter("{x} buyers"),
               dates.DateFormatter("3"), dates.ConciseDateFormatter(some, formats=["3"] * 6),
               scaled, type("ScalarFormatter", (ticker.ScalarFormatter,), {})()]  # fmt: skip
    assert [says_places(one) for one in own] == [True] * len(own)
    assert [says_places(one) for one in authors] == [False] * len(authors)
