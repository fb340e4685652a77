"""Pictures are pixels only: a PNG whose file carries anything else is told.

Whatever a file holds besides would be read by nobody and kept by everybody: words, a colour
profile's name and body, a private chunk, bytes after the end.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator

PLAIN = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD",
    b"pHYs",
}  # fmt: skip
"""Chunks that say how pixels look, in fixed forms of a few bytes (ISO/IEC 15948, 11)."""
_MADE_BY = b"Software\0"
"""matplotlib says its version so."""


def words_of(data: str) -> Iterator[str]:
    """What a picture's file says besides its pixels, chunk by chunk.

    Args:
        data: the file in base64.
    """
    for kind, chunk in _chunks(_file(data)):
        if kind not in PLAIN:
            yield chunk.decode("latin-1")


def only_made_by(words: str) -> bool:
    """Whether they are the one text that a picture may carry: which program drew it."""
    return words.encode("latin-1").startswith(_MADE_BY)


def _file(data: str) -> bytes:
    """The bytes; text that isn't strictly base64, such as some that has more behind, is text."""
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return data.encode()


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG (5.3); what isn't one is a chunk of text."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        yield b"text", content
        return
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        words = content[at + 8 : at + 8 + length]
        yield kind, _inside(kind, words)
        at += 12 + length
        if kind == b"IEND":
            break
    if at < len(content):
        yield b"text", content[at:]


def _inside(kind: bytes, words: bytes) -> bytes:
    """A chunk's own words; those of packed texts can't be told to be harmless."""
    return words if kind == b"tEXt" else b"packed: " + words
