"""Health, readiness and metrics: on loopback, in counts only."""

import os
import socket
import struct
import threading
import time
import urllib.error
import urllib.request

import pytest

from abfed.protocol.errors import WorkspaceError
from abfed.site.health import Look, Metrics, served


def get(port, path):
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def service():
    metrics, good = Metrics(), []

    def collect():
        metrics.state.labels(state="node-online").set(2)

    def lacks():
        return [] if good else ["superlink (no answer)", "proxy (not running)"]

    with served(0, metrics, lacks, collect) as port:
        yield port, metrics, good


def test_it_lives_and_says_when_it_is_ready(service):
    port, _, good = service
    assert get(port, "/healthz") == (200, "ok\n")
    assert get(port, "/readyz") == (
        503,
        "not ready: superlink (no answer), proxy (not running)\n",
    )
    good.append(True)
    assert get(port, "/readyz")[0] == 200
    assert get(port, "/etc/passwd")[0] == 404


def test_events_are_counted_and_gauges_brought_up_to_date(service):
    port, metrics, _ = service
    metrics.note("request.answered", seconds=0.3)
    metrics.note("request.answered", seconds=7.0)
    metrics.note("connection.turned-away", uid=31_415_926)
    text = get(port, "/metrics")[1]
    assert 'abfed_events_total{event="request.answered"} 2.0' in text
    assert 'abfed_state{state="node-online"} 2.0' in text
    assert "abfed_answer_seconds_count 2.0" in text
    assert "31415926" not in text  # longer than a time of day that the page holds could be by luck


def test_who_hangs_up_leaves_no_traceback(capfd):
    asked, gone = threading.Event(), threading.Event()

    def collect():
        asked.set()
        gone.wait(10)

    with served(0, Metrics(), list, collect) as port:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            asked.wait(10)
        gone.set()  # the connection was reset: the answer goes nowhere
        time.sleep(0.3)
        assert get(port, "/healthz")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_another_has_is_said_so_with_its_holder():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(WorkspaceError, match=f"port {port} .*process {os.getpid()}") as told,
            served(port, Metrics(), list, lambda: None),
        ):
            pass
    assert told.value.where == "--metrics"


def test_without_a_port_nothing_listens():
    with served(None, Metrics(), list, lambda: None) as port:
        assert port is None


def test_a_look_that_hangs_keeps_nobody_and_is_not_begun_twice():
    begun, going_on = [], threading.Event()

    def hang():
        begun.append(1)
        assert going_on.wait(20)
        return "seen"

    look = Look(hang)
    started = time.monotonic()
    assert look.within(0.2) is None
    assert look.within(0) is None
    assert time.monotonic() - started < 5
    assert len(begun) == 1
    going_on.set()
    assert look.within(10) == "seen"
    assert look.within(0) == "seen"  # just now
    assert len(begun) == 1


def test_a_look_that_failed_saw_nothing_not_what_was_there_before(monkeypatch):
    monkeypatch.setattr("abfed.site.health.FRESH_SECONDS", 0.0)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    answers = ["seen"]
    look = Look(answers.pop)
    assert look.within(10) == "seen"
    assert look.within(10) is None
