"""`abfed silo serve`: the silo service behind a Unix socket. Every byte that arrives is hostile.

What comes in is judged in this order:

1. The kernel says which user is at the other end (SO_PEERCRED). Any other than those named at the
   start is cut off before a byte is read.
2. At most `MAX_CONNECTIONS` at once; more are cut off.
3. One frame, no longer than the limit, whole within `READ_SECONDS`; memory grows with what came,
   and of one frame at a time beyond `LARGE` bytes: another large one waits before the rest of it
   is read.
4. It opens as a box for this silo. The signed request inside goes to the gate; nothing else does.
5. One request is worked on at a time. What follows waits for its turn.
6. Whoever sends what isn't believed is answered ever later: `TRICKLE_SECONDS` after each.

Beside that the service keeps to the policy's retention by itself: at its start and then hourly it
removes what is past it, in its turn between two requests, so that no schedule has to be set up.

The answer to a box is a box; to anything else, a closed connection. The log (one JSON line an
event) holds names and codes: no byte that arrived, no figure.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from abfed.protocol.boxes import box_reply, unbox_request
from abfed.protocol.envelope import MAGIC, MAX_HEAD
from abfed.protocol.errors import AbfedError, IntegrityError, WorkspaceError
from abfed.protocol.framing import frame, read_frame
from abfed.silo.service import SiloService
from abfed.site.disk import storage_error
from abfed.site.health import Metrics, served
from abfed.site.ports import MAX_PATH
from abfed.site.processes import log_line

MAX_CONNECTIONS = 8
READ_SECONDS = 60.0  # for a whole frame
LARGE = 1 << 20  # bytes; requests without a model, and small models, are below
TRICKLE_SECONDS = 0.5  # between answers to somebody who isn't believed
PURGE_SECONDS = 3600.0  # between two looks for sends past retention, which goes by whole days
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)

Log = Callable[..., None]
"""Called with an event's name and its facts."""


class Peer(NamedTuple):
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """The process at the other end of a Unix socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(raw))


class Reading:
    """A socket's `recv` that gives up when the time for the whole frame is over.

    Args:
        connection: whose.
        seconds: for the frame; waiting for the turn of a large one doesn't count.
        large: held from the first byte beyond `LARGE` until the end of the `with`.
    """

    def __init__(self, connection: socket.socket, seconds: float, large: threading.Lock) -> None:
        self._connection = connection
        self._left = seconds
        self._large = large
        self._arrived = 0
        self._holds = False

    def __enter__(self) -> Self:
        """Read."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the next large one be read."""
        if self._holds:
            self._large.release()

    def __call__(self, count: int) -> bytes:
        """At most `count` bytes."""
        if self._arrived > LARGE and not self._holds:
            self._holds = self._large.acquire()
        if self._left <= 0:
            raise TimeoutError
        began = time.monotonic()
        self._connection.settimeout(self._left)
        piece = self._connection.recv(count)
        self._left -= time.monotonic() - began
        self._arrived += len(piece)
        return piece


