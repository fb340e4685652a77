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
from tests.lab.browser import AXE, browser, needs_axe, needs_chromium
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


def page_of(subject, kernels, name, parameters):
    made = make_report(order(subject, notebook=name, parameters=parameters), kernels)
    assert made.failure is None, made.failure
    (html,) = (content.decode() for file, content in made.files.items() if file.endswith(".html"))
    return html


@pytest.fixture(scope="module")
def pages(run, kernels):
    """The page of each notebook."""
    path = shipped("experiments/spring-waves.yaml")
    planned = of_plan(Plan.load(path), path.read_bytes())
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
    assert all(len(words) > 20 for words in figures)
    assert "nan" not in re.sub(r"<[^>]*>", " ", html).split()


def test_what_a_page_says_is_computed(pages, run):
    assert "Least budget is left in borealis" in pages["portfolio"]
    assert "<h1>borealis</h1>" in pages["brand_profile"]
    assert run.name in pages["engagement_training"]


@needs_chromium
@needs_axe
def test_pages_hold_their_layout_and_are_accessible(pages):
    """At desktop and phone width: nothing sticks out, every picture is there, axe finds nothing."""
    problems = []
    with browser() as opened:
        for width in (1280, 375):
            context = opened.new_context(
                viewport={"width": width, "height": 900}, bypass_csp=True, offline=True
            )
            for name, html in pages.items():
                page = context.new_page()
                page.set_content(html)
                problems += [f"{name} at {width}: {one}" for one in problems_of(page)]
                page.close()
            context.close()
    assert problems == []


def problems_of(page):
    """What is wrong with a page, in words."""
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if wide > 0:
        yield f"{wide} pixels stick out"
    broken = page.evaluate(
        "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
    )
    if broken:
        yield f"{broken} pictures are broken"
    page.add_script_tag(path=str(AXE / "axe.min.js"))
    for one in page.evaluate("axe.run()")["violations"]:
        first = one["nodes"][0]["html"][:120]
        yield f"{one['id']}: {one['help']} ({len(one['nodes'])} times, as in {first})"


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
