"""Named arrays to bytes (safetensors, never pickle) and back, checked.

Nothing is trusted on the way in: names, types, shapes and sizes must be the ones the reader
expects, and every number must be finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from abfed.protocol.errors import IntegrityError

Arrays = Mapping[str, npt.NDArray[Any]]

MAX_TENSOR_BYTES = 1 << 30  # bytes; a request or release above 1 GiB is refused unread
DTYPES = ("float32", "float64", "int64", "uint8")


class Shape(NamedTuple):
    """What one array must look like."""

    dtype: str
    shape: tuple[int, ...]


def shapes_of(arrays: Arrays) -> dict[str, Shape]:
    """The shape of each array, as `unpack` wants it."""
    return {name: Shape(str(array.dtype), array.shape) for name, array in arrays.items()}


def pack(arrays: Arrays) -> bytes:
    """Encode arrays; the same arrays give the same bytes.

    Raises:
        ValueError: an array has a type that can't travel.
    """
    for name, array in arrays.items():
        if str(array.dtype) not in DTYPES:
            message = f"array {name!r} has type {array.dtype}, not one of {', '.join(DTYPES)}"
            raise ValueError(message)
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    return save(ordered) if ordered else b""


def unpack(
    data: bytes, expected: Mapping[str, Shape], *, where: str
) -> dict[str, npt.NDArray[Any]]:
    """Decode arrays that must be exactly the expected ones.

    Raises:
        IntegrityError: wrong names, types or shapes, a number that isn't finite, or not arrays.
    """
    if len(data) > MAX_TENSOR_BYTES:
        raise IntegrityError(f"arrays of more than {MAX_TENSOR_BYTES} bytes", where=where)
    try:
        arrays = load(data) if data else {}
    except (SafetensorError, ValueError, KeyError, OverflowError) as cause:
        raise IntegrityError("the arrays can't be decoded", where=where) from cause
    if set(arrays) != set(expected):
        raise IntegrityError("the arrays are not the expected ones", where=where)
    for name, shape in expected.items():
        array = arrays[name]
        if (str(array.dtype), array.shape) != (shape.dtype, tuple(shape.shape)):
            raise IntegrityError(
                f"array {name!r} has the wrong type or shape",
                where=where,
                why=f"{shape.dtype} {tuple(shape.shape)} is expected",
            )
        if not np.isfinite(array).all():
            raise IntegrityError(f"array {name!r} holds a number that is not finite", where=where)
    return {name: arrays[name] for name in sorted(arrays)}
