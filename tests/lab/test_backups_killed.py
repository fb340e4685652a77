"""Backups and restores that are killed, or meet a full disk: never half, and done by asking again.

Each is killed before every act on the disk (`tests.killing`); the last acts of a restore, in which
the silo gets its place, in `make test` too.
"""

from __future__ import annotations

import resource
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from abfed.cli.main import main
from abfed.lab.upkeep.auditing import anchors_here
from abfed.lab.upkeep.backups import back_up, backed_up, restore
from abfed.lab.upkeep.examining import backups
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.silo.carrying import carry
from abfed.silo.checking import check_silo
from abfed.silo.subjects import Subjects
from tests.killing import acts_of, killed_at
from tests.lab.test_backups import SECRET, lose
from tests.lab.test_subject_commands import person_of


@pytest.fixture(scope="module")
def brands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brands") / "ws"
    assert main(["init", "-w", str(folder)]) == 0
    assert main(["data", "synth", "--ingest", "--scale", "0.01", "-w", str(folder)]) == 0
    return folder


def copied(brands: Path, folder: Path) -> Workspace:
    shutil.copytree(brands, folder, symlinks=True)
    return Workspace(folder)


def holds(workspace: Workspace) -> bool:
    return all(part.holds for part in check_silo(workspace.silo_folder("aurora")))


def test_a_backup_that_was_killed_counts_for_nobody_and_is_made_by_asking_again(
    brands: Path, tmp_path: Path
) -> None:
    made: list[bool] = []
    for number in range(1, 100):
        folder = tmp_path / str(number)
        folder.mkdir()
        workspace, path = copied(brands, folder / "ws"), folder / "aurora.backup"
        killed = killed_at(
            number, lambda w=workspace, p=path: back_up(w, "aurora", p, SECRET, by="x")
        )
        assert holds(workspace)
        _, logged = backed_up(workspace.office("aurora").audit)
        made.append(path.exists())
        assert path.exists() or not logged, f"act {number}: it is on record, and there is none"
        if not path.exists():
            back_up(workspace, "aurora", path, SECRET, by="x")
        assert not list(folder.glob(".aside-*")) or made[-1]
        lose(workspace, "aurora")
        if not killed or number == 9:  # what is there can be put back, whenever it came
            again = Workspace(workspace.path)
            assert restore(again, "aurora", path, SECRET, by="x") > 5
            assert holds(again)
        if not killed:
            break
        shutil.rmtree(folder)
    assert len(made) > 10, "it was not killed often enough"
    assert made == sorted(made), "it was there, and then was not"


def restored_after_a_kill(brands: Path, tmp_path: Path, every: int) -> None:
    lost = copied(brands, tmp_path / "lost")
    path = tmp_path / "aurora.backup"
    back_up(lost, "aurora", path, SECRET, by="x")
    lose(lost, "aurora")
    whole = copied(lost.path, tmp_path / "whole")
    acts = acts_of(lambda: restore(whole, "aurora", path, SECRET, by="x"))
    numbers = sorted({*range(1, acts + 1, every), *range(max(1, acts - 10), acts + 1)})
    for number in numbers:
        workspace = copied(lost.path, tmp_path / str(number))
        killed = killed_at(number, lambda w=workspace: restore(w, "aurora", path, SECRET, by="x"))
        assert killed, f"act {number} of {acts}"
        opened = Workspace(workspace.path)
        if "aurora" not in opened.silos:
            restore(opened, "aurora", path, SECRET, by="x")
        opened = Workspace(workspace.path)
        assert "aurora" in opened.silos
        assert holds(opened)
        assert opened.pinned_keys()["aurora"]
        assert not list((opened.path / "silos").glob(".*"))
        shutil.rmtree(workspace.path)
    sys.stdout.write(f"a restore was killed at {len(numbers)} of {acts} acts\n")


def test_a_restore_that_was_killed_is_completed_by_asking_again(
    brands: Path, tmp_path: Path
) -> None:
    restored_after_a_kill(brands, tmp_path, every=40)


@pytest.mark.slow
@pytest.mark.privacy
def test_killed_before_any_act_a_restore_is_completed_by_asking_again(
    brands: Path, tmp_path: Path
) -> None:
    restored_after_a_kill(brands, tmp_path, every=1)


def test_two_who_restore_at_once_put_one_whole_silo_back(brands: Path, tmp_path: Path) -> None:
    ours = copied(brands, tmp_path / "ws")
    back_up(ours, "aurora", tmp_path / "a.backup", SECRET, by="x")
    lose(ours, "aurora")

    def put_back(_: int) -> int:
        return restore(Workspace(ours.path), "aurora", tmp_path / "a.backup", SECRET, by="x")

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(put_back, range(2))
    assert one == two > 5
    assert holds(Workspace(ours.path))


