"""Pictures are pixels only: a PNG whose file carries anything else is told.

Whatever a file holds besides would be read by nobody and kept by everybody: words, a colour
profile's name and body, a private chunk, bytes after the pixels' end or the file's.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Iterator
from html import unescape
from urllib.parse import unquote_to_bytes

PNG, SVG = "image/png", "image/svg+xml"
DEEPEST = 3
"""How often something may be packed inside something packed: a picture in a picture, once more."""

PACKED = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w=.+-]+)*),([^\"'<>)]*)", re.IGNORECASE)
"""Something inside markup: its type, how it is packed, and itself."""
PLAIN = {
    b"IHDR": 13, b"PLTE": 768, b"IEND": 0, b"tRNS": 256, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1,
    b"sBIT": 4, b"bKGD": 6, b"pHYs": 9,
}  # fmt: skip
"""Chunks that say how pixels look, and how many bytes one has at the most (ISO/IEC 15948, 11)."""
PIXELS, TEXT = b"IDAT", b"text"  # the latter is no chunk's name: what isn't one
PART, MOST_PIXELS = 8 << 20, 256 << 20  # bytes of pixels that are unpacked at once, and in all
_MADE_BY = re.compile(r"Software\0[ -~]{0,100}")
"""matplotlib says its version so, in a line."""


def words_of(data: str) -> Iterator[str]:
    """What a picture's file says besides its pixels, chunk by chunk.

    Args:
        data: the file in base64.
    """
    pixels: list[bytes] = []
    for kind, chunk in _chunks(content_of(data)):
        if kind == PIXELS:
            pixels.append(chunk)
        elif len(chunk) > PLAIN.get(kind, -1):
            yield (chunk if kind in (b"tEXt", TEXT) else b"packed: " + chunk).decode("latin-1")
    yield from _behind_pixels(b"".join(pixels))


def only_made_by(words: str) -> bool:
    """Whether they are the one text that a picture may carry: which program drew it."""
    return _MADE_BY.fullmatch(words) is not None


def _behind_pixels(packed: bytes) -> Iterator[str]:
    """What stands behind the end of the packed pixels; pixels without end aren't waited for."""
    unpacking, left, seen = zlib.decompressobj(), packed, 0
    try:
        while left and not unpacking.eof and seen <= MOST_PIXELS:
            seen += len(unpacking.decompress(left, PART))
            left = unpacking.unconsumed_tail
    except zlib.error:
        yield "packed: no pixels"
        return
    if seen > MOST_PIXELS:
        yield "packed: pixels without end"
    elif unpacking.unused_data:
        yield "packed: " + unpacking.unused_data.decode("latin-1")


def packed_in(markup: str) -> Iterator[bytes]:
    """All that is packed in markup, at its first level."""
    for _, how, data in PACKED.findall(markup):
        yield unpacked(data, encoded="base64" in how.lower())


def is_text(content: bytes, *, drawing: bool = False) -> bool:
    """Whether a file is text, and a drawing markup: pixels of any format hold other bytes."""
    try:
        said = content.decode()
    except UnicodeDecodeError:
        return False
    return "\0" not in said and (not drawing or said.lstrip("\ufeff \t\r\n")[:1] == "<")


def unpacked(data: str, *, encoded: bool) -> bytes:
    """What stands behind `data:…,`, in base64 or spelled."""
    if not encoded:
        return unquote_to_bytes(unescape(data))
    try:
        return base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        return data.encode()


def content_of(data: str) -> bytes:
    """A picture's bytes; what isn't strictly base64, such as some with more behind, is text."""
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return data.encode()


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG (5.3); what isn't one is a chunk of text."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        yield TEXT, content
        return
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        words = content[at + 8 : at + 8 + length]
        yield kind, words
        at += 12 + length
        if kind == b"IEND":
            break
    if at < len(content):
        yield TEXT, content[at:]
