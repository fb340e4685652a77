"""Values that a notebook's comment doesn't allow are refused before a kernel starts."""

import json
import subprocess
import sys

import pytest

from abfed.lab.reports.bounds import NotThere, check_bounds
from abfed.lab.reports.notebooks import declared_parameters, find_notebook, read_notebook
from abfed.lab.reports.report import order
from abfed.lab.reports.subjects import find_subject, of_run
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError
from tests.lab.example import make_run, statistics_only

BRANDS = {"brands": ("aurora", "borealis")}


@pytest.mark.parametrize(
    ("comment", "good", "bad"),
    [
        ("between 0 and 1: a level", (0.05, 0.999), (0.0, 1.0, -0.1, 2.0)),
        ("from 2 to 100: times", (2, 100), (1, 101)),
        ("each from 0.1 to 10: sizes", ("0.1", "0.1, 3,10"), ("", "0", "3, 11", "3;4", "x", "nan")),
        ("one of brands: to look at", ("", "aurora"), ("nosuch", "Aurora", "aurora,borealis")),
        ("a period", ("", "2026", "2026-Q2", "2026-05"), ("2026-Q5", "2026-13", "spring")),
        ("which is between 0 and 1", (7.0,), ()),
        ("", (7.0, "x"), ()),
    ],
)
def test_a_comment_says_what_is_allowed(comment, good, bad):
    for value in good:
        check_bounds("value", value, comment, BRANDS, where="test")
    for value in bad:
        with pytest.raises(InputError, match="'value'") as caught:
            check_bounds("value", value, comment, BRANDS, where="test")
        assert caught.value.do


def test_a_refusal_says_of_what_the_range_is():
    for comment, value, why in [
        ("each from 0.1 to 10: sizes", "0", "each of its numbers must be from 0.1 to 10"),
        ("between 0 and 1: a level", 2.0, "it must be between 0 and 1"),
    ]:
        with pytest.raises(InputError) as caught:
            check_bounds("value", value, comment, BRANDS, where="test")
        assert caught.value.why == why


def test_the_nearest_brand_is_named_and_none_where_noise_was_added_once():
    with pytest.raises(InputError) as caught:
        check_bounds("brand", "aurra", "one of brands", BRANDS, where="test")
    assert caught.value.do == "did you mean 'aurora'?"
    with pytest.raises(InputError) as caught:
        check_bounds("brand", "aurora", "one of brands", {"brands": ()}, where="test")
    assert "single brands" in caught.value.why


def test_each_shipped_parameter_that_has_bounds_says_them():
    said = {
        name: declared_parameters(read_notebook(find_notebook(name)), where=name)
        for name in ("ab_readout", "portfolio", "privacy_utility", "brand_profile")
    }
    for name, parameter, bad in [
        ("ab_readout", "alpha", 2.0), ("ab_readout", "brand", "nosuch"),
        ("brand_profile", "brand", "nosuch"), ("portfolio", "period", "spring"),
        ("privacy_utility", "sizes", "5"), ("privacy_utility", "repetitions", 1),
    ]:  # fmt: skip
        with pytest.raises(InputError):
            check_bounds(parameter, bad, said[name][parameter].help, BRANDS, where=name)


@pytest.mark.parametrize(
    ("notebook", "why"),
    [("engagement_training", "has none"), ("privacy_utility", "made-up people")],
)
def test_a_run_that_a_notebook_is_not_about_is_refused_before_any_kernel(tmp_path, notebook, why):
    """It was executed, and failed, or its page was withheld."""
    subject = of_run(make_run(tmp_path / "workspace", statistics_only()))
    with pytest.raises(NotThere) as caught:
        order(subject, notebook=notebook)
    assert why in caught.value.why
    assert caught.value.do
    made_up = statistics_only(simulation={"seed": 3})
    simulated = of_run(make_run(tmp_path / "simulated", made_up))
    assert order(simulated, notebook="privacy_utility").notebook == "privacy_utility"
    trained = of_run(make_run(tmp_path / "trained"))
    assert order(trained, notebook="engagement_training").notebook == "engagement_training"


@pytest.mark.parametrize(("name", "value"), [("alpha", "2"), ("brand", "nosuch")])
def test_the_command_refuses_them_and_starts_nothing(tmp_path, name, value):
    workspace = tmp_path / "workspace"
    run = make_run(workspace, statistics_only())
    command = [sys.executable, "-X", "importtime", "-m", "abfed", "report", run.name, "-p", name,
               value, "--workspace", str(workspace)]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    said = [one for one in done.stderr.splitlines() if not one.startswith("import time:")]
    assert said[0].startswith(f"bad-input: ab_readout.ipynb: parameter {name!r}")
    assert [one.split(":")[0].strip() for one in said[1:]] == ["why", "do"]
    # What takes the time isn't even imported: nothing that runs notebooks, nothing that computes.
    loaded = {one.rpartition("|")[2].strip() for one in done.stderr.splitlines()}
    assert not loaded & {"papermill", "numpy", "pandas", "jupyter_client"}
    assert not list((workspace / "reports").iterdir())


def test_a_notebook_about_something_else_says_how_it_is_asked_for(tmp_path):
    run = make_run(tmp_path / "workspace", statistics_only())
    subject = of_run(run)
    with pytest.raises(InputError) as caught:
        order(subject, notebook="security_review")
    assert "a security review" in caught.value.what
    assert caught.value.why == "this report would be about a run"
    assert caught.value.do == "`abfed report security --notebook security_review`"


def test_a_plans_file_cannot_change_for_whom_a_run_is(tmp_path):
    values = statistics_only()
    run = make_run(tmp_path / "workspace", values)
    workspace = Workspace(tmp_path / "workspace")
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps(values))
    assert find_subject(workspace, str(plan)).name == run.name
    plan.write_text(json.dumps(values | {"report": {"title": "Other", "audience": ["auditor"]}}))
    with pytest.raises(InputError, match="audience, title") as caught:
        find_subject(workspace, str(plan))
    assert "abfed run" in caught.value.do


def test_a_format_is_named_once(tmp_path):
    run = make_run(tmp_path / "workspace", statistics_only())
    with pytest.raises(InputError, match="'pdf' was named twice"):
        order(of_run(run), formats=("pdf", "pdf"))
