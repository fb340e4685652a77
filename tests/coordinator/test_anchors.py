"""Heads of silos' logs: the newest is named, an old one never again, and a step costs its own."""

import hashlib

import pytest

from abfed.coordinator import anchors
from abfed.coordinator.anchors import BEFORE, FILE, Anchors
from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.chain import GENESIS
from abfed.protocol.errors import IntegrityError
from abfed.site.files import write_private


def head(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_the_newest_is_named_and_an_answer_given_again_takes_nothing_back(tmp_path):
    kept = Anchors(tmp_path / "runs")
    assert kept.newest("aurora") == GENESIS
    for number in range(5):
        kept.note({"aurora": head(number), "borealis": head(-number - 1)})
    kept.note({"aurora": head(2)})
    for one in (kept, Anchors(tmp_path / "runs")):
        assert (one.newest("aurora"), one.newest("borealis")) == (head(4), head(-5))


def test_two_runs_at_once_lose_nothing_of_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(anchors, "KEPT", 3)  # and the file is written anew in between
    one, other = Anchors(tmp_path), Anchors(tmp_path)
    for number in range(20):
        (one, other)[number % 2].note({"aurora": head(number), f"silo-{number % 2}": head(number)})
    late = Anchors(tmp_path)
    for number in range(40):  # it is longer when it's written anew than where `late` read to
        one.note({f"more-{number}": head(number), "aurora": head(19)})
    late.note({"borealis": head(0)})
    found = Anchors(tmp_path)
    assert found.newest("aurora") == late.newest("aurora") == head(19)
    assert found.newest("more-39") == late.newest("more-39") == head(39)
    assert (found.newest("silo-0"), found.newest("silo-1")) == (head(18), head(19))
    size = (tmp_path / FILE).stat().st_size
    assert size < 12_000, "it grows with what was"


def test_a_line_that_was_cut_short_never_counted(tmp_path):
    kept = Anchors(tmp_path)
    kept.note({"aurora": head(1)})
    kept.note({"aurora": head(2)})
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-5])
    again = Anchors(tmp_path)
    assert again.newest("aurora") == head(1)
    again.note({"aurora": head(2)})
    assert (tmp_path / FILE).read_bytes() == whole


def test_a_step_writes_its_own_heads_and_no_others(tmp_path):
    kept = Anchors(tmp_path)
    kept.note({f"silo-{n:04d}": head(n) for n in range(500)})
    before = (tmp_path / FILE).read_bytes()
    kept.note({"silo-0007": head("new")})
    after = (tmp_path / FILE).read_bytes()
    assert after.startswith(before)
    assert len(after) - len(before) < 200


def test_what_an_earlier_release_kept_is_taken_over(tmp_path):
    write_private(tmp_path / BEFORE, canonical_bytes({"aurora": [head(1), head(2)]}))
    kept = Anchors(tmp_path)
    assert kept.newest("aurora") == head(2)
    kept.note({"aurora": head(1), "borealis": head(3)})
    found = Anchors(tmp_path)
    assert (found.newest("aurora"), found.newest("borealis")) == (head(2), head(3))


def test_a_file_that_was_changed_is_said_so(tmp_path):
    write_private(tmp_path / FILE, b'{"made":"0"}\n{"silo":"aurora"}\n')
    with pytest.raises(IntegrityError, match="not a line of heads"):
        Anchors(tmp_path)
