"""The silo service's socket: who may speak, what is taken, and that it outlives what is sent."""

import errno
import os
import secrets
import socket
import subprocess
import sys
import threading
import time

import pytest

from abfed.coordinator.courier import SocketCarrier
from abfed.protocol.boxes import box_request, unbox_reply
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.framing import frame, read_frame
from abfed.silo import serving
from abfed.silo.serving import SiloServer
from abfed.site.keys import SiteKeys

NOBODY = 65534


class Answers:
    """Stands where the silo service stands: signs an answer, counts, may take its time."""

    def __init__(self, keys):
        self.keys = keys
        self.asked = []
        self.at_once = 0
        self.most = 0
        self.wait = 0.0
        self.kind = "release"
        self.purges = []

    def purge(self):
        """Says what is next in the list: whether something went, or how it fails."""
        said = self.purges.pop(0) if self.purges else False
        if isinstance(said, Exception):
            raise said
        return said

    def answer(self, envelope):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.asked.append(envelope)
        time.sleep(self.wait)
        self.at_once -= 1
        return self.keys.sign(self.kind, b"answer to " + envelope)


@pytest.fixture
def service(tmp_path):
    return Answers(SiteKeys.create(tmp_path / "keys", site="aurora"))


@pytest.fixture
def serve(tmp_path, service, monkeypatch):
    """Start a server, for these peers; all are stopped in the end."""
    monkeypatch.setattr(serving, "TRICKLE_SECONDS", 0.05)
    started = []

    def start(peers=None):
        events = []
        path = tmp_path / "silo.sock"
        allowed = frozenset(peers or {os.getuid()})
        server = SiloServer(
            service, path, allowed, lambda name, **facts: events.append((name, facts))
        )
        thread = threading.Thread(target=server.serve)
        thread.start()
        started.append((server, thread))
        return path, events, server

    yield start
    for server, thread in started:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()
    assert not (tmp_path / "silo.sock").exists(), "the socket was left behind"


def ask(service, path, envelope=b"a signed request", **options):
    """What a courier carries back, opened."""
    sent = box_request(service.keys.exchange_key, envelope, silo="aurora")
    box = SocketCarrier(str(path), attempt=5, **options)(sent.box)
    answer = unbox_reply(sent.reply_key, box, silo="aurora")
    trusted = {service.keys.key_id: service.keys.public_key}
    return open_envelope(answer, trusted, where="answer").content


