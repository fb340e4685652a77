"""The page on paper: the same bytes each time, nothing cut, nothing fetched."""

import base64
import itertools
import subprocess
import sys

import pytest

from abfed.lab.paper.lettering import TALLEST, WIDTH, lettered
from abfed.lab.paper.page import facts, page, paragraph, picture, section, table
from abfed.lab.paper.pdf import as_pdf, folded, laid_out
from abfed.lab.sections import security
from abfed.lab.views.plots import as_svg, drawing
from abfed.protocol.errors import IntegrityError

try:
    import weasyprint  # noqa: F401
except OSError:
    pytest.skip("Pango isn't installed (Debian: apt-get install libpango-1.0-0 libpangoft2-1.0-0)",
                allow_module_level=True)  # fmt: skip


@pytest.fixture(scope="module")
def wide():
    """A table that is twice as wide as the paper, and one of more figures than fit."""
    head = [f"Column {number} of a long name" for number in range(12)]
    rows = [["a-metric-with-a-very-long-name", *["+12,345.67 to +76,543.21"] * 11]] * 3
    figures = ["share", *["+12.34 to +76.54"] * 7]
    shown = table(head, rows, source="run:1", numeric=range(1, 12))
    shown += table(head[:8], [figures] * 40, source="run:1", numeric=range(1, 8))
    folded = f"<details><summary>More</summary>{paragraph('unfolded')}</details>"
    return page("Wide", section("Effects", paragraph("Some words."), shown, folded))


def test_the_same_page_is_the_same_bytes():
    short = page("Short", section("Effects", table(["a", "b"], [["1", "2"]], source="run:1")))
    first = as_pdf(short)
    assert first == as_pdf(short)
    assert first.startswith(b"%PDF-")


def test_a_wide_table_wraps_and_what_is_folded_is_printed(wide):
    document = laid_out(wide).render()
    assert len(document.pages) > 1
    texts = []
    for one in document.pages:
        boxes = [box for box in one._page_box.descendants() if getattr(box, "text", None)]
        texts += [box.text for box in boxes]
        assert max(box.position_x + box.width for box in boxes) <= one.width
    assert "unfolded" in texts


def test_a_table_of_very_many_columns_keeps_its_figures_whole():
    """Such a one is `run.effects`; else each figure would be a column of single digits."""
    head = ["Row", *(f"column_{number}" for number in range(1, 25))]
    rows = [[f"{row}", *(f"{row}.{number:04}" for number in range(1, 25))] for row in range(2)]
    markup = table(head, rows, source="run:1", numeric=range(1, 25))
    document = laid_out(page("Wide", section("Effects", markup))).render()
    texts, headings = [], 0
    for one in document.pages:
        boxes = [box for box in one._page_box.descendants() if getattr(box, "text", None)]
        texts += [box.text for box in boxes]
        headings += sum(box.text == "Row" for box in boxes)
        assert max(box.position_x + box.width for box in boxes) <= one.width
    assert {cell for row in [head, *rows] for cell in row} <= set(texts)
    assert headings == 3


def test_a_table_without_a_grid_stays_as_it_is():
    uneven = f'<table class="wide"><tr>{"<td>1</td>" * 20}</tr><tr><td>all</td></tr></table>'
    assert folded(uneven) == uneven


def test_what_would_be_fetched_is_refused(wide):
    with pytest.raises(IntegrityError, match="from outside"):
        as_pdf(wide.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))


PIXELS = 96 / 25.4  # of CSS, in a millimetre


@pytest.fixture(scope="module")
def drawn():
    """A drawing with a ligature, words turned, dashes that a comment may not hold, a formula."""
    with drawing(8.2, 2) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1])
        axes.set_xlabel("difference & more")
        axes.set_ylabel("upwards")
        axes.set_title("a -- b", loc="left")
        axes.text(0.5, 0.5, "$x^2$")
    return as_svg(figure)


def test_words_of_a_drawing_are_text_where_they_stood(drawn):
    whole = page("Drawn", section("One", picture(drawn, "What it shows.")))
    (only,) = laid_out(whole).render().pages
    boxes = list(only._page_box.descendants(placeholders=True))
    texts = {box.text: box for box in boxes if getattr(box, "text", None)}
    assert {"difference & more", "upwards", "0.2"} <= set(texts)
    assert not {"a -- b", "a - - b", "$x^2$"} & set(texts)
    left = base64.b64decode(
        lettered(whole).partition("svg+xml;base64,")[2].partition('"')[0]
    ).decode()
    assert "upwards" not in left
    assert "$x^2$" in left
    (figure,) = [box for box in boxes if box.element_tag == "img"]
    assert figure.width == pytest.approx(WIDTH * PIXELS, rel=1e-3)
    middle = figure.position_x + figure.width / 2
    label = texts["difference & more"]
    assert middle - 60 < label.position_x < label.position_x + label.width < middle + 80
    assert figure.position_y < label.position_y < figure.position_y + figure.height


