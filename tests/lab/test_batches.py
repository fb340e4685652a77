"""Batches: what a file means, resuming, failures that stop nothing, and pages that don't tell how
their kernels were started."""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from abfed.cli.main import main
from abfed.lab.reports import batch_run
from abfed.lab.reports.batch_index import index_page, key_figure, write_index
from abfed.lab.reports.batch_run import Ways, carry_out
from abfed.lab.reports.batches import BatchSpec, items_of
from abfed.lab.reports.manifest import read_manifest
from abfed.lab.reports.warming import CAN_FORK
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import AbfedError, InputError, WorkspaceError
from tests.lab.browser import browser, layout_problems, needs_axe, needs_chromium
from tests.lab.example import make_run, statistics_only

CELLS = (
    (
        "import random\nimport numpy as np\nimport pandas as pd\n"
        "print(random.random(), np.random.random(), pd.get_option('display.max_columns'))"
    ),
    (
        "if brand == 'broken':\n    raise ValueError('of the notebook')\n"
        "if brand == 'gone':\n    import os\n    os._exit(1)"
    ),
    (
        "from pathlib import Path\nfrom abfed.lab.runs import Run\n"
        "run = Run.open(Path(run_folder))\n"
        "run.effects.loc[:, ['metric', 'scope', 'arm', 'estimate']].head(3)"
    ),
    "run",
    "run.plot_effects()",
)


FASTEST = "fork" if CAN_FORK else "spawn"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches") / "workspace"
    make_run(folder, statistics_only(simulation={"seed": 3}))
    return Workspace(folder)


def notebook(folder, name="small", cells=CELLS):
    parameters = 'run_folder: str = ""\nalpha: float = 0.05\nbrand: str = ""'
    document = new_notebook(cells=[new_code_cell(parameters, metadata={"tags": ["parameters"]})])
    document.cells += [new_code_cell(source) for source in cells]
    for number, cell in enumerate(document.cells):
        cell["id"] = f"c{number}"
    path = folder / f"{name}.ipynb"
    nbformat.write(document, path)
    return path


def items(workspace, folder, **values):
    return asked(workspace, folder, **values).items


def asked(workspace, folder, **values):
    given = {"name": "try", "runs": ["subject-lines"], "notebook": str(folder / "small.ipynb")}
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(given | values))
    return items_of(BatchSpec.load(path), workspace, beside=folder)


def test_a_notebook_is_found_beside_the_batchs_file(workspace, tmp_path, monkeypatch):
    notebook(tmp_path)
    monkeypatch.chdir(workspace.path)
    (one,) = items(workspace, tmp_path, notebook="small.ipynb")
    assert one.order.path == tmp_path / "small.ipynb"


def test_an_index_counts_reports_in_words():
    facts = {"batch": "b", "left_out": [], "reports": [
        {"report": str(number), "manifest": "", "title": "t", "labels": [["about", "r"]],
         "formats": ["md"], "status": state, "reason": "", "partial": ""}
        for number, state in enumerate(["made", "kept", "kept"])
    ]}  # fmt: skip
    page = index_page(facts, ["analyst"], Path())
    assert "3 reports: 1 made, 2 as they were" in page
    assert "1 made, 1 as it was" in index_page(
        facts | {"reports": facts["reports"][:2]}, ["analyst"], Path()
    )


def test_a_grid_is_every_value_with_every_other_and_a_list_adds(workspace, tmp_path):
    notebook(tmp_path)
    found = items(
        workspace, tmp_path, brands=["", "aurora"], parameters={"alpha": [0.05, 0.1, 0.2]},
        also=[{"run": "subject-lines", "parameters": {"alpha": 0.01}}],
    )  # fmt: skip
    assert len(found) == 7
    assert len({one.order.name for one in found}) == 7
    assert len({one.order.key for one in found}) == 7
    assert {one.order.parameters["brand"] for one in found} == {"", "aurora"}


