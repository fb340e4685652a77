"""From plain values to a record: what is told about values that no record can hold."""

from __future__ import annotations

import math
from typing import Annotated, Any

import pytest
from pydantic import Field

from abfed.protocol.declared import MOST_SAID, parse_canonical_record, parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.modelling import Model, Training
from abfed.protocol.schema import Frozen


class Loose(Frozen):
    """A record that holds anything."""

    inside: Any


def deep() -> list[Any]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


def test_a_number_that_is_not_finite_is_named_by_its_place() -> None:
    with pytest.raises(InputError, match=r"inside\[1\].x: must be a finite number"):
        parse_record(Loose, {"inside": [1.0, {"x": math.nan}]}, where="here")


class Pair(Frozen):
    """A record of two small numbers."""

    both: Annotated[tuple[Annotated[float, Field(lt=1)], ...], Field(min_length=2)]


def test_of_many_problems_the_first_are_named() -> None:
    with pytest.raises(InputError) as caught:
        parse_record(Pair, {"both": [0.5, 0.5]} | {f"k{i}": 1 for i in range(5000)}, where="here")
    assert caught.value.what.endswith("; and more")
    assert caught.value.what.count("unknown key") == MOST_SAID


def test_a_list_whose_items_are_wrong_is_not_too_short_besides() -> None:
    with pytest.raises(InputError) as caught:
        parse_record(Pair, {"both": [5, 0.5]}, where="here")
    assert caught.value.what == "both[0]: input should be less than 1"
    with pytest.raises(InputError, match="at least 2, not 0"):
        parse_record(Pair, {"both": [5]}, where="here")


def circular() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    "value",
    [{"inside": deep()}, {"inside": {"b": deep(), "a": math.inf}}, {"inside": circular()}],
    ids=["deep", "deep beside an infinity", "circular"],
)
def test_what_lies_too_deep_or_in_a_circle_is_refused_in_words(value: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="neither text, number, list nor mapping"):
        parse_record(Loose, value, where="here")


def test_canonical_bytes_are_read_as_they_are_and_what_is_wrong_is_said_in_words() -> None:
    assert parse_canonical_record(Loose, b'{"inside":[1,"a"]}', where="here").inside == [1, "a"]
    with pytest.raises(IntegrityError, match="not in canonical form"):
        parse_canonical_record(Loose, b'{"inside": 1}', where="here")
    with pytest.raises(IntegrityError, match="not canonical JSON"):
        parse_canonical_record(Loose, b'{"inside":NaN}', where="here")
    with pytest.raises(InputError, match="insid: unknown key; did you mean 'inside'"):
        parse_canonical_record(Loose, b'{"insid":1}', where="here")


KEYS = "must be keys with their values, as in `key: value`"


@pytest.mark.parametrize(
    ("model", "value", "said"),
    [
        (Training, {"server": {}}, "server: its kind is missing"),
        (
            Training,
            {"server": {"kind": "fedadm"}},
            "'fedyogi', not 'fedadm'; did you mean 'fedadam'?",
        ),
        (Training, {"combine": {"kind": 3}}, "combine: its kind must be one of 'mean', "),
        (Training, {"server": "fedadam"}, f"server: {KEYS}"),
        (Training, 3, KEYS),
        (Model, {"outcome": "clicked", "hidden": 4}, "hidden: must be a list"),
        (Model, {"outcome": "clicked", "hidden": [4] * 5}, "hidden: must hold at most 4, not 5"),
        (Pair, {"both": [0.5]}, "both: must hold at least 2, not 1"),
    ],
)
def test_what_is_wrong_is_said_in_words_of_yaml(model: Any, value: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_record(model, value, where="here")
    assert said in str(refused.value)