def raw(path, data, *, close=False):
    """What comes back for these bytes: a frame, or b"" where the line was cut."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(str(path))
        try:
            line.sendall(data)
            if close:
                line.shutdown(socket.SHUT_WR)
            return read_frame(line.recv)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_a_request_goes_through_and_its_answer_comes_back(serve, service):
    path, events, _ = serve()
    assert ask(service, path) == b"answer to a signed request"
    assert [name for name, _ in events] == ["silo.serving", "request.answered"]


def test_the_log_tells_a_refusal_from_an_answer(serve, service):
    path, events, _ = serve()
    service.kind = "refusal"
    ask(service, path)
    assert [name for name, _ in events] == ["silo.serving", "request.refused"]


@pytest.mark.privacy
@pytest.mark.skipif(os.getuid() != 0, reason="takes another user's identity")
def test_another_user_is_cut_off_before_a_byte_is_read(serve, service):
    path, events, server = serve(peers={NOBODY})
    assert raw(path, frame(b"x" * 100)) == b""
    deadline = time.monotonic() + 30
    while not server.turned_away and time.monotonic() < deadline:
        time.sleep(0.01)
    assert events[-1] == ("connection.turned-away", {"why": "peer", "uid": os.getuid()})
    assert service.asked == []


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (1 << 63).to_bytes(8, "big"),
        frame(b"not a box"),
        frame(b"ABFEDBOX1" + b"\0" * 500),
        frame(secrets.token_bytes(5000)),
    ],
    ids=["http", "a huge length", "no box", "a box of nothing", "noise"],
)
@pytest.mark.privacy
def test_what_is_no_box_reaches_nobody_and_gets_no_answer(serve, service, data):
    path, events, _ = serve()
    assert raw(path, data, close=True) == b""
    assert ask(service, path) == b"answer to a signed request"  # and the service lives
    assert service.asked == [b"a signed request"]
    assert all("not a box" not in str(event) for event in events)


def test_a_flood_of_junk_is_answered_ever_later_and_the_service_lives(serve, service):
    path, _, server = serve()
    started = time.monotonic()
    for _ in range(20):
        raw(path, frame(b"junk"), close=True)
    assert time.monotonic() - started > 20 * serving.TRICKLE_SECONDS * 0.9
    until = time.monotonic() + 30  # the last one is counted after its line was cut
    while server.turned_away < 20 and time.monotonic() < until:
        time.sleep(0.01)
    assert server.turned_away >= 20
    assert ask(service, path) == b"answer to a signed request"


def test_silent_connections_do_not_hold_the_service_for_ever(serve, service, monkeypatch):
    monkeypatch.setattr(serving, "READ_SECONDS", 0.5)
    path, _, _ = serve()
    lines = [socket.socket(socket.AF_UNIX) for _ in range(serving.MAX_CONNECTIONS + 4)]
    try:
        for line in lines:
            line.connect(str(path))
        assert ask(service, path) == b"answer to a signed request"  # the courier tries again
    finally:
        for line in lines:
            line.close()


def test_large_frames_are_held_one_at_a_time_and_small_ones_pass(serve, service):
    """What a hostile node announces and half sends, on every line, takes the memory of one."""
    path, events, _ = serve()
    size = 8 << 20
    half = size.to_bytes(8, "big") + bytes(size // 2)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for line, seconds in ((first, 60), (second, 2)):
            line.settimeout(seconds)
            line.connect(str(path))
        first.sendall(half)  # all of it is taken; the rest never comes
        with pytest.raises(TimeoutError):
            second.sendall(half)
        assert ask(service, path) == b"answer to a signed request"
        first.close()
        second.settimeout(60)
        second.sendall(bytes(size // 2))  # now it is read on
    lost = [facts for name, facts in events if name == "connection.refused"]
    assert all(facts["what"] == "the frame is cut short" for facts in lost)


def test_one_request_is_worked_on_at_a_time(serve, service):
    service.wait = 0.05
    path, _, _ = serve()
    threads = [threading.Thread(target=ask, args=(service, path)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(service.asked) == 5
    assert service.most == 1


def test_a_courier_waits_for_a_service_that_is_restarted(serve, service, tmp_path):
    answers = []
    courier = threading.Thread(target=lambda: answers.append(ask(service, tmp_path / "silo.sock")))
    courier.start()
    time.sleep(0.3)
    serve()
    courier.join(15)
    assert answers == [b"answer to a signed request"]


def test_a_courier_gives_up_in_the_end(tmp_path):
    with pytest.raises(FileNotFoundError):
        SocketCarrier(str(tmp_path / "nobody.sock"), attempt=0.2)(b"x")


def test_two_services_do_not_share_a_socket(serve, service, tmp_path):
    path, _, _ = serve()
    with pytest.raises(WorkspaceError, match="another service"):
        SiloServer(service, path, frozenset({0}), print)


def test_where_no_socket_can_be_is_told(service, tmp_path):
    with pytest.raises(WorkspaceError, match="no folder") as told:
        SiloServer(service, tmp_path / "nodes" / "aurora" / "silo.sock", frozenset({0}), print)
    assert "--socket" in told.value.do
    long = tmp_path / ("x" * 110)
    with pytest.raises(WorkspaceError, match="can't be opened") as told:
        SiloServer(service, long, frozenset({0}), print)
    assert f"this one {len(str(long))}" in told.value.why


def test_what_a_crash_left_is_removed(serve, service, tmp_path):
    code = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(tmp_path / 'silo.sock')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    path, _, _ = serve()
    assert ask(service, path) == b"answer to a signed request"


def test_retention_is_kept_while_a_silo_is_served_also_after_a_failure(serve, service, monkeypatch):
    """By itself, at the start and then again; no text of an error is logged that may tell rows."""
    monkeypatch.setattr(serving, "PURGE_SECONDS", 0.02)
    service.purges = [True, KeyError("ann@example.org"), OSError(errno.ENOSPC, "full"), True]
    path, events, _ = serve()
    until = time.monotonic() + 60
    while service.purges and time.monotonic() < until:
        time.sleep(0.01)
    assert ask(service, path) == b"answer to a signed request"
    told = [(name, facts) for name, facts in events if name in {"data.purged", "purge.failed"}]
    assert [name for name, _ in told] == [
        "data.purged", "purge.failed", "purge.failed", "data.purged",
    ]  # fmt: skip
    assert told[1][1] == {"kind": "KeyError", "what": ""}
    assert "disk" in told[2][1]["what"]


def test_nobody_named_is_nobody_allowed(service, tmp_path):
    with pytest.raises(WorkspaceError, match="nobody may connect"):
        SiloServer(service, tmp_path / "s", frozenset(), print)