@pytest.mark.parametrize(
    "values",
    [{"parameters": {"alhpa": [1.0]}}, {"parameters": {"alpha": ["x"]}}, {"runs": []},
     {"periods": ["spring"]}, {"to": ["docx"]}, {"to": ["html", "html"]}, {"unknown": 1},
     {"runs": ["none"]}, {"plans": ["none.yaml"]}, {"parameters": {"alpha": []}},
     {"brands": []}, {"periods": []}, {"parameters": {"alpha": [10**400]}}],
)  # fmt: skip
def test_a_file_with_a_mistake_makes_no_report(workspace, tmp_path, values):
    notebook(tmp_path)
    with pytest.raises(InputError):
        items(workspace, tmp_path, **values)


def test_a_grid_of_a_million_is_refused_before_a_point_of_it_is_looked_at(workspace, tmp_path):
    levels = {name: [one / 200 for one in range(1, 101)] for name in ("alpha", "beta", "gamma")}
    with pytest.raises(InputError, match="too many") as caught:  # no such parameters: unseen
        items(workspace, tmp_path, parameters=levels, notebook="none.ipynb")
    assert "1,000,000 are asked for" in caught.value.why


def test_periods_select_runs_by_their_completion(workspace, tmp_path):
    notebook(tmp_path)
    (tmp_path / "plan.yaml").write_bytes(
        json.dumps(statistics_only(simulation={"seed": 3})).encode()
    )
    year = workspace.runs()[0].manifest["created_at"][:4]
    given = {"runs": [], "plans": ["plan.yaml"]}
    assert len(items(workspace, tmp_path, **given, periods=[year])) == 1
    with pytest.raises(InputError, match="completed in 1999-Q1"):
        items(workspace, tmp_path, **given, periods=["1999-Q1"])
    for source in (given, {}):  # a plan's runs, or a run by its name
        found = asked(workspace, tmp_path, **source, periods=["1999-Q1", year])
        assert [one.labels["period"] for one in found.items] == [year]
        assert len(found.left_out) == 1
        assert "1999-Q1" in found.left_out[0]
    with pytest.raises(InputError, match="completed in 1999-Q1"):  # a list means what it names
        items(workspace, tmp_path, also=[{"run": "subject-lines", "period": "1999-Q1"}])


def test_a_plan_means_its_run_where_the_notebook_is_about_runs_and_itself_where_not(
    workspace, tmp_path
):
    """As `abfed report` has it: a plan without a run got another notebook, without a word."""
    (tmp_path / "ran.json").write_text(json.dumps(statistics_only(simulation={"seed": 3})))
    (tmp_path / "never.json").write_text(json.dumps(statistics_only(name="never")))
    plans = {"runs": [], "plans": ["ran.json", "never.json"]}
    found = asked(workspace, tmp_path, **plans, notebook="ab_readout")
    assert [one.about["kind"] for one in found.items] == ["run"]
    assert found.left_out == ["never.json, ab_readout"]
    grid = {"runs": ["subject-lines"], "notebook": ""}
    with pytest.raises(InputError, match="no run of this plan is complete"):
        asked(workspace, tmp_path, **grid, also=[{"plan": "never.json"}])
    found = asked(workspace, tmp_path, **plans, notebook="privacy_utility")
    assert [one.about["kind"] for one in found.items] == ["plan", "plan"]
    assert {one.labels["notebook"] for one in found.items} == {"privacy_utility"}


def test_a_brand_of_some_runs_is_left_out_of_others_and_a_brand_of_none_is_a_mistake(
    workspace, tmp_path
):
    small = statistics_only(simulation={"seed": 3}, name="two-brands", silos=["aurora", "borealis"])
    run = make_run(workspace.path, small)
    try:
        given = {"runs": ["subject-lines", "two-brands"], "notebook": "ab_readout"}
        found = asked(workspace, tmp_path, **given, brands=["", "corona"])
        about = [(one.order.subject.facts["run"] == run.name, one.labels.get("brand", ""))
                 for one in found.items]  # fmt: skip
        assert about == [(False, ""), (False, "corona"), (True, "")]
        assert found.left_out == ["two-brands, ab_readout, corona"]
        with pytest.raises(InputError, match="none of the report’s brands"):
            items(workspace, tmp_path, **given, brands=["", "coronas"])
    finally:
        shutil.rmtree(run.folder)


