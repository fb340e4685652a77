"""Shapes of text that no parameter and no page may hold: identifiers, secrets, places.

What is found is named by its kind, never shown: an error that quotes a secret has published it.
Each pattern is bounded, so that a long text without any takes time in proportion to its length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

IDENTIFIERS = {
    "an e-mail address": r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}"
    r"(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,}",
    # 16 bytes (silo/pseudonyms.py) in hex, base64 or as Python shows bytes.
    "a pseudonym": r"(?<![0-9A-Za-z])(?:[0-9a-f]{32}|[0-9A-F]{32})(?![0-9A-Za-z])"
    r"|(?<![\w+/])[\w+/-]{22}==(?![\w=])|\bb'(?=[^'\\]{0,40}\\x)(?:[^'\\]|\\.){12,200}'",
    "a UUID": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    "a telephone number": r"(?<![\w+.])(?:\+|00)[1-9]\d{0,2}[ /-]?(?:\(0\))?"
    r"(?:[ /-]?\d){7,12}(?![\d.])",
    "an internet address": r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])",
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
    "an absolute path": r"(?<![\w/.<:)\]}-])/(?:[\w.@+-]+/)+[\w.@+-]*|\bfile://|(?<![\w~])~/[\w.]"
    r"|(?<!\w)[A-Za-z]:\\+[\w.]",
}
_COMPILED = {
    kind: re.compile(pattern) for kind, pattern in (IDENTIFIERS | SECRETS | PLACES).items()
}

SECRET_NAMES = re.compile(
    r"(?i)(?:^|_)(?:passw(?:or)?d|passphrase|pwd|secret|token|credentials?|totp|otp|pin|bearer|jwt"
    r"|(?:api|access|private|signing|secret|encryption)_?key|apikey|key)(?:$|_|\d)"
)
LEAST_SECRET = 20  # characters; shorter ones are words, names of runs, dates
HEX_SECRET = 32  # hex digits: a key of 128 bits, or a pseudonym
SECRET_BITS = 3.9  # Shannon bits per character; English words have less, base64 of keys more


def found_in(text: str) -> Iterator[str]:
    """The kinds of what must not be shown and is in a text, each once."""
    for kind, pattern in _COMPILED.items():
        if pattern.search(text):
            yield kind


def secret_name(name: str) -> bool:
    """Whether a parameter is called what secrets are called."""
    return bool(SECRET_NAMES.search(name))


def secret_shape(value: str) -> str:
    """What a value looks like that a parameter must not be; empty where it looks harmless.

    >>> secret_shape("spring-subject-lines-0a1b2c3d4e")
    ''
    >>> secret_shape("ghp_" + "a1B2" * 9)
    'an access key'
    """
    for kind, pattern in SECRETS.items():
        if re.search(pattern, value):
            return kind
    for kind, pattern in IDENTIFIERS.items():
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
