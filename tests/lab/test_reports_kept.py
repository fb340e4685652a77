"""What a report leaves in its folder: nothing withheld, and no page without a manifest."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from abfed.lab.reports.execution import Limits
from abfed.lab.reports.kernels import Spawned
from abfed.lab.reports.manifest import read_manifest
from abfed.lab.reports.report import FAILED, Made, keep, make_report, order, write_report
from abfed.lab.reports.subjects import of_run
from abfed.lab.reports.worker import work
from abfed.lab.views.readings import against_guessing
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import ReportFailed
from abfed.site.keys import SiteKeys
from tests.lab.example import example_values, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "workspace"
    return make_run(folder, example_values(simulation={"seed": 7}))


def write(folder, *cells):
    first = new_code_cell(
        'run_folder: str = ""\nalpha: float = 0.05', metadata={"tags": ["parameters"]}
    )
    path = folder / "small.ipynb"
    nbformat.write(new_notebook(cells=[first, *cells]), path)
    return str(path)


def test_a_failed_page_holds_nothing_that_would_be_withheld(run, tmp_path):
    """Neither in a text, a source or an output, nor in why it failed: that goes to the index."""
    path = write(
        tmp_path,
        new_markdown_cell("ask ada@example.com"),
        new_code_cell("planted = 'canary-in-source'"),
        new_code_cell("print('fine')"),
        new_code_cell("raise ValueError('canary-in-message of ada@example.com')"),
    )
    with pytest.raises(ReportFailed) as caught:
        write_report(run, tmp_path, notebook=path)
    assert caught.value.why == "ValueError"
    files = sorted(tmp_path.glob(f"*{FAILED}.*"))
    assert len(files) == 2
    for file in files:
        text = file.read_text()
        assert "canary" not in text
        assert "ada@" not in text
        assert "fine" in text
        assert "left out" in text


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("open('/home/ada/customers.csv')", "reads runs and its own folder only"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "can’t connect to anything"),
    ],
)
def test_what_the_kernel_refused_is_said_where_the_cell_is_left_out(run, tmp_path, cell, why):
    made = make_report(order(of_run(run), notebook=write(tmp_path, new_code_cell(cell))))
    assert made.failure is not None
    assert made.failure.reason == f"PermissionError: a report’s kernel {why}"
    for content in made.files.values():
        assert b"customers" not in content
        assert why.encode() in content


def test_a_notebooks_progress_bar_is_on_no_page(run, tmp_path):
    """As text it would say for ever what a bar in a browser says first: 0 %."""
    cell = new_code_cell("from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\nprint('done')")
    made = make_report(order(of_run(run), notebook=write(tmp_path, cell)))
    (page,) = (content for name, content in made.files.items() if name.endswith(".html"))
    assert b"done" in page
    assert b"it/s" not in page


def test_why_it_failed_names_no_folder(run, tmp_path):
    path = write(
        tmp_path, new_code_cell("raise ValueError('/'.join(['no ', 'home', 'ada', 'a.csv here']))")
    )
    made = make_report(order(of_run(run), notebook=path))
    assert made.failure is not None
    assert made.failure.reason == "ValueError: no a.csv here"


def test_a_notebook_without_an_end_took_too_long_and_is_not_called_dead(run, tmp_path):
    path = write(tmp_path, new_code_cell("while True: pass"))
    made = make_report(order(of_run(run), notebook=path), limits=Limits(report=6))
    assert made.failure is not None
    assert made.failure.kind == "time-out"
    assert made.failure.reason == "more than 6 seconds in all"


def test_a_machine_that_refuses_a_file_is_no_defect(run, tmp_path):
    path = write(tmp_path, new_code_cell("print('fine')"))
    asked = order(of_run(run), notebook=path)
    (tmp_path / f"{asked.name}.html").mkdir()  # can't be replaced by a file, by root either
    job = {
        "about": {"kind": "run", "folder": str(run.folder)}, "notebook": path, "parameters": {},
        "formats": ["html"], "name": asked.name, "folder": str(tmp_path), "timeout": 60,
        "public_key": Workspace(run.folder.parent.parent).keys.public_key.hex(),
    }  # fmt: skip
    said = work(job, Spawned())["error"]
    assert said == "files couldn’t be read or written: Is a directory"


def test_formats_made_one_after_another_are_one_report(run, tmp_path):
    """The manifest names each file that bears the report's name, or the file is gone."""
    keys = SiteKeys.create(tmp_path / "keys", site="coordinator")

    def report(form, **parameters):
        asked = order(of_run(run), parameters=parameters, formats=(form,))
        files = {f"{asked.name}.{form}": json.dumps([form, parameters]).encode()}
        manifest = {
            "format": 1, "report": asked.name, "key": asked.key, "notebook": {}, "seed": 1,
            "parameters": parameters, "subject": {}, "versions": {}, "code": "", "audience": [],
            "confinement": "", "files": {n: sha256_hex(c) for n, c in files.items()},
        }  # fmt: skip
        folder = tmp_path / "reports"
        keep(Made(files, manifest, None), asked, folder, keys)
        named = read_manifest(folder / f"{asked.name}.report", keys.public_key)["files"]
        there = {one.name for one in folder.iterdir() if one.suffix != ".report"}
        assert there == set(named)
        return {one.rpartition(".")[2] for one in named}

    assert report("html") == {"html"}
    assert report("md") == {"html", "md"}
    assert report("md", alpha=0.1) == {"md"}
    page = next((tmp_path / "reports").glob("*.md"))
    page.write_text("tampered")
    assert report("html", alpha=0.1) == {"html"}


@pytest.mark.parametrize(
    ("auc", "said"),
    [(0.40, "can’t be told from guessing"), (0.1, "worse than guessing"), (0.9, "")],
)
def test_a_model_that_ranks_no_better_than_by_lot_is_called_so(auc, said):
    sentence = against_guessing(auc, 0.13)
    assert said in sentence
    assert bool(said) == bool(sentence)
