"""Small counts: whatever shape they come in, they are hidden or the page is withheld."""

import ast
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import abfed.lab
from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.hidden_text import hidden_in_text
from abfed.lab.disclosure.hiding import HIDDEN, hidden_in_markup, hide_small
from abfed.lab.disclosure.paragraphs import hidden_in_blocks
from abfed.lab.paper.page import table
from abfed.lab.paper.vouched import Vouched
from abfed.lab.views.frames import frame_table, marked
from abfed.protocol.plan import Plan
from tests.lab.example import example_values
from tests.lab.test_disclosure import SOURCE, html, kinds
from tests.lab.test_disclosure_evaded import printed

COUNTED = Counted.of([Plan.from_values(example_values())])


def frame(**columns):
    return marked(pd.DataFrame(columns), SOURCE)


def page_of(shown):
    return hidden_in_markup(frame_table(marked(shown, SOURCE)), COUNTED)


ROWS = frame(
    arm=["plain", "personal"] * 3, opened=[3, 12, 4, 7, 40, 3], gold=[3.0, 12, 4, 7, 40, 3]
)
TINY = frame(arm=["plain", "personal"] * 3, round=[1, 1, 2, 2, 3, 3])


@pytest.mark.privacy
@pytest.mark.parametrize(
    "shown",
    [
        frame(opened=[3, 12]), frame(clicks=[3, 12]), frame(buyers=[3, 12]), frame(gold=[3, 12]),
        frame(gold=[3.0, 12.0]), frame(gold=[3.0, np.nan, 12.0]), frame(gold=["3", "12"]),
        frame(gold=[3.0, 12.5]), frame(opened=[3.27, 12.4]), frame(clicked=[3.27, 12.4]),
        frame(gold=pd.array([3, None, 12], dtype="Int64")),
        frame(gold=pd.array([3, 12], dtype="Float64")), frame(gold=np.array([3, 12], np.float32)),
        frame(gold=["3 ± 2", "12 ± 2"]), frame(gold=["3 / 40"]), frame(gold=["3 of 40"]),
        frame(gold=[Counter(a=3)]), frame(gold=[[3, 12]]), frame(gold=["3 buyers"]),
        frame(plain=[3, 12], personal=[4, 20]), frame(de=[3, 12]), frame(**{"n of a round": [3]}),
        frame(round_count=[3]), frame(arm_n=[3]), frame(opened_per_round=[3]), frame(silo_size=[3]),
        ROWS.pivot_table(index="arm", values="gold", aggfunc="min"),
        ROWS.pivot_table(index="arm", columns="opened", values="gold", aggfunc="sum"),
        pd.crosstab(ROWS["opened"], ROWS["arm"]), TINY.groupby("arm").size().to_frame("x"),
        TINY.groupby("arm").size().to_frame(), TINY.groupby(["arm", "round"]).size().to_frame("x"),
        TINY.groupby("arm").agg(["count"]), TINY["arm"].value_counts().to_frame(),
        ROWS["gold"].value_counts().reset_index(), ROWS.set_index("opened")[["arm"]],
        ROWS.set_index(["arm", "opened"])[[]].assign(rate=0.25), ROWS.head(2).T,
        ROWS.describe(), ROWS.melt(id_vars="arm"),
    ],
)  # fmt: skip
def test_a_small_count_in_a_frame_is_hidden(shown):
    whole = frame_table(marked(shown, SOURCE))
    assert HIDDEN in hidden_in_markup(whole, COUNTED)
    assert '<td class="n">3<' not in page_of(shown)