class SiloServer:
    """Serves one silo on one socket.

    Args:
        service: the silo.
        path: the socket's path. What a crash left there is removed; a living server's is not.
        peers: user ids that may connect.
        log: told what happens, in names and codes.
    """

    def __init__(self, service: SiloService, path: Path, peers: frozenset[int], log: Log) -> None:
        if not peers:
            raise WorkspaceError("nobody may connect", where=str(path), do="name the node's user")
        self._service = service
        self._path = path
        self._peers = peers
        self._log = log
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._turn = threading.Lock()
        self._large = threading.Lock()
        self._distrust = threading.Lock()
        self._stop = threading.Event()
        self._listener = _listen(path)
        self._private = service.keys.exchange_private_key()
        self.answered = 0
        self.turned_away = 0

    def serve(self) -> None:
        """Answer until `stop` is called; then finish what is being worked on."""
        self._log("silo.serving", silo=self._service.keys.site, socket=str(self._path))
        threading.Thread(target=self._keep_retention, daemon=True).start()
        try:
            while not self._stop.is_set():
                try:
                    connection, _ = self._listener.accept()
                except TimeoutError:
                    continue
                self._admit(connection)
        finally:
            self._listener.close()
            self._path.unlink(missing_ok=True)
            with self._turn:  # what is being worked on is durable before the ledger is let go
                self._log("silo.stopped", silo=self._service.keys.site)

    def stop(self) -> None:
        """Stop taking connections."""
        self._stop.set()

    def _keep_retention(self) -> None:
        """Remove what is past retention, now and then; one time that fails is no reason to end."""
        while not self._stop.is_set():
            try:
                with self._turn:
                    if not self._stop.is_set() and self._service.purge():
                        self._log("data.purged", silo=self._service.keys.site)
            except Exception as error:  # noqa: BLE001 - the wall: a traceback could show rows
                told = error if isinstance(error, AbfedError) else storage_error(error)
                what = told.what if told is not None else ""
                self._log("purge.failed", kind=type(error).__name__, what=what)
            self._stop.wait(PURGE_SECONDS)

    def _admit(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        if peer.uid not in self._peers:  # 1
            self._turn_away(connection, "peer", uid=peer.uid)
        elif not self._slots.acquire(blocking=False):  # 2
            self._turn_away(connection, "busy", uid=peer.uid)
        else:
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            with connection, Reading(connection, READ_SECONDS, self._large) as reading:
                self._exchange(connection, reading)
        except OSError as error:
            storage = storage_error(error)
            if storage is not None:  # nothing can be logged for good, so nothing is answered
                self._log("silo.disk", what=storage.what)
            else:
                self._log("connection.lost", kind=type(error).__name__)
        except AbfedError as error:
            self.turned_away += 1
            self._log("connection.refused", kind=type(error).__name__, what=error.what)
        finally:
            self._slots.release()

    def _exchange(self, connection: socket.socket, reading: Reading) -> None:
        try:
            box = read_frame(reading)  # 3
            if not box:
                return
            silo = self._service.keys.site
            opened = unbox_request(self._private, box, silo=silo)  # 4
            if len(opened.envelope) < len(MAGIC):
                raise IntegrityError("the box holds no request", where=silo)
        except IntegrityError:
            self._trickle()
            raise
        with self._turn:  # 5
            started = time.monotonic()
            answer = self._service.answer(opened.envelope)
        self.answered += 1
        refused = _refused(answer)
        event = "request.refused" if refused else "request.answered"
        self._log(event, seconds=round(time.monotonic() - started, 3))
        if refused:
            self._trickle()
        connection.settimeout(READ_SECONDS)
        connection.sendall(frame(box_reply(opened.reply_key, answer, silo=silo)))

    def _trickle(self) -> None:
        """Make somebody who isn't believed wait, one after the other (6)."""
        with self._distrust:
            self._stop.wait(TRICKLE_SECONDS)

    def _turn_away(self, connection: socket.socket, why: str, **facts: int) -> None:
        connection.close()
        self.turned_away += 1
        self._log("connection.turned-away", why=why, **facts)


def serve_silo(
    service: SiloService, path: Path, users: Sequence[str], metrics_port: int | None = None
) -> dict[str, int]:
    """Serve a silo until SIGTERM or SIGINT; how many it answered and turned away.

    Args:
        service: the silo.
        path: where to listen.
        users: whose processes may connect, by name or number; the service's own user where empty,
            which is for development: a node under the silo's user could read what the silo can.
        metrics_port: of health and metrics on loopback; none where it isn't given.

    Raises:
        WorkspaceError: there is no such user, or another service listens.
    """
    try:
        peers = {
            int(user) if user.isascii() and user.isdecimal() else pwd.getpwnam(user).pw_uid
            for user in users
        } or {os.getuid()}
    except KeyError as cause:
        raise WorkspaceError("there is no such user on this machine", where="--peer") from cause
    metrics = Metrics()

    def log(event: str, **facts: object) -> None:
        log_line(event, **facts)
        metrics.note(event, **facts)

    server = SiloServer(service, path.resolve(), frozenset(peers), log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())

    def lacks() -> list[str]:
        return [] if path.exists() else ["its socket is gone"]

    with served(metrics_port, metrics, lacks, lambda: None):
        server.serve()
    return {"answered": server.answered, "turned_away": server.turned_away}


def _refused(answer: bytes) -> bool:
    """Whether an answer of ours is a refusal; its head says so."""
    return b'"kind":"refusal"' in answer[:MAX_HEAD]


def _listen(path: Path) -> socket.socket:
    """A listening socket; any user may knock, the kernel says who did."""
    if not path.parent.is_dir():
        raise WorkspaceError(
            "there is no folder for the socket",
            where=str(path.parent),
            why="a silo that joined no federation here has no node that it could serve",
            do="join one (docs/federation.md), or name a place that is there with --socket",
        )
    if path.exists():
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
            else:
                raise WorkspaceError("another service answers here already", where=str(path))
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o666)  # noqa: S103, PTH101 - the peer check is the wall
        listener.listen(MAX_CONNECTIONS)
        listener.settimeout(0.25)
    except OSError as cause:
        listener.close()
        raise WorkspaceError(
            f"the socket can't be opened ({cause.strerror})",
            where=str(path),
            why=f"a socket's path has {MAX_PATH} bytes at most, this one {len(os.fsencode(path))}",
        ) from cause
    return listener
