"""Nothing that somebody typed or sent can steer the terminal of who reads a message."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from abfed.protocol.errors import InputError
from abfed.protocol.printable import printable

STEERING = {"Cc", "Cs", "Zl", "Zp"}


@given(st.text(st.characters(codec=None)))
def test_nothing_that_steers_is_left(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(one) for one in shown} & STEERING
    assert not set(shown) & set("\u202e\u2066\u200b\u200f\u061c\ufeff")
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_lines_stay_where_they_may() -> None:
    assert printable("a\n\tb\r\x1b", lines=True) == "a\n\tb\\x0d\\x1b"
    assert printable("a\nb") == "a\\x0ab"


def test_every_part_of_an_error_is_printable() -> None:
    error = InputError("\x1b[2J", where="\x9b1m", why="\u202eb", do="c\r")
    parts = (error.what, error.where, error.why, error.do, str(error), *error.as_dict().values())
    assert all(one == printable(one) for one in parts)
    assert error.what == "\\x1b[2J"
