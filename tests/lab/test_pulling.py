"""Exports through a connector: whole or not at all, under no name, from whom the register knows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from abfed.lab.offices import Office
from abfed.lab.security.uses import services_in_use
from abfed.lab.upkeep.pulling import pull_export
from abfed.protocol.errors import DataError, InputError, Refused, RunFailed, WorkspaceError
from abfed.site import connectors
from abfed.site.connectors import FILE
from abfed.site.files import write_private
from tests.lab.test_intake_killed import PEOPLE, Place

CANARY = b"canary-of-a-row@example.org"


class Tool:
    """An e-mail tool that gives an export, and what it was asked."""

    def __init__(self) -> None:
        self.status, self.body, self.length = 200, b"", -1
        self.asked: list[dict[str, str]] = []
        tool = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tool.asked.append(dict(self.headers))
                self.send_response(tool.status)
                if tool.status == 302:
                    self.send_header("Location", "/elsewhere")
                length = len(tool.body) if tool.length < 0 else tool.length
                if length:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(tool.body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/sends.csv"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def tool() -> Iterator[Tool]:
    made = Tool()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def place(tmp_path: Path, tool: Tool) -> Place:
    made = Place(tmp_path)
    made.found()
    tool.body = (tmp_path / "first.csv").read_bytes()
    configure(made, tool.url)
    return made


def configure(place: Place, url: str) -> None:
    write_private(place.silo / "esp.yaml", (place.folder / "mapping.yaml").read_bytes())
    write_private(place.silo / "esp.secret", b"hush\n")
    one = {"url": url, "mapping": "esp.yaml", "secret_file": "esp.secret"}
    write_private(place.silo / FILE, yaml.safe_dump({"connectors": {"esp": one}}).encode())


def test_an_export_comes_in_and_leaves_nothing_behind(place: Place, tool: Tool) -> None:
    report = pull_export(place.workspace, "dahlia", "esp")
    assert report.new == 2 * PEOPLE
    assert place.held() == (2 * PEOPLE, 0)
    assert tool.asked[0]["Authorization"] == "Bearer hush"
    (told,) = place.events("data.ingested")
    assert told["connector"] == "esp"
    assert "hush" not in str(told)
    assert not [
        one for one in place.silo.rglob("*") if one.is_file() and b"p1@" in one.read_bytes()
    ]
    assert pull_export(place.workspace, "dahlia", "esp").known
    with pytest.raises(InputError, match="there is no connector 'other'"):
        pull_export(place.workspace, "dahlia", "other")


def test_what_is_not_a_whole_export_changes_nothing(
    place: Place, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tool.body
    monkeypatch.setattr(connectors, "LARGEST", 10_000)
    for status, body, length, why in (
        (302, whole, -1, "302"),
        (403, CANARY, -1, "403"),
        (200, whole, len(whole) + 9, "cut"),
        (200, whole, 0, "how long"),
        (200, b"", 10_001, "larger"),
    ):
        tool.status, tool.body, tool.length = status, body, length
        with pytest.raises(RunFailed, match="no export") as caught:
            pull_export(place.workspace, "dahlia", "esp")
        assert why in caught.value.why
        assert CANARY.decode() not in str(caught.value)
    assert len(tool.asked) == 5, "it followed, or asked again"
    tool.status, tool.body, tool.length = 200, whole.replace(b"p1@", b"\xff"), -1
    with pytest.raises(DataError, match="UTF-8") as refused:
        pull_export(place.workspace, "dahlia", "esp")
    assert refused.value.where == "the export of connector esp"
    assert place.held() == (0, 0)


def test_a_tool_elsewhere_takes_https_and_a_vendor_and_is_not_asked_before(place: Place) -> None:
    url = "https://esp.invalid/sends.csv"
    configure(place, url)
    with pytest.raises(Refused, match="no vendor"):
        pull_export(place.workspace, "dahlia", "esp")
    office = Office.of_silo(place.silo)
    assert [
        (one.kind, one.address, one.where) for one in services_in_use(place.workspace, office)
    ] == [("connector", url, FILE)]
    configure(place, url.replace("https", "http"))
    with pytest.raises(WorkspaceError, match="https"):
        pull_export(place.workspace, "dahlia", "esp")
    configure(place, "https://ann:secret@esp.invalid/sends.csv")
    with pytest.raises(WorkspaceError) as caught:
        pull_export(place.workspace, "dahlia", "esp")
    assert "secret@" not in str(caught.value)
