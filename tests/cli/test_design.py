"""`abfed design`: figures for people, curves, and a plan with another split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from abfed.cli.main import main
from abfed.lab.samples.shipped import shipped
from abfed.protocol.plan import Plan

PLAN = str(shipped("experiments/spring-waves.yaml"))


def test_it_says_what_the_plan_can_find(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    split = tmp_path / "split.yaml"
    assert main(["design", PLAN, "--write", str(split)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "smallest lift",
        "effective",
        "needs",
        "no ε is enough",
        "The rest of the budget: ",
        "for effects in by-channel, 10.0 % for effects in keen",
        "They come in 3 waves",
        "Covariate of clicked: not used: with 6,667 recipients in a brand and wave",
        "wider with it",
    ):
        assert words in said
    assert "e+0" not in said  # whole numbers as people write them
    before, after = Plan.load(Path(PLAN)), Plan.load(split)
    assert after.analysis.budget != before.analysis.budget
    assert after.metrics == before.metrics
    assert main(["design", str(split), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gain"] == pytest.approx(1.0, abs=1e-3)  # the split of least width, already


def test_curves_have_a_row_for_each_expected_metric(tmp_path: Path) -> None:
    from abfed.lab.designing import plot_design

    figure = plot_design(Plan.load(Path(PLAN)))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert len(titles) == 2 * 5
    assert titles[0] == "clicked: smallest lift found"
    assert titles[1] == "clicked: power to find a lift of 10\N{NO-BREAK SPACE}%"
    for axes in figure.axes[::2]:
        for line in axes.get_lines()[:4]:
            assert (line.get_ydata()[1:] <= line.get_ydata()[:-1]).all()  # more people find less
        assert [line.is_dashed() for line in axes.get_lines()[:4]].count(False) == 1  # the plan's


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_curves_are_drawn_as_asked(tmp_path: Path, ending: str) -> None:
    small = tmp_path / "plan.yaml"
    text = Path(PLAN).read_text()
    small.write_text(text[: text.index("  budget:")] + TAIL)
    file = tmp_path / f"curves.{ending}"
    assert main(["design", str(small), "--curves", str(file)]) == 0
    assert file.read_bytes()[:5] in {b"<?xml", b"\x89PNG\r"}
    assert main(["design", str(small), "--curves", str(tmp_path / "curves.gif")]) == 2
    assert not (tmp_path / "curves.gif").exists()


TAIL = "privacy: {epsilon: 1.0, split: {statistics: 1.0}}\n"
