"""What somebody from outside sends to the real processes of a federation, byte by byte."""

import contextlib
import secrets
import socket
import ssl

from abfed.protocol.boxes import box_request, unbox_reply
from abfed.protocol.envelope import open_envelope
from abfed.protocol.framing import frame, read_frame
from abfed.protocol.messages import EMPTY_DIGEST, Request, decode, encode
from abfed.site.clock import stamp, system_clock

PLACES = ("control/list-runs", "control/start-run", "runtime/pull-task-input", "runtime/get-nodes")
UP = ("..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "..;", "..%00", "%c0%ae%c0%ae", "x/../..")
SLASH = ("/", "//", "%2f", "%5c", "\\", "/./", "/%2e/")


def spellings() -> list[str]:
    """Ways to write a path so that one reader takes it for the fleet's and another doesn't."""
    found = []
    for place in PLACES:
        found += [
            f"/v1/{place}",
            f"//v1/{place}",
            f"/v1//{place}",
            f"/V1/{place}",
            f"/v1/./{place}",
        ]
        found += [f"/v1/fleet{slash}{up}{slash}{place}" for up in UP for slash in SLASH]
        found += [f"/v1/fleet/pull-messages{end}{place}" for end in ("/../../", "?/../", "#/../")]
        found += [f"/v1/fleet/{place}", f"/v1/%66leet/../{place}", f"http://localhost/v1/{place}"]
    others = ["/", "/docs", "/openapi.json", "/health", "/metrics", "/v1/fleet", "/v1/fleet/", "*"]
    others += ["/v1/fleet/pull-messages/", "/v1/fleet/pull%2dmessages", "/v1/FLEET/pull-messages"]
    return found + others


def posted(path: str, *heads: str, body: bytes = b"") -> bytes:
    """An HTTP request, as it is written."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", *heads]
    lines += (
        [] if any(head.startswith("Content-Length") for head in heads) else ["Content-Length: 0"]
    )
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def odd() -> dict[str, bytes]:
    """Requests that servers in a row may read differently, or that are too much."""
    fleet = "/v1/fleet/pull-messages"
    hidden = posted("/v1/control/list-runs")
    long = "Content-Length: %d" % len(hidden)  # noqa: UP031
    return {
        "two lengths": posted(fleet, "Content-Length: 0", long, body=hidden),
        "length and pieces": posted(fleet, long, "Transfer-Encoding: chunked", body=hidden),
        "pieces, oddly": posted(fleet, "Transfer-Encoding: xchunked", body=hidden),
        "two hosts": posted(fleet, "Host: 127.0.0.1:9444"),
        "a huge header": posted(fleet, "X-Big: " + "a" * 200_000),
        "many headers": posted(fleet, *(f"X-{n}: y" for n in range(20_000))),
        "a huge path": posted("/v1/fleet/" + "a" * 100_000),
        "a huge body, announced": posted(fleet, "Content-Length: 99999999999"),
        "a nul": posted("/v1/fleet/pull-messages\0/../../control/list-runs"),
        "a line break": b"POST /v1/fleet/x\n/v1/control/list-runs HTTP/1.1\r\n\r\n",
        "no version": b"POST /v1/control/list-runs\r\n\r\n",
        "a tunnel": b"CONNECT 127.0.0.1:9444 HTTP/1.1\r\nHost: x\r\n\r\n",
        "an echo": b"TRACE /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n\r\n",
        "an upgrade": posted(fleet, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
        "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    }


class Stranger:
    """Somebody at an address, who knows the federation's certificate and nothing else.

    Args:
        port: of the proxy.
        authority: path of the certificate.
        address: of loopback, whence.
    """

    def __init__(self, port: int, authority: str, address: str = "127.0.0.2") -> None:
        self._port = port
        self._address = address
        self._context = ssl.create_default_context(cafile=authority)

    def line(self, seconds: float = 30) -> ssl.SSLSocket:
        """A line to the proxy."""
        plain = self.plain(seconds)
        return self._context.wrap_socket(plain, server_hostname="localhost")

    def plain(self, seconds: float = 30) -> socket.socket:
        """One without TLS."""
        return socket.create_connection(("127.0.0.1", self._port), seconds, (self._address, 0))

    def say(self, content: bytes, *, tls: bool = True) -> bytes:
        """The first line of every answer to these bytes; b"" where the line was cut."""
        with self.line() if tls else self.plain() as line:
            got = b""
            try:
                line.sendall(content)
                while piece := line.recv(65536):
                    got += piece
            except OSError:
                pass  # cut in the middle of what we said
        heads = [one.split(b"\r\n")[0] for one in got.split(b"HTTP/")[1:]]
        return b"|".join(heads) or got[:40]


def asked(rig, brand, plan, step="totals", **changes):
    """A request as the coordinator signs it, with what a forger changes."""
    keys = changes.pop("keys", rig.coordinator.keys)
    values = {
        "plan": plan.canonical_bytes().decode(),
        "step": step,
        "silo": brand,
        "incoming_digest": EMPTY_DIGEST,
        "nonce": secrets.token_hex(16),
        "issued_at": stamp(system_clock()),
        "head": "0" * 64,
        "presented": rig.coordinator.session().present(plan),
    }
    return keys.sign("request", encode(Request(**(values | changes))))


def said_to(rig, brand, envelope):
    """What a silo answers, through its socket: the kind and the code, "" where it's cut off."""
    sent = box_request(rig.house.pinned()[0][brand].exchange, envelope, silo=brand)
    box = frames(rig, brand, frame(sent.box))
    if not box:
        return "", ""
    with rig.workspaces[brand].silo(brand) as silo:
        trusted = {silo.keys.key_id: silo.keys.public_key}
    opened = open_envelope(unbox_reply(sent.reply_key, box, silo=brand), trusted, where="answer")
    header = decode(opened.kind, opened.content, where="answer").header
    return opened.kind, getattr(header, "code", header.head if opened.kind == "release" else "")


def frames(rig, brand, content, *, whole=True):
    """What comes back for these bytes."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(120)
        try:
            line.connect(str(rig.joined[brand].node / "silo.sock"))
        except BlockingIOError:
            return b""  # more wait already than the service lets wait
        with contextlib.suppress(OSError):
            line.sendall(content)
            if whole:
                line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            return read_frame(line.recv)
    return b""
