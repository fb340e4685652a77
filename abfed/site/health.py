"""Health, readiness and metrics of a site's service, on loopback.

`/healthz` answers while the process lives, `/readyz` says whether it can do its work, and else what
it lacks, `/metrics` is in Prometheus's text form. Metrics are counts of messages and processes, by
outcome: nothing in them is about rows, recipients or what was asked. None of them waits for what
may hang (see `Look`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from abfed.protocol.errors import WorkspaceError
from abfed.site.ports import held_by

FRESH_SECONDS = 2.0  # what was seen so lately is not looked for again
SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)


class Metrics:
    """What a service counts; each by the outcome's name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "abfed_events", "Events of this service", ["event"], registry=self.registry
        )
        self.seconds = Histogram(
            "abfed_answer_seconds", "Time to an answer", buckets=SECONDS, registry=self.registry
        )
        self.state = Gauge("abfed_state", "Counts by state", ["state"], registry=self.registry)

    def note(self, event: str, **facts: object) -> None:
        """Count an event; a `seconds` fact is observed too."""
        self.events.labels(event=event).inc()
        seconds = facts.get("seconds")
        if isinstance(seconds, float):
            self.seconds.observe(seconds)


Seen = TypeVar("Seen")


class Look(Generic[Seen]):
    """A look at something that may hang: one at a time, whoever asks, and nobody waits for long.

    Args:
        look: does it; it must end by itself, sooner or later.
    """

    def __init__(self, look: Callable[[], Seen]) -> None:
        self._look = look
        self._alone = threading.Lock()
        self._ended = threading.Event()
        self._ended.set()
        self._at = float("-inf")  # when the last look ended
        self._seen: Seen | None = None

    def within(self, seconds: float) -> Seen | None:
        """What is seen now, or was just now; None where the look takes longer, or failed."""
        with self._alone:
            if self._ended.is_set() and time.monotonic() - self._at > FRESH_SECONDS:
                self._ended.clear()
                self._seen = None
                threading.Thread(target=self._do, daemon=True).start()
        return self._seen if self._ended.wait(seconds) else None

    def _do(self) -> None:
        try:
            self._seen = self._look()
        finally:
            self._at = time.monotonic()
            self._ended.set()


@contextmanager
def served(
    port: int | None,
    metrics: Metrics,
    lacks: Callable[[], Sequence[str]],
    collect: Callable[[], None],
) -> Iterator[int | None]:
    """Serve health and metrics for a while.

    Args:
        port: on loopback; 0 for any free one, None for none at all.
        metrics: what is shown.
        lacks: what the service lacks to do its work, in words; nothing where it is ready.
        collect: called before metrics are shown, to bring gauges up to date.

    Yields:
        The port.

    Raises:
        WorkspaceError: something else has the port.
    """
    if port is None:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # seconds: who connects and says nothing holds no thread for long

        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._answer(200, b"ok\n", "text/plain")
            elif self.path == "/readyz":
                lacking = lacks()
                said = f"not ready: {', '.join(lacking)}\n" if lacking else "ready\n"
                self._answer(503 if lacking else 200, said.encode(), "text/plain")
            elif self.path == "/metrics":
                collect()
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            else:
                self._answer(404, b"", "text/plain")

        def log_message(self, *_: object) -> None:
            """Nothing: whoever asks for metrics does so every few seconds."""

        def _answer(self, code: int, content: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            with suppress(ConnectionError):  # whoever asked is gone: nobody is left to be told
                self.end_headers()
                self.wfile.write(content)

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as cause:
        raise WorkspaceError(
            f"health and metrics can't listen on port {port} ({cause.strerror}{held_by(port)})",
            where="--metrics",
            do="name a port that is free",
        ) from cause
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
