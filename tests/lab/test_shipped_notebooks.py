"""Each notebook that comes with abfed: kept without outputs, run through, a readable page."""

import json
import re
from pathlib import Path

import pytest

from abfed.lab.disclosure.left_out import LEFT_OUT
from abfed.lab.reports.forking import Forked
from abfed.lab.reports.kernels import Spawned
from abfed.lab.reports.manifest import read_manifest
from abfed.lab.reports.notebooks import find_notebook, known_notebooks
from abfed.lab.reports.report import make_report, order, write_report
from abfed.lab.reports.subjects import of_plan, of_run, of_runs
from abfed.lab.reports.verifying import verify_report
from abfed.lab.reports.warming import CAN_FORK, warm
from abfed.lab.samples.shipped import shipped
from abfed.lab.sections import portfolio
from abfed.lab.sections.utility import Grid, simulate
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from tests.lab.browser import layout_problems, needs_axe, needs_chromium
from tests.lab.example import example_values, make_run

SMALL_GRID = {"epsilons": "0.3, 3", "brands": "1, 2", "sizes": "500", "repetitions": 50}
PLANNED = {"experiment_design": {}, "privacy_utility": SMALL_GRID}
OF_RUNS = {"ab_readout": {}, "engagement_training": {}, "brand_profile": {"brand": "borealis"}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("shipped") / "workspace", example_values(), size=20_000)


@pytest.fixture(scope="module")
def kernels():
    if not CAN_FORK:
        yield Spawned()
        return
    with warm() as at:
        yield Forked(at)


@pytest.mark.parametrize("name", sorted(known_notebooks()))
def test_it_is_kept_without_outputs(name):
    document = json.loads(find_notebook(name).read_text())
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert all(len(cell["source"]) <= 10 for cell in code)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])


NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_what_it_imports_is_there(path):
    """What only notebooks use looks like a name that nothing uses."""
    cells = json.loads(path.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = "\n".join(one for one in sources if not one.startswith("%")).splitlines()
    imports = [one for one in lines if one.startswith("from abfed.")]
    assert imports
    exec(compile("\n".join(imports), path.name, "exec"), {})


def page_of(subject, kernels, name, parameters):
    made = make_report(order(subject, notebook=name, parameters=parameters), kernels)
    assert made.failure is None, made.failure
    (html,) = (content.decode() for file, content in made.files.items() if file.endswith(".html"))
    return html


@pytest.fixture(scope="module")
def pages(run, kernels):
    """The page of each notebook."""
    path = shipped("experiments/spring-waves.yaml")
    planned = of_plan(Plan.load(path), path.read_bytes(), path.parent)
    made = {name: page_of(planned, kernels, name, given) for name, given in PLANNED.items()}
    of_one = of_run(run)
    made |= {name: page_of(of_one, kernels, name, given) for name, given in OF_RUNS.items()}
    made["portfolio"] = page_of(of_runs([run], run.folder.parent), kernels, "portfolio", {})
    return made


@pytest.mark.parametrize("name", [*PLANNED, *OF_RUNS, "portfolio"])
def test_a_page_reads_as_a_story(name, pages):
    html = pages[name]
    assert len(re.findall("<h1>", html)) == 1
    figures = re.findall(r"<figure><figcaption>([^<]*)</figcaption>", html)
    assert len(figures) == html.count("<figure>") >= 1
    assert LEFT_OUT not in html
    assert all(len(words) > 20 for words in figures)
    assert "nan" not in re.sub(r"<[^>]*>", " ", html).split()


def test_a_figure_shows_one_metric_and_is_read_for_itself(pages, run):
    html = pages["experiment_design"]
    figures = re.findall(r"<figure><figcaption>([^<]*)</figcaption>", html)
    metrics = [re.match(r"“([^”]+)”: power \d", words)[1] for words in figures]
    assert metrics[0] == "clicked"
    assert len(metrics) == len(set(metrics)) > 3
    named = re.findall(rf'<span class="soft">{run.plan.name}</span>', pages["portfolio"])
    assert len(named) == 3, "what a figure calls an experiment stands beside its title"
    assert re.search(r"Its interval is [\d.]+(\xa0% wider| times as wide)", pages["brand_profile"])


def test_a_period_without_an_experiment_is_a_page_that_says_so(run):
    """A month in which nothing ended fails no schedule; a folder without any run is a mistake."""
    runs = portfolio.open_runs(run.folder.parent, "1999-Q1")
    assert runs == []
    said = portfolio.headline(runs, "1999-Q1")
    assert "Experiments of 1999-Q1" in said
    assert "No experiment was completed in it." in said
    assert not portfolio.wins(runs) + portfolio.learning(runs)
    assert portfolio.budgets(runs) == ""
    with pytest.raises(InputError, match="no complete run"):
        portfolio.open_runs(run.folder)


def test_what_a_page_says_is_computed(pages, run):
    assert "Least budget is left in borealis" in pages["portfolio"]
    assert "<h1>borealis</h1>" in pages["brand_profile"]
    assert run.name in pages["engagement_training"]


@needs_chromium
@needs_axe
def test_pages_hold_their_layout_and_are_accessible(pages):
    """At desktop and phone width: nothing sticks out, every picture is there, axe finds nothing."""
    assert layout_problems(pages) == []


def test_a_simulation_runs_again_from_its_seed_to_the_same_bytes(run, kernels):
    """`abfed report verify` runs every made-up experiment anew; another seed is another report."""
    path = shipped("experiments/spring-waves.yaml")
    subject = of_plan(Plan.load(path), path.read_bytes(), path.parent)
    workspace = Workspace(run.folder.parents[1])
    pages = [
        write_report(
            subject, workspace.reports_folder, notebook="privacy_utility", kernels=kernels,
            parameters=SMALL_GRID | {"seed": seed}, formats=("html", "md"), signer=workspace.keys,
        ).read_text()
        for seed in (5, 6)
    ]  # fmt: skip
    figures = [re.findall(r"<td[^>]*>([^<]*)", html) for html in pages]
    assert figures[0] != figures[1]
    manifest = read_manifest(
        workspace.reports_folder / f"{subject.name}-privacy_utility.report",
        workspace.keys.public_key,
    )
    assert manifest["parameters"]["seed"] == 6
    verdict = verify_report(workspace, manifest["report"], plan=path, kernels=kernels)
    assert verdict.identical


def test_a_plan_that_expects_nothing_says_so(kernels):
    path = shipped("experiments/spring.yaml")
    html = page_of(
        of_plan(Plan.load(path), path.read_bytes(), path.parent), kernels, "experiment_design", {}
    )
    assert "says nothing of what is expected" in html


def test_the_grid_finds_what_is_there():
    plan = Plan.load(shipped("experiments/spring-waves.yaml"))
    grid = Grid.of_texts("0.1, 3", "4", "20000", 400, 1)
    found = simulate(plan, grid).set_index("epsilon")
    assert ((found["coverage"] > 0.91) & (found["coverage"] < 0.985)).all()
    assert found.loc[3.0, "power"] > 0.9
    assert found.loc[0.1, "widening"] > found.loc[3.0, "widening"] > 1


@pytest.mark.parametrize(
    ("epsilons", "brands"), [("x", "1"), ("", "1"), ("0", "1"), ("1", "0"), ("1", "1,2," * 150)]
)
def test_a_grid_of_something_else_is_refused(epsilons, brands):
    with pytest.raises(InputError):
        Grid.of_texts(epsilons, brands, "1000", 10, 1)
