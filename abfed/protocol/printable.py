"""Text that is shown to people, whoever wrote it: nothing in it can steer a terminal.

Keys of a plan, names of files and arguments are repeated in messages. Control characters (also the
C1 range, which some terminals obey), marks that turn the direction of writing, invisible
characters, and bytes of a name that are no text are shown as escapes instead.
"""

from __future__ import annotations

import re

# C0 and C1 controls, DEL; soft hyphen; Arabic letter mark; zero-width, direction and
# separator marks; invisible operators; byte-order mark; surrogates; tags
_STEERING = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_ONE_LINE = re.compile(f"[{_STEERING}]")
_LINES = re.compile(rf"(?![\n\t])[{_STEERING}]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with everything that could steer a terminal written as an escape.

    Args:
        text: of any origin.
        lines: whether it may have several lines; line ends and tabs are kept then.

    >>> print(printable("a\x1b[31mb"))
    a\x1b[31mb
    """
    return (_LINES if lines else _ONE_LINE).sub(lambda found: _escaped(found[0]), text)


def in_a_line(text: str, longest: int) -> str:
    r"""The text as one line that can’t steer a terminal, cut where it is longer than that.

    >>> in_a_line("first\n  second", 9)
    'first sec …'
    """
    line = " ".join(text.split())
    return printable(line if len(line) <= longest else f"{line[:longest].rstrip()} …")


def counted(number: int, what: str) -> str:
    """How many of something, in words for people.

    >>> counted(1, "request of people"), counted(2, "request of people")
    ('1 request of people', '2 requests of people')
    """
    first, space, rest = what.partition(" ")
    return f"{number} {first}{'' if number == 1 else 's'}{space}{rest}"


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
