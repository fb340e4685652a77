"""Chains: any change, swap, insertion or removal in the middle is found and named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from abfed.protocol.chain import GENESIS, head_of, link, verify_chain
from abfed.protocol.errors import IntegrityError

Entries = list[dict[str, Any]]


def _chain(count: int) -> Entries:
    entries: Entries = []
    head = GENESIS
    for number in range(count):
        entries.append(link(head, number, {"event": f"e{number}", "n": number}))
        head = head_of(entries[-1])
    return entries


def test_a_whole_chain_holds() -> None:
    entries = _chain(5)
    assert verify_chain(entries, where="x") == (5, head_of(entries[-1]))
    assert verify_chain([], where="x") == (0, GENESIS)


def test_a_head_stands_for_all_entries_before() -> None:
    heads = [head_of(entry) for entry in _chain(5)]
    assert len(set(heads)) == 5
    assert head_of(_chain(5)[4]) == heads[4]


def test_fields_beside_the_entry_do_not_change_its_head() -> None:
    entry = _chain(1)[0]
    assert head_of(entry | {"signature": "x"}) == head_of(entry)


def _swap(entries: Entries) -> Entries:
    entries[1], entries[2] = entries[2], entries[1]
    return entries


def _edit(entries: Entries) -> Entries:
    entries[1]["body"]["n"] = 7
    return entries


def _renumber(entries: Entries) -> Entries:
    kept = entries[:1] + entries[2:]
    return [entry | {"sequence": number} for number, entry in enumerate(kept)]


CHANGES: list[tuple[Callable[[Entries], Entries], str]] = [
    (_edit, "entry 2"),
    (_swap, "entry 1"),
    (_renumber, "entry 1"),
    (lambda entries: entries[1:], "entry 0"),
    (lambda entries: entries[:2] + entries[3:], "entry 2"),
    (lambda entries: [*entries[:2], entries[1], *entries[2:]], "entry 2"),
    (lambda entries: [*entries, link(GENESIS, 4, {})], "entry 4"),
    (lambda entries: [entries[0], {}, *entries[2:]], "entry 1"),
    (lambda entries: [*entries[:3], entries[3] | {"sequence": 7}], "entry 3"),  # the links hold
]


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_the_first_entry_that_does_not_fit_is_named(
    change: Callable[[Entries], Entries], named: str
) -> None:
    with pytest.raises(IntegrityError, match=named):
        verify_chain(change(copy.deepcopy(_chain(4))), where="x")


def test_a_missing_tail_shows_in_the_head_only() -> None:
    entries = _chain(4)
    count, head = verify_chain(entries[:3], where="x")
    assert count == 3
    assert head != head_of(entries[3])
