"""The bar over a run's steps: a widget in a notebook, a line in IPython, nothing in a script."""

import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from abfed.coordinator.conduct import Event
from abfed.lab.intake import found_and_ingest
from abfed.lab.samples.mock import write_mock
from abfed.lab.views.progress import shown
from abfed.lab.workspace import Workspace
from abfed.protocol.plan import Plan
from tests.lab.example import statistics_only

STEPS = ("totals", "train-0001", "evaluate")


@pytest.fixture
def notebook(monkeypatch):
    """A shell that tqdm takes for a notebook's kernel, and what it displays."""
    import ipykernel.zmqshell  # noqa: F401 - by this tqdm knows a kernel

    shell = InteractiveShell.instance()
    found = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, *_, **__: found.append(data))
    for name in ("tqdm.auto", "tqdm.autonotebook"):  # they look for a notebook once
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield found
    InteractiveShell.clear_instance()


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A workspace with a small brand, and the plan that asks it."""
    folder = tmp_path_factory.mktemp("bar")
    values = statistics_only(population=[], silos=["aurora"], minimum_silos=1)
    plan = Plan.from_values(values)
    workspace = Workspace.create(folder / "ws", development=True)
    for one in write_mock(plan, folder / "mock", seed=1, recipients=200):
        found_and_ingest(
            workspace, one.name, one.export, one.mapping, synthetic=True, purposes=(plan.purpose,)
        )
    workspace.sign_in_development()
    return workspace, plan


def widgets(found):
    """The words that a bar's widgets say, and how full they are."""
    from ipywidgets import Widget

    states = {name: one["state"] for name, one in Widget.get_manager_state()["state"].items()}
    key = "application/vnd.jupyter.widget-view+json"
    for box in [one[key]["model_id"] for one in found if key in one]:
        parts = [states[one.removeprefix("IPY_MODEL_")] for one in states[box]["children"]]
        words, bar, _ = parts
        yield " ".join(words["value"].split()), bar["value"], bar["max"], bar["bar_style"]


def tell(progress, *steps):
    for number, step in enumerate(steps, start=1):
        progress(Event("ask", "", step, number, len(STEPS)))
        progress(Event("answer", "aurora", step, number, len(STEPS)))
        progress(Event("left-out", "borealis", step, number, len(STEPS)))
        progress(Event("closed", "", step, number, len(STEPS)))


def test_a_run_in_a_notebook_shows_a_bar_that_ends_full(notebook, asked, capsys):
    workspace, plan = asked
    workspace.run(plan)
    assert list(widgets(notebook)) == [("subject-lines: complete", 1, 1, "success")]
    captured = capsys.readouterr()
    assert "totals" not in captured.out + captured.err


def test_a_run_that_fails_leaves_a_bar_that_says_how_far_it_came(notebook):
    def fail():
        with shown(None, "spring") as progress:
            tell(progress, "totals", "train-0001")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(widgets(notebook)) == [("spring: train-0001", 2, 3, "danger")]


def test_who_brings_a_progress_gets_no_bar(notebook):
    told = []
    with shown(told.append, "spring") as progress:
        tell(progress, *STEPS)
    assert len(told) == 12
    assert notebook == []


def test_a_script_sees_nothing(asked, capsys):
    workspace, plan = asked
    workspace.run(plan)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
