"""Sinks: a private file, a webhook and a mail server that are really there, and who may not be."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from pydantic import TypeAdapter

from abfed.protocol.errors import Refused, RunFailed, WorkspaceError
from abfed.site.alarms import Alarm
from abfed.site.audit import AuditLog
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from abfed.site.sinks import SIGNATURE, Sink, deliver
from abfed.site.vendors import Vendors
from tests.distributed.rig import free_port
from tests.site.test_vendors import vendor

ALARM = Alarm(
    rule="strangers",
    severity="critical",
    site="aurora",
    at="2026-03-01T09:00:00.000000Z",
    what="requests come that no coordinator of ours signed",
)


def sink(**values: Any) -> Sink:
    parsed: Sink = TypeAdapter(Sink).validate_json(json.dumps(values))
    return parsed


@pytest.fixture
def vendors(tmp_path: Path) -> Vendors:
    keys = SiteKeys.create(tmp_path / "keys", site="hub")
    return Vendors(tmp_path, keys, AuditLog(tmp_path / "audit.jsonl", keys))


class Hook:
    """A webhook's server, and what it was given."""

    def __init__(self) -> None:
        self.answers = 200
        self.got: list[tuple[dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((dict(self.headers), body))
                self.send_response(hook.answers)
                if hook.answers == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/abfed"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_file_gets_a_line_each_and_is_private(tmp_path: Path, vendors: Vendors) -> None:
    deliver(sink(kind="log", path="alarms.jsonl"), [ALARM, ALARM], vendors, tmp_path)
    path = tmp_path / "alarms.jsonl"
    assert [json.loads(line)["rule"] for line in path.read_text().splitlines()] == ["strangers"] * 2
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "path", ["coordinator/audit.jsonl", "coordinator/../silos/aurora/audit.jsonl", "watch.yaml"]
)
def test_alarms_are_not_appended_to_files_of_a_site(
    path: str, tmp_path: Path, vendors: Vendors
) -> None:
    (tmp_path / "coordinator").mkdir()
    with pytest.raises(WorkspaceError, match="don't go into this file"):
        deliver(sink(kind="log", path=path), [ALARM], vendors, tmp_path)
    (tmp_path / "alarms.jsonl").symlink_to(tmp_path / "coordinator" / "audit.jsonl")
    with pytest.raises(WorkspaceError, match="don't go into this file"):
        deliver(sink(kind="log", path="alarms.jsonl"), [ALARM], vendors, tmp_path)


def test_a_file_that_can_t_be_written_is_a_sink_that_failed(
    tmp_path: Path, vendors: Vendors
) -> None:
    (tmp_path / "folder.log").mkdir()
    for path in ("/nowhere/at/all.log", "folder.log"):
        with pytest.raises(RunFailed, match="did not take the alarms"):
            deliver(sink(kind="log", path=path), [ALARM], vendors, tmp_path)


def test_a_webhook_gets_signed_json(tmp_path: Path, vendors: Vendors, hook: Hook) -> None:
    write_private(tmp_path / "secret", b"hush")
    chosen = sink(kind="webhook", url=hook.url, secret_file="secret")
    deliver(chosen, [ALARM], vendors, tmp_path)
    ((headers, body),) = hook.got
    assert json.loads(body)[0]["what"] == ALARM.what
    assert headers[SIGNATURE] == hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    assert b"hush" not in body


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_does_not_take_it_is_no_success(
    status: int, tmp_path: Path, vendors: Vendors, hook: Hook
) -> None:
    hook.answers = status
    with pytest.raises(RunFailed, match="did not take"):
        deliver(sink(kind="webhook", url=hook.url), [ALARM], vendors, tmp_path)
    assert len(hook.got) == 1, "it was redirected, or tried again in secret"


def test_a_webhook_elsewhere_takes_https_and_an_approved_vendor(
    tmp_path: Path, vendors: Vendors
) -> None:
    with pytest.raises(WorkspaceError, match="https"):
        deliver(
            sink(kind="webhook", url="http://hooks.example.org/abfed"), [ALARM], vendors, tmp_path
        )
    elsewhere = sink(kind="webhook", url="https://hooks.invalid/abfed")
    with pytest.raises(Refused, match="no vendor"):
        deliver(elsewhere, [ALARM], vendors, tmp_path)
    services = [{"kind": "webhook", "address": "https://hooks.invalid/abfed"}]
    agreement = {"reference": "DPA", "signed_on": "2026-01-01", "ends_on": "2099-01-01"}
    vendors.put(
        vendor(services=services, review_by="2099-01-01", agreement=agreement), by="pat@hub"
    )
    vendors.approve("postbox", by="sam@hub")
    with pytest.raises(RunFailed, match="did not take"):  # there is no such host; it was tried
        deliver(elsewhere, [ALARM], vendors, tmp_path)


class Mailbox:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.got.append(envelope)
        return "250 OK"


def test_a_mail_server_gets_a_message(tmp_path: Path, vendors: Vendors) -> None:
    mailbox = Mailbox()
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        to = ["security@example.org"]
        chosen = sink(kind="mail", host="127.0.0.1", port=port, sender="abfed@example.org", to=to)
        deliver(chosen, [ALARM], vendors, tmp_path)
        deliver(chosen, [], vendors, tmp_path)
    finally:
        controller.stop()
    (envelope,) = mailbox.got
    assert envelope.rcpt_tos == to
    assert b"Subject: abfed: 1 alarms, critical: strangers" in envelope.content
    assert ALARM.what.encode() in envelope.content.replace(b"=\r\n", b"")


def test_a_mail_server_elsewhere_takes_an_approved_vendor(tmp_path: Path, vendors: Vendors) -> None:
    chosen = sink(kind="mail", host="mail.invalid", sender="a@example.org", to=["b@example.org"])
    with pytest.raises(Refused, match="no vendor"):
        deliver(chosen, [ALARM], vendors, tmp_path)
    here = sink(kind="mail", host="127.0.0.1", port=1, sender="a@example.org", to=["b@example.org"])
    with pytest.raises(RunFailed, match="did not take"):
        deliver(here, [ALARM], vendors, tmp_path)