def test_what_is_not_a_backup_in_the_end_is_not_on_record_as_one(
    brands: Path, tmp_path: Path
) -> None:
    workspace = copied(brands, tmp_path / "ws")
    before = workspace.office("aurora").audit.head
    with pytest.raises(InputError, match="12 characters"):
        back_up(workspace, "aurora", tmp_path / "one", "short", by="x")
    assert workspace.office("aurora").audit.head == before
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, kept[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            back_up(workspace, "aurora", tmp_path / "two", SECRET, by="x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert not (tmp_path / "two").exists()
    assert not list(tmp_path.glob(".*"))
    assert holds(workspace)
    assert backed_up(workspace.office("aurora").audit)[1] is False
    back_up(workspace, "aurora", tmp_path / "two", SECRET, by="x")
    assert backed_up(workspace.office("aurora").audit)[1] is True


def test_another_s_silo_of_the_same_name_is_not_put_in_ours(brands: Path, tmp_path: Path) -> None:
    """Its key is another: nothing of it stays, and ours can still be put back."""
    ours, theirs = copied(brands, tmp_path / "ours"), Workspace.create(tmp_path / "theirs")
    back_up(ours, "aurora", tmp_path / "our.backup", SECRET, by="x")
    theirs.create_silo("aurora", synthetic=True)
    policy = ours.silo_folder("aurora") / "policy.yaml"  # which names our coordinator as theirs
    shutil.copy2(policy, theirs.silo_folder("aurora") / "policy.yaml")
    back_up(theirs, "aurora", tmp_path / "their.backup", SECRET, by="x")
    assert not [one for one in anchors_here(ours) if one.of == "aurora"]
    lose(ours, "aurora")
    ours = Workspace(ours.path)
    with pytest.raises(WorkspaceError, match="another key is pinned"):
        restore(ours, "aurora", tmp_path / "their.backup", SECRET, by="x")
    assert not (ours.path / "silos" / "aurora").exists()
    (ours.path / "silos" / "aurora").mkdir(mode=0o700)
    with pytest.raises(WorkspaceError, match="a folder lies where"):
        restore(ours, "aurora", tmp_path / "our.backup", SECRET, by="x")
    (ours.path / "silos" / "aurora").rmdir()
    assert restore(ours, "aurora", tmp_path / "our.backup", SECRET, by="x") > 5


def test_who_was_erased_since_the_backup_does_not_come_back(brands: Path, tmp_path: Path) -> None:
    workspace = copied(brands, tmp_path / "ws")
    old, carried = tmp_path / "old.backup", tmp_path / "aurora.people"
    gone = person_of(brands, 3)
    back_up(workspace, "aurora", old, SECRET, by="x")
    with workspace.silo("aurora") as service:
        Subjects(service).carry_out("erase", [gone], by="x")
    where = ["-w", str(workspace.path)]
    assert main(["silo", "subject", "carry", "aurora", str(carried), *where]) == 0
    assert gone.encode() not in carried.read_bytes()
    lose(workspace, "aurora")
    forgetful = copied(workspace.path, tmp_path / "forgetful")
    restore(forgetful, "aurora", old, SECRET, by="x")
    assert "undone" in found(forgetful)
    with forgetful.silo("aurora") as service:
        assert Subjects(service).export(gone, by="x")[1]["sends"]
    back_up(forgetful, "aurora", tmp_path / "new.backup", SECRET, by="x")
    assert "undone" not in found(forgetful)

    whole = carried.read_bytes()
    carried.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        restore(Workspace(workspace.path), "aurora", old, SECRET, by="x", subjects=carried)
    assert not (workspace.path / "silos" / "aurora").exists()
    carried.unlink()
    with pytest.raises(WorkspaceError, match="no such file"):
        restore(Workspace(workspace.path), "aurora", old, SECRET, by="x", subjects=carried)


def test_what_people_asked_is_carried_over(brands: Path, tmp_path: Path) -> None:
    workspace = copied(brands, tmp_path / "ws")
    old, carried = tmp_path / "old.backup", tmp_path / "aurora.people"
    gone, out, held = (person_of(brands, place) for place in (3, 4, 5))
    back_up(workspace, "aurora", old, SECRET, by="x")
    with workspace.silo("aurora") as service:
        subjects = Subjects(service)
        (receipt,) = subjects.carry_out("erase", [gone], by="x")
        subjects.carry_out("opt-out", [out], by="x")
        subjects.receive("erase", [held])
        carry(service.paths.folder, service.keys, carried, workspace.clock)
    lose(workspace, "aurora")
    workspace = Workspace(workspace.path)
    restore(workspace, "aurora", old, SECRET, by="x", subjects=carried)
    assert holds(workspace)
    assert "undone" not in found(workspace)
    with workspace.silo("aurora") as service:
        subjects = Subjects(service)
        assert subjects.export(gone, by="x")[1]["sends"] == []
        assert subjects.export(out, by="x")[1]["states"] == ["opted-out"]
        assert subjects.export(held, by="x")[1]["sends"]
        again = [one.request for one in subjects.receipts([gone]) if one.request.act == "erase"]
        assert again == [receipt.request]
        assert [one.act for one in subjects.requests() if not one.done_at] == ["erase"]


def found(workspace: Workspace) -> str:
    return " ".join(one.what for one in backups(workspace.office("aurora"), workspace.clock()))
