"""What other sites remember of a log proves a missing tail and a fork, by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from abfed.protocol.chain import GENESIS
from abfed.protocol.errors import IntegrityError
from abfed.site.anchors import Anchor, verify_against
from abfed.site.audit import AuditLog
from abfed.site.clock import stamp
from abfed.site.keys import SiteKeys


class Ticking:
    """A clock on which a second passes at each look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class Kept:
    """A log, and what another site keeps of it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.clock = folder / "audit.jsonl", Ticking()
        keys = SiteKeys.create(folder / "keys", site="aurora")
        self.log = AuditLog(self.path, keys, self.clock)
        self.anchors: list[Anchor] = []

    def shown(self, count: int) -> None:
        for _ in range(count):
            head = self.log.append("release.made", step="totals")
            at = stamp(self.clock())
            self.anchors.append(Anchor("aurora", head, at, "hub", f"release {len(self.anchors)}"))

    def lines(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        self.path.write_bytes(b"".join(change(lines)))

    def convicted(self) -> IntegrityError:
        with pytest.raises(IntegrityError) as caught:
            verify_against(self.log, self.anchors, where="aurora's log")
        return caught.value


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    made = Kept(tmp_path)
    made.shown(5)
    return made


def test_a_whole_log_holds_and_says_what_nobody_would_miss(kept: Kept) -> None:
    assert verify_against(kept.log, kept.anchors, where="x") == (kept.log.verify(), 5, 0, 0, 0)
    kept.log.append("more")
    assert verify_against(kept.log, kept.anchors, where="x").unanchored == 1
    none = Anchor("aurora", GENESIS, stamp(kept.clock()), "hub", "a request before any entry")
    assert verify_against(kept.log, [*kept.anchors, none], where="x").anchors == 6


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_missing_tail_is_proved_by_the_first_head_that_is_gone(kept: Kept, cut: int) -> None:
    kept.lines(lambda lines: lines[:-cut])
    if cut < 5:
        assert kept.log.verify().entries == 5 - cut  # by itself the chain holds
    found = kept.convicted()
    assert "missing" in found.what
    assert f"hub keeps the head {kept.anchors[5 - cut].head[:16]}" in found.why
    assert f"release {5 - cut}" in found.why


def test_a_log_that_is_gone_is_missing(kept: Kept) -> None:
    kept.path.unlink()
    assert "the log is missing" in kept.convicted().what


def test_a_fork_names_the_entry_that_it_begins_at(kept: Kept) -> None:
    kept.lines(lambda lines: lines[:3])
    for _ in range(4):
        kept.log.append("another", history=True)
    assert kept.log.verify().entries == 7
    found = kept.convicted()
    assert "a fork" in found.what
    assert "from entry 3 or later" in found.what


def test_anchors_of_pruned_entries_are_counted_and_later_ones_count(kept: Kept) -> None:
    kept.log.prune(kept.clock(), by="olga", keep="none")
    found = verify_against(kept.log, kept.anchors, where="x")
    assert (found.anchors, found.older, found.pruned) == (2, 3, kept.log.start().entries)
    kept.shown(1)
    kept.lines(lambda lines: lines[:-1])
    assert "the tail is missing" in kept.convicted().what
