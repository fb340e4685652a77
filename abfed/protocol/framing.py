"""Frames on a local socket: a length, then that many bytes. Pure: the caller brings the reading.

1. The length is checked before anything is read or kept for it.
2. Memory grows with what has arrived, never with what was announced.
3. An end in the middle of a frame is an error, an end before one is `b""`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from abfed.protocol.errors import IntegrityError

MAX_FRAME = 1 << 28  # bytes; a model of 60 million float32 parameters
_LENGTH = struct.Struct(">Q")
_PIECE = 1 << 18  # bytes asked for at once


def frame(content: bytes, *, limit: int = MAX_FRAME) -> bytes:
    """Content as a frame.

    Raises:
        IntegrityError: it is larger than the other side takes.
    """
    if len(content) > limit:
        raise IntegrityError("the message is larger than a frame may be", where="socket")
    return _LENGTH.pack(len(content)) + content


def read_frame(receive: Callable[[int], bytes], *, limit: int = MAX_FRAME) -> bytes:
    """The next frame's content; `b""` where the other side ended before one.

    Args:
        receive: at most so many bytes, `b""` at the end, such as a socket's `recv`.
        limit: the largest content that is taken.

    Raises:
        IntegrityError: it is cut short, empty, or announces more than the limit.
    """
    head = _exactly(receive, _LENGTH.size)
    if not head:
        return b""
    if len(head) < _LENGTH.size:
        raise IntegrityError("the frame is cut short", where="socket")
    (length,) = _LENGTH.unpack(head)
    if not 0 < length <= limit:
        raise IntegrityError("the frame announces a length that is not taken", where="socket")
    content = _exactly(receive, length)
    if len(content) < length:
        raise IntegrityError("the frame is cut short", where="socket")
    return content


def _exactly(receive: Callable[[int], bytes], count: int) -> bytes:
    """So many bytes, or fewer where the other side ended."""
    arrived = bytearray()
    while len(arrived) < count:
        piece = receive(min(_PIECE, count - len(arrived)))
        if not piece:
            break
        arrived += piece
    return bytes(arrived)
