"""`abfed report verify`: identical, or what differs and why."""

import json
import shutil

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from abfed.cli.main import main
from abfed.lab.reports.report import _footer, order, write_report
from abfed.lab.reports.subjects import of_plan
from abfed.lab.reports.verifying import _lines, find_manifest, verify_report
from abfed.lab.samples.shipped import shipped
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.plan import Plan
from tests.lab.example import make_run, statistics_only


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with a seeded simulation and its report, as page and as Markdown."""
    folder = tmp_path_factory.mktemp("verifying") / "workspace"
    run = make_run(folder, statistics_only(simulation={"seed": 7}), size=5_000)
    workspace = Workspace(folder)
    page = write_report(
        run, workspace.reports_folder, formats=("html", "md"), signer=workspace.keys
    )
    return workspace, run, page


def test_a_report_is_made_again_to_the_same_bytes(made, capsys):
    workspace, run, page = made
    assert main(["report", "verify", run.name, "-w", str(workspace.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"] is True
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_seeded_simulation_run_anew_gives_the_same_effects(made, tmp_path):
    """In another folder, with other keys, at another time."""
    _, run, _page = made
    again = make_run(tmp_path / "other", statistics_only(simulation={"seed": 7}), size=5_000)
    assert again.effects.equals(run.effects)


def test_a_changed_page_is_found_and_the_change_is_shown(made, capsys):
    workspace, run, page = made
    whole = page.read_bytes()
    page.write_bytes(whole.replace(b"A/B read-out", b"A/B read-0ut", 1))
    try:
        assert main(["report", "verify", run.name, "-w", str(workspace.path)]) == 4
        said = capsys.readouterr().out
        assert f"changed on disk since it was made: {page.name}" in said
        assert "-A/B read-0ut" in said.replace('-<div class="kicker">', "-")
        assert "+A/B read-out" in said.replace('+<div class="kicker">', "+")
    finally:
        page.write_bytes(whole)


def test_lines_that_differ_far_along_look_different():
    """Packed data and the end of a long line are left out, and may be all that differs."""
    packed = b"data:image/png;base64,"
    for old, new in (
        (b"a" * 300, b"a" * 299 + b"b"),
        (packed + b"A" * 200, packed + b"B" * 200),
    ):
        *_, before, after = _lines(old, new, "page.html")
        assert before[1:] != after[1:]
        assert max(len(before), len(after)) < 260


def test_a_changed_manifest_is_no_manifest(made):
    workspace, run, page = made
    manifest = page.with_suffix(".report")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b"ab_readout", b"ab_readouT"))
    try:
        with pytest.raises(IntegrityError):
            verify_report(workspace, run.name)
    finally:
        manifest.write_bytes(whole)


def test_who_has_another_workspaces_report_is_told_where_it_verifies(made, tmp_path):
    """And not to pin a key, as for what another site sent: nothing pins one for reports."""
    workspace, run, _ = made
    other = Workspace.create(tmp_path / "other", development=False)
    (other.reports_folder).mkdir(exist_ok=True)
    for file in workspace.reports_folder.glob(f"{run.name}.*"):
        shutil.copy(file, other.reports_folder)
    with pytest.raises(IntegrityError, match="a key that is not trusted here") as refused:
        verify_report(other, run.name)
    assert "the workspace that made it" in refused.value.do


def test_another_reports_manifest_is_not_taken_for_this_ones(made):
    """It holds by itself, and says nothing of the page beside it, which was changed."""
    workspace, run, page = made
    other = write_report(
        run, workspace.reports_folder, notebook="experiment_design", formats=("md",),
        signer=workspace.keys,
    )  # fmt: skip
    manifest, whole = page.with_suffix(".report"), page.read_bytes()
    kept = manifest.read_bytes()
    try:
        page.write_bytes(whole.replace(b"A/B read-out", b"A/B read-0ut", 1))
        manifest.write_bytes(other.with_suffix(".report").read_bytes())
        with pytest.raises(IntegrityError, match="another report's manifest"):
            verify_report(workspace, str(page))
    finally:
        page.write_bytes(whole)
        manifest.write_bytes(kept)
        for file in workspace.reports_folder.glob(f"{other.stem}.*"):
            file.unlink()


@pytest.mark.slow
def test_another_notebook_is_named_as_the_cause(made, tmp_path):
    workspace, run, _page = made
    from abfed.lab.reports.notebooks import find_notebook

    other = tmp_path / "ab_readout.ipynb"
    text = find_notebook("ab_readout").read_text()
    other.write_text(text.replace("readout.headline(run, alpha=alpha)", "readout.headline(run)"))
    verdict = verify_report(workspace, run.name, notebook=str(other))
    assert verdict.identical  # the default is 0.05 as well
    assert verdict.causes == ["the notebook ab_readout.ipynb was changed"]


def test_a_report_says_how_it_is_verified_with_a_notebook_of_ones_own(made, tmp_path, capsys):
    workspace, run, _page = made
    mine = tmp_path / "mine.ipynb"
    cells = [new_code_cell('run_folder: str = ""', metadata={"tags": ["parameters"]})]
    mine.write_text(json.dumps(new_notebook(cells=cells)))
    page = write_report(run, workspace.reports_folder, notebook=str(mine), signer=workspace.keys)
    command = f"abfed report verify {page.stem} --notebook mine.ipynb"
    assert f"<code>{command}</code>" in page.read_text()
    assert str(tmp_path) not in page.read_text()
    assert main(["report", "verify", page.stem, "-w", str(workspace.path)]) == 2
    assert command in capsys.readouterr().err
    named = ["--notebook", str(mine), "-w", str(workspace.path)]
    assert main(["report", "verify", page.stem, *named]) == 0


def test_a_report_about_a_plan_says_that_verifying_takes_the_plan():
    path = shipped("experiments/spring-waves.yaml")
    subject = of_plan(Plan.load(path), path.read_bytes(), path.parent)
    assert "--plan PLAN_FILE" in _footer(order(subject))


def test_the_start_of_a_name_is_enough_where_it_means_one_report(made):
    workspace, run, page = made
    own = page.with_suffix(".report")
    assert find_manifest(workspace, run.name[:8]) == own
    beside = [own.with_name(f"{run.name}-portfolio.report"), own.with_name("another.report")]
    for one in beside:
        one.write_bytes(own.read_bytes())
    try:
        assert find_manifest(workspace, run.name[:8]) == own
        own.with_name(f"{run.name[:8]}-else.report").write_bytes(b"")
        with pytest.raises(WorkspaceError, match="several reports begin with"):
            find_manifest(workspace, run.name[:8])
    finally:
        for one in [*beside, own.with_name(f"{run.name[:8]}-else.report")]:
            one.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["nothing", "", ".", "/", "*", "**", "a\0b", "n" * 300])
def test_what_was_never_made_is_not_there_whatever_it_is_called(made, name):
    with pytest.raises(WorkspaceError, match="no report"):
        verify_report(made[0], name)