@pytest.mark.parametrize(
    "shown",
    [
        frame(round=[1, 2], silos=[3, 3], rate=[0.25, 0.5]), frame(n_silos=[3]), frame(days=[3]),
        frame(**{"ε left": [3.0]}), frame(**{"number of rounds": [3]}), frame(seed=[3]),
        frame(epoch=[3]), frame(arms=[3]), frame(year=[2026], month=[5]), frame(budget=[3]),
        frame(opened=[0.031, 0.0, 1.0]), frame(opened_rate=[3.0]), frame(quantile=[0.0, 0.5, 1.0]),
        frame(gold=[10, 2000]), frame(revenue=[3.27, 4.5]), frame(word=["3 lines", "2026-05-01"]),
        frame(alarm=[True, False]), frame(arm=["plain"], p_value=[1.0]),
        frame(wave=["a", "b"], p=[1.0, 0.0]).set_index("wave"),
        frame(metric=["opened"], estimate=[2.0]).set_index("metric"), frame(parts=[3], df=[2]),
        frame(rounds=[3], silos=[4]).T, frame(word=list("abc")).iloc[[2]], frame(gold=[np.nan]),
    ],
)  # fmt: skip
def test_what_counts_nobody_stays(shown):
    assert page_of(shown) == frame_table(marked(shown, SOURCE))


def test_an_arm_by_the_name_of_a_parameter_is_no_parameter():
    values = example_values()
    values["arms"][1]["name"] = "round"
    counted = Counted.of([Plan.from_values(values)])
    markup = frame_table(frame(round=[3, 12]))
    assert hidden_in_markup(markup, COUNTED) == markup
    assert HIDDEN in hidden_in_markup(markup, counted)


@pytest.mark.privacy
def test_a_plans_outcome_counts_whatever_it_is_called():
    values = example_values(primary="score")
    values["metrics"][0]["name"] = "score"
    counted = Counted.of([Plan.from_values(values)])
    markup = frame_table(frame(score=[3.27, 12.0]))
    assert hidden_in_markup(markup, COUNTED) == markup
    assert hidden_in_markup(markup, counted).count(HIDDEN) == 1
    rates = frame_table(frame(score=[0.03, 0.04]))
    assert hidden_in_markup(rates, counted) == rates


def test_counts_that_arent_whole_are_hidden_where_a_run_says_that_they_are_counts():
    shown = marked(pd.DataFrame({"plain": [3.27, 1200.4]}), SOURCE, counts=["plain"])
    assert hidden_in_markup(frame_table(shown), COUNTED).count(HIDDEN) == 1


def test_a_table_whose_maker_names_no_counts_is_judged():
    rows = [["a", "3", "3"], ["b", "12", "4"]]
    judged = hidden_in_markup(table(["Arm", "X", "Rounds"], rows, source=SOURCE), COUNTED)
    assert judged.count(HIDDEN) == 1
    assert ">4<" in judged
    named = table(["Arm", "X", "Rounds"], rows, source=SOURCE, counts=())
    assert hidden_in_markup(named, COUNTED) == named


def test_cells_that_nobody_closed_are_judged():
    markup = f'<table data-source="{SOURCE}"><tr><th>gold<tr><td>3<tr><td>12</table>'
    assert hidden_in_markup(markup, COUNTED).count(HIDDEN) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{'plain': 3, 'warm': 12}", "Counter({'warm': 12, 'plain': 3})",
        '{"opened":{"0":3,"1":12}}',
        "[('plain', 3), ('warm', 12)]", "Row(opened=3)", "defaultdict(<class 'int'>, {'a': 3})",
        "{1: 3, 2: 12}", "[3, 12]", "(3, 12)", "array([ 3., 12.])", "[[3 12]]", "{3, 12}",
        "np.int64(3)", "np.float64(3.0)", "3", "3.0", "'3'", "opened: 3", "gold = 3", "opened\t3",
        "opened (n): 3", "plain     3", "       opened\narm\nplain       3",
        "opened\n     3\n    12",
        "opened: 3.27", "3 buyers", "3 of the recipients", "3 of 40 opened", "opened 3",
        "| plain | 3 |", "arm,opened\nplain,3", "plain & 3 \\\\", "result: \x1b[1;36m3\x1b[0m",
        "rounds: 12, opened: 3", "opened = [3, 12]",
        '{"columns":["opened"],"data":[[3],[12]]}', "gold: 3. And more",
        "\uff11\uff12 and opened: \uff13",
        "Grid(gold=3, rounds=5)",
    ],
)  # fmt: skip
@pytest.mark.privacy
def test_a_small_count_in_a_text_is_hidden(text):
    shown = hidden_in_text(text, COUNTED)
    assert "< 10" in shown
    assert "3" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "3 silos took part in 5 rounds", "rounds: 3, silos: 4", "{'rounds': 3, 'n_silos': 4}",
        "epsilon = 2, alpha: 0.05", "rounds: [1, 2, 3]", "Grid(rounds=3, epsilons=(1.0, 3.0))",
        "opened: 0.031", "open rate: 3", "clicked: 3.1 %", "3% of them", "12 buyers", "[12, 40]",
        "2026-05-03", "at 12:03", "version 3.2.1", "aurora, borealis, corvid",
        "1. first\n2. second",
        "a difference of +1.2 points (95 %: 1 to 2)", "[0.0, 0.5, 1.0]", "1,003", "seed: 3",
    ],
)  # fmt: skip
def test_words_and_parameters_stay(text):
    assert hidden_in_text(text, COUNTED) == text


