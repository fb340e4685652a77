"""Each notebook that comes with abfed: kept without outputs, run through, a readable page."""

import json
import re

import pytest

from abfed.lab.forking import CAN_FORK, Forked, warm
from abfed.lab.intake import shipped
from abfed.lab.kernels import Spawned
from abfed.lab.notebooks import find_notebook, known_notebooks
from abfed.lab.pages_utility import Grid, simulate
from abfed.lab.reports import make_report, order
from abfed.lab.subjects import of_plan, of_run, of_runs
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from tests.lab.example import example_values, make_run

SMALL_GRID = {"epsilons": "0.3, 3", "brands": "1, 2", "sizes": "500", "repetitions": 50}
PLANNED = {"experiment_design": {}, "privacy_utility": SMALL_GRID}
OF_RUNS = {"engagement_training": {}, "brand_profile": {"brand": "borealis"}}


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


def page_of(subject, kernels, name, parameters):
    made = make_report(order(subject, notebook=name, parameters=parameters), kernels)
    assert made.failure is None, made.failure
    (html,) = (content.decode() for file, content in made.files.items() if file.endswith(".html"))
    return html


def readable(html):
    """A page has one heading of the first order, and each figure says in words what it shows."""
    assert len(re.findall("<h1>", html)) == 1
    figures = re.findall(r"<figure><figcaption>([^<]*)</figcaption>", html)
    assert len(figures) == html.count("<figure>")
    assert all(len(words) > 20 for words in figures)
    assert "nan" not in re.sub(r"<[^>]*>", " ", html).split()
    return html


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_those_about_a_plan_need_no_silo(name, kernels):
    path = shipped("experiments/spring-waves.yaml")
    subject = of_plan(Plan.load(path), path.read_bytes())
    html = readable(page_of(subject, kernels, name, PLANNED[name]))
    assert html.count("<figure>") == 1


@pytest.mark.parametrize("name", sorted(OF_RUNS))
def test_those_about_a_run_read_its_releases(name, run, kernels):
    html = readable(page_of(of_run(run), kernels, name, OF_RUNS[name]))
    assert run.name in html


def test_a_portfolio_is_of_all_runs(run, kernels):
    html = readable(page_of(of_runs([run], run.folder.parent), kernels, "portfolio", {}))
    assert "Least budget is left in borealis" in html


def test_a_plan_that_expects_nothing_says_so(kernels):
    path = shipped("experiments/spring.yaml")
    html = page_of(of_plan(Plan.load(path), path.read_bytes()), kernels, "experiment_design", {})
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
