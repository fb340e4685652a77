"""Arrays on the wire: exactly the expected ones, finite, or nothing."""

from __future__ import annotations

import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from abfed.protocol.errors import IntegrityError
from abfed.protocol.tensors import DTYPES, Shape, pack, shapes_of, unpack

ARRAYS: dict[str, Any] = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([1.5], dtype=np.float64),
    "counts": np.array([[1, -2], [3, 2**60]], dtype=np.int64),
}
SHAPES = shapes_of(ARRAYS)


def _raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(
        np.array_equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype
        for name in wanted
    ) and list(found) == sorted(wanted)


def test_arrays_come_back() -> None:
    assert _same(unpack(pack(ARRAYS), SHAPES, where="x"), ARRAYS)


def test_no_arrays_are_no_bytes() -> None:
    assert pack({}) == b""
    assert unpack(b"", {}, where="x") == {}


def test_the_same_arrays_give_the_same_bytes_in_any_order_and_layout() -> None:
    turned = {name: ARRAYS[name] for name in reversed(ARRAYS)}
    turned["weight"] = np.asfortranarray(ARRAYS["weight"])
    assert pack(turned) == pack(ARRAYS)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1)])
def test_unusual_shapes_stay(shape: tuple[int, ...]) -> None:
    arrays = {"a": np.zeros(shape, dtype=np.float32)}
    assert unpack(pack(arrays), shapes_of(arrays), where="x")["a"].shape == shape


@pytest.mark.parametrize("dtype", ["float16", "int32", "bool", "complex64", ">f4", "object", "U3"])
def test_other_types_do_not_travel(dtype: str) -> None:
    with pytest.raises(ValueError, match="'a' has type"):
        pack({"a": np.zeros(2, dtype=dtype)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_that_is_not_finite_is_refused(dtype: str, bad: float) -> None:
    arrays = {"a": np.array([0.0, bad], dtype=dtype)}
    with pytest.raises(IntegrityError, match="'a' holds a number that is not finite"):
        unpack(pack(arrays), shapes_of(arrays), where="x")


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"weight": SHAPES["weight"]},
        SHAPES | {"more": Shape("float32", (1,))},
        SHAPES | {"weight": Shape("float32", (3, 2))},
        SHAPES | {"weight": Shape("float32", (6,))},
        SHAPES | {"weight": Shape("float64", (2, 3))},
        SHAPES | {"counts": Shape("float64", (2, 2))},
    ],
)
def test_arrays_other_than_the_expected_are_refused(expected: dict[str, Shape]) -> None:
    with pytest.raises(IntegrityError):
        unpack(pack(ARRAYS), expected, where="x")


def test_every_truncation_is_refused() -> None:
    data = pack(ARRAYS)
    for size in range(len(data)):
        with pytest.raises(IntegrityError):
            unpack(data[:size], SHAPES, where="x")
    with pytest.raises(IntegrityError):
        unpack(data + b"\0", SHAPES, where="x")


def test_no_bit_flip_is_more_than_other_finite_numbers() -> None:
    """Arrays carry no signature of their own; whatever is flipped, nothing but an integrity
    error, or finite arrays of the expected shape, comes out."""
    data = pack(ARRAYS)
    refused = 0
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            found = unpack(bytes(flipped), SHAPES, where="x")
        except IntegrityError:
            refused += 1
        else:
            assert shapes_of(found) == SHAPES
            assert all(np.isfinite(array).all() for array in found.values())
    assert refused > 8 * len(data) // 3


F4 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        bytes(8),
        b"\xff" * 8,
        struct.pack("<Q", 1 << 40),
        b"\x80\x04N.",
        pickle.dumps({"a": np.zeros(1, np.float32)}),
        _raw([]),
        _raw({"a": []}, bytes(4)),
        _raw({"a": {}}, bytes(4)),
        _raw({"a": F4}),
        _raw({"a": F4}, bytes(8)),
        _raw({"a": F4 | {"data_offsets": [4, 0]}}, bytes(4)),
        _raw({"a": F4 | {"data_offsets": [0, 1 << 62]}}, bytes(4)),
        _raw({"a": F4 | {"shape": [1 << 62, 1 << 62]}}, bytes(4)),
        _raw({"a": F4 | {"shape": [-1]}}, bytes(4)),
        *(
            _raw({"a": F4 | {"dtype": kind}}, bytes(4))
            for kind in ("BF16", "F8_E4M3", "F8_E5M2", "BOOL", "U16", "F64", "X", "C64", "F4")
        ),
        *(
            _raw({"a": {"dtype": kind, "shape": [size], "data_offsets": [0, 4]}}, bytes(4))
            for kind, size in (("BF16", 2), ("F8_E4M3", 4), ("F8_E5M2", 4), ("BOOL", 4), ("F4", 8))
        ),
        _raw(b'{"a":' + b"[" * 10_000),
        _raw(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        )
        + b"x",
    ],
)
def test_hostile_arrays_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack(data, {"a": Shape("float32", (1,))}, where="x")


@given(st.binary(max_size=300))
@example(b"\x02\0\0\0\0\0\0\0{}")
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack(data, {"a": Shape("float32", (1,))}, where="x")


def test_only_these_types_are_known() -> None:
    assert DTYPES == ("float32", "float64", "int64", "uint8")
