"""Shapes of text that no parameter and no page may hold: identifiers, secrets, places.

What is found is named by its kind, never shown: an error that quotes a secret has published it.
Each pattern is bounded, so that a long text without any takes time in proportion to its length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from abfed.lab.legible import settled

# 16 bytes (silo/pseudonyms.py) in hex, base64 or as Python shows bytes.
_PSEUDONYMS = (
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{32}|[0-9A-F]{32})(?![0-9A-Za-z])",
    r"(?<![\w+/])[\w+/-]{22}==(?![\w=])",
    r"\bb'(?=[^'\\]{0,40}\\x)(?:[^'\\]|\\.){12,200}'",
)
_NUMBER = r"[1-9]\d{0,2}[ /-]?(?:\(\d{1,4}\)(?:[ /-]?\d){5,12}|(?:[ /-]?\d){7,12})(?![\d.])"
# Here and below a fixed character comes first, for which `re` looks fast; what must stand before it
# is looked at then.
_TELEPHONES = (rf"\+(?<![\w+.]\+){_NUMBER}", rf"00(?<![\w+.]00){_NUMBER}")
_PATHS = (
    r"/(?<![\w/.<)\]}-]/)(?:[\w.@+-]+/)+[\w.@+-]*",
    r"\bfile://",
    r"(?<![\w~])~/[\w.]",
    r"(?<!\w)[A-Za-z]:\\+[\w.]",
)
_FIRST = "|".join(rf"(?<=(?<![\w.]){digits}\.)" for digits in (r"\d", r"\d\d", r"\d\d\d"))
ADDRESS = "an e-mail address"
IDENTIFIERS = {
    ADDRESS: r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[^\W\d_]{2,}",
    "a pseudonym": "|".join(_PSEUDONYMS),
    "a UUID": r"-(?<=\b[0-9a-fA-F]{8}-)[0-9a-fA-F]{4}(?:-[0-9a-fA-F]{4}){2}-[0-9a-fA-F]{12}\b",
    "a telephone number": "|".join(_TELEPHONES),
    "an internet address": rf"\.(?:{_FIRST})(?:\d{{1,3}}\.){{2}}\d{{1,3}}(?![\w.])",
}
SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a signed token": r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    "an access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bsk-[\w-]{20,}|\bglpat-[\w-]{20,}",
    "a password hash": r"\$argon2(?:id|i|d)\$|\$2[aby]\$\d\d\$|\$scrypt\$",
    "a second factor": r"\botpauth://",
    "a bearer token": r"(?i)\bbearer\s+[\w.~+/-]{16,}",
    "an address with a password": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{1,99}:[^\s/@\"'<>]{1,99}@",
    "sealed bytes": r"ABFEDSEAL1",
    "a canary": r"(?i)\bcanary[-_:][\w-]{4,}",
}
PLACES = {
    "an absolute path": "|".join(_PATHS),
}
_SPLIT = {
    "a pseudonym": _PSEUDONYMS, "a telephone number": _TELEPHONES, "an absolute path": _PATHS,
}  # fmt: skip
_WORDS: dict[str, tuple[str, ...]] = {
    _PSEUDONYMS[1]: ("==",),
    _PSEUDONYMS[2]: ("b'",),
    _PATHS[1]: ("file://",),
    _PATHS[2]: ("~/",),
    _PATHS[3]: (":\\",),
    IDENTIFIERS[ADDRESS]: ("@",),
    SECRETS["a private key"]: ("PRIVATE KEY-----",),
    SECRETS["a signed token"]: ("eyJ",),
    SECRETS["an access key"]: (
        "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "sk-", "glpat-",
    ),
    SECRETS["a second factor"]: ("otpauth://",),
    SECRETS["a bearer token"]: ("bearer",),
    SECRETS["an address with a password"]: ("@",),
    SECRETS["a canary"]: ("canary",),
}  # fmt: skip
"""Words of which one is in each match of a pattern, in small letters where it takes both cases.

A page is half a megabyte of drawings. That a word isn't in it is seen a hundred times faster than
that no match is.
"""


class _Part(NamedTuple):
    """A pattern, or one alternative of it."""

    kind: str
    pattern: re.Pattern[str]
    words: tuple[str, ...]


def _parts() -> Iterator[_Part]:
    for kind, pattern in (IDENTIFIERS | SECRETS | PLACES).items():
        for one in _SPLIT.get(kind, (pattern,)):
            yield _Part(kind, re.compile(one), _WORDS.get(one, ()))


_PARTS = tuple(_parts())

SECRET_NAMES = re.compile(
    r"(?i)(?:^|_)(?:passw(?:or)?ds?|passphrase|passcode|pwd|secrets?|token|credentials?|totp|otp|pin"
    r"|bearer|jwt|cookie|authorization|(?:api|access|private|signing|secret|encryption)_?key"
    r"|apikey|key)(?:$|_|\d)"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
LEAST_SECRET = 20  # characters; shorter ones are words, names of runs, dates
HEX_SECRET = 32  # hex digits: a key of 128 bits, or a pseudonym
SECRET_BITS = 3.9  # Shannon bits per character; English words have less, base64 of keys more


def found_in(text: str) -> Iterator[str]:
    """The kinds of what must not be shown and is in a text, each once."""
    small = text.lower()
    long = " ".join([word for word in text.split() if len(word) >= HEX_SECRET])
    found = ""
    for kind, pattern, words in _PARTS:
        if kind == found:
            continue
        within = small if pattern.flags & re.IGNORECASE else text
        if words and not any(word in within for word in words):
            continue
        if pattern.search(long if pattern.pattern == _PSEUDONYMS[0] else text):
            found = kind
            yield kind


def secret_name(name: str) -> bool:
    """Whether a parameter is called what secrets are called."""
    return bool(SECRET_NAMES.search(_HUMP.sub("_", settled(name))))


def secret_shape(value: str) -> str:
    """What a value looks like that a parameter must not be; empty where it looks harmless.

    >>> secret_shape("spring-subject-lines-0a1b2c3d4e")
    ''
    >>> secret_shape("ghp_" + "a1B2" * 9)
    'an access key'
    """
    value = settled(value)
    for kind, pattern in (SECRETS | IDENTIFIERS | PLACES).items():
        if re.search(pattern, value):
            return kind
    for word in re.findall(rf"[\w+/=.~-]{{{LEAST_SECRET},}}", value):
        if re.fullmatch(rf"[0-9a-fA-F]{{{HEX_SECRET},}}", word):
            return "a key in hex"
        mixed = all(re.search(kind, word) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
        if mixed and _bits(word) >= SECRET_BITS:
            return "a random secret"
    return ""


def _bits(word: str) -> float:
    """Shannon entropy of a word's characters, in bits per character."""
    size = len(word)
    return -sum(n / size * math.log2(n / size) for n in Counter(word).values())
