"""A page on this machine on which a hardware key is touched (S11).

Browsers speak to hardware keys, terminals and notebooks don't. So for one ceremony a page is served
on a port of this machine: its address holds 128 random bits, it is given under the one name and
port for which the key signs, and it ends with the answer, or with the time that it was given.
Whoever else finds the port learns nothing and can't answer; what the page sends is checked by
`abfed.site.hardware`, whoever sent it.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from abfed.protocol.errors import InputError, Refused
from abfed.site.hardware import (
    ALGORITHMS,
    LONGEST_ANSWER,
    RP_ID,
    Touch,
    new_challenge,
    parse_signed,
)
from abfed.site.people import People
from abfed.site.selfservice import key_ids

SECONDS = 180.0
"""How long somebody has to find their key and touch it."""

LOOPBACK = "127.0.0.1"


class Enrolled(NamedTuple):
    """What came of an enrolment: what the page says of the new key, and its first touch."""

    made: Any
    touch: Touch


def ask_touch(
    people: People, name: str, show: Callable[[str], None], *, port: int = 0, wait: float = SECONDS
) -> Touch:
    """Have one of a person's hardware keys touched.

    Args:
        people: the site's people.
        name: who signs in.
        show: tells the person which address to open.
        port: of the page; any where 0.
        wait: seconds that they have.

    Raises:
        InputError: no page can be served on this port.
        Refused: nobody touched a key in time.
    """
    challenge = new_challenge()
    asked = {"sign": _options(challenge, key_ids(people, name))}
    origin, answer = _ask(asked, show, port, wait)
    return Touch(challenge, origin, parse_signed(answer.get("signed")))


def ask_new_key(
    people: People, name: str, show: Callable[[str], None], *, port: int = 0, wait: float = SECONDS
) -> Enrolled:
    """Have a hardware key make a pair for a person, and sign with it once.

    Raises:
        InputError: no page can be served on this port.
        Refused: nobody touched a key in time.
    """
    challenge = new_challenge()
    known = people.register().people.get(name)
    make = {
        "rp": {"id": RP_ID, "name": "abfed"},
        "user": {
            "id": _b64(f"{name}@{people.keys.site}".encode()[:64]),
            "name": f"{name}@{people.keys.site}",
            "displayName": f"{name}@{people.keys.site}",
        },
        "challenge": _b64(new_challenge()),
        "pubKeyCredParams": [{"type": "public-key", "alg": one} for one in ALGORITHMS],
        "authenticatorSelection": {
            "userVerification": "discouraged",
            "residentKey": "discouraged",
        },
        "excludeCredentials": [
            {"type": "public-key", "id": one.id} for one in (known.hardware if known else ())
        ],
        "attestation": "none",
    }
    origin, answer = _ask({"make": make, "sign": _options(challenge, ())}, show, port, wait)
    touch = Touch(challenge, origin, parse_signed(answer.get("signed")))
    return Enrolled(answer.get("made"), touch)


def _options(challenge: bytes, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "rpId": RP_ID,
        "challenge": _b64(challenge),
        "allowCredentials": [{"type": "public-key", "id": one} for one in keys],
        "userVerification": "discouraged",
    }


def _ask(
    asked: dict[str, Any], show: Callable[[str], None], port: int, wait: float
) -> tuple[str, dict[str, Any]]:
    with _page(asked, port) as page:
        show(page.address)
        if not page.answered.wait(wait):
            raise Refused("nobody touched a hardware key in time", code="sign-in", do="try again")
        return page.origin, page.answer


@contextmanager
def _page(asked: dict[str, Any], port: int) -> Iterator[_Page]:
    try:
        page = _Page(asked, port)
    except (OSError, OverflowError) as cause:  # taken, not ours to take, or no number of a port
        raise InputError(
            f"no page can be served on port {port} of this machine",
            why=getattr(cause, "strerror", None) or "ports are numbered up to 65535",
            do="name another port with --port, or none",
        ) from cause
    thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield page
        time.sleep(0.2)  # the page says so before it is gone
    finally:
        page.shutdown()
        page.server_close()


class _Page(ThreadingHTTPServer):
    """The page's server: for one ceremony."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, asked: dict[str, Any], port: int) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.host = f"{RP_ID}:{self.server_port}"
        self.origin = f"http://{self.host}"
        self.path = f"/{secrets.token_hex(16)}"
        self.address = f"{self.origin}{self.path}"
        self.nonce = secrets.token_urlsafe(16)
        self.html = PAGE.replace("NONCE", self.nonce).replace("ASKED", json.dumps(asked))
        self.answer: dict[str, Any] = {}
        self.answered = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """Whoever breaks off has not answered; nothing is told: the address is a secret."""


