"""Reports: parameters checked first, one page that loads nothing, the same bytes each time."""

import os
import re
import socket
import stat
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import abfed
from abfed.lab.disclosure.gate import holds_back
from abfed.lab.disclosure.written import Text
from abfed.lab.reports.confinement import SAVE_ELSEWHERE
from abfed.lab.reports.engine import execute
from abfed.lab.reports.execution import Executed, Failure
from abfed.lab.reports.kernels import Place, Spawned
from abfed.lab.reports.notebooks import (
    check_papermill_agrees,
    declared_parameters,
    find_notebook,
    known_notebooks,
    notebook_folders,
    read_notebook,
)
from abfed.lab.reports.report import make_report, order, write_report
from abfed.lab.reports.subjects import of_run
from abfed.protocol.errors import InputError, ReportFailed, Withheld
from tests.lab.example import example_values, make_run
from tests.lab.test_disclosure import png, told_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "workspace"
    return make_run(folder, example_values(simulation={"seed": 7}))


@pytest.fixture(scope="module")
def page(run):
    return write_report(run, run.folder.parent.parent / "reports")


def notebook(folder, *sources, parameters='run_folder: str = ""\nalpha: float = 0.05'):
    """A small notebook of our own, without the imports that take time."""
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    path = folder / "small.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_the_page_answers_what_a_reader_asks(run, page):
    html = page.read_text()
    assert page.name == f"{run.name}.html"
    assert "<title>SIMULATION: Which subject line makes people click?</title>" in html
    for heading in (
        "What was asked", "Who took part", "Effects", "Metric by metric", "Guardrails",
        "Sample-ratio check", "Model", "Privacy spent and left", "How this was made",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in html
    assert html.count("<figure>") == len(run.plan.metrics) + 2
    assert run.plan.digest in html


def test_no_sentence_is_said_twice(page):
    """What a picture's words say to those who can't see it aside; nor a guardrail's anywhere."""
    seen = re.sub(r'<(style|title)>.*?</\1>|alt="[^"]*"', "", page.read_text(), flags=re.DOTALL)
    texts = re.findall(r"<(?:p|figcaption)[^>]*>([^<]{30,})</", seen)
    said = [one for text in texts for one in re.split(r"(?<=[.:]) (?=[A-Z“])", text)]
    assert any("within its margin: a rise" in one for one in said)
    twice = {one for one in said if said.count(one) > 1 and "“clicked”" not in one}
    assert not twice  # but for the primary metric's, which the page begins with


def test_the_page_is_private(page):
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    assert [path.name for path in page.parent.iterdir()] == [page.name]


def test_the_page_loads_nothing_from_outside(page):
    html = page.read_text()
    assert not re.search(r"<(script|link|iframe|object|embed)\b", html)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', html))
    assert "http" not in re.sub(r'src="data:[^"]*"', "", html).replace("http-equiv", "")
    assert "@import" not in html
    assert html.count("<style>") == 1  # not once more for each cell
    assert "url(" not in html


def test_the_page_shows_no_path_host_or_code(run, page):
    html = page.read_text()
    assert str(run.folder.parent.parent) not in html
    words = re.sub(r'src="data:[^"]*"', "", html)  # in a picture's bytes three letters are chance
    assert not any(word in words for word in of_run(run).allowed().never)  # paths, and the host
    assert "run_folder" not in html
    assert "Traceback" not in html
    assert "papermill" not in html.lower()


@pytest.mark.parametrize(
    ("host", "shown"),
    [("analysis-07", False), ("lab", True), ("vm-1", True), ("model", True), ("Clicked", True)],
)
def test_a_page_shows_no_hosts_name_but_everyday_words(run, monkeypatch, host, shown):
    """A machine called `model` made no report at all: each speaks of one."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert holds_back(f"made on {host} today", of_run(run).allowed()) is not shown


def test_a_second_page_is_the_same_bytes(run, page, tmp_path):
    assert write_report(run, tmp_path / "again").read_bytes() == page.read_bytes()


def test_the_notebook_is_kept_without_outputs():
    for path in notebook_folders()[0].glob("*.ipynb"):
        document = nbformat.read(str(path), as_version=4)
        nbformat.validate(document)
        declared_parameters(document, where=path.name)
        for cell in document.cells:
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None


def test_parameters_reach_the_notebook(run, tmp_path):
    path = notebook(tmp_path, "print(run_folder, alpha)")
    html = write_report(run, tmp_path, notebook=str(path), parameters={"alpha": 1}).read_text()
    assert f"{run.name} 1.0" in html


def test_the_kernel_is_this_python_without_a_home(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("SOME_TOKEN", "of the shell")
    source = (
        "import sys, abfed, os\nfrom pathlib import Path\n"
        "import ipykernel.kernelapp as app\n"
        f"print(sys.executable == {sys.executable!r}, app.IPKernelApp.instance().transport)\n"
        f"print(Path(abfed.__file__).resolve() == Path({str(abfed.__file__)!r}).resolve())\n"
        "print('SOME_TOKEN' in os.environ)"
    )
    small = read_notebook(notebook(tmp_path, source))
    done = execute(small, {}, Place(cwd=tmp_path), Spawned())
    assert done.document.cells[-1].outputs[0].text == "True ipc\nTrue\nFalse\n"


def test_warnings_are_not_part_of_the_page(run, tmp_path, capfd):
    path = notebook(tmp_path, "import warnings\nwarnings.warn('of a tool')\nprint('shown')")
    html = write_report(run, tmp_path, notebook=str(path)).read_text()
    assert "of a tool" not in html
    assert "shown" in html
    assert capfd.readouterr() == ("", "")


def test_a_failing_notebook_leaves_the_page_before(run, tmp_path):
    path = notebook(tmp_path, "print('fine')")
    page = write_report(run, tmp_path, notebook=str(path))
    before = page.read_bytes()
    notebook(tmp_path, "x = 1", "raise ValueError('of\\n the \\x1b[2Jnotebook')")
    with pytest.raises(ReportFailed, match="cell 3 of the notebook failed") as caught:
        write_report(run, tmp_path, notebook=str(path))
    assert caught.value.why == r"ValueError: of the \x1b[2Jnotebook"  # one line; steers nothing
    assert caught.value.__cause__ is None
    assert page.read_bytes() == before
    partial = tmp_path / f"{run.name}-small.failed.html"
    html = partial.read_text()
    assert html.index(r"Cell 3 of the notebook failed: ValueError: of the \x1b[2J") < 12_000
    assert 'role="alert"' in html
    assert "nbclient" not in html  # where the notebook failed, not where its runner noticed
    assert html.count("raise ValueError") == 1
    assert str(tmp_path) not in html
    kept = read_notebook(partial.with_suffix(".ipynb"))
    assert "not complete" in kept.cells[0].source
    notebook(tmp_path, "print('fine')")
    write_report(run, tmp_path, notebook=str(path))
    assert {one.name for one in tmp_path.iterdir()} == {"small.ipynb", page.name}


def test_who_saves_a_figure_where_nothing_may_be_written_hears_what_to_do(run, tmp_path):
    path = notebook(tmp_path, "import matplotlib.pyplot as plt", "plt.savefig('out.png')")
    with pytest.raises(ReportFailed) as caught:
        write_report(run, tmp_path, notebook=str(path))
    assert caught.value.why == f"PermissionError: {SAVE_ELSEWHERE}"
    html = (tmp_path / f"{run.name}-small.failed.html").read_text()
    banner = html[html.index('role="alert"') :].partition("</div>")[0]
    for way in ("plt.show()", "io.BytesIO()", "tempfile.gettempdir()"):
        assert way in banner


def test_a_title_that_says_too_much_withholds_the_page(run, tmp_path):
    path = notebook(tmp_path, "print('fine')")
    titled = replace(of_run(run), title="For jane.doe@example.org")
    with pytest.raises(Withheld, match="its title would show") as caught:
        write_report(titled, tmp_path, notebook=str(path))
    assert "jane" not in str(caught.value)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_cell_is_named_in_one_way_whatever_is_wrong_with_it(run, tmp_path):
    """By its number in the notebook as it was written, where it fails and where it is withheld."""
    named = []
    shows = "from IPython.display import HTML"
    for last in ("raise ValueError('x')", "HTML('<p>jane.doe@example.org</p>')"):
        path = notebook(tmp_path, shows, "print('fine')", last)
        with pytest.raises((ReportFailed, Withheld)) as caught:
            write_report(run, tmp_path, notebook=str(path), parameters={"alpha": 0.1})
        named.append(set(re.findall(r"cell [^\s:]+", f"{caught.value} {caught.value.why}")))
    assert named == [{"cell 4"}, {"cell 4"}]


def test_how_far_a_notebook_came_is_kept_without_a_cells_name_that_says_too_much(run, tmp_path):
    path = notebook(tmp_path, "print('fine')", "raise ValueError('x')")
    document = nbformat.read(str(path), as_version=4)
    document.cells[1]["id"] = "0123456789abcdef0123456789abcdef"
    nbformat.write(document, path)
    with pytest.raises(ReportFailed):
        write_report(run, tmp_path, notebook=str(path))
    kept = (tmp_path / f"{run.name}-small.failed.ipynb").read_text()
    assert "0123456789abcdef" not in kept
    assert "cell-1" in kept


@pytest.mark.privacy
@pytest.mark.parametrize("failure", [None, Failure(2, "error", "ValueError: x")])
def test_what_is_written_in_a_picture_is_judged_whether_the_notebook_failed_or_not(
    run, tmp_path, monkeypatch, failure
):
    """Small counts are left out; what must not leave withholds the page, or the cell's outputs."""
    asked = order(of_run(run), notebook=str(notebook(tmp_path, "x")))
    kept = {}
    for said in ("rounds: 3", "3 buyers", "jane.doe@example.org"):
        cell = new_code_cell("x", outputs=[new_output("display_data", {"image/png": png()})])
        told = told_of(png(), texts=(Text(said),))
        done = Executed(new_notebook(cells=[cell]), failure, "", told)
        monkeypatch.setattr("abfed.lab.reports.engine.execute", lambda *_, _done=done, **__: _done)
        try:
            (page, *_) = make_report(asked).files.values()
            kept[said] = (png().encode() in page, b"A picture is left out" in page)
        except Withheld as error:
            kept[said] = error.why
    refused = "cell 1: an e-mail address, written in a picture"
    assert kept == {
        "rounds: 3": (True, False),
        "3 buyers": (False, True),
        "jane.doe@example.org": refused if failure is None else (False, False),
    }


@pytest.mark.parametrize(
    "shown",
    ["'<script>1</script>'", "'<img src=\"https://example.org/x.png\">'", "os.getcwd()"],
)
def test_a_page_with_a_path_or_anything_from_outside_is_not_written(run, tmp_path, shown):
    path = notebook(
        tmp_path,
        f"import os\nfrom IPython.display import HTML\nHTML(data='<p>' + {shown} + '</p>')",
    )
    with pytest.raises(Withheld, match="withheld"):
        write_report(run, tmp_path, notebook=str(path))
    assert {one.name for one in tmp_path.iterdir()} == {"small.ipynb"}


def test_an_unknown_parameter_is_refused_before_a_kernel_starts(run, tmp_path, monkeypatch):
    monkeypatch.setattr("abfed.lab.reports.engine.execute", None)
    with pytest.raises(InputError, match="'alhpa' is unknown") as caught:
        write_report(run, tmp_path, parameters={"alhpa": 0.1})
    assert caught.value.do == "did you mean 'alpha'?"


@pytest.mark.parametrize(
    "cell",
    [
        "alpha = 0.05",
        "alpha: float",
        "import os",
        "x: list = []",
        "alpha: float = 0.05",
        "run_folder: str = f()",
    ],
)
def test_a_parameters_cell_holds_typed_parameters_only(tmp_path, cell):
    document = nbformat.read(str(notebook(tmp_path, parameters=cell)), as_version=4)
    with pytest.raises(InputError):
        declared_parameters(document, where="test")


def test_an_unknown_notebook_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean 'ab_readout'"):
        find_notebook("ab_readuot")
    with pytest.raises(InputError, match="no such notebook"):
        find_notebook(str(tmp_path / "none.ipynb"))
    (tmp_path / "bad.ipynb").write_text("{")
    with pytest.raises(InputError, match="isn't a notebook"):
        read_notebook(tmp_path / "bad.ipynb")


def test_notebooks_are_found_from_anywhere(tmp_path):
    code = (
        "from abfed.lab.reports.notebooks import find_notebook; print(find_notebook('ab_readout'))"
    )
    root = str(notebook_folders()[0].parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": root},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith("ab_readout.ipynb")


def test_papermill_carries_it_out_with_an_engine_of_ours(tmp_path):
    from papermill.engines import papermill_engines

    small = read_notebook(notebook(tmp_path, "1 + 1", "1 / 0"))
    done = execute(small, {"alpha": 0.25}, Place(cwd=tmp_path), Spawned())
    assert papermill_engines.get_engine("abfed").__module__ == "abfed.lab.reports.engine"
    assert done.document.metadata.papermill["parameters"] == {"alpha": 0.25}
    assert done.document.cells[1]["id"] == "injected-parameters"
    assert done.document.cells[1].source == "# Parameters\nalpha = 0.25\n"
    states = [cell.metadata.papermill["status"] for cell in done.document.cells]
    assert states == ["completed", "completed", "completed", "failed"]
    assert done.failure.cell == 3


def test_parameters_are_those_that_papermill_sees(tmp_path, caplog):
    split = 'run_folder: str = ""\nalpha: float = 0.05; beta: float = 1.0  # two'
    document = read_notebook(notebook(tmp_path, parameters=split))
    told = declared_parameters(document, where="small")
    with pytest.raises(InputError, match="Papermill"):
        check_papermill_agrees(document, told, where="small")
    caplog.clear()
    with caplog.at_level("WARNING"):
        for name in known_notebooks():
            document = read_notebook(find_notebook(name))
            check_papermill_agrees(document, declared_parameters(document, where=""), where="")
    assert not caplog.records


def test_a_page_is_made_by_our_templates_only(run, tmp_path, monkeypatch):
    from abfed.lab.paper.exporters import PageExporter, body_of

    for name in ("page.html.j2", "index.html.j2"):
        (tmp_path / name).write_text("taken over")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    document = new_notebook(cells=[nbformat.v4.new_markdown_cell("Words <b>typed</b>")])
    body, _ = PageExporter().from_notebook_node(document)
    assert body.strip() == body_of(document)
    assert body_of(document) == "<section><p>Words &lt;b&gt;typed&lt;/b&gt;</p></section>"


def test_who_names_the_wrong_subject_hears_which_one_is_right(run, tmp_path):
    with pytest.raises(InputError, match="about a security review") as refused:
        write_report(run, tmp_path, notebook="security_review")
    assert "report security" in refused.value.do
