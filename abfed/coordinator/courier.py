"""The courier: the Flower client app that is shipped to silos. It carries bytes, nothing else.

1. A message holds one envelope, as bytes, in one entry of one record. Anything else is not carried.
2. The envelope goes to the silo service as it came, and the service's answer back as it came: the
   courier reads neither.
3. What goes wrong is told to the server by the name of the exception's type. Its text may hold
   paths or more, and Flower would otherwise write it into the server's log.
4. It stays light, because Flower starts a fresh process for each message: no torch, no pandas, and
   nothing of abfed but the error types and the frames.
5. A silo service that isn't there, or is busy, is tried again for a while, with growing pauses of
   random length, so that nothing is lost when it is restarted. Asking twice is safe: the same
   request gets the same release.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import time
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from abfed.protocol.errors import IntegrityError
from abfed.protocol.framing import frame, read_frame

Carrier = Callable[[bytes], bytes]
"""How a courier reaches the silo service: request envelope in, release or refusal envelope out."""

RECORD = "abfed"
ENTRY = "envelope"

SOCKET = "socket"
"""What the SuperNode's configuration calls the path of the silo service's socket."""

ANSWER_SECONDS = 3600.0
"""How long a silo may compute; the coordinator gives up earlier where its plan says so."""

ATTEMPT_SECONDS = 90.0
"""How long a silo service that isn't there, or is busy, is tried again."""

_log = logging.getLogger(__name__)


def wrap(envelope: bytes) -> RecordDict:
    """An envelope as the content of a Flower message."""
    return RecordDict({RECORD: ConfigRecord({ENTRY: envelope})})


def unwrap(content: RecordDict, *, where: str) -> bytes:
    """The envelope in the content of a Flower message.

    Raises:
        IntegrityError: there is anything but one envelope.
    """
    record = content.get(RECORD)
    if set(content) != {RECORD} or not isinstance(record, ConfigRecord) or set(record) != {ENTRY}:
        raise IntegrityError("the message does not hold one envelope and nothing else", where=where)
    envelope = record[ENTRY]
    if not isinstance(envelope, bytes):
        raise IntegrityError("the message's envelope is not bytes", where=where)
    return envelope


def failure(error: Exception, message: Message) -> Message:
    """The reply that says that something failed, and by its type only, what."""
    kind = type(error).__name__
    _log.warning("a %s message was not answered: %s", message.metadata.message_type, kind)
    code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    return Message(Error(code=code, reason=kind), reply_to=message)


def make_courier(carry: Carrier) -> ClientApp:
    """A client app that hands each request to `carry` and returns its answer.

    Args:
        carry: reaches the silo service; in process when embedded, through a socket otherwise.
    """
    return _client_app(lambda _: carry)


def make_socket_courier() -> ClientApp:
    """A client app that reaches the silo service at the socket that the SuperNode names."""
    return _client_app(lambda context: SocketCarrier(str(context.node_config[SOCKET])))


class SocketCarrier:
    """Carries one envelope at a time through a Unix socket.

    Args:
        path: where the silo service listens.
        answer: seconds that the silo has for an answer.
        attempt: seconds for which it is tried again while it isn't there, or busy.
    """

    def __init__(
        self, path: str, *, answer: float = ANSWER_SECONDS, attempt: float = ATTEMPT_SECONDS
    ) -> None:
        self._path = path
        self._answer = answer
        self._attempt = attempt

    def __call__(self, envelope: bytes) -> bytes:
        """Send and wait for the answer.

        Raises:
            OSError: nobody answered.
            IntegrityError: what came isn't a frame.
        """
        end = time.monotonic() + self._attempt
        pause = 0.05  # seconds; doubled each time, and random so that couriers don't march in step
        while True:
            try:
                answer = self._exchange(envelope)
                if answer:
                    return answer
                problem: OSError = ConnectionResetError()
            except (ConnectionError, FileNotFoundError, BlockingIOError) as error:
                problem = error
            if time.monotonic() > end:
                raise problem
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
            pause = min(2 * pause, 5.0)

    def _exchange(self, envelope: bytes) -> bytes:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(self._answer)
            connection.connect(self._path)
            connection.sendall(frame(envelope))
            return read_frame(connection.recv)


def _client_app(carrier: Callable[[Context], Carrier]) -> ClientApp:
    app = ClientApp()

    def deliver(message: Message, context: Context) -> Message:
        try:
            answer = carrier(context)(unwrap(message.content, where="request"))
            return Message(wrap(answer), reply_to=message)
        except Exception as error:  # noqa: BLE001 - whatever it is, its text stays here
            return failure(error, message)

    app.train()(deliver)
    app.query()(deliver)
    return app


app = make_socket_courier()
"""What a SuperNode loads."""
