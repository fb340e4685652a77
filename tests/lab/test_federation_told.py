"""What a federation says: how a server app ended, and which nodes are not registered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abfed.coordinator.programs import free_port
from abfed.lab import federation, operations
from abfed.protocol.errors import AbfedError, ReportFailed, RunFailed, Withheld, WorkspaceError


def every(kind: type[AbfedError]) -> Iterator[type[AbfedError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from every(one)


def test_a_server_app_that_ends_with_an_error_ends_this_one_with_the_same() -> None:
    ours = {one for one in every(AbfedError) if one.__module__ == AbfedError.__module__}
    for kind in ours - {AbfedError, ReportFailed, Withheld}:  # of the root, and of pages
        told = federation._error({"error": kind.kind, "what": "it ended", "code": "budget"})
        assert type(told) is kind
        assert told.what == "it ended"
    assert type(federation._error({})) is RunFailed


@pytest.mark.parametrize("up", [True, False])
def test_where_no_node_is_registered_each_silo_is_told_so(
    monkeypatch: pytest.MonkeyPatch, up: bool
) -> None:
    @contextmanager
    def link(_: Any) -> Iterator[Any]:
        if not up:
            raise RunFailed("no answer")
        yield SimpleNamespace(nodes=list, runs=list)

    here = Path("nowhere")
    house = SimpleNamespace(
        places=SimpleNamespace(admitted=here, tls=here, authority_certificate=here),
        settings=SimpleNamespace(name="north"),
        pinned=lambda: ({"aurora": "pinned"}, {}),
    )
    monkeypatch.setattr(operations, "House", lambda _: house)
    monkeypatch.setattr(operations, "read_private", lambda _: b"")
    monkeypatch.setattr(operations, "_day", lambda _: "then")
    monkeypatch.setattr(operations, "_link", link)
    told = operations.status(here)
    assert told["superlink"] == ("up" if up else "down")
    assert [one["node"] for one in told["silos"]] == ["not registered" if up else "unknown"]


@pytest.mark.parametrize("taken", ["port", "link_port"])
def test_a_port_that_is_taken_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    monkeypatch.setattr(operations, "FREE_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = SimpleNamespace(port=free_port(), link_port=free_port())
        setattr(settings, taken, port)
        monkeypatch.setattr(operations, "House", lambda _: SimpleNamespace(settings=settings))
        with pytest.raises(WorkspaceError, match=f"address already in use.* {port}") as told:
            operations.keep_coordinator(Path("nowhere"))
    assert told.value.where == f"{taken} in federation.yaml"
