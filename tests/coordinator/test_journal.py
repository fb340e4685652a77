"""The journal: durable, chained, tolerant of a crash and of nothing else."""

import subprocess
import sys

import pytest

from abfed.coordinator.journal import Journal, begin_journal, read_journal
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.keys import SiteKeys

BODIES = [{"event": "begin"}, {"event": "step", "step": "totals"}]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return SiteKeys.create(tmp_path_factory.mktemp("site") / "keys", site="coordinator")


@pytest.fixture
def path(tmp_path, keys):
    begin_journal(tmp_path / "journal.jsonl", keys, BODIES)
    return tmp_path / "journal.jsonl"


def test_what_was_written_is_read_again(path, keys):
    journal = Journal(path, keys)
    journal.append({"event": "step", "step": "train-0001"})
    head = journal.head
    journal.close()
    again = Journal(path, keys)
    assert again.bodies == [*BODIES, {"event": "step", "step": "train-0001"}]
    assert again.head == head
    again.close()


def test_an_entry_that_was_cut_short_anywhere_never_counted(path, keys):
    journal = Journal(path, keys)
    before, head = path.read_bytes(), journal.head
    journal.append({"event": "step", "step": "train-0001"})
    journal.close()
    whole = path.read_bytes()
    for size in range(len(before), len(whole)):
        path.write_bytes(whole[:size])
        journal = Journal(path, keys)
        assert (journal.bodies, journal.head) == (BODIES, head)
        journal.close()
        assert path.read_bytes() == before


def test_every_changed_byte_of_whole_entries_is_found(path, keys):
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError) as caught:
            Journal(path, keys)
        assert str(path) in str(caught.value), place


def test_a_missing_entry_is_found(path, keys):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[1])
    with pytest.raises(IntegrityError, match="missing or out of place"):
        Journal(path, keys)
    path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="empty"):
        read_journal(path, keys.public_key)


def test_one_process_at_a_time(path, keys):
    journal = Journal(path, keys)
    code = (
        "import fcntl, sys\n"
        "try: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(7)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, check=False).returncode == 7
    with pytest.raises(WorkspaceError, match="another process"):
        Journal(path, keys)
    journal.close()
    assert subprocess.run(command, check=False).returncode == 0


def test_another_site_can_not_write_it(path, keys, tmp_path):
    other = SiteKeys.create(tmp_path / "keys", site="coordinator")
    begin_journal(path, other, BODIES)
    with pytest.raises(IntegrityError, match="signature does not hold"):
        Journal(path, keys)


def test_a_full_disk_leaves_what_was_there(path, keys, monkeypatch):
    import os

    journal = Journal(path, keys)
    before = path.read_bytes()
    write, calls = os.write, []

    def full(descriptor, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        journal.append({"event": "step", "step": "train-0001"})
    monkeypatch.undo()
    assert path.read_bytes() == before
    journal.append({"event": "step", "step": "train-0001"})
    journal.close()
    assert len(read_journal(path, keys.public_key).bodies) == 3


def test_a_file_open_to_others_is_refused(path, keys):
    path.chmod(0o644)
    with pytest.raises(IntegrityError, match="others"):
        Journal(path, keys)
