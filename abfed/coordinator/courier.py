"""The courier: the Flower client app that is shipped to silos. It carries bytes, nothing else.

1. A message holds one envelope, as bytes, in one entry of one record. Anything else is not carried.
2. The envelope goes to the silo service as it came, and the service's answer back as it came: the
   courier reads neither.
3. What goes wrong is told to the server by the name of the exception's type. Its text may hold
   paths or more, and Flower would otherwise write it into the server's log.
4. It stays light, because Flower starts a fresh process for each message: no torch, no pandas, and
   nothing of abfed but the error types.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from abfed.protocol.errors import IntegrityError

Carrier = Callable[[bytes], bytes]
"""How a courier reaches the silo service: request envelope in, release or refusal envelope out."""

RECORD = "abfed"
ENTRY = "envelope"

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
    app = ClientApp()

    def deliver(message: Message, _: Context) -> Message:
        try:
            answer = carry(unwrap(message.content, where="request"))
            return Message(wrap(answer), reply_to=message)
        except Exception as error:  # noqa: BLE001 - whatever it is, its text stays here
            return failure(error, message)

    app.train()(deliver)
    app.query()(deliver)
    return app
