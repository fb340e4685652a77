"""Text as a reader sees it: what stands between the letters of a word, and isn't seen, goes.

An address stays an address with a tag in its middle, with an invisible character, in letters of
full width, spelled with escapes, or packed as base64. Each function takes time in proportion to
its text.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
import unicodedata
from collections.abc import Iterator
from html import unescape

_ANSI = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_STRUCK = re.compile("[^\b\n]\b|\b")
"""A character that a terminal writes over."""
_UNSEEN = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB), (0xE0000, 0xE01EF),
)  # fmt: skip
"""Code points without a shape (Unicode, Default_Ignorable_Code_Point), first and last."""
_GONE = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in _UNSEEN) + "]")
_NOTE = re.compile(r"<!--[^<]*?-->|<!\[CDATA\[|\]\]>")
_TAG = re.compile(r"</?([a-zA-Z][\w:-]*)[^<>]*>")
INLINE = frozenset({
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em",
    "font", "i", "ins", "kbd", "label", "mark", "nobr", "q", "s", "samp", "small", "span", "strike",
    "strong", "sub", "sup", "time", "tspan", "tt", "u", "var", "wbr",
})  # fmt: skip
_LEAST_PACKED = 16  # characters: the shortest address takes more
_PACKED = re.compile(rf"[A-Za-z0-9+/_-]{{{_LEAST_PACKED},}}")
# What is rare comes first in these two, for `re` looks for it fast; then what must stand before it.
_WRAPPED = re.compile(r"\n(?<=[A-Za-z0-9+/_-]{8}\n)(?=[A-Za-z0-9+/_-]{2})")
"""Where a long word goes on in the next line, as base64 in e-mail does."""
_BYTES = re.compile(
    r"[ :](?<=(?<![0-9A-Za-z])[0-9A-Fa-f]{2}[ :])[0-9A-Fa-f]{2}(?:[ :][0-9A-Fa-f]{2}){6,}"
    r"(?![0-9A-Za-z])"
)
"""Bytes in hex, each by itself, from behind the first."""
_URL_SAFE = str.maketrans("-_", "+/")
LONGEST_PACKED = 4096  # characters of a word that is unpacked; longer ones are looked at in part
NESTED = 3
"""How often what was spelled or packed may be so again: base64 of base64 of base64."""
_ESCAPED = re.compile(
    r"%([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|=([0-9A-F]{2})"
    r"|&#?\w{1,31};"
)
"""A character by its number, as addresses (URL), Python, JSON, e-mail and markup write it."""
_ESCAPES = ("%", "\\", "=", "&")


def settled(text: str) -> str:
    """Without colours of a terminal and invisible characters, letters in their usual form.

    >>> settled("jane\u200b.doe\uff20example.org")
    'jane.doe@example.org'
    """
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\b" in text:
        text = _STRUCK.sub("", text)
    return text if text.isascii() else _GONE.sub("", unicodedata.normalize("NFKC", text))


def read_aloud(markup: str) -> str:
    """The words of markup as it is usually set: words of two paragraphs or cells aren't one."""
    inline = INLINE
    spaced = _TAG.sub(lambda tag: "" if tag[1].lower() in inline else " ", _without_notes(markup))
    return settled(unescape(spaced))


def run_together(markup: str) -> str:
    """The words of markup as a style can set it: all in one line, with nothing in between."""
    return settled(unescape(_NOTE.sub("", _TAG.sub("", markup))))


def _without_notes(markup: str) -> str:
    """Without comments, whatever they hold."""
    parts, at = [], 0
    while (start := markup.find("<!--", at)) >= 0 and (end := markup.find("-->", start + 4)) >= 0:
        parts.append(markup[at:start])
        at = end + 3
    return "".join([*parts, markup[at:]])


def readings(text: str) -> Iterator[str]:
    """A text in each form that says something: settled, its escapes undone, its words unpacked.

    >>> list(readings("to=jane.doe%40example.org"))
    ['to=jane.doe%40example.org', 'to=jane.doe@example.org']
    """
    forms = [settled(text)]
    for _ in range(NESTED + 1):
        yield from forms
        further = (other for one in forms for other in (*_respelled(one), *_unpacked(one)))
        forms = [settled(one) for one in further]


def _respelled(text: str) -> Iterator[str]:
    """What a text says when its escapes are undone, where it has any."""
    if any(one in text for one in _ESCAPES):
        said = _ESCAPED.sub(_character, text)
        if said != text:
            yield said


def _character(escape: re.Match[str]) -> str:
    if escape.lastindex is None:
        return unescape(escape[0])
    number = int(escape[escape.lastindex], 16)
    return chr(number) if number < sys.maxunicode else ""


def _unpacked(text: str) -> Iterator[str]:
    """What words of a text say that are text in base64, base32 or hex; digests say nothing."""
    joined = _WRAPPED.sub("", text.replace("\r\n", "\n"))
    words = [text[one.start() - 2 : one.end()] for one in _BYTES.finditer(text)]
    for one in dict.fromkeys((text, joined)):
        long = " ".join([word for word in one.split() if len(word) >= _LEAST_PACKED])
        words += _PACKED.findall(long)
    for word in dict.fromkeys(words):
        part = word[:LONGEST_PACKED]
        for content in (_from_base64(part), _from_base32(part), _from_hex(part)):
            try:
                said = content.decode()
            except UnicodeDecodeError:
                continue
            if said and all(letter.isprintable() or letter in "\r\n\t" for letter in said):
                yield said


def _from_base64(word: str) -> bytes:
    whole = word[: len(word) - (len(word) % 4 == 1)].translate(_URL_SAFE)
    try:
        return base64.b64decode(whole + "=" * (-len(whole) % 4))
    except binascii.Error:
        return b""


def _from_base32(word: str) -> bytes:
    try:
        return base64.b32decode(word + "=" * (-len(word) % 8)) if word.isupper() else b""
    except binascii.Error:
        return b""


def _from_hex(word: str) -> bytes:
    try:
        return bytes.fromhex(word.replace(":", " "))
    except ValueError:
        return b""
