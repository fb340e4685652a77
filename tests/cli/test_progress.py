"""What a researcher sees while a run goes on: a line for each closed step, and a bar."""

from abfed.cli.run import progress_bar
from abfed.coordinator.conduct import Event

STEPS = ("totals", "train-0001", "train-0002", "evaluate")


def told(capsys, *, quiet):
    with progress_bar(quiet=quiet) as tell:
        for number, step in enumerate(STEPS, start=1):
            tell(Event("ask", "", step, number, len(STEPS)))
            tell(Event("answer", "aurora", step, number, len(STEPS)))
            if step != "train-0002":
                tell(Event("answer", "borealis", step, number, len(STEPS)))
            else:
                tell(Event("left-out", "borealis", step, number, len(STEPS)))
            tell(Event("closed", "", step, number, len(STEPS)))
        tell(Event("complete", "", "evaluate", len(STEPS), len(STEPS)))
    return capsys.readouterr().err


def test_one_line_a_round_and_a_bar(capsys):
    said = told(capsys, quiet=False)
    lines = [line.rpartition("\r")[2].strip() for line in said.splitlines()]
    closed = [line.partition(",")[0] for line in lines if line.endswith(" s")]
    assert closed == [
        "totals: 2 silos",
        "train-0001: 2 silos",
        "train-0002: 1 silo",
        "evaluate: 2 silos",
    ]
    assert "train-0002: without borealis" in lines
    assert "4/4" in said


def test_nothing_beside_json(capsys):
    assert told(capsys, quiet=True) == ""
