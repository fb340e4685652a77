"""Backups: sealed, whole, and no way to get a spent budget back."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.cli.main import main
from abfed.lab.upkeep.auditing import write_anchors
from abfed.lab.upkeep.backups import back_up, restore
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import (
    InputError,
    IntegrityError,
    Refused,
    RunFailed,
    WorkspaceError,
)
from abfed.silo.checking import check_silo
from abfed.site import archive as archives
from abfed.site.archive import CHUNK, MAGIC, SALT_BYTES, read_archive, write_archive
from abfed.site.files import make_private_folder, write_private
from tests.signing import sign_in
from tests.whole.story import small_plan

SECRET = "a passphrase of some length"


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True),
        st.binary(max_size=300),
        max_size=5,
    )
)
@settings(max_examples=4, deadline=None)
def test_what_goes_in_comes_out(tmp_path_factory, members: dict[str, bytes]) -> None:
    names = list(members)
    if any(one != two and two.startswith(one + "/") for one in names for two in names):
        return  # a name can't be a file and a folder
    folder = tmp_path_factory.mktemp("out")
    file = io.BytesIO()
    assert write_archive(file, SECRET, members.items()) == len(members)
    file.seek(0)
    assert read_archive(file, SECRET, folder) == len(members)
    assert {name: (folder / name).read_bytes() for name in members} == members


def archive(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    write_archive(file, SECRET, members)
    return file.getvalue()


def test_every_folder_that_was_put_back_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was flushed is lost all the same where its name in the folder was not."""
    backup = archive(("a", b"1"), ("keys/b", b"2"), ("store/deep/c", b"3"))
    flushed: list[Path] = []
    monkeypatch.setattr(archives, "flush_folder", flushed.append)
    read_archive(io.BytesIO(backup), SECRET, tmp_path)
    names = {str(one.relative_to(tmp_path)) for one in flushed}
    assert names == {".", "keys", "store", "store/deep"}