def test_a_drawing_taller_than_paper_stands_whole_on_the_page_of_its_heading():
    with drawing(8.2, 14) as (figure, (axes,)):
        axes.set_xlabel("lowest words")
    tall = page("Tall", section("One", "<p>.</p>" * 20, picture(as_svg(figure), "What it shows.")))
    pages = laid_out(tall).render().pages
    boxes = list(pages[-1]._page_box.descendants(placeholders=True))
    texts = {box.text: box for box in boxes if getattr(box, "text", None)}
    assert {"What it shows.", "lowest words"} <= set(texts)
    (drawn,) = [box for box in boxes if box.element_tag == "img"]
    assert drawn.height == pytest.approx(TALLEST * PIXELS, rel=1e-3)
    assert drawn.position_y + drawn.height < (297 - 18) * PIXELS
    words = texts["lowest words"]
    assert drawn.position_y < words.position_y < drawn.position_y + drawn.height


def test_letters_that_are_not_what_their_comment_says_stay_drawn(drawn):
    lied = drawn.replace(b"<!-- upwards -->", b"<!-- up -->")
    shown = lettered(page("Drawn", section("One", picture(lied, "What it shows."))))
    assert ">up<" not in shown
    assert ">difference &amp; more<" in shown


def texts_of(markup):
    """Where words stand: by text, the page and how far down."""
    found = {}
    for number, one in enumerate(laid_out(page("Short", section("One", markup))).render().pages):
        for box in one._page_box.descendants():
            if getattr(box, "text", None):
                found[box.text] = (number, box.position_y)
    return found


def test_terms_stand_on_the_page_of_what_they_are():
    """Where a page ends just before the last one's words, all go to the next."""
    pairs = facts([("Run", "one"), ("Versions", "first<br>second<br>third<br>fourth")])
    for filled in (32, 33, 34):
        found = texts_of("<p>.</p>" * filled + pairs)
        assert len({found[word][0] for word in ("Run", "Versions", "first", "fourth")}) == 1


def test_lines_that_were_folded_away_follow_one_another_without_a_gap():
    found = texts_of(security._evidence([f"line-{number}" for number in range(6)]))
    tops = [found[f"· line-{number}"][1] for number in range(3, 6)]
    between = [later - earlier for earlier, later in itertools.pairwise(tops)]
    assert max(between) < 20


def test_what_is_for_listeners_only_is_not_on_paper():
    heard = '<p>seen<span class="unseen">heard</span></p>'
    document = laid_out(page("Short", section("Effects", heard))).render()
    words = {getattr(box, "text", "") for box in document.pages[0]._page_box.descendants()}
    assert "seen" in words
    assert "heard" not in words


IMPORT = """
import resource, sys
from abfed.lab.paper import press
weasyprint = press.weasyprint()
assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss == 0, "it started a process"
assert not {press.SUBSETTER, press.INSTANCER} & set(sys.modules), "it imported what it won't use"
fonts = weasyprint.pdf.fonts
try:
    fonts.instantiateVariableFont(None, {})
except TypeError as told:
    assert "not iterable" in str(told), told  # fontTools' own: there is no font
else:
    raise AssertionError("nothing was called")
assert fonts.subset.Options().hinting
import fontTools.subset, fontTools.varLib.instancer
assert fontTools.subset.Subsetter
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere libraries are looked for")
def test_weasyprint_is_imported_without_compilers_and_without_what_it_does_not_use():
    subprocess.run([sys.executable, "-c", IMPORT], check=True)


def test_no_first_or_last_row_of_a_table_stands_alone_on_a_page():
    """Nor does what is said above it, or its heading: wherever on a sheet it begins."""
    rows = [[f"row{number}", "1"] for number in range(3)]
    shown = f"<h3>heading</h3>{paragraph('said')}{table(['a', 'b'], rows, source='run:1')}"
    places = []
    for filled in range(25, 34, 2):
        found = texts_of("<p>.</p>" * filled + shown)
        placed = {found[one][0] for one in ("heading", "said", "row0", "row1", "row2")}
        assert len(placed) == 1
        places += placed
    assert set(places) == {0, 1}  # it came to the end of the sheet