class _Handler(BaseHTTPRequestHandler):
    """Serves the page, and takes its answer; nobody else's."""

    server: _Page
    timeout = 10.0  # seconds that a connection may stay silent

    def do_GET(self) -> None:
        """The page."""
        if not self._ours():
            self._say(404, b"")
            return
        self._say(200, self.server.html.encode())

    def do_POST(self) -> None:
        """Its answer."""
        length = self.headers.get("Content-Length", "")
        known = length.isascii() and length.isdecimal() and int(length) <= LONGEST_ANSWER
        if not self._ours() or self.headers.get("Origin") != self.server.origin or not known:
            self._say(404, b"")
            return
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            self._say(400, b"")
            return
        self.server.answer = values
        self._say(204, b"")
        self.server.answered.set()

    def log_message(self, *_: Any) -> None:
        """Nothing: the address is a secret."""

    def _ours(self) -> bool:
        """Under our name only: a page of another name that points here (DNS) is not ours."""
        here = secrets.compare_digest(self.path.encode(), self.server.path.encode())
        return here and self.headers.get("Host") == self.server.host

    def _say(self, code: int, body: bytes) -> None:
        self.send_response_only(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "same-origin")
        rules = f"default-src 'none'; script-src 'nonce-{self.server.nonce}'; connect-src 'self'; "
        rules += f"style-src 'nonce-{self.server.nonce}'; frame-ancestors 'none'"
        self.send_header("Content-Security-Policy", rules)
        self.end_headers()
        self.wfile.write(body)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>abfed: hardware key</title>
<link rel="icon" href="data:,">
<style nonce="NONCE">
:root { color-scheme: light dark }
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 30rem }
body { margin: 15vh auto; padding: 0 1rem }
button { font: inherit; padding: .6rem 1.2rem }
</style>
</head>
<body>
<main>
<h1>Hardware key</h1>
<p id="said" role="status">Press the button, then touch your key when it blinks.</p>
<button id="go" autofocus>Use the hardware key</button>
</main>
<script nonce="NONCE">
const asked = ASKED;
const said = document.getElementById("said"), go = document.getElementById("go");
const bytes = text => Uint8Array.from(
  atob(text.replace(/-/g, "+").replace(/_/g, "/")), one => one.charCodeAt(0));
const text = data => btoa(String.fromCharCode(...new Uint8Array(data)))
  .replace(/\\+/g, "-").replace(/\\//g, "_").replace(/=+$/, "");
const ids = list => list.map(one => ({...one, id: bytes(one.id)}));
async function make() {
  const key = {...asked.make, challenge: bytes(asked.make.challenge),
    user: {...asked.make.user, id: bytes(asked.make.user.id)},
    excludeCredentials: ids(asked.make.excludeCredentials)};
  const made = await navigator.credentials.create({publicKey: key});
  return {id: text(made.rawId), public_key: text(made.response.getPublicKey())};
}
async function sign(id) {
  const allowed = id ? [{type: "public-key", id: id}] : asked.sign.allowCredentials;
  const got = await navigator.credentials.get({publicKey: {...asked.sign,
    challenge: bytes(asked.sign.challenge), allowCredentials: ids(allowed)}});
  return {id: text(got.rawId), client_data: text(got.response.clientDataJSON),
    key_data: text(got.response.authenticatorData), signature: text(got.response.signature)};
}
go.addEventListener("click", async () => {
  go.disabled = true;
  try {
    const made = asked.make ? await make() : null;
    if (made) said.textContent = "Touch it once more, to see that it works.";
    const signed = await sign(made && made.id);
    await fetch(location.pathname, {method: "POST", body: JSON.stringify({made, signed})});
    said.textContent = "Done. Go back to where you came from; this page can be closed.";
    go.remove();
  } catch (problem) {
    said.textContent = `It did not work (${problem.name}). Try again.`;
    go.disabled = false;
  }
});
</script>
</body>
</html>
"""
