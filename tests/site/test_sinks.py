"""Sinks: a private file, a webhook and a mail server that are really there, and who may not be."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from pydantic import TypeAdapter

from abfed.coordinator.programs import free_port
from abfed.protocol.errors import Refused, RunFailed, WorkspaceError
from abfed.site import sinks
from abfed.site.alarms import Alarm
from abfed.site.audit import AuditLog
from abfed.site.certificates import make_authority, make_server_certificate
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from abfed.site.sinks import SIGNATURE, Sink, deliver, described
from abfed.site.vendors import Vendors
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
    assert b"Subject: abfed: 1 alarm, critical: strangers" in envelope.content
    assert ALARM.what.encode() in envelope.content.replace(b"=\r\n", b"")


@contextmanager
def answering(*answer: bytes, pause: float = 0.0) -> Iterator[int]:
    """A server on a port that says this to whoever comes, part by part, whatever they say."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with closing(caller), suppress(OSError):
                        for part in answer:
                            caller.sendall(part)
                            time.sleep(pause)
                        caller.shutdown(socket.SHUT_WR)
                        caller.recv(65_536)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def reaching(kind: str, port: int) -> Sink:
    if kind == "webhook":
        return sink(kind=kind, url=f"http://127.0.0.1:{port}/")
    return sink(
        kind=kind, host="127.0.0.1", port=port, sender="a@example.org", to=["b@example.org"]
    )


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("webhook", b"\x00\xff is no HTTP\r\n\r\n"),
        ("webhook", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
        ("webhook", b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"),
        ("webhook", b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
        ("webhook", b""),
        ("mail", b"554 no service for you\r\n"),
        ("mail", b"\xff\xfe\x00\r\n"),
        ("mail", b"220 " + b"x" * 100_000),
        ("mail", b"220 come in\r\n250 you\r\n550 nobody of that name\r\n"),
        ("mail", b""),
    ],
)
def test_whatever_a_server_answers_it_is_a_sink_that_failed(
    kind: str, answer: bytes, tmp_path: Path, vendors: Vendors
) -> None:
    with answering(answer) as port, pytest.raises(RunFailed, match="did not take"):
        deliver(reaching(kind, port), [ALARM], vendors, tmp_path)


@pytest.mark.parametrize("kind", ["webhook", "mail"])
def test_a_server_that_keeps_talking_holds_nothing_up(
    kind: str, tmp_path: Path, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "SECONDS", 0.2)
    letters = b"HTTP/1.1 200 " + b"x" * 100 if kind == "webhook" else b"220-" + b"x" * 100
    parts = tuple(bytes([one]) for one in letters)
    before = time.monotonic()
    with answering(*parts, pause=0.1) as port, pytest.raises(RunFailed, match="did not take"):
        deliver(reaching(kind, port), [ALARM], vendors, tmp_path)
    assert time.monotonic() - before < 5


def test_an_answer_as_large_as_can_be_is_not_read(tmp_path: Path, vendors: Vendors) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
    with answering(head, *(bytes(1 << 16) for _ in range(20))) as port:
        deliver(reaching("webhook", port), [ALARM], vendors, tmp_path)


def test_a_name_with_control_characters_makes_no_line_of_its_own(
    tmp_path: Path, vendors: Vendors
) -> None:
    hostile = ALARM.model_copy(update={"subject": "run\n\x1b[2J\x9b2K\u202ex"})
    assert described(hostile).isprintable()
    deliver(sink(kind="log", path="alarms.log"), [hostile], vendors, tmp_path)
    (line,) = (tmp_path / "alarms.log").read_bytes().splitlines()
    assert json.loads(line)["subject"] == hostile.subject
    assert line.isascii()
    assert line.decode().isprintable()


ELSEWHERE = "alerts.example.org"


@pytest.fixture
def elsewhere(tmp_path: Path, vendors: Vendors, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A host that is really another one by its name, with a certificate; its address is ours."""
    now = datetime.now(UTC)
    authority = make_authority("test", now, 2)
    key, certificate = make_server_certificate(authority, [ELSEWHERE], now, 1)
    for name, data in {"ca": authority.certificate, "key": key, "crt": certificate}.items():
        write_private(tmp_path / name, data)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
    real = socket.create_connection
    monkeypatch.setattr(
        socket,
        "create_connection",
        lambda address, *more: real(("127.0.0.1", address[1]), *more),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    return context


def approve(vendors: Vendors, kind: str, address: str) -> None:
    agreement = {"reference": "DPA", "signed_on": "2026-01-01", "ends_on": "2099-01-01"}
    services = [{"kind": kind, "address": address}]
    entry = vendor(services=services, review_by="2099-01-01", agreement=agreement)
    vendors.put(entry, by="pat@hub")
    vendors.approve("postbox", by="sam@hub")


def test_a_mail_server_elsewhere_gets_it_by_tls_under_its_own_name_only(
    tmp_path: Path, vendors: Vendors, elsewhere: ssl.SSLContext
) -> None:
    mailbox, port = Mailbox(), free_port()
    controller = Controller(
        mailbox, hostname="127.0.0.1", port=port, tls_context=elsewhere, require_starttls=True
    )
    controller.start()
    values = {"kind": "mail", "port": port, "sender": "a@example.org", "to": ["b@example.org"]}
    try:
        approve(vendors, "mail", f"{ELSEWHERE}:{port}")
        deliver(sink(host=ELSEWHERE, **values), [ALARM], vendors, tmp_path)
        with pytest.raises(Refused, match="no vendor"):
            deliver(sink(host=f"x.{ELSEWHERE}", **values), [ALARM], vendors, tmp_path)
    finally:
        controller.stop()
    assert len(mailbox.got) == 1


def test_a_webhook_elsewhere_gets_it_by_tls_under_its_own_name_only(
    tmp_path: Path, vendors: Vendors, elsewhere: ssl.SSLContext, hook: Hook
) -> None:
    hook.server.socket = elsewhere.wrap_socket(hook.server.socket, server_side=True)
    port = hook.server.server_address[1]
    url = f"https://{ELSEWHERE}:{port}/abfed?to=us"
    approve(vendors, "webhook", url)
    deliver(sink(kind="webhook", url=url), [ALARM], vendors, tmp_path)
    assert len(hook.got) == 1
    for other in (url.replace(ELSEWHERE, f"x.{ELSEWHERE}"), url.upper(), f"{url}&more"):
        with pytest.raises((Refused, WorkspaceError)):
            deliver(
                sink(kind="webhook", url=other.replace("HTTPS:", "https:")),
                [ALARM],
                vendors,
                tmp_path,
            )
    assert len(hook.got) == 1


def test_a_certificate_of_another_name_gets_nothing(
    tmp_path: Path, vendors: Vendors, elsewhere: ssl.SSLContext, hook: Hook
) -> None:
    hook.server.socket = elsewhere.wrap_socket(hook.server.socket, server_side=True)
    url = f"https://alerts.example.net:{hook.server.server_address[1]}/"
    approve(vendors, "webhook", url)
    with pytest.raises(RunFailed, match="did not take"):
        deliver(sink(kind="webhook", url=url), [ALARM], vendors, tmp_path)
    assert hook.got == []


@pytest.mark.parametrize(
    "host",
    ["2130706433", "127.1", "0x7f.0.0.1", "0177.0.0.1", "0.0.0.0", "localhost.evil.example",
     "127.0.0.1.nip.example", "xn--lcalhost-vbb", "user@127.0.0.1.example", "ⓛocalhost"],
)  # fmt: skip
def test_what_only_looks_like_this_machine_is_a_vendors(
    host: str, tmp_path: Path, vendors: Vendors
) -> None:
    with pytest.raises(WorkspaceError, match="https"):
        deliver(sink(kind="webhook", url=f"http://{host}/"), [ALARM], vendors, tmp_path)
    with pytest.raises(Refused, match="no vendor"):
        deliver(sink(kind="webhook", url=f"https://{host}/"), [ALARM], vendors, tmp_path)
    to = ["b@example.org"]
    chosen = sink(kind="mail", host=host, sender="a@example.org", to=to)
    with pytest.raises(Refused, match="no vendor"):
        deliver(chosen, [ALARM], vendors, tmp_path)


def test_a_mail_server_elsewhere_takes_an_approved_vendor(tmp_path: Path, vendors: Vendors) -> None:
    chosen = sink(kind="mail", host="mail.invalid", sender="a@example.org", to=["b@example.org"])
    with pytest.raises(Refused, match="no vendor"):
        deliver(chosen, [ALARM], vendors, tmp_path)
    here = sink(kind="mail", host="127.0.0.1", port=1, sender="a@example.org", to=["b@example.org"])
    with pytest.raises(RunFailed, match="did not take"):
        deliver(here, [ALARM], vendors, tmp_path)
