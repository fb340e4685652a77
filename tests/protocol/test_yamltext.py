"""YAML without surprises."""

from __future__ import annotations

import math
from typing import Any

import pytest

from abfed.protocol.errors import InputError, MappingError
from abfed.protocol.yamltext import MAX_TEXT, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("no", "no"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", "True"),
        ("null", None),
        ("~", None),
        ("", None),
        ("7", 7),
        ("-7", -7),
        ("1_000", 1000),
        ("007", "007"),
        ("0x1F", "0x1F"),
        ("12:30:00", "12:30:00"),
        ("1e-6", 1e-6),
        ("1E6", 1e6),
        ("1.5", 1.5),
        (".5", 0.5),
        ("+2.5e+3", 2500.0),
        (".inf", math.inf),
        ("2026-03-01", "2026-03-01"),
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
        ('"1"', "1"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}\n".encode(), where="x")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "'a' stands twice (line 2, column 1)"),
        ("a:\n  b: 1\n  b: 2", "'b' stands twice (line 3, column 3)"),
        ('a: 1\n"a": 2', "'a' stands twice"),
        ("1: x", "a key must be text"),
        ("true: x", "a key must be text"),
        ("? [a]\n: x", "a key must be text"),
        ("a: &n 1", "anchors"),
        ("a: &n [1]\nb: *n", "anchors"),
        ("a: *n", "aliases"),
        ("a: !!str 1", "tags"),
        ("a: ! 1", "tags"),
        ("a: !!python/object/apply:os.system [x]", "tags"),
        ("a: !!set {x}", "tags"),
        ("!!omap [a: 1]", "tags"),
        ("a: [1", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: " + "{a: " * 3000, "not valid YAML"),
        ("- a", "must be a mapping"),
        ("a", "must be a mapping"),
        ("# a", "empty"),
        ("", "empty"),
        (" " * MAX_TEXT + "a: 1", "longer than"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(MappingError) as caught:
        parse_yaml(text.encode(), where="brand.yaml", error=MappingError)
    assert problem in caught.value.what
    assert caught.value.where == "brand.yaml"


@pytest.mark.parametrize("data", [b"a: \xff", b"\xff\xfea\x00:\x00 \x001\x00", b"a: \xed\xa0\x80"])
def test_only_utf8_is_read(data: bytes) -> None:
    with pytest.raises(InputError, match="UTF-8"):
        parse_yaml(data, where="x")


def test_a_byte_order_mark_is_no_part_of_a_key() -> None:
    assert parse_yaml(b"\xef\xbb\xbfa: 1\n", where="x") == {"a": 1}
