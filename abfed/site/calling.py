"""Calling a server that somebody else runs: for so long and no longer, through no proxy (S3).

Who answers may be slow, broken or hostile. Each answer has its time, and all of them together have
one that can't be put off by answering a byte now and then.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import SplitResult


@contextmanager
def spoken_to(
    host: str, port: int, *, each: float, in_all: float
) -> Iterator[socket.socket]:  # fmt: skip
    """A connection that is ended when the conversation goes on for too long, however lively.

    Through no proxy, which would be another vendor's.

    Args:
        host: whose.
        port: on it.
        each: seconds for each answer.
        in_all: seconds for all of it.

    Raises:
        TimeoutError: it was ended.
    """
    late = threading.Event()
    opened = socket.create_connection((host, port), each)
    with closing(opened), closing(opened.dup()) as held:

        def end() -> None:
            late.set()
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(in_all, end)
        timer.daemon = True
        timer.start()
        try:
            yield opened
        finally:
            timer.cancel()
            timer.join()
    if late.is_set():
        raise TimeoutError  # what was heard before it was ended may look whole


@contextmanager
def http_to(
    parts: SplitResult, *, each: float, in_all: float
) -> Iterator[http.client.HTTPConnection]:
    """The same for an address of the web: by TLS, to that very name, where it says https.

    Raises:
        OSError, http.client.HTTPException, ValueError: nobody answers so.
    """
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    host, port = parts.hostname or "", parts.port or kind.default_port
    with (
        spoken_to(host, port, each=each, in_all=in_all) as opened,
        closing(kind(host, port)) as connection,
    ):
        context = ssl.create_default_context() if secure else None
        connection.sock = context.wrap_socket(opened, server_hostname=host) if context else opened
        yield connection


def path_of(parts: SplitResult) -> str:
    """What is asked for at the host."""
    return f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"


def host_of(parts: SplitResult) -> str:
    """Whom it is, without a user or password that somebody may have put into the address."""
    return parts.netloc.rpartition("@")[2]
