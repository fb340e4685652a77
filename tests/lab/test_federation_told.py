"""What a federation says: how a server app ended, and which nodes are not registered."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abfed.cli.main import main
from abfed.coordinator.house import FOLDER, House
from abfed.coordinator.programs import free_port
from abfed.lab import federation, operations
from abfed.lab.provisioning import found_federation
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import AbfedError, ReportFailed, RunFailed, Withheld, WorkspaceError
from abfed.site.files import write_private
from abfed.site.health import Metrics


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


@pytest.fixture(scope="module")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A coordinator on whose two ports something listens that never says a word."""
    with (
        socket.create_server(("127.0.0.1", 0)) as link,
        socket.create_server(("127.0.0.1", 0)) as front,
    ):
        ports = {"port": front.getsockname()[1], "link_port": link.getsockname()[1]}
        folder = tmp_path_factory.mktemp("mute")
        settings = folder / "federation.yaml"
        settings.write_text("".join(f"{n}: {v}\n" for n, v in ({"name": "north"} | ports).items()))
        found_federation(Workspace.create(folder / "c", development=True), settings)
        yield folder / "c"


def test_what_hangs_is_told_in_seconds_by_its_process_and_with_a_code_of_its_own(
    mute: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operations, "LOOK_SECONDS", 0.3)
    started = time.monotonic()
    assert main(["federation", "status", "-w", str(mute)]) == 5
    assert time.monotonic() - started < 40
    told = capsys.readouterr()
    assert "SuperLink silent" in told.out
    for name in ("superlink", "proxy"):
        line = next(one for one in told.err.splitlines() if one.startswith(name))
        assert f"(process {os.getpid()}) listens on port" in line
        assert line.endswith("gave no answer for 0.3 s")
    assert main(["federation", "status", "-w", str(mute), "--json"]) == 5
    facts = json.loads(capsys.readouterr().out)
    assert (facts["superlink"], sorted(facts["unanswered"])) == ("silent", ["proxy", "superlink"])


def test_health_waits_for_nothing_that_hangs(mute: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "HEALTH_SECONDS", 0.2)
    monkeypatch.setattr(operations, "LOOK_SECONDS", 100.0)
    metrics = Metrics()
    health = operations._Health(House(mute / FOLDER), metrics)
    started = time.monotonic()
    assert health.lacks() == [f"{name} (no answer for 0.2 s)" for name in ("superlink", "proxy")]
    health.collect()
    assert time.monotonic() - started < 60
    for name in ("superlink", "proxy"):
        labels = {"state": f"{name}-answers"}
        assert metrics.registry.get_sample_value("abfed_state", labels) == 0


def test_where_nothing_listens_it_is_down(
    mute: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mute, tmp_path / "c")
    settings = tmp_path / "c" / FOLDER / "federation.yaml"
    ports = f"port: {free_port()}\nlink_port: {free_port()}\n"
    write_private(settings, f"name: north\n{ports}".encode())
    assert main(["federation", "status", "-w", str(tmp_path / "c")]) == 5
    told = capsys.readouterr()
    assert "SuperLink down" in told.out
    assert "nothing listens on port" in told.err
    assert "do:  start it with `abfed federation up" in told.err


@pytest.mark.parametrize("up", [True, False])
def test_where_no_node_is_registered_each_silo_is_told_so(
    monkeypatch: pytest.MonkeyPatch, up: bool
) -> None:
    @contextmanager
    def link(*_: Any) -> Iterator[Any]:
        if not up:
            raise RunFailed("no answer")
        yield SimpleNamespace(nodes=list, runs=list)

    here = Path("nowhere")
    house = SimpleNamespace(
        places=SimpleNamespace(admitted=here, tls=here, authority_certificate=here),
        settings=SimpleNamespace(name="north", link_port=free_port()),
        pinned=lambda: ({"aurora": "pinned"}, {}),
    )
    monkeypatch.setattr(operations, "House", lambda _: house)
    monkeypatch.setattr(operations, "read_private", lambda _: b"")
    monkeypatch.setattr(operations, "_day", lambda _: "then")
    monkeypatch.setattr(operations, "_link", link)
    monkeypatch.setattr(operations, "proxy_silence", lambda _: "")
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
