"""Shapes of text that no parameter and no page may hold: identifiers, secrets, places.

What is found is named by its kind, never shown: an error that quotes a secret has published it.
Each pattern is bounded, so that a long text without any takes time in proportion to its length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from abfed.lab.disclosure.legible import readings, settled

# 16 bytes (silo/pseudonyms.py) in hex, base64 or as Python shows bytes.
_PSEUDONYMS = (
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{32}|[0-9A-F]{32})(?![0-9A-Za-z])",
    r"(?<![\w+/])[\w+/-]{22}==(?![\w=])",
    r"\bb'(?=[^'\\]{0,40}\\x)(?:[^'\\]|\\.){12,200}'",
)
_NUMBER = r"[1-9]\d{0,2}[ /-]?(?:\(\d{1,4}\)(?:[ /-]?\d){5,12}|(?:[ /-]?\d){7,12})(?![\d.])"
# Here and below a fixed character comes first, for which `re` looks fast; what must stand before it
# is looked at then.
# What a page says of a run by itself, though it may begin as a number does: the ten digits at the
# end of a run's name (once in 12,000 runs), and a digest, which has letters too (once in 9,000).
_OF_A_RUN = (
    r"(?<=-00)\d{8}(?!\w)"
    r"|(?=\d*[a-f])(?:[0-9a-f]{8}|[0-9a-f]{10}|[0-9a-f]{14}|[0-9a-f]{62})(?!\w)"
)
_TELEPHONES = (
    rf"\+(?<![\w+.]\+){_NUMBER}",
    rf"00(?<![\w+.]00)(?!{_OF_A_RUN}){_NUMBER}",
    r"0(?<![\w.,:+#-]0)[1-9]\d{1,3}(?:[ /-]\d{3,8}){1,3}(?![\w.,])",  # without its country
    r"-(?<=(?<![\w.,-])\d{3}-)\d{3}-\d{4}(?![\w.,-])",  # as in North America
    r"\)(?<=(?<![\w.,-])\(\d{3}\)) ?\d{3}-\d{4}(?![\w.,-])",
)
_PEOPLE = (
    "cust", "client", "subscriber", "recipient", "member", "contact", "user", "account", "person",
    "kunden",
)  # fmt: skip
_KEYED = (
    r"(?:[ _-]?(?:ids?|no|nr|number|num|nummer|key|ref)\b[\"']?[-_:=#.\s]{1,4}[\"']?|[_-]|\s?#)"
    r"\d{4,}(?!\d*[.,]\d)"
)
_CUSTOMERS = (
    *(rf"{one}(?<=\b{one}){'(?:omer)?' * (one == 'cust')}{_KEYED}" for one in _PEOPLE),
    # Filled up with zeros, behind a list's name or alone: no figure is written so. Of ten digits
    # is the end of a run's name, once in 10,000 runs.
    r"00(?<![A-Za-z0-9.,#+]00)(?:\d{4,7}|\d{9,11})(?![\w.,])",
)
_IBAN = r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
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
    "a bank account": _IBAN,
    "a customer’s number": "|".join(_CUSTOMERS),
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
    "a customer’s number": _CUSTOMERS,
}  # fmt: skip
_WORDS: dict[str, tuple[str, ...]] = {
    _PSEUDONYMS[1]: ("==",),
    _PSEUDONYMS[2]: ("b'",),
    **{pattern: (one,) for pattern, one in zip(_CUSTOMERS, _PEOPLE, strict=False)},
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
    """A pattern, or one alternative of it; `small` where it is looked for in small letters.

    `re` is fast where a pattern begins with a word, unless it is told to ignore case.
    """

    kind: str
    pattern: re.Pattern[str]
    words: tuple[str, ...]
    small: bool
    holds: Callable[[str], bool]


def _adds_up(account: str) -> bool:
    """Whether an account's check digits are right (ISO 13616: 1 modulo 97, letters from 10 on)."""
    digits = account.replace(" ", "")
    return int("".join(str(int(one, 36)) for one in digits[4:] + digits[:4])) % 97 == 1


_CHECKS: dict[str, Callable[[str], bool]] = {_IBAN: _adds_up}
"""What must hold, too, of what has a shape."""


def _parts() -> Iterator[_Part]:
    for kind, pattern in (IDENTIFIERS | SECRETS | PLACES).items():
        for one in _SPLIT.get(kind, (pattern,)):
            words, check = _WORDS.get(one, ()), _CHECKS.get(one, bool)
            yield _Part(kind, re.compile(one), words, one in _CUSTOMERS, check)


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
    for kind, pattern, words, in_small, holds in _PARTS:
        if kind == found:
            continue
        within = small if in_small or pattern.flags & re.IGNORECASE else text
        if words and not any(word in within for word in words):
            continue
        looked_at = small if in_small else text
        if pattern.pattern == _PSEUDONYMS[0]:
            looked_at = long
        if any(holds(one[0]) for one in pattern.finditer(looked_at)):
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
    kinds = {kind for said in readings(value) for kind in found_in(said)}
    for kind in (*SECRETS, *IDENTIFIERS, *PLACES):
        if kind in kinds:
            return kind
    value = settled(value)
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
