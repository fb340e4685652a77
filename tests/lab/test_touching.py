"""A hardware key's page: in a real browser with a virtual key, and asked by those it isn't for."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from abfed.lab.session import sign_in
from abfed.lab.touching import ask_new_key, ask_touch
from abfed.protocol.errors import AbfedError, InputError, Refused
from abfed.site.clock import stamp
from abfed.site.hardware import new_key
from abfed.site.selfservice import add_key
from tests.lab.browser import browser, needs_chromium
from tests.signing import PASSWORD
from tests.site.test_signin import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@contextmanager
def _meanwhile(act: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Something that happens at the page's address while it is served."""
    threads: list[threading.Thread] = []

    def show(address: str) -> None:
        threads.append(threading.Thread(target=act, args=(address,)))
        threads[-1].start()

    yield show
    for thread in threads:
        thread.join()


def _ask(address: str, method: str, **changes: str) -> int:
    host, _, path = address.removeprefix("http://").partition("/")
    sent = {"Host": host, "Origin": f"http://{host}"} | changes
    path = sent.pop("path", f"/{path}")
    connection = http.client.HTTPConnection("127.0.0.1", int(host.partition(":")[2]), timeout=60)
    body = sent.pop("body", "{}") if method == "POST" else None
    connection.putrequest(method, path, skip_host=True)
    for name, value in sent.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None and "Content_Length" not in sent:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders((body or "").encode())
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_page_is_for_its_own_browser_only(desk: Desk) -> None:
    """A page of another name or origin, a guessed address, too much: none ends the ceremony."""
    statuses: list[int] = []

    def act(address: str) -> None:
        statuses.extend([
            _ask(address, "GET"),
            _ask(address, "GET", path="/"),
            _ask(address, "GET", Host="evil.example"),
            _ask(address, "POST", Origin="https://evil.example"),
            _ask(address, "POST", Origin="null"),
            _ask(address, "POST", Host="evil.example"),
            _ask(address, "POST", path="/guessed"),
            _ask(address, "POST", Content_Length="99999999"),
            _ask(address, "POST", Content_Length="-1"),
            _ask(address, "POST", body="[" * 2000),
            _ask(address, "POST", body='{"signed": {"id": "x"}}'),
        ])  # fmt: skip

    with _meanwhile(act) as show, pytest.raises(Refused, match="does not count"):
        ask_touch(desk.people, "ada", show)
    assert statuses == [200, *[404] * 8, 400, 204]


def test_a_port_that_is_taken_is_told(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (taken.getsockname()[1], 70_000):
            with pytest.raises(InputError, match=str(port)) as refused:
                ask_touch(desk.people, "ada", lambda _: None, port=port, wait=0)
            assert "--port" in refused.value.do


def test_nobody_touches_it(desk: Desk) -> None:
    with pytest.raises(Refused, match="in time"):
        ask_touch(desk.people, "ada", lambda _: None, wait=0.05)


@needs_chromium
@pytest.mark.slow
@pytest.mark.privacy
def test_a_person_enrols_a_key_and_signs_in_with_it_in_a_browser(desk: Desk) -> None:
    """Chromium, with a virtual key as WebAuthn's own testing has it (CTAP 2, over USB)."""
    with browser() as opened:
        page = opened.new_page()
        tools = page.context.new_cdp_session(page)
        tools.send("WebAuthn.enable", {"enableUI": False})
        options = {"protocol": "ctap2", "transport": "usb", "automaticPresenceSimulation": True}
        key: dict[str, Any] = tools.send("WebAuthn.addVirtualAuthenticator", {"options": options})

        def press(address: str) -> None:
            page.goto(address)
            page.click("#go")

        # Playwright belongs to one thread: the ceremony waits in another
        enrolled = _in_thread(lambda show: ask_new_key(desk.people, "ada", show), press)
        made = new_key(enrolled.made, "yubi", stamp(desk.clock()))
        add_key(desk.people, "ada", PASSWORD, desk.code(), key=made, touch=enrolled.touch)
        touch = _in_thread(lambda show: ask_touch(desk.people, "ada", show), press)
        session = sign_in(desk.people, "ada", PASSWORD, touch, audience=("hub",))
        assert session.facts.factors == ("pwd", "hwk")
        counter = desk.people.person("ada").hardware[0].counter
        assert counter >= 2
        with pytest.raises(Refused, match="not signed in"):  # the same touch again
            sign_in(desk.people, "ada", PASSWORD, touch, audience=("hub",))
        # Another key, which knows nothing of us: the browser itself has nothing to give
        tools.send("WebAuthn.removeVirtualAuthenticator", key)
        tools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        with pytest.raises(Refused, match="in time"):
            _in_thread(lambda show: ask_touch(desk.people, "ada", show, wait=3), press)
        assert "It did not work" in page.inner_text("#said")


def _in_thread(
    ceremony: Callable[[Callable[[str], None]], Any], press: Callable[[str], None]
) -> Any:
    shown, done = threading.Event(), []
    addresses: list[str] = []

    def show(address: str) -> None:
        addresses.append(address)
        shown.set()

    def run() -> None:
        try:
            done.append(ceremony(show))
        except AbfedError as problem:
            done.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    assert shown.wait(30)
    press(addresses[0])
    thread.join(60)
    if isinstance(done[0], AbfedError):
        raise done[0]
    return done[0]
