"""What cells print is gathered in time that grows with it."""

import base64

from nbformat.v4 import new_code_cell, new_notebook

from abfed.lab.reports.engine import execute
from abfed.lab.reports.kernels import Place, Spawned


def test_a_long_line_takes_no_longer_for_its_length_and_what_is_printed_over_goes(tmp_path):
    """With a search from each character to the end it takes hours: the suite's time-out ends it."""
    printed = "print('x' * 10_000_000); print('half\\rwhole'); print('1\\r2\\r3\\r')"
    document = new_notebook(cells=[new_code_cell(printed)])
    done = execute(document, {}, Place(cwd=tmp_path), Spawned())
    assert done.failure is None
    (output,) = done.document.cells[0].outputs
    assert output.text == "x" * 10_000_000 + "\nwhole\n3\r\n"


def test_a_figure_is_shown_without_being_asked_for_as_in_any_jupyter_kernel(tmp_path):
    drawn = "import matplotlib.pyplot as plt\nfor _ in 'ab':\n    plt.plot([0, 20]); plt.show()"
    document = new_notebook(cells=[new_code_cell(drawn), new_code_cell("plt.plot([0, 1]);")])
    done = execute(document, {}, Place(cwd=tmp_path), Spawned())
    assert done.failure is None
    for cell, pictures in zip(done.document.cells, (2, 1), strict=True):
        assert ["image/png" in one.data for one in cell.outputs] == [True] * pictures
        assert all(done.told.of(base64.b64decode(one.data["image/png"])) for one in cell.outputs)
