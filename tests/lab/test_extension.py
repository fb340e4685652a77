"""What a notebook shows of what is ours, and what `%load_ext abfed` adds to it."""

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import abfed
from abfed.lab.reports.notebooks import known_notebooks, read_notebook
from abfed.lab.views.cards import model_card, plan_card, release_card, shape_of
from abfed.lab.views.extension import error_card
from abfed.protocol.errors import AbfedError, PlanError
from abfed.protocol.plan import Plan
from tests.lab.example import example_values, make_run


@pytest.fixture(scope="module")
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


@pytest.fixture
def shown(shell, monkeypatch):
    """Runs a cell as a notebook does and gives all that it displays."""
    found = []

    def publish(data, *_, **__):
        found.append(data)

    monkeypatch.setattr(shell.display_pub, "publish", publish)

    def run(text):
        found.clear()
        result = shell.run_cell(text, store_history=False)
        if result.result is not None:
            found.append(shell.display_formatter.format(result.result)[0])
        return result, found

    shell.run_line_magic("load_ext", "abfed")
    return run


PLAN = """\
name: tiny
purpose: email-optimisation
experiment: subject-lines
silos: [aurora]
arms: [{name: a, share: 0.5, control: true}, {name: b, share: 0.5}]
metrics: [{name: clicked, kind: proportion, column: clicked}]
primary: clicked
privacy: {epsilon: 1.0, delta: 1.0e-6, split: {statistics: 1.0}}
"""


def test_a_plan_is_checked_where_it_is_typed(shell, shown):
    result, found = shown(f"%%plan mine\n{PLAN}")
    assert isinstance(result.result, Plan)
    assert shell.user_ns["mine"] == result.result
    assert "abfed plan" in found[-1]["text/html"]
    assert result.result.digest[:16] in found[-1]["text/html"]


def test_what_is_wrong_with_a_plan_is_a_card_that_says_what_to_do(shell, shown):
    shell.user_ns.pop("wrong", None)
    result, found = shown(f"%%plan wrong\n{PLAN.replace('primary: clicked', 'primary: clickd')}")
    assert result.result is None
    assert "wrong" not in shell.user_ns
    assert 'role="alert"' in found[0]["text/html"]
    assert "clickd" in found[0]["text/html"]


def test_an_error_of_ours_shows_no_traceback(shown, capsys):
    _, found = shown("import abfed\nabfed.Plan.load('nowhere.yaml')")
    assert "nowhere.yaml" in found[0]["text/html"]
    assert "Traceback" not in found[0]["text/html"] + capsys.readouterr().out


def test_an_interrupt_of_ours_is_a_card_and_anothers_is_pythons_own(shown, capsys):
    ours = "from abfed.lab.views import typed\ndef stop(): raise KeyboardInterrupt\n"
    result, found = shown(
        f"{ours}exec(compile('stop()', 'x', 'exec'), vars(typed) | {{'stop': stop}})"
    )
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert "interrupted" in found[0]["text/html"]
    assert "run the cell again" in found[0]["text/html"]
    assert "Traceback" not in capsys.readouterr().out
    _, found = shown("raise KeyboardInterrupt")
    assert found == []
    assert "KeyboardInterrupt" in capsys.readouterr().out


def test_names_are_completed(shell, shown, tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "spring.yaml").write_text(PLAN)
    (tmp_path / "experiments" / "spring.mapping.yaml").write_text("arm: {column: variant}\n")
    monkeypatch.chdir(tmp_path)
    offered = completed(shell, 'Plan.load("experiments/sp')
    assert "experiments/spring.yaml" in offered
    assert "experiments/spring.mapping.yaml" not in offered  # no plan: loading it is an error
    assert "experiment: " in completed(shell, "%%plan\nexper")
    assert "experiment: " not in completed(shell, "%%plan\nprivacy:\n  exper")


def completed(shell, text):
    with provisionalcompleter():
        return [one.text for one in shell.Completer.completions(text, len(text))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("cards") / "workspace", example_values())


def test_each_thing_has_a_card(run):
    plan = plan_card(Plan.from_values(example_values()))
    assert "Which subject line makes people click?" in plan
    assert "logistic regression" in plan
    assert "probability of clicked" in model_card(run.plan.model)
    release = run.releases["aurora"]["totals"].release
    card = release_card(release)
    assert "gaussian noise, σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}" in card
    assert release.plan_digest[:16] in card
    assert release.arrays_digest not in card


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ((), "logistic regression with arm interactions"),
        ((16,), "network with a hidden layer of 16"),
        ((64, 32), "network with hidden layers of 64-32"),
    ],
)
def test_a_models_shape_is_said_in_words(run, hidden, said):
    assert shape_of(run.plan.model.model_copy(update={"hidden": hidden})) == said


def test_a_ledger_and_a_figure_show_themselves(run, shell):
    abfed.Plan  # noqa: B018 - the first use of a name tells IPython
    formats, _ = shell.display_formatter.format(run.ledger)
    assert f'data-source="{run.source}"' in formats["text/html"]
    formats, _ = shell.display_formatter.format(run.plot_effects())
    assert formats["image/png"].startswith(b"\x89PNG")
    assert 'class="abfed card"' in shell.display_formatter.format(run)[0]["text/html"]


def test_releases_show_themselves_and_no_figure_of_theirs(run, shell):
    formats, _ = shell.display_formatter.format(run.releases)
    assert f'data-source="{run.source}"' in formats["text/html"]
    assert '>aurora</th><td>totals</td><td class="n">1</td>' in formats["text/html"]
    assert repr(run.releases["aurora"]).startswith("{'")
    assert "'totals': Accepted('aurora', 'totals')" in repr(run.releases["aurora"])


def test_what_an_error_repeats_is_no_markup():
    assert "<b>" not in error_card(PlanError("a <b>name</b>", where="x", do="y"))


def test_the_tutorials_plan_is_one():
    import json
    from pathlib import Path

    from abfed.protocol.yamltext import parse_yaml

    file = Path(__file__).resolve().parents[2] / "notebooks" / "tutorial" / "welcome.ipynb"
    cells = {one["id"]: "".join(one["source"]) for one in json.loads(file.read_text())["cells"]}
    text = cells["plan"].partition("\n")[2]
    values = parse_yaml(text.encode(), where="the tutorial", error=PlanError)
    assert Plan.from_values(values).report.title == "Which subject line gets more clicks?"


@pytest.mark.parametrize("name", sorted(known_notebooks()))
def test_a_notebook_opened_by_hand_says_what_it_wants_in_three_lines(name, capsys):
    """In JupyterLab, without the extension: nothing is set, and all cells are run."""
    shell = InteractiveShell()
    cells = [one.source for one in read_notebook(known_notebooks()[name]).cells
             if one.cell_type == "code"]  # fmt: skip
    done = [shell.run_cell(one) for one in cells[:2]]
    assert done[0].success
    assert isinstance(done[1].error_in_exec, AbfedError)
    told = capsys.readouterr().out.strip()
    assert "Traceback" not in told
    assert len(told.splitlines()) <= 3
    assert "  do:  " in told
