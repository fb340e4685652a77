"""Health, readiness and metrics of a site's service, on loopback.

`/healthz` answers while the process lives, `/readyz` while it can do its work, `/metrics` in
Prometheus's text form. Metrics are counts of messages and processes, by outcome: nothing in them is
about rows, recipients or what was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

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


@contextmanager
def served(
    port: int | None, metrics: Metrics, ready: Callable[[], bool], collect: Callable[[], None]
) -> Iterator[int | None]:
    """Serve health and metrics for a while.

    Args:
        port: on loopback; 0 for any free one, None for none at all.
        metrics: what is shown.
        ready: whether the service can do its work.
        collect: called before metrics are shown, to bring gauges up to date.

    Yields:
        The port.
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
                good = ready()
                self._answer(200 if good else 503, b"ready\n" if good else b"no\n", "text/plain")
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

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