OURS = '<div class="abfed card"><div>3 buyers</div>4 buyers</div>'


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("<p>3 buyers</p>", "<p>&lt; 10 buyers</p>"),
        ("<p><b>3</b>&nbsp;<i>buyers</i></p>", "<p>&lt; 10 buyers</p>"),
        ("<ul><li>warm: 3<li>cold: 12</ul>", "<ul><li>warm: &lt; 10<li>cold: 12</ul>"),
        ("<div>3</div><br/>4<br/>", "<div>&lt; 10</div><br/>&lt; 10<br/>"),
        ("<dl><dt>opened<dd>3</dl>", "<dl><dt>opened<dd>&lt; 10</dl>"),
        ("<dl><dt>3 buyers<dd>4</dl>", "<dl><dt>&lt; 10 buyers<dd>&lt; 10</dl>"),
        ("<h3>3 of the<!-- x --> recipients</h3>", "<h3>&lt; 10 of the recipients</h3>"),
        (f"{OURS}<p>3 buyers</p>", f"{OURS}<p>&lt; 10 buyers</p>"),
        (f"<div>3<p>{OURS}</p>4 silos</div>", f"<div>&lt; 10<p>{OURS}</p>4 silos</div>"),
        (OURS.replace("4", "5"), OURS.replace("3", "&lt; 10").replace("4", "&lt; 10")),
        ("<textarea>3 buyers</textarea>", "<textarea>&lt; 10 buyers</textarea>"),
        ("<svg/><p>3 buyers", "<svg/><p>&lt; 10 buyers"),
        ("<svg><svg/></svg><p>3 buyers", "<svg><svg/></svg><p>&lt; 10 buyers"),
    ],
)
def test_a_small_count_in_a_paragraph_of_markup_is_hidden(markup, shown):
    output = new_output("display_data", data={"text/html": markup, "text/plain": "x"})
    document = new_notebook(cells=[new_code_cell("x", outputs=[output])])
    made = Vouched(frozenset({(len(OURS), sha256(OURS.encode()).hexdigest())}))
    hidden = hide_small(document, COUNTED, made=made).cells[0].outputs[0].data
    assert hidden == {"text/html": shown}


@pytest.mark.parametrize(
    "markup",
    [
        "<p>3 silos took part</p>", "<dl><dt>rounds</dt><dd>3</dd></dl>", "<p>12 buyers</p>",
        "<svg><text>3</text></svg>", "<style>a{b:3 buyers}</style>", "<p>on 2026-05-03, 3 %</p>",
        "<dl><dt>silos</dt><dd><b>3</b></dd></dl>", "<p>rounds: 3</p>", "<p title='3 buyers'>x</p>",
    ],
)  # fmt: skip
def test_paragraphs_that_count_nobody_stay(markup):
    assert hidden_in_blocks(markup, COUNTED) == markup


def test_a_number_below_all_others_is_no_defect():
    least = "-" + "9" * 400
    assert hidden_in_text(f"gold: {least}, {least}", COUNTED) == f"gold: {least}, {least}"
    markup = frame_table(frame(gold=[least]))
    assert hidden_in_markup(markup, COUNTED) == markup