@pytest.mark.skipif(not CAN_FORK, reason="kernels are spawned on this system")
@pytest.mark.slow
@pytest.mark.privacy
def test_forked_pages_are_spawned_pages_failures_stop_nothing_and_a_batch_resumes(
    workspace, tmp_path
):
    notebook(tmp_path)
    said = []
    brands = ["", "broken", "gone", "aurora"]
    found = items(workspace, tmp_path, brands=brands)
    forked = carry_out(found, tmp_path / "forked", workspace.keys, Ways(2), said.append)
    assert [one.status for one in forked] == ["made", "failed", "failed", "made"]
    assert len(said) == 4
    assert "cell 3 of the notebook failed (ValueError: of the notebook)" in forked[1].reason
    assert "the kernel died in cell 3" in forked[2].reason
    assert (tmp_path / "forked" / forked[1].partial).is_file()

    spawned = carry_out(
        found[:1] + found[3:], tmp_path / "spawned", workspace.keys, Ways(2, "spawn"), said.append
    )
    assert [one.status for one in spawned] == ["made", "made"]
    for one in spawned:
        name = f"{one.item.order.name}.html"
        page = (tmp_path / "spawned" / name).read_bytes()
        assert page == (tmp_path / "forked" / name).read_bytes()
        assert b" 20\n" in page  # pandas as in a notebook, wherever it was imported
    pages = [(tmp_path / "forked" / f"{one.order.name}.html").read_text() for one in found[::3]]
    assert pages[0].split("<pre>")[1] != pages[1].split("<pre>")[1]  # each report draws its own

    page = tmp_path / "forked" / f"{found[3].order.name}.html"
    page.write_bytes(page.read_bytes() + b" ")
    again = carry_out(found, tmp_path / "forked", workspace.keys, Ways(1), said.append)
    assert [one.status for one in again] == ["kept", "failed", "failed", "made"]
    manifest = read_manifest(page.with_suffix(".report"), workspace.keys.public_key)
    assert manifest["confinement"]
    assert manifest["parameters"]["brand"] == "aurora"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_scheduler_interrupts_a_batch_as_a_person_does(
    workspace, tmp_path, monkeypatch, capsys, number
):
    def ended(*_):
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr(batch_run, "carry_out", ended)
    ignored_hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as `nohup` has it
    before = signal.getsignal(signal.SIGTERM)
    notebook(tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"name": "try", "runs": ["subject-lines"]}))
    # Whoever runs these tests in the background of a shell has it ignored.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["batch", str(path), "-w", str(workspace.path)]) == 130
    finally:
        signal.signal(signal.SIGINT, ignored)
        hung_up = signal.signal(signal.SIGHUP, ignored_hangup)
    assert hung_up is signal.SIG_DFL
    assert "run it again to go on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_link_is_not_followed_out_of_the_reports(workspace, tmp_path):
    notebook(tmp_path)
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
    elsewhere.mkdir(mode=0o755)
    link.symlink_to(elsewhere)
    with pytest.raises(WorkspaceError, match="is a link"):
        carry_out(items(workspace, tmp_path), link, workspace.keys, Ways(1), lambda _: None)
    assert list(elsewhere.iterdir()) == []
    assert elsewhere.stat().st_mode & 0o777 == 0o755


def test_two_batches_into_one_folder_make_each_report_once(workspace, tmp_path):
    notebook(tmp_path)
    found, ways = items(workspace, tmp_path, brands=["", "aurora"]), Ways(1, FASTEST)
    ended = []

    def one():
        ended.append(carry_out(found, tmp_path / "shared", workspace.keys, ways, lambda _: None))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    told = sorted([each.status for each in outcomes] for outcomes in ended)
    assert told == [["kept", "kept"], ["made", "made"]]


LONG = "a-brand-with-a-name-that-is-as-long-as-names-may-be-and-longer-than-phones-are-wide"
PICTURE = """from pathlib import Path
from abfed.lab.runs import Run
Run.open(Path(run_folder)).plot_effects()"""


@pytest.fixture(scope="module")
def batch(workspace, tmp_path_factory):
    """A batch with a report that failed, and its index."""
    source = tmp_path_factory.mktemp("grid")
    notebook(source, cells=(CELLS[1], PICTURE))
    found = items(workspace, source, name="shown", brands=["", "broken", LONG])
    folder = workspace.reports_folder / "shown"
    outcomes = carry_out(found, folder, workspace.keys, Ways(1, FASTEST), lambda _: None)
    left_out = ["spring.yaml, aurora, 1999-Q1"]
    return outcomes, write_index("shown", outcomes, folder, workspace.keys, left_out=left_out)


