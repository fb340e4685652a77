"""The page on paper: the same bytes each time, nothing cut, nothing fetched."""

import pytest

from abfed.lab.page import page, paragraph, section, table
from abfed.lab.pdf import as_pdf, laid_out
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


def test_what_would_be_fetched_is_refused(wide):
    with pytest.raises(IntegrityError, match="from outside"):
        as_pdf(wide.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