@pytest.mark.parametrize("form", ["text/plain", "text/markdown", "text/latex"])
def test_every_form_of_an_output_is_looked_at(form):
    shown = new_output("execute_result", data={form: "opened: 3"})
    stream = new_output("stream", name="stdout", text="opened: 3")
    error = new_output("error", ename="E", evalue="opened: 3", traceback=["E: opened: 3"])
    packed = new_output("display_data", data={"text/html": "<pre>opened: 3\n&lt; 40</pre>"})
    cells = [new_code_cell("opened = 3", outputs=[one]) for one in (shown, stream, error, packed)]
    document = hide_small(new_notebook(cells=cells), COUNTED)
    first, second, third, fourth = (cell.outputs[0] for cell in document.cells)
    assert first.data[form] == second.text == third.evalue == "opened: < 10"
    assert third.traceback == ["E: opened: < 10"]
    assert fourth.data["text/html"] == "<pre>opened: &lt; 10\n&lt; 40</pre>"
    assert document.cells[0].source == "opened = 3"


SERIES = pd.Series([3, 12], index=pd.date_range("2026-05-01", periods=2, freq="D"))


@pytest.mark.parametrize(
    "document",
    [
        printed(str(ROWS["arm"].value_counts())), printed(str(TINY.groupby("arm").size())),
        printed(str(SERIES)), printed(ROWS[["opened"]].to_string()), printed(str(ROWS)),
        printed(ROWS.groupby("arm")[["opened"]].min().to_string()),
        printed(ROWS[["arm", "opened"]].to_csv(index=False)), printed(str(ROWS.describe())),
        printed("|  arm  |  opened |\n|:------|--------:|\n| plain |  3 |\n| warm |  12 |"),
        printed("plain & 3 \\\\\nwarm & 12 \\\\"), printed("│ plain │ 3 │\n│ warm │ 12 │"),
        html(ROWS.to_html()), html(ROWS.rename(columns=str.upper)._repr_html_()),
    ],
)  # fmt: skip
def test_a_printed_table_of_counts_is_refused(document):
    assert any("table" in what for what in kinds(document))


def test_each_table_of_this_package_says_which_of_its_columns_count():
    calls = []
    for file in Path(abfed.lab.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text())
        imports = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
        if not any(one.module == "abfed.lab.paper.page" for one in imports):
            continue
        for one in ast.walk(tree):
            if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "table":
                calls += [(file.name, one.lineno, {word.arg for word in one.keywords})]
    assert len(calls) > 20
    unnamed = [(file, line) for file, line, words in calls if "source" in words - {"counts"}
               and "counts" not in words]  # fmt: skip
    assert not unnamed


def test_a_large_count_is_no_small_one_however_it_is_written():
    shown = marked(pd.DataFrame({"recipients": [10_940.6, 3.2]}), SOURCE, counts=["recipients"])
    markup = hidden_in_markup(frame_table(shown), COUNTED)
    assert ">10,941<" in markup
    assert markup.count(HIDDEN) == 1
    rows = [["a", "1.094e+04"], ["b", "9.4"]]
    markup = hidden_in_markup(table(["a", "b"], rows, source=SOURCE, counts=[1]), COUNTED)
    assert "1.094e+04" in markup
    assert markup.count(HIDDEN) == 1


@pytest.mark.privacy
def test_what_an_error_came_from_and_its_notes_are_hidden_too():
    lines = ["ValueError: opened: 3", "Cell In[3], line 1", "----> 1 n = 3", "      2 buyers", "",
             "E: no", "buyers: 4", "5 buyers"]  # fmt: skip
    error = new_output("error", ename="E", evalue="no", traceback=["\n".join(lines)])
    document = hide_small(new_notebook(cells=[new_code_cell("x", outputs=[error])]), Counted())
    assert document.cells[0].outputs[0].traceback[0].split("\n") == [
        "ValueError: opened: < 10", *lines[1:6], "buyers: < 10", "< 10 buyers",
    ]  # fmt: skip