def test_a_changed_cut_or_lengthened_backup_does_not_open(tmp_path: Path) -> None:
    whole = archive(("big", bytes(3 * CHUNK)), ("a small one", b"x"))
    assert b"a small one" not in whole
    damaged = [whole[:-1], whole[: len(whole) // 2], whole + b"x", whole[:40] + whole[60:]]
    damaged += [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for place in (20, 40, len(whole) // 2, len(whole) - 3)
    ]
    for number, data in enumerate(damaged):
        with pytest.raises(IntegrityError):
            read_archive(io.BytesIO(data), SECRET, tmp_path / str(number))
    with pytest.raises(IntegrityError, match="passphrase is another"):
        read_archive(io.BytesIO(whole), SECRET + "!", tmp_path / "wrong")
    with pytest.raises(InputError, match="not a backup"):
        read_archive(io.BytesIO(b"PK\x03\x04"), SECRET, tmp_path / "other")
    with pytest.raises(InputError, match="12 characters"):
        write_archive(io.BytesIO(), "short", [])


def test_a_member_cannot_leave_the_folder(tmp_path: Path) -> None:
    for name in ("../out", "/etc/out", "a/../../out"):
        with pytest.raises(IntegrityError, match="plain file"):
            read_archive(io.BytesIO(archive((name, b"x"))), SECRET, tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_a_member_that_is_no_plain_file_or_comes_twice_is_refused(tmp_path: Path) -> None:
    """By somebody who has the passphrase: a link, a device, a hole of a terabyte."""
    link, device, hole = (tarfile.TarInfo(name) for name in ("link", "device", "hole"))
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    hole.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40)}
    twice = [tarfile.TarInfo("one"), tarfile.TarInfo("one")]
    for number, members in enumerate(([link], [device], [hole], twice)):
        file = io.BytesIO()
        file.write(MAGIC + bytes(SALT_BYTES))
        sealing = archives._Sealing(file, archives._key(SECRET, bytes(SALT_BYTES)))
        with tarfile.open(fileobj=sealing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for member in members:
                tar.addfile(member)
        sealing.finish()
        file.seek(0)
        folder = tmp_path / str(number)
        with pytest.raises(IntegrityError, match=r"plain file|damaged"):
            read_archive(file, SECRET, folder)
        assert sum(one.stat().st_size for one in folder.rglob("*")) == 0


@pytest.fixture(scope="module")
def brands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brands") / "ws"
    assert main(["init", "-w", str(folder)]) == 0
    assert main(["data", "synth", "--ingest", "--scale", "0.02", "-w", str(folder)]) == 0
    return folder


def copied(brands: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(brands, tmp_path / "ws", symlinks=True)
    workspace = Workspace(tmp_path / "ws")
    sign_in(workspace)
    return workspace


def lose(workspace: Workspace, silo: str) -> None:
    """As if the machine had burnt: the folder and its place in the list are gone."""
    shutil.rmtree(workspace.path / "silos" / silo)
    file = workspace.path / "abfed.yaml"
    text = file.read_text().replace(f"  {silo}: silos/{silo}\n", "")
    write_private(file, text.encode())


def test_a_fresh_backup_is_restored_and_the_same_plan_is_free(brands: Path, tmp_path: Path) -> None:
    workspace = copied(brands, tmp_path)
    plan = small_plan(tmp_path / "plan.yaml")
    run = workspace.run(plan)
    path = tmp_path / "aurora.backup"
    made = back_up(workspace, "aurora", path, SECRET, by="ann@aurora")
    assert made.files > 10
    assert path.stat().st_mode & 0o777 == 0o600
    lose(workspace, "aurora")
    workspace = Workspace(workspace.path)
    assert "aurora" not in workspace.silos
    restore(workspace, "aurora", path, SECRET, by="ann@aurora")
    assert all(part.holds for part in check_silo(workspace.silo_folder("aurora")))
    assert workspace.run(plan).name == run.name
    with pytest.raises(WorkspaceError, match="already"):
        restore(workspace, "aurora", path, SECRET, by="ann@aurora")


def test_an_old_backup_is_refused_with_an_explanation(brands: Path, tmp_path: Path) -> None:
    workspace = copied(brands, tmp_path)
    path = tmp_path / "aurora.backup"
    back_up(workspace, "aurora", path, SECRET, by="ann@aurora")
    workspace.run(small_plan(tmp_path / "plan.yaml"))  # charged, and seen by the coordinator
    lose(workspace, "aurora")
    workspace = Workspace(workspace.path)
    with pytest.raises(IntegrityError, match="older than") as caught:
        restore(workspace, "aurora", path, SECRET, by="ann@aurora")
    assert "forget" in caught.value.why
    assert "coordinator keeps the head" in caught.value.why
    assert not (workspace.path / "silos" / "aurora").exists()
    assert not list((workspace.path / "silos").glob(".aurora*"))


def test_a_folder_put_back_by_hand_answers_nothing(brands: Path, tmp_path: Path) -> None:
    """Nothing inside the silo could tell: the coordinator's request does."""
    workspace = copied(brands, tmp_path)
    old = tmp_path / "old"
    shutil.copytree(workspace.silo_folder("aurora"), old)
    workspace.run(small_plan(tmp_path / "plan.yaml"))
    shutil.rmtree(workspace.silo_folder("aurora"))
    shutil.copytree(old, workspace.path / "silos" / "aurora")
    other = small_plan(tmp_path / "other.yaml", name="another", minimum_silos=3)
    with pytest.raises(Refused, match="answered") as caught:
        workspace.run(other)
    assert "rolled-back" in str(caught.value)
    with workspace.silo("aurora") as service:
        assert service.ledger.reservations() == ()


def test_anchors_are_believed_from_a_coordinator_that_the_silo_trusts_only(
    brands: Path, tmp_path: Path
) -> None:
    workspace = copied(brands, tmp_path)
    workspace.run(small_plan(tmp_path / "plan.yaml"))
    path = tmp_path / "aurora.backup"
    back_up(workspace, "aurora", path, SECRET, by="ann@aurora")
    assert write_anchors(workspace, "aurora", tmp_path / "anchors") >= 3
    stranger = Workspace.create(tmp_path / "stranger")
    write_anchors(stranger, "aurora", tmp_path / "strange")
    with pytest.raises(IntegrityError, match="nobody says"):
        restore(stranger, "aurora", path, SECRET, by="ann@aurora")
    for one in ({"path": tmp_path / "none"}, {"path": tmp_path}, {"anchors": tmp_path / "none"}):
        with pytest.raises(InputError, match=r"there is no such|can.t be read"):
            restore(stranger, "aurora", **{"path": path, "passphrase": SECRET, "by": "x"} | one)
    with pytest.raises(IntegrityError, match="can't be opened") as wrong:
        restore(
            stranger, "aurora", path, "another passphrase", by="x", anchors=tmp_path / "anchors"
        )
    assert "the passphrase is another" in wrong.value.why
    with pytest.raises(IntegrityError, match="no coordinator"):
        restore(stranger, "aurora", path, SECRET, by="ann@aurora", anchors=tmp_path / "strange")
    assert restore(stranger, "aurora", path, SECRET, by="x", anchors=tmp_path / "anchors") > 10


def test_a_silo_whose_folder_is_lost_and_that_is_listed_still_is_put_back(
    brands: Path, tmp_path: Path
) -> None:
    """With another lost beside it: neither is needed to tell what the coordinator saw."""
    workspace = copied(brands, tmp_path)
    plan = small_plan(tmp_path / "plan.yaml")
    back_up(workspace, "aurora", tmp_path / "old.backup", SECRET, by="x")
    run = workspace.run(plan)
    for silo in ("aurora", "borealis"):
        back_up(workspace, silo, tmp_path / f"{silo}.backup", SECRET, by="x")
    path = tmp_path / "aurora.backup"
    with pytest.raises(WorkspaceError, match="already"):
        restore(workspace, "aurora", path, SECRET, by="x")
    for silo in ("aurora", "borealis"):
        shutil.rmtree(workspace.silo_folder(silo))
    listed = (workspace.path / "abfed.yaml").read_text()
    with pytest.raises(RunFailed, match=r"answered"):  # and nothing else
        Workspace(workspace.path).run(small_plan(tmp_path / "other.yaml", name="another"))
    with pytest.raises(IntegrityError, match="older than"):
        restore(Workspace(workspace.path), "aurora", tmp_path / "old.backup", SECRET, by="x")
    assert not (workspace.path / "silos" / "aurora").exists()
    for silo in ("aurora", "borealis"):
        restore(Workspace(workspace.path), silo, tmp_path / f"{silo}.backup", SECRET, by="x")
    again = Workspace(workspace.path)
    assert (workspace.path / "abfed.yaml").read_text() == listed
    assert all(part.holds for part in check_silo(again.silo_folder("aurora")))
    assert again.run(plan).name == run.name


def test_a_silo_is_put_back_where_it_is_listed_once_its_disk_is_there(
    brands: Path, tmp_path: Path
) -> None:
    workspace = copied(brands, tmp_path)
    back_up(workspace, "aurora", tmp_path / "b.backup", SECRET, by="x")
    shutil.rmtree(workspace.silo_folder("aurora"))
    disk, file = tmp_path / "disk", workspace.path / "abfed.yaml"
    text = file.read_text().replace("silos/aurora", f"{disk}/aurora")
    write_private(file, text.encode())
    with pytest.raises(WorkspaceError, match="is not there"):
        restore(Workspace(workspace.path), "aurora", tmp_path / "b.backup", SECRET, by="x")
    make_private_folder(disk)
    restore(Workspace(workspace.path), "aurora", tmp_path / "b.backup", SECRET, by="x")
    assert Workspace(workspace.path).silo_folder("aurora") == disk / "aurora"
    assert file.read_text() == text


def test_who_is_to_be_asked_for_anchors_works_in_a_workspace_of_their_own(
    brands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = copied(brands, tmp_path)
    back_up(workspace, "aurora", tmp_path / "b.backup", SECRET, by="x")
    write_private(tmp_path / "secret", SECRET.encode())
    stranger = tmp_path / "strange"
    Workspace.create(stranger)
    capsys.readouterr()
    given = ["-w", str(stranger), "--passphrase-file", str(tmp_path / "secret")]
    assert main(["silo", "restore", "aurora", str(tmp_path / "b.backup"), *given]) == 4
    do = capsys.readouterr().err.splitlines()[-1]
    assert do == (
        "  do:  ask its coordinator for 'abfed audit anchors', and name the file with --anchors"
    )


def test_the_commands_back_up_restore_and_show_anchors(brands: Path, tmp_path: Path) -> None:
    workspace = copied(brands, tmp_path)
    write_private(tmp_path / "secret", SECRET.encode())
    where = ["-w", str(workspace.path)]
    secret = ["--passphrase-file", str(tmp_path / "secret")]
    path = str(tmp_path / "b.backup")
    assert main(["silo", "backup", "borealis", path, *secret, *where]) == 0
    assert main(["silo", "backup", "borealis", path, *secret, *where]) == 2
    lose(workspace, "borealis")
    workspace = Workspace(workspace.path)
    restore(workspace, "borealis", Path(path), SECRET, by="ann@borealis")
    assert "borealis" in Workspace(workspace.path).silos
