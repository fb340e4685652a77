"""Private files: nobody else's, and whole or not there."""

from __future__ import annotations

import os
import stat
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.files import (
    ASIDE,
    TOGETHER,
    check_private,
    flush_folder,
    make_private_folder,
    read_private,
    write_private,
    write_private_together,
)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_private_folder(tmp_path / "a" / "b")
        write_private(tmp_path / "a" / "b" / "c", b"x")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "a" / "b") == 0o700
    assert _mode(tmp_path / "a" / "b" / "c") == 0o600


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private_folder(tmp_path)
    assert _mode(tmp_path) == 0o700


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    write_private(tmp_path / "x", b"content")
    (tmp_path / "x").chmod(mode)
    assert read_private(tmp_path / "x") == b"content"


@pytest.mark.parametrize("bit", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_each_bit_for_others_is_too_wide(tmp_path: Path, bit: int) -> None:
    write_private(tmp_path / "x", b"content")
    (tmp_path / "x").chmod(0o600 | bit)
    with pytest.raises(IntegrityError) as caught:
        read_private(tmp_path / "x")
    assert f"{0o600 | bit:04o}" in str(caught.value)
    assert "content" not in str(caught.value)
    assert "chmod 600" in caught.value.do


def test_a_folder_is_told_its_own_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(IntegrityError, match="0700"):
        check_private(tmp_path)


def test_a_link_counts_as_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "open").write_bytes(b"x")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(IntegrityError):
        read_private(tmp_path / "link")


def test_what_is_missing_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is missing"):
        read_private(tmp_path / "none")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_private(path, b"long old content")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert _mode(path) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(os.getuid() != 0, reason="gives a folder to another user")
def test_what_root_writes_belongs_to_whom_the_folder_belongs(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 61_900, 61_901)
    for content in (b"new", b"again"):
        write_private(theirs / "policy.yaml", content)
    make_private_folder(theirs / "a" / "b")
    write_private(theirs / "a" / "b" / "x", b"x")
    owners = {(one.stat().st_uid, one.stat().st_gid) for one in theirs.rglob("*")}
    assert owners == {(61_900, 61_901)}
    write_private(tmp_path / "own", b"own")
    assert (tmp_path / "own").stat().st_uid == 0


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "inside").touch()
    with pytest.raises(OSError, match="x"):
        write_private(tmp_path / "x", b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_private(path, b"old")
    with path.open("rb") as held:
        write_private(path, b"new content")
        assert held.read() == b"old"
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(ASIDE)]


def test_a_folder_is_flushed_and_a_file_is_not_one(tmp_path: Path) -> None:
    flush_folder(tmp_path)
    write_private(tmp_path / "x", b"")
    with pytest.raises(NotADirectoryError):
        flush_folder(tmp_path / "x")


def test_what_is_no_folder_or_everybodys_is_not_closed_to_others(tmp_path: Path) -> None:
    """A device or /tmp that was named by mistake keeps its mode."""
    file, shared = tmp_path / "file", tmp_path / "shared"
    file.write_text("")
    shared.mkdir()
    for place, mode in ((file, 0o644), (shared, 0o1777)):
        place.chmod(mode)
        with pytest.raises(WorkspaceError, match="folder"):
            make_private_folder(place)
        assert stat.S_IMODE(place.stat().st_mode) == mode


def test_a_link_to_nothing_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for place in (tmp_path / "link", tmp_path / "link" / "in it"):
        with pytest.raises(WorkspaceError, match="is a link to nothing"):
            make_private_folder(place)
    assert not (tmp_path / "nothing").exists()


def test_files_written_together_are_all_there_and_few_contents_are_held_at_once(
    tmp_path: Path,
) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def content(number: int) -> bytes:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.01)
        with lock:
            held -= 1
        return str(number).encode()

    paths = [tmp_path / str(number) for number in range(20)]
    write_private_together((path, partial(content, n)) for n, path in enumerate(paths))
    assert [read_private(path) for path in paths] == [str(n).encode() for n in range(20)]
    assert 1 < most <= TOGETHER


def test_one_of_many_that_cannot_be_written_is_told_and_nothing_half_is_left(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / str(n) for n in range(4)] + [tmp_path / "none" / "x"]
    with pytest.raises(FileNotFoundError):
        write_private_together((path, lambda: b"x") for path in paths)
    assert not list(tmp_path.glob(f"{ASIDE}*"))


def test_the_name_of_each_new_folder_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    make_private_folder(tmp_path / "site" / "silo")
    assert flushed == [tmp_path.stat().st_ino, (tmp_path / "site").stat().st_ino]
