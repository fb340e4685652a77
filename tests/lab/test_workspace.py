"""The workspace's own promises: nobody's silo is lost, taken for another one, or open to others."""

from __future__ import annotations

import multiprocessing
import shutil
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.finished import SIGNATURE, find_folder
from abfed.lab.workspace import FILE, LOCK, Workspace
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.files import write_private

TOGETHER = 5


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("founded") / "workspace"
    workspace = Workspace.create(path)
    for name in ("aurora", "borealis"):
        workspace.create_silo(name)
    return path


@pytest.fixture
def workspace(founded: Path, tmp_path: Path) -> Path:
    shutil.copytree(founded, tmp_path / "workspace")
    return tmp_path / "workspace"


def _found(workspace: Path, name: str, ready: Barrier) -> None:
    opened = Workspace(workspace)
    ready.wait(timeout=60)
    opened.create_silo(name)


def test_silos_founded_at_the_same_time_are_all_there(workspace: Path) -> None:
    """Real processes that have all read the list of silos before the first one founds its own."""
    names = [f"brand-{number}" for number in range(TOGETHER)]
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(TOGETHER)
    started = [context.Process(target=_found, args=(workspace, one, ready)) for one in names]
    try:
        for one in started:
            one.start()
        for one in started:
            one.join(timeout=120)
        assert [one.exitcode for one in started] == [0] * TOGETHER
    finally:
        for one in started:
            one.kill()
            one.join()
    opened = Workspace(workspace)
    assert set(opened.silos) == {"aurora", "borealis", *names}
    assert set(opened.pinned_keys()) == set(opened.silos)
    for name in names:
        with opened.silo(name) as service:
            assert service.keys.public_key == opened.pinned_keys()[name]


def test_what_a_killed_founding_leaves_is_cleared_or_told(workspace: Path) -> None:
    opened = Workspace(workspace)
    half = workspace / "silos" / ".corvid.new"
    half.mkdir()
    (half / "keys").write_bytes(b"half")
    opened.create_silo("corvid")
    assert not half.exists()
    (workspace / "silos" / "dawn").mkdir()
    with pytest.raises(WorkspaceError, match="a folder lies") as caught:
        opened.create_silo("dawn")
    assert caught.value.do == "move it away, and ask again"  # without a pinned key it is no silo
    (workspace / "silos" / "dawn").rmdir()
    listed = (workspace / FILE).read_text()
    write_private(workspace / FILE, listed.replace("  corvid: silos/corvid\n", "").encode())
    with pytest.raises(WorkspaceError, match="a folder lies") as caught:
        opened.create_silo("corvid")
    assert FILE in caught.value.do
    write_private(workspace / FILE, listed.encode())


def test_swapped_folders_are_found_before_a_row_is_read(workspace: Path) -> None:
    file = workspace / FILE
    values = yaml.safe_load(file.read_text())
    silos = values["silos"]
    silos["aurora"], silos["borealis"] = silos["borealis"], silos["aurora"]
    file.write_text(yaml.safe_dump(values))
    opened = Workspace(workspace)
    with pytest.raises(IntegrityError, match="'borealis'"):
        opened.silo_folder("aurora")
    with pytest.raises(IntegrityError), opened.silo("borealis"):
        pass
    with pytest.raises(IntegrityError):
        opened.office("aurora")


@pytest.mark.parametrize(("target", "mode"), [(FILE, 0o640), (".", 0o750)])
def test_what_others_could_change_is_refused(workspace: Path, target: str, mode: int) -> None:
    (workspace / target).chmod(mode)
    with pytest.raises(IntegrityError, match="others"):
        Workspace(workspace)


def test_everything_in_it_is_private(workspace: Path) -> None:
    Workspace(workspace).create_silo("corvid")
    assert (workspace / LOCK).exists()
    for path in workspace.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("name", ["coordinator", "all"])
def test_reserved_names_are_refused(workspace: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="can't be called"):
        Workspace(workspace).create_silo(name)
    file = workspace / FILE
    file.write_text(f"version: 1\nsilos: {{{name}: silos/aurora}}\n")
    with pytest.raises(WorkspaceError, match="no silo can be called so"):
        Workspace(workspace)


def test_an_unknown_run_is_told_with_those_that_are_there(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("none", "/etc", "**", "../silos", "x" * 5000):
        assert main(["report", name, "-w", str(workspace)]) == 2
        said = capsys.readouterr().err
        assert "no complete runs" in said
        assert "run a plan first" in said


def test_a_plans_own_name_is_not_taken_for_a_prefix_of_anothers(tmp_path):
    """`abfed evaluate mean` was refused where a run of the plan `mean-of-two` lay beside."""
    for name in ("mean-0123456789", "mean-of-two-0123456789", "meant-0123456789"):
        (tmp_path / name).mkdir()
        (tmp_path / name / SIGNATURE).touch()
    assert find_folder(tmp_path, "mean").name == "mean-0123456789"
    assert find_folder(tmp_path, "mean-o").name == "mean-of-two-0123456789"