def test_the_index_shows_each_report_and_loads_nothing(batch):
    outcomes, index = batch
    page = index.read_text()
    assert [one.status for one in outcomes] == ["made", "failed", "made"]
    assert page.count("<li ") == 3
    assert page.count('src="data:image/') == 2  # the key figures of those that were made
    assert "how far it came" in page
    assert LONG in page
    assert "1 point of the grid left out" in page
    assert "spring.yaml, aurora, 1999-Q1" in page
    assert "http:" not in page
    assert "script-src 'sha256-" in page


def test_whatever_a_card_says_of_its_report_is_searched(batch):
    cards = batch[1].read_text().split("<li ")[1:]
    for card in cards:
        words = re.search(r'data-words="([^"]*)"', card)[1]
        about = re.search(r"<h2>(.*?)</h2>(.*?)<", card, re.DOTALL)
        said = re.findall(r'<p class="soft">(.*?)</p>', card, re.DOTALL)
        for text in (about[1], *said):
            plain = re.sub(r"<[^>]*>", " ", text).lower().split()
            assert [one for one in plain if one != "·" and one not in words] == []
    assert any(" = " in re.search(r'data-words="([^"]*)"', card)[1] for card in cards)


def test_a_page_that_was_changed_into_no_text_ends_no_index(tmp_path):
    page = tmp_path / "page.html"
    page.write_bytes(b'<img src="data:image/png;base64,\xff\xfe">')
    assert key_figure(page).startswith("data:image/png")


@needs_chromium
@needs_axe
def test_the_index_holds_its_layout_is_accessible_and_is_searched(batch):
    page = batch[1].read_text()
    assert layout_problems({"index": page}) == []
    with browser() as opened:
        shown = opened.new_page()
        shown.goto(batch[1].as_uri())  # its own policy holds here
        shown.locator("#q").fill("broken fail")
        assert shown.locator("#said").inner_text() == "1 of 3 reports"
        assert shown.locator(".cards li:visible").count() == 1
        name, value = re.search(r"(\w+) = ([\w.]+)", page.partition("data-words=")[2]).groups()
        counted = []
        for typed in (f"{name} = {value}", f"{name}={value}"):  # as it is read, as it is given
            shown.locator("#q").fill(typed)
            counted.append(shown.locator("#said").inner_text())
        assert counted[0] == counted[1] != "0 of 3 reports"


def verified(workspace, capsys):
    capsys.readouterr()
    code = main(["report", "verify", "shown", "-w", str(workspace.path), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_index_is_verified_with_each_report_on_it(batch, workspace, capsys):
    outcomes, index = batch
    assert verified(workspace, capsys)[0] == 0
    report = index.with_name(f"{outcomes[0].item.order.name}.html")
    for file, found in ((index, index.name), (report, report.name)):
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b"</main>", b"!</main>"))
        code, told = verified(workspace, capsys)
        file.write_bytes(whole)
        assert (code, told["damaged"]) == (4, [found])
    # A report that was signed anew is another report than the one that the index was made beside.
    manifest = report.with_suffix(".report")
    whole = manifest.read_bytes()
    manifest.write_bytes(index.with_suffix(".report").read_bytes())
    assert verified(workspace, capsys)[1]["damaged"][0] == manifest.name
    manifest.write_bytes(whole)
    assert verified(workspace, capsys)[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
def test_an_index_is_written_whole_or_not_at_all(batch, workspace):
    import resource

    outcomes, index = batch
    before = {one.name: one.read_bytes() for one in index.parent.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises((AbfedError, OSError)):
            write_index("shown", outcomes[:1], index.parent, workspace.keys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {one.name: one.read_bytes() for one in index.parent.iterdir()} == before


def test_a_changed_index_manifest_is_no_manifest(batch, workspace):
    manifest = batch[1].with_suffix(".report")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b'"failed"', b'"made"', 1))
    assert main(["report", "verify", "shown", "-w", str(workspace.path)]) == 4
    manifest.write_bytes(whole)
